// How many guessed tokens a step is to try: as many as make tokens come the fastest, by what steps of so
// many rows took and by how many guesses were right; none where that does not pay.

#pragma once

#include <array>
#include <cstddef>
#include <vector>

namespace kollama {

// The share of guesses that were right, the latest counting most.
class hit_rate {
  public:
    // As if n_known guesses had been seen, of which that share was right.
    explicit hit_rate(double share = 0.5, double n_known = 4) : right_(share * n_known), wrong_((1 - share) * n_known) {}

    double share() const { return right_ / (right_ + wrong_); }

    // n_right one after another, and then perhaps a wrong one.
    void saw(size_t n_right, bool then_wrong);

  private:
    double right_, wrong_;
};

class draft_worth {
  public:
    static constexpr size_t MOST_ROWS = 8; // of a step with guesses: up to as many give what each would alone (products/product.h)

    // How likely each of a stream's guesses is to be reached and right; falls from one to the next.
    struct stream {
        std::vector<double> chances;
        size_t              n_chosen = 0;
    };

    // A step of n_rows was computed.
    void took(size_t n_rows, double seconds);

    // Of guesses that are yet to be made: what a turn takes that makes one for each stream, and what
    // has to be done before the first, once for many steps.
    struct cost {
        double each = 0, once = 0;
    };

    // Sets each n_chosen, for one step of them all. False: it is not thought to pay; where some are chosen
    // nonetheless, to find out.
    bool choose(std::vector<stream> & streams, cost of_making);

    // What a step would take; 0 where nothing is known yet.
    double seconds(size_t n_rows) const;

  private:
    struct timed {
        std::array<double, 5> latest{};
        size_t                n_seen = 0;
        double                usual  = 0; // their median; 0: never seen
        size_t                step   = 0; // of the latest

        void saw(double seconds);
    };

    bool is_old(const timed & t) const { return t.n_seen > 0 && n_steps_ - t.step > OLD; }

    static constexpr size_t OLD = 100; // steps: what was seen before may have been in a busier time

    std::array<timed, MOST_ROWS + 1> by_rows_{};
    std::array<timed, MOST_ROWS + 1> alike_{}; // the same, behind steps of as many rows
    timed  change_; // what a step takes longer behind one of another number of rows: its graph is built anew
    size_t last_rows_ = 0; // of the last step
    size_t n_steps_   = 0;
    double spare_ = 0; // seconds that may be lost to find out whether it pays by now
};

} // namespace kollama
