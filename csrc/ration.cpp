#include "ration.h"

#include <algorithm>

namespace kollama {
namespace {

constexpr double TIMES   = 4;    // what a batch without prompts takes
constexpr double FLOOR   = 0.05; // seconds that nobody notices
constexpr size_t LEAST   = 16;   // tokens: below it the products are no faster than one by one
constexpr size_t UNKNOWN = 64;
constexpr size_t STEP    = 32;   // of one size as long as times vary little: llama.cpp lays out a graph for each
constexpr double NEWEST  = 0.3;  // its weight in what is expected

double mixed(double old, double latest) {
    return old == 0 ? latest : old + NEWEST * (latest - old);
}

} // namespace

size_t ration::tokens(size_t n_running) const {
    if (n_running == 0) {
        return n_most_;
    }
    size_t n = UNKNOWN;
    if (each_ > 0) {
        const double room = std::max(FLOOR, TIMES * alone_) - alone_;
        n = room / each_ < static_cast<double>(n_most_) ? static_cast<size_t>(std::max(0.0, room / each_)) : n_most_;
        n -= n < STEP ? 0 : n % STEP;
    }
    return std::min(n_most_, std::max(n, LEAST));
}

void ration::took(size_t n_running, size_t n_prompt, double seconds) {
    if (n_prompt == 0) {
        alone_ = mixed(alone_, seconds);
    } else if (n_prompt >= LEAST) { // else most of it is what a batch takes at all
        each_ = mixed(each_, std::max(1e-9, seconds - (n_running > 0 ? alone_ : 0)) / static_cast<double>(n_prompt));
    }
}

} // namespace kollama
