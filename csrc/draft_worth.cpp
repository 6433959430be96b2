#include "draft_worth.h"

#include <algorithm>

namespace kollama {
namespace {

constexpr double FORGET    = 0.85;  // what was seen counts so much less each time
constexpr double WEIGHT    = 24;    // and never more than so many guesses
constexpr double ROW       = 0.05;  // of a step: what one row more is thought to take, until one was tried
constexpr double GAIN      = 1.08;  // less is not worth the risk
constexpr double SHARE     = 0.007; // of all time that may be lost in trying
constexpr double MOST_LOST = 4;     // steps, at a time
constexpr double LEAST_LOST = 0.1;  // likewise: what is known is not that exact
constexpr double MOST_CHANGE = 0.4; // of a step: more is not the change's
constexpr double AMORTISED = 32;    // steps that what is done once is shared by

} // namespace

void hit_rate::saw(size_t n_right, bool then_wrong) {
    const double scale = std::min(FORGET, WEIGHT / (right_ + wrong_));
    right_             = right_ * scale + static_cast<double>(n_right);
    wrong_             = wrong_ * scale + (then_wrong ? 1 : 0);
    // Never sure of either: one surprise must be able to turn it.
    const double least = 0.02 * (right_ + wrong_);
    right_             = std::max(right_, least);
    wrong_             = std::max(wrong_, least);
}

// The median: another's time slice makes a step long, and says nothing of the next.
void draft_worth::timed::saw(double seconds) {
    latest[n_seen++ % latest.size()] = seconds;
    const size_t          n      = std::min(n_seen, latest.size());
    std::array<double, 5> sorted = latest;
    std::sort(sorted.begin(), sorted.begin() + static_cast<ptrdiff_t>(n));
    usual = sorted[(n - 1) / 2];
}

void draft_worth::took(size_t n_rows, double seconds) {
    const bool is_change = n_rows != last_rows_;
    last_rows_           = n_rows;
    n_steps_++;
    spare_ = std::min(spare_ + SHARE * seconds, MOST_LOST * seconds);
    if (n_rows > MOST_ROWS) {
        return;
    }
    timed &t = by_rows_[n_rows], &alike = alike_[n_rows];
    if (is_old(t)) {
        t.n_seen = alike.n_seen = 0;
    } else if (is_change && alike.n_seen > 0) {
        change_.saw(std::clamp(seconds - alike.usual, 0.0, MOST_CHANGE * alike.usual));
    }
    t.saw(seconds);
    t.step = n_steps_;
    alike.saw(is_change ? std::max(seconds - change_.usual, seconds / 2) : seconds);
}

double draft_worth::seconds(size_t n_rows) const {
    if (by_rows_[n_rows].usual > 0) {
        return by_rows_[n_rows].usual;
    }
    size_t fewer = n_rows, more = n_rows;
    while (fewer > 0 && by_rows_[fewer].usual == 0) {
        fewer--;
    }
    while (more <= MOST_ROWS && by_rows_[more].usual == 0) {
        more++;
    }
    const double below = by_rows_[fewer].usual;
    if (below == 0) {
        return 0;
    }
    if (more > MOST_ROWS) {
        return below * (1 + ROW * static_cast<double>(n_rows - fewer));
    }
    const double part = static_cast<double>(n_rows - fewer) / static_cast<double>(more - fewer);
    return below + (by_rows_[more].usual - below) * part;
}

// Guess after guess, the likeliest first; of all these steps the one with the most tokens a second.
bool draft_worth::choose(std::vector<stream> & streams, cost of_making) {
    const size_t n = streams.size();
    for (stream & s : streams) {
        s.n_chosen = 0;
    }
    if (n > MOST_ROWS || alike_[n].usual == 0) {
        return false; // the first steps tell what one without guesses takes
    }
    // To go on without guesses takes no change, and a step with some one more, back again.
    const double plain = alike_[n].usual + (last_rows_ == n ? 0 : change_.usual), back = last_rows_ == n ? change_.usual : 0;
    std::vector<size_t> now(n, 0), best, likely;
    size_t              best_rows = 0;
    double              tokens = static_cast<double>(n), n_turns = 0, best_took = 0;
    double              most = tokens / plain * GAIN, nearly = 0, lost = 0;
    for (size_t rows = n + 1; rows <= MOST_ROWS; rows++) {
        size_t at = n;
        for (size_t i = 0; i < n; i++) {
            const bool has_more = now[i] < streams[i].chances.size();
            if (has_more && (at == n || streams[i].chances[now[i]] > streams[at].chances[now[at]])) {
                at = i;
            }
        }
        if (at == n) {
            break;
        }
        tokens += streams[at].chances[now[at]++];
        n_turns           = std::max(n_turns, static_cast<double>(now[at]));
        double took       = seconds(rows) + back + n_turns * of_making.each;
        if (!best.empty() && is_old(by_rows_[rows])) { // as if never seen: where fewer pay already, little is lost by it
            took = std::min(took, best_took * (1 + ROW * static_cast<double>(rows - best_rows)));
        }
        if (const double speed = tokens / (took + of_making.once / AMORTISED); speed > most) {
            most      = speed;
            best      = now;
            best_rows = rows;
            best_took = took;
        }
        if (tokens / took > nearly) {
            nearly = tokens / took;
            likely = now;
            lost   = took + of_making.once - plain * tokens / static_cast<double>(n);
        }
    }
    const bool pays = !best.empty();
    lost            = std::max(lost, LEAST_LOST * plain);
    if (!pays && !likely.empty() && lost <= spare_) { // what is known may be old
        spare_ -= lost;
        best = likely;
    }
    for (size_t i = 0; i < best.size(); i++) {
        streams[i].n_chosen = best[i];
    }
    return pays;
}

} // namespace kollama
