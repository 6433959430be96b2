#include "pace.h"

#include <algorithm>
#include <chrono>

#ifdef _WIN32
#    include <windows.h>
#else
#    include <time.h>
#endif

namespace kollama {
namespace {

constexpr size_t N_STEADY  = 8;  // steps that decide whether the pace is bad
constexpr size_t N_TRIAL   = 4;  // steps of a trial, the first of which does not count: caches and sleeping threads

constexpr double BAD        = 1.8;   // times the best: another's time slices, and not a longer context
constexpr double HOPELESS   = 3;     // times what a step took before the trial
constexpr double LOST       = 12;    // times the best: worth doing again
constexpr unsigned ASKED_EACH = 16;  // how often the clock is looked at, in operations of the graph
constexpr double FORGET     = 1.001; // the best grows by as much each step, as contexts do
constexpr double ALONE      = 0.95;  // of the time this thread has run: nobody wants its core
constexpr double FIRST_WAIT = 0.5, LONGEST_WAIT = 8; // seconds between trials
constexpr double WAIT_ALONE = 1;     // the longest where nobody wants the core
constexpr double LONG_LOOK  = 0.3;   // seconds that tell whether somebody does

double wall_seconds() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double cpu_seconds() { // of the calling thread
#ifdef _WIN32
    FILETIME created, ended, kernel, user;
    GetThreadTimes(GetCurrentThread(), &created, &ended, &kernel, &user);
    const auto ticks = [](FILETIME t) { return static_cast<double>(t.dwHighDateTime) * 4294967296.0 + t.dwLowDateTime; };
    return (ticks(kernel) + ticks(user)) * 1e-7;
#else
    timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_nsec) * 1e-9;
#endif
}

} // namespace

void pace::begin_step(size_t n_rows, bool may_repeat) {
    n_rows_ = n_rows;
    limit_  = 0;
    if (may_repeat && n_ > 1 && n_rows <= MOST_ROWS) {
        const double best = best_[static_cast<size_t>(n_)];
        limit_            = unit_[n_rows] * (phase_ == phase::steady ? LOST * best : HOPELESS * before_took_);
    }
    start_     = wall_seconds();
    start_cpu_ = cpu_seconds();
}

bool pace::gives_up() {
    if (given_up_.load(std::memory_order_relaxed)) {
        return true;
    }
    if (limit_ > 0 && ++n_asked_ % ASKED_EACH == 0 && wall_seconds() - start_ > limit_) {
        given_up_ = true;
    }
    return given_up_.load(std::memory_order_relaxed);
}

void pace::end_step(bool is_whole) {
    given_up_ = false; // in its last operation
    limit_    = 0;
    now_      = wall_seconds();
    if (is_whole) {
        took(now_ - start_, cpu_seconds() - start_cpu_);
    }
}

void pace::end_given_up() {
    given_up_ = false;
    now_      = wall_seconds();
    if (phase_ != phase::steady) {
        end_trial(false);
        return;
    }
    before_      = n_;
    before_took_ = (now_ - start_) / unit_[n_rows_];
    begin(phase::fewer, std::max(1, n_ / 2));
}

void pace::begin(phase next, int n_threads) {
    phase_   = next;
    n_       = n_threads;
    n_steps_ = 0;
    took_    = 0;
    seconds_ = 0;
    cpu_     = 0;
}

void pace::took(double seconds, double cpu) {
    if (most_ == 1 || n_rows_ > MOST_ROWS) {
        return;
    }
    for (double & unit : unit_) {
        unit *= FORGET;
    }
    double & unit = unit_[n_rows_];
    if (n_ == most_) {
        unit = unit == 0 ? seconds : std::min(unit, seconds);
    } else if (unit == 0) { // never seen with all threads: as much slower as the others
        unit = seconds / usual_;
    }
    const double units = seconds / unit;
    double &     best  = best_[static_cast<size_t>(n_)];
    best               = best == 0 ? units : std::min(best * FORGET, units);
    n_steps_++;
    took_ += phase_ == phase::steady || n_steps_ > 1 ? units : 0;
    seconds_ += seconds;
    cpu_  += cpu;
    if (phase_ == phase::steady) {
        // Sums, not medians: of four steps three may be as fast as ever, and one wait for a time slice.
        const bool bad = n_ == most_ && took_ > N_STEADY * BAD * best;
        if (bad || (n_steps_ >= N_STEADY && (n_ == most_ || seconds_ > LONG_LOOK))) {
            judge(bad);
        }
    } else if (units > HOPELESS * before_took_) {
        end_trial(false);
    } else if (n_steps_ == N_TRIAL) {
        end_trial(took_ / (N_TRIAL - 1) < before_took_);
    }
}

void pace::judge(bool bad) {
    usual_             = took_ / static_cast<double>(n_steps_);
    const bool   alone = cpu_ > ALONE * seconds_;
    begin(phase::steady, n_);
    const bool waits = now_ - trial_ended_ < (alone && n_ < most_ ? std::min(WAIT_ALONE, patience_) : patience_);
    if (waits) {
        return;
    }
    before_      = n_;
    before_took_ = usual_;
    if (n_ < most_) {
        begin(phase::more, most_);
    } else if (bad) {
        begin(phase::fewer, std::max(1, n_ / 2));
    }
}

void pace::end_trial(bool better) {
    patience_    = better ? FIRST_WAIT : std::min(LONGEST_WAIT, std::max(FIRST_WAIT, patience_ * 2));
    trial_ended_ = now_;
    begin(phase::steady, better ? n_ : before_);
}

} // namespace kollama
