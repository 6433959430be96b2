#include "chain.h"

#include "model.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace kollama {

void settle(step & s, const std::string & name) {
    size_t kept = 0;
    for (size_t i = 0; i < s.cur.size; i++) {
        llama_token_data candidate = s.cur.data[i];
        if (candidate.logit != candidate.logit) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, format("%s: the logit of token %d is NaN", name.c_str(), candidate.id));
        }
        if (candidate.logit != -std::numeric_limits<float>::infinity()) {
            candidate.logit      = std::max(-LOGIT_LIMIT, std::min(LOGIT_LIMIT, candidate.logit));
            s.cur.data[kept++] = candidate;
        }
    }
    if (kept == 0) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, name + ": no token is left to sample, all logits are -inf");
    }
    s.cur.size = kept;
}

// In one pass and without a branch for each: this is what most links cost.
void take_row(step & s) {
    s.storage.resize(s.n_vocab);
    const float *      row  = std::exchange(s.row, nullptr);
    llama_token_data * to   = s.storage.data();
    size_t             kept = 0;
    bool               nan  = false;
    for (size_t i = 0; i < s.n_vocab; i++) {
        const float logit = row[i];
        nan |= logit != logit;
        to[kept] = { static_cast<int32_t>(i), std::max(-LOGIT_LIMIT, std::min(LOGIT_LIMIT, logit)), 0.0f };
        kept += logit != -std::numeric_limits<float>::infinity();
    }
    s.cur = { to, kept, -1, false };
    if (nan) {
        const auto at = std::find_if(row, row + s.n_vocab, [](float logit) { return logit != logit; });
        throw failure(KOLLAMA_ERROR_ARGUMENT, format("%s: the logit of token %d is NaN", s.blamed.c_str(), static_cast<int>(at - row)));
    }
    if (kept == 0) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, s.blamed + ": no token is left to sample, all logits are -inf");
    }
}

// Selections only, which compilers make vectors of.
void copy_row(step & s, std::vector<float> & to) {
    constexpr float MINUS_INF = -std::numeric_limits<float>::infinity();
    int             bad = 0, left = 0;
    to.resize(s.n_vocab);
    float * out = to.data();
    for (size_t i = 0; i < s.n_vocab; i++) {
        const float logit = s.row[i];
        const float above = logit < -LOGIT_LIMIT ? -LOGIT_LIMIT : logit;
        const float both  = above > LOGIT_LIMIT ? LOGIT_LIMIT : above;
        bad |= logit != logit;
        left |= logit != MINUS_INF;
        out[i] = logit == MINUS_INF ? MINUS_INF : both;
    }
    if (bad || !left) {
        take_row(s); // says so
    }
    s.row = out;
}

row_peak scan_row_of(step & s, std::vector<float> & block_max) {
    try {
        return scan_row(s.row, s.n_vocab, block_max);
    } catch (const failure &) {
        take_row(s);
        throw;
    }
}

void drop_unlikely(step & s) {
    float peak = -LOGIT_LIMIT;
    for (size_t i = 0; i < s.cur.size; i++) {
        peak = std::max(peak, s.cur.data[i].logit);
    }
    const float bound = peak - 80.0f;
    auto * end = std::remove_if(s.cur.data, s.cur.data + s.cur.size, [&](const auto & c) { return c.logit < bound; });
    s.cur.size = static_cast<size_t>(end - s.cur.data);
}

uint32_t seed_for(uint32_t seed, size_t index) {
    const uint32_t mixed = seed * 2654435761u + static_cast<uint32_t>(index) + 1;
    return mixed == LLAMA_DEFAULT_SEED ? 0 : mixed; // which would be a random one
}

chain::chain(const chain & other) :
    callback(other.callback),
    user(other.user),
    matcher_calls(other.matcher_calls),
    matcher_user(other.matcher_user),
    bound_(other.bound_),
    stream_(other.stream_),
    start_(other.start_),
    begun_(other.begun_),
    clean_(other.clean_) {
    for (const auto & link : other.links_) {
        add(link->clone());
    }
}

void chain::add(std::unique_ptr<link> link) {
    links_.push_back(std::move(link));
    links_.back()->attach(*this);
}

void chain::bind(const kollama_model & model) {
    if (bound_ == model.serial) {
        return;
    }
    bound_ = 0;
    for (auto & link : links_) {
        link->bind(model);
    }
    bound_ = model.serial;
    begin();
}

void chain::begin() {
    begun_ = false;
}

bool chain::ended() const {
    return std::any_of(links_.begin(), links_.end(), [](const auto & link) { return link->ended(); });
}

std::vector<std::unique_ptr<link>> chain::state() const {
    std::vector<std::unique_ptr<link>> state;
    for (const auto & link : links_) {
        if (link->keeps_state()) {
            state.push_back(link->clone());
        }
    }
    return state;
}

void chain::restore(std::vector<std::unique_ptr<link>> state) {
    auto next = state.begin();
    for (auto & link : links_) {
        if (link->keeps_state()) {
            link = std::move(*next++);
        }
    }
}

void chain::check_allows(const std::vector<int32_t> & tokens, int32_t token) {
    follow(tokens);
    for (auto & link : links_) {
        if (!link->allows(token)) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, format("%s does not allow token %d here", link->name.c_str(), token));
        }
    }
}

bool chain::calls_back() const {
    return std::any_of(links_.begin(), links_.end(), [](const auto & link) { return link->calls_back(); });
}

bool chain::needs_tokens() const {
    return std::any_of(links_.begin(), links_.end(), [](const auto & link) { return link->remembers() || link->calls_back(); });
}

// Brings the links to where the stream is. What they accepted is mostly what is there; where it is
// not (a token was replaced, the sequence rewound), they go over the stream again.
void chain::follow(const std::vector<int32_t> & tokens, size_t n_known) {
    const auto is_here = [&] { return tokens.size() == stream_.size() && (n_known == tokens.size() || tokens == stream_); };
    if (!needs_tokens() || (begun_ && clean_ && is_here())) {
        return;
    }
    const auto   starts_with = [&](const std::vector<int32_t> & head, size_t n) {
        return tokens.size() >= n && std::equal(head.begin(), head.begin() + n, tokens.begin());
    };
    const bool same      = begun_ && starts_with(stream_, start_);
    const bool continues = same && clean_ && starts_with(stream_, stream_.size());
    const size_t n_seen = continues ? stream_.size() : same ? start_ : tokens.size();
    begun_ = true;
    clean_ = false;
    if (!continues) {
        start_  = n_seen;
        stream_.assign(tokens.begin(), tokens.begin() + n_seen);
        for (auto & link : links_) {
            link->begin(stream_);
        }
    }
    for (size_t i = n_seen; i < tokens.size(); i++) {
        for (auto & link : links_) {
            if (link->remembers()) {
                link->accept(tokens[i]);
            }
        }
    }
    stream_ = tokens;
    clean_  = true;
}

int32_t chain::run(const float * logits, size_t n_vocab, const std::vector<int32_t> & tokens, random_source & rng, bool with_masks) {
    step s{ logits, "the model", { nullptr, 0, -1, false }, storage_, tokens, n_vocab, rng, callback, user };
    for (auto & link : links_) {
        if (link->masks() && !with_masks) {
            continue;
        }
        if (s.row && !link->takes_row()) {
            take_row(s);
        }
        link->apply(s);
        if (!s.row && s.cur.size == 0) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, "the sampler link " + link->name + " left no token to choose from");
        }
        if (link->chooses()) {
            if (s.cur.selected < 0 || static_cast<size_t>(s.cur.selected) >= s.cur.size) {
                throw failure(KOLLAMA_ERROR_STATE, "the sampler link " + link->name + " chose no token");
            }
            return s.cur.data[s.cur.selected].id;
        }
    }
    if (s.row) {
        return static_cast<int32_t>(scan_row_of(s, block_max_).index);
    }
    const auto before = [](const llama_token_data & a, const llama_token_data & b) {
        return a.logit > b.logit || (a.logit == b.logit && a.id < b.id);
    };
    return std::min_element(s.cur.data, s.cur.data + s.cur.size, before)->id;
}

bool chain::allows(int32_t id) {
    return std::all_of(links_.begin(), links_.end(), [&](const auto & link) { return link->allows(id); });
}

void chain::mask(float * logits, size_t n_vocab) {
    for (auto & link : links_) {
        if (link->masks()) {
            link->mask(logits, n_vocab);
        }
    }
}

void chain::accept(int32_t id) {
    clean_ = false;
    for (auto & link : links_) {
        link->accept(id);
    }
    if (needs_tokens()) {
        stream_.push_back(id);
    }
    clean_ = true;
}

int32_t chain::choose(const float * logits, size_t n_vocab, const std::vector<int32_t> & tokens, size_t n_known, random_source & rng) {
    follow(tokens, n_known);
    int32_t id = run(logits, n_vocab, tokens, rng, false);
    // The token first, the whole vocabulary only where it is refused: that is rare, and costs a lot.
    if (!allows(id)) {
        id = run(logits, n_vocab, tokens, rng, true);
    }
    accept(id);
    return id;
}

} // namespace kollama
