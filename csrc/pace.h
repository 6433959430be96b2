// How many of a context's threads compute, as long as others want the cores too.
//
// The threads of a graph meet in a barrier after each operation, and spin there. Where another process
// takes a core for a time slice, all of them wait for the one that lost it: two busy neighbours on two
// cores leave a tenth of the speed, where one thread alone would keep most of its share. So steps are
// timed; where they take much longer than they can, fewer threads are tried, and more again after a while.

#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <vector>

namespace kollama {

class pace {
  public:
    explicit pace(int n_threads) : most_(n_threads), n_(n_threads), best_(static_cast<size_t>(n_threads) + 1, 0.0) {}

    int threads() const { return n_; } // for the next step

    // Around each step, of n_rows rows with threads() threads, on the thread that computes along.
    // Where it may_repeat, one that takes far too long is to be given up, and done again.
    void begin_step(size_t n_rows, bool may_repeat);
    void end_step(bool is_whole); // one that failed or was cancelled says nothing
    void end_given_up();

    double seconds() const { return now_ - start_; } // of the last step

    // Asked within the step; stays true until that has ended.
    bool                      gives_up();
    const std::atomic<bool> & given_up() const { return given_up_; }

  private:
    enum class phase { steady, fewer, more };

    static constexpr size_t MOST_ROWS = 16; // of a step of generation; prompts differ too much in length to be compared

    void took(double seconds, double cpu);
    void begin(phase next, int n_threads);
    void judge(bool bad);
    void end_trial(bool better);

    const int           most_;
    int                 n_;
    phase               phase_ = phase::steady;
    size_t              n_rows_ = 0;      // of the step
    // Steps of few and of many rows take turns where tokens are guessed, so each is measured by its own kind.
    std::array<double, MOST_ROWS + 1> unit_{}; // seconds that so many rows take undisturbed, with all threads; 0: unknown
    std::vector<double> best_;            // by number of threads: units that a step takes undisturbed; 0: unknown
    double              usual_   = 1;     // units that it takes now
    size_t              n_steps_ = 0;     // of this phase
    double              took_    = 0;     // they, in units; a trial's without the first
    double              seconds_ = 0;     // and in seconds
    double              cpu_     = 0;     // of it this thread has run
    int                 before_      = 0; // threads before the trial
    double              before_took_ = 0; // and what a step took, in units
    double              trial_ended_ = 0; // the last one
    double              patience_    = 0; // from then to the next: longer after each that gained nothing
    double              start_ = 0, start_cpu_ = 0, now_ = 0;
    double              limit_ = 0; // seconds that the step may take; 0: as many as it needs
    unsigned            n_asked_ = 0;
    std::atomic<bool>   given_up_{ false };
};

} // namespace kollama
