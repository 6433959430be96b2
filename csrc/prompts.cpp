// Prompts: which of those that wait are read in the next batch, and how much of each; and beginnings that
// another sequence has in memory already, or is about to have.

#include "generation.h"

#include <algorithm>

namespace kollama {
namespace {

// Tokens: what a prompt waits for, beyond what it can have at once, is worth more than the wait for a batch.
constexpr size_t WORTH_WAITING = 16;

size_t n_common(const std::vector<int32_t> & a, const std::vector<int32_t> & b, size_t n_most) {
    const auto n = static_cast<ptrdiff_t>(std::min({ a.size(), b.size(), n_most }));
    return static_cast<size_t>(std::mismatch(a.begin(), a.begin() + n, b.begin()).first - a.begin());
}

bool is_in(const std::vector<std::shared_ptr<generation>> & all, const generation * one) {
    return std::any_of(all.begin(), all.end(), [&](const auto & gen) { return gen.get() == one; });
}

} // namespace

// The sequence that has most of these tokens in memory, as reading them would give them: seq itself where
// no other has more. One may be left out.
engine::source engine::best_source(const std::shared_ptr<sequence> & seq, const std::vector<int32_t> & tokens,
                                   const sequence * but_not) {
    source best{ seq, n_common(seq->tokens, tokens, seq->n_exact()) };
    if (!may_share_) {
        return best;
    }
    std::vector<std::shared_ptr<sequence>> others;
    {
        std::lock_guard<std::mutex> lock(mutex_);
        for (const auto & weak : sequences_) {
            const auto other = weak.lock();
            if (other && !other->dropped && other != seq && other.get() != but_not) {
                others.push_back(other);
            }
        }
    }
    for (const auto & other : others) {
        const size_t n = n_common(other->tokens, tokens, other->n_exact());
        if (n > best.n_tokens && has_past(*other, n)) {
            best = { other, n };
        }
    }
    return best;
}

// The cells of what another sequence has of these tokens become seq's, too, in place of its own.
void engine::borrow(const std::shared_ptr<sequence> & seq, const std::vector<int32_t> & tokens) {
    const source from = best_source(seq, tokens);
    if (from.seq == seq) {
        return;
    }
    const auto n = static_cast<ptrdiff_t>(from.n_tokens);
    rewind(*seq, 0);
    seq->tokens.assign(tokens.begin(), tokens.begin() + n);
    llama_memory_seq_cp(llama_get_memory(ctx_), from.seq->id, seq->id, 0, static_cast<llama_pos>(n));
    shared_.fork(from.seq->id, seq->id, from.n_tokens);
}

// Whether a prompt before this one is on its way to a beginning that both have: then it is read once.
bool engine::awaits_prefix(generation & gen, const std::vector<std::shared_ptr<generation>> & before) {
    const auto reads_on = [](const generation & other, size_t n) { return other.n_read < n; };
    if (gen.leader && is_in(before, gen.leader.get()) && reads_on(*gen.leader, gen.n_led)) {
        return true;
    }
    gen.leader = nullptr;
    if (!may_share_ || gen.resumes()) {
        return false;
    }
    for (const auto & other : before) {
        const size_t n = n_common(other->target, gen.target, gen.target.size() - 1);
        if (n >= WORTH_WAITING && !other->resumes() && reads_on(*other, n) &&
            n >= best_source(gen.seq, gen.target, other->seq.get()).n_tokens + WORTH_WAITING) {
            gen.leader = other;
            gen.n_led  = n;
            return true;
        }
    }
    return false;
}

// What each generation adds to the next batch: a token where it runs, and of prompts as much as the ration
// leaves. Half of that is for the prompt that came first, so that none starves, the rest for the shortest,
// so that none waits behind a long one.
std::vector<engine::share> engine::allot(const std::vector<std::shared_ptr<generation>> & ready) {
    std::vector<share>                       shares;
    std::vector<std::shared_ptr<generation>> unread;
    std::vector<share>                       prompts;
    for (const auto & gen : ready) {
        if (gen->pending >= 0) {
            shares.push_back({ gen, 1 });
            continue;
        }
        const auto status = guarded([&] {
            if (!gen->begun && !awaits_prefix(*gen, unread)) {
                gen->begin(*this);
            }
        });
        if (status != KOLLAMA_OK) {
            fail(*gen, status);
            continue;
        }
        unread.push_back(gen);
        if (gen->begun) {
            prompts.push_back({ gen, 0 });
        }
    }

    const size_t n_running = shares.size();
    // A batch too small for all of them is used in turns, and prompts have a part of it.
    const size_t n_kept = prompts.empty() ? 0 : n_batch_ > 1 ? (n_batch_ + 3) / 4 : turn_ % 2;
    if (n_running > n_batch_ - n_kept) {
        std::rotate(shares.begin(), shares.begin() + static_cast<ptrdiff_t>(turn_ % n_running), shares.end());
        shares.resize(n_batch_ - n_kept);
    }
    turn_++;
    n_running_ = shares.size();

    size_t     left      = std::min(n_batch_ - shares.size(), ration_.tokens(n_running));
    const auto n_unread  = [](const share & one) { return one.gen->target.size() - one.gen->n_read - one.n_tokens; };
    const auto give      = [&](share & one, size_t n_most) {
        const size_t n = std::min({ n_unread(one), n_most, left });
        one.n_tokens += n;
        left         -= n;
    };
    if (!prompts.empty()) {
        give(prompts.front(), (left + 1) / 2);
        std::stable_sort(prompts.begin(), prompts.end(), [&](const share & a, const share & b) { return n_unread(a) < n_unread(b); });
        for (share & one : prompts) {
            give(one, left);
        }
    }
    for (share & one : prompts) {
        if (one.n_tokens > 0) {
            shares.push_back(one);
        }
    }
    return shares;
}

} // namespace kollama
