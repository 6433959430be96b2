#include "draft_lookup.h"

#include <algorithm>

namespace kollama {
namespace {

constexpr size_t MOST_PLACES = 8;  // that are looked at, the latest first
constexpr size_t MOST_ALIKE  = 32; // tokens that are compared

} // namespace

// Of the tokens before end. Two keys may be the same number: what is found is compared.
uint64_t draft_lookup::key(size_t end, size_t length) const {
    uint64_t hash = 0;
    for (size_t i = end - length; i < end; i++) {
        hash = (hash ^ static_cast<uint32_t>(text_[i])) * 0x9E3779B97F4A7C15u;
        hash ^= hash >> 29;
    }
    return hash;
}

// The key that ends with the last token of text_.
void draft_lookup::add(places & of, size_t length) {
    int32_t before = NONE;
    if (text_.size() >= length) {
        const auto place  = static_cast<int32_t>(text_.size() - 1);
        const auto [at, is_new] = of.last.try_emplace(key(text_.size(), length), place);
        before            = is_new ? NONE : at->second;
        at->second        = place;
    }
    of.before.push_back(before);
}

void draft_lookup::remove_last(places & of, size_t length) {
    if (text_.size() >= length) {
        const auto at = of.last.find(key(text_.size(), length));
        if (of.before.back() == NONE) {
            of.last.erase(at);
        } else {
            at->second = of.before.back();
        }
    }
    of.before.pop_back();
}

void draft_lookup::follow(const std::vector<int32_t> & text) {
    while (text_.size() < text.size()) {
        text_.push_back(text[text_.size()]);
        add(long_, LONG);
        add(short_, SHORT);
    }
}

void draft_lookup::cut(size_t n_tokens) {
    while (text_.size() > n_tokens) {
        remove_last(long_, LONG);
        remove_last(short_, SHORT);
        text_.pop_back();
    }
}

// How many tokens up to this place are those up to the end.
size_t draft_lookup::n_alike(size_t place) const {
    const size_t most = std::min(place + 1, MOST_ALIKE);
    size_t       n    = 0;
    while (n < most && text_[place - n] == text_[text_.size() - 1 - n]) {
        n++;
    }
    return n;
}

// Of the latest places with the key of the end, the one that is like it the longest.
bool draft_lookup::find(const places & of, size_t length, size_t & place, size_t & n_same) const {
    n_same     = 0;
    int32_t at = of.before.empty() ? NONE : of.before.back();
    for (size_t i = 0; i < MOST_PLACES && at != NONE; i++, at = of.before[static_cast<size_t>(at)]) {
        const size_t n = n_alike(static_cast<size_t>(at));
        if (n >= length && n > n_same) {
            place  = static_cast<size_t>(at);
            n_same = n;
        }
    }
    return n_same > 0;
}

// A place near the end leads into the guesses themselves: a text that goes round goes on doing so.
size_t draft_lookup::guess(size_t n_most, std::vector<int32_t> & guesses) const {
    guesses.clear();
    size_t place = 0, n_same = 0;
    if (!find(long_, LONG, place, n_same) && !find(short_, SHORT, place, n_same)) {
        return 0;
    }
    for (size_t i = 0; i < n_most; i++) {
        const size_t next = place + 1 + i;
        guesses.push_back(next < text_.size() ? text_[next] : guesses[next - text_.size()]);
    }
    return n_same;
}

} // namespace kollama
