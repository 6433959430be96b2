// The engine's compute: batches into llama.cpp, and memory back to where it was when one fails. All of
// it runs on the engine thread.

#include "engine.h"

#include <algorithm>

namespace kollama {

void engine::fill_batch(std::vector<batch_item> & items) {
    tokens_.clear();
    positions_.clear();
    seq_ids_.clear();
    outputs_.clear();
    for (batch_item & item : items) {
        for (size_t i = 0; i < item.n_tokens; i++) {
            tokens_.push_back(item.tokens[i]);
            positions_.push_back(static_cast<llama_pos>(item.seq->tokens.size() + i));
            seq_ids_.push_back(item.seq->id);
            outputs_.push_back(item.logits && i + 1 + item.n_guesses >= item.n_tokens);
        }
        item.output = static_cast<int32_t>(tokens_.size() - 1 - item.n_guesses);
    }
    n_seq_ids_.assign(tokens_.size(), 1);
    seq_id_ptrs_.resize(tokens_.size());
    for (size_t i = 0; i < tokens_.size(); i++) {
        seq_id_ptrs_[i] = &seq_ids_[i];
    }
}

int32_t engine::compute(const llama_batch & batch) {
    std::shared_lock<std::shared_mutex> lock(model_->loras_mutex, std::defer_lock);
    if (reserves_) {
        lock.lock();
    }
    const auto n_rows = static_cast<size_t>(batch.n_tokens);
    quiet_when quiet(abort_, pace_->given_up());
    for (;;) {
        llama_set_n_threads(ctx_, pace_->threads(), pace_->threads());
        pace_->begin_step(n_rows, may_repeat_);
        const int32_t code = llama_decode(ctx_, batch);
        reserves_          = false;
        if (abandoned_) {
            crew::park(); // its answer came before the server was lost; who waited for it has been told otherwise
        }
        if (code == 2 && pace_->given_up() && !is_cancelled()) {
            pace_->end_given_up(); // llama.cpp has taken the batch out of its memory again
            continue;
        }
        pace_->end_step(code == 0);
        return code;
    }
}

void engine::decode(std::vector<batch_item> & items) {
    fill_batch(items);
    llama_batch batch = {};
    batch.n_tokens    = static_cast<int32_t>(tokens_.size());
    batch.token       = tokens_.data();
    batch.pos         = positions_.data();
    batch.n_seq_id    = n_seq_ids_.data();
    batch.seq_id      = seq_id_ptrs_.data();
    batch.logits      = outputs_.data();

    for (const batch_item & item : items) { // no failure once it is read; twice the room: no copy of all for each token
        auto & tokens = item.seq->tokens;
        if (tokens.capacity() < tokens.size() + item.n_tokens) {
            tokens.reserve(std::max(2 * tokens.capacity(), tokens.size() + item.n_tokens));
        }
    }
    guard         g;
    const int32_t code = compute(batch);
    if (code != 0) {
        fail_decode(code, items, g.errors());
    }
    for (const batch_item & item : items) {
        item.seq->tokens.insert(item.seq->tokens.end(), item.tokens, item.tokens + item.n_tokens - item.n_guesses);
    }
}

// llama.cpp keeps the sub-batches that it finished: taking them back is up to us.
void engine::restore(std::vector<batch_item> & items) {
    for (batch_item & item : items) {
        try {
            rewind(*item.seq, item.seq->tokens.size());
        } catch (const failure &) {
            item.emptied = true;
        }
    }
}

void engine::fail_decode(int32_t code, std::vector<batch_item> & items, const std::string & errors) {
    restore(items);
    switch (code) {
        case 1:
            throw failure(KOLLAMA_ERROR_CONTEXT_FULL,
                          format("the context is full: its %zu sequences share n_ctx=%zu tokens", slots_.size(), n_ctx_));
        case 2:
            throw_cancelled();
        default:
            throw failure(KOLLAMA_ERROR_DECODE, format("llama_decode failed with code %d%s%s", code,
                                                       errors.empty() ? "" : ": ", errors.c_str()));
    }
}

float * engine::logits_of(const batch_item & item, size_t guess) const {
    float * row = llama_get_logits_ith(ctx_, item.output + static_cast<int32_t>(guess));
    if (!row) {
        throw failure(KOLLAMA_ERROR_DECODE, "llama.cpp computed no logits for the last token");
    }
    return row;
}

// Whether what token n_keep attends to is in memory.
bool engine::has_past(const sequence & seq, size_t n_keep) const {
    const llama_pos oldest = std::max(0, static_cast<llama_pos>(n_keep) - llama_model_n_swa(model_->handle));
    return llama_memory_seq_pos_min(llama_get_memory(ctx_), seq.id) <= oldest;
}

void engine::take_back_guesses(sequence & seq) {
    rewind(seq, seq.tokens.size());
}

void engine::rewind(sequence & seq, size_t n_keep) {
    llama_memory_t  memory = llama_get_memory(ctx_);
    const llama_pos n      = static_cast<llama_pos>(n_keep);
    if (n_keep == 0) {
        llama_memory_seq_rm(memory, seq.id, -1, -1);
    } else if (!has_past(seq, n_keep) || !llama_memory_seq_rm(memory, seq.id, n, -1)) {
        // A recurrent state has no past to go back to, nor has a pruned window (swa_full=False).
        llama_memory_seq_rm(memory, seq.id, -1, -1);
        shared_.cut(seq.id, 0);
        seq.tokens.clear();
        seq.n_kept    = SIZE_MAX;
        seq.row_valid = false;
        throw failure(KOLLAMA_ERROR_DECODE, "this model's memory cannot drop its last tokens: the sequence is now empty");
    }
    shared_.cut(seq.id, n_keep);
    if (n_keep <= seq.n_kept) {
        seq.n_kept = SIZE_MAX;
    }
    if (n_keep < seq.tokens.size()) {
        seq.tokens.resize(n_keep);
        seq.row_valid = false;
    }
}

void engine::fork(const sequence & src, sequence & dst) {
    llama_memory_seq_cp(llama_get_memory(ctx_), src.id, dst.id, -1, -1);
    shared_.fork(src.id, dst.id, src.tokens.size());
    dst.tokens = src.tokens;
    dst.n_kept = src.n_kept;
    if (src.row_valid) {
        dst.row         = new kollama_row(n_vocab_);
        dst.row->logits = src.row->logits;
        dst.row_valid   = true;
    }
}

const std::vector<int32_t> & engine::eog_tokens() {
    std::call_once(eog_once_, [&] {
        for (int32_t id = 0; id < static_cast<int32_t>(n_vocab_); id++) {
            if (llama_vocab_is_eog(model_->vocab, id)) {
                eog_tokens_.push_back(id);
            }
        }
    });
    return eog_tokens_;
}

} // namespace kollama
