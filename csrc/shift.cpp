// Making room in a sequence that is full: some of its older tokens are dropped, and those after them
// move up. Keys are turned to their new places, values stay: what was computed with the dropped tokens
// in view is kept as it is.

#include "engine.h"

#include <cstring>

using namespace kollama;

namespace kollama {

void engine::check_can_shift() const {
    const llama_model * model = model_->handle;
    if (!llama_memory_can_shift(llama_get_memory(ctx_)) || llama_model_is_recurrent(model) || llama_model_is_hybrid(model) ||
        llama_model_rope_type(model) == LLAMA_ROPE_TYPE_NONE) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, "this context cannot be shifted: its model has no rotary positions, or memory of another "
                                              "kind (recurrent, or a window: swa_full=True keeps it whole)");
    }
}

void engine::shift(sequence & seq, size_t n_keep, size_t n_discard, bool may_copy) {
    const size_t n = seq.tokens.size();
    if (n_discard == 0 || n_keep >= n || n_discard >= n - n_keep) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, format("cannot keep the first %zu tokens of %zu and discard %zu: at least one must be "
                                                     "discarded, and one left behind", n_keep, n, n_discard));
    }
    if (may_copy && shared_.most(seq.id) > n_keep + n_discard) {
        copy_shared(seq);
    }
    if (shared_.most(seq.id) > n_keep + n_discard) {
        throw failure(KOLLAMA_ERROR_STATE, format("a fork shares the first %zu tokens of this sequence: they cannot be moved while both are "
                                                  "there", shared_.most(seq.id)));
    }
    llama_memory_t memory = llama_get_memory(ctx_);
    const auto     first = static_cast<llama_pos>(n_keep), last = static_cast<llama_pos>(n_keep + n_discard);
    if (!llama_memory_seq_rm(memory, seq.id, first, last)) {
        throw failure(KOLLAMA_ERROR_DECODE, "this model's memory cannot drop tokens in the middle");
    }
    llama_memory_seq_add(memory, seq.id, last, -1, first - last);
    shared_.cut(seq.id, n_keep);
    seq.tokens.erase(seq.tokens.begin() + first, seq.tokens.begin() + last);
    seq.n_kept = std::min(seq.n_kept, n_keep);
    read_last_again(seq);
}

// llama.cpp turns the keys ahead of its next graph. That is now: a shift that was aborted half way, or
// saved before it was done, would be wrong for good.
void engine::read_last_again(sequence & seq) {
    const size_t  n_kept = seq.n_kept, n = seq.tokens.size();
    const int32_t token  = seq.tokens.back();
    const bool    had_row = seq.row_valid;
    shielded_            = true;
    const auto status    = guarded([&] {
        rewind(seq, n - 1);
        std::vector<batch_item> items{ { &seq, &token, 1, had_row } };
        decode(items);
        if (had_row) {
            std::memcpy(seq.row->logits.data(), logits_of(items[0]), n_vocab() * sizeof(float));
            seq.row_valid = true;
        }
    });
    shielded_ = false;
    if (status == KOLLAMA_ERROR_ENGINE) {
        throw engine_failure(kollama_last_error());
    }
    if (status != KOLLAMA_OK) {
        const std::string reason = kollama_last_error();
        rewind(seq, 0);
        throw failure(KOLLAMA_ERROR_DECODE, "the shift failed, and the sequence is now empty: " + reason);
    }
    seq.n_kept = n_kept;
}

} // namespace kollama

kollama_status kollama_sequence_shift(kollama_sequence * seq, size_t n_keep, size_t n_discard, kollama_job ** out) {
    return guarded([&] {
        engine & e = *seq->engine;
        const auto pin = e.pin_model();
        e.check_can_shift();
        submit_job(seq, [&e, state = seq->state, n_keep, n_discard](kollama::job &) { e.shift(*state, n_keep, n_discard); }, out);
    });
}

kollama_status kollama_context_check_shift(kollama_context * ctx) {
    return guarded([&] {
        const auto pin = ctx->engine->pin_model();
        ctx->engine->check_can_shift();
    });
}

kollama_status kollama_sequence_n_exact(kollama_sequence * seq, size_t * n_tokens) {
    return guarded([&] { seq->engine->with_idle(*seq->state, [&] { *n_tokens = seq->state->n_exact(); }); });
}
