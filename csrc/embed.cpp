// Embeddings: the model's last hidden states of texts, pooled. In contexts made for it, which have no
// sequences of their own.

#include "engine.h"

#include <algorithm>
#include <cmath>

using namespace kollama;

namespace kollama {

// Texts side by side, as many as the memory has room for; each in pieces where it is longer than a
// batch.
void engine::embed(job & job, const embed_request & request) {
    llama_memory_t memory = llama_get_memory(ctx_);
    for (size_t first = 0; first < request.n_texts;) {
        size_t last = first, n_tokens = 0;
        const size_t room = ranks_ ? std::min(n_ctx_, n_batch_) : n_ctx_; // llama.cpp's own pooling wants a text in one piece
        while (last < request.n_texts && last - first < slots_.size() && n_tokens + request.length(last) <= room) {
            n_tokens += request.length(last++);
        }
        llama_memory_clear(memory, false);
        for (size_t done = request.begin(first), end = request.begin(last); done < end;) {
            check_cancelled(job);
            const size_t n = std::min(n_batch_, end - done);
            embed_piece(request, first, done, n);
            done += n;
        }
        for (size_t text = first; ranks_ && text < last; text++) {
            const float * scores = llama_get_embeddings_seq(ctx_, static_cast<llama_seq_id>(text - first));
            if (!scores) {
                throw failure(KOLLAMA_ERROR_DECODE, "llama.cpp computed no scores");
            }
            std::copy_n(scores, request.n_embd, request.out + text * request.n_embd);
        }
        first = last;
    }
    llama_memory_clear(memory, false);
}

void engine::embed_piece(const embed_request & request, size_t first, size_t begin, size_t n) {
    std::vector<batch_item> none;
    size_t                  text = first;
    tokens_.assign(request.tokens + begin, request.tokens + begin + n);
    positions_.clear();
    seq_ids_.clear();
    for (size_t i = begin; i < begin + n; i++) {
        while (request.ends[text] <= i) {
            text++;
        }
        positions_.push_back(static_cast<llama_pos>(i - request.begin(text)));
        seq_ids_.push_back(static_cast<llama_seq_id>(text - first));
    }
    outputs_.assign(n, 1);
    n_seq_ids_.assign(n, 1);
    seq_id_ptrs_.resize(n);
    for (size_t i = 0; i < n; i++) {
        seq_id_ptrs_[i] = &seq_ids_[i];
    }
    llama_batch batch = {};
    batch.n_tokens    = static_cast<int32_t>(n);
    batch.token       = tokens_.data();
    batch.pos         = positions_.data();
    batch.n_seq_id    = n_seq_ids_.data();
    batch.seq_id      = seq_id_ptrs_.data();
    batch.logits      = outputs_.data();
    guard         g;
    const int32_t code = compute(batch);
    if (code != 0) {
        llama_memory_clear(llama_get_memory(ctx_), false);
        fail_decode(code, none, g.errors());
    }
    for (size_t i = 0; i < n && !ranks_; i++) {
        const float * state = llama_get_embeddings_ith(ctx_, static_cast<int32_t>(i));
        if (!state) {
            throw failure(KOLLAMA_ERROR_DECODE, "llama.cpp computed no embeddings");
        }
        pool(request, first + static_cast<size_t>(seq_ids_[i]), begin + i, state);
    }
}

void engine::pool(const embed_request & request, size_t text, size_t token, const float * state) {
    const size_t n_embd = request.n_embd;
    const size_t begin = request.begin(text), length = request.length(text);
    float *      row   = request.out + n_embd * (request.pooling == KOLLAMA_POOLING_NONE ? token : text);
    switch (request.pooling) {
        case KOLLAMA_POOLING_RANK: break;
        case KOLLAMA_POOLING_NONE: std::copy_n(state, n_embd, row); break;
        case KOLLAMA_POOLING_CLS:
            if (token == begin) {
                std::copy_n(state, n_embd, row);
            }
            break;
        case KOLLAMA_POOLING_LAST:
            if (token + 1 == begin + length) {
                std::copy_n(state, n_embd, row);
            }
            break;
        case KOLLAMA_POOLING_MEAN:
            for (size_t i = 0; i < n_embd; i++) {
                row[i] = (token == begin ? 0.0f : row[i]) + state[i] / static_cast<float>(length);
            }
            break;
    }
}

} // namespace kollama

kollama_status kollama_context_embed(kollama_context * ctx, const int32_t * tokens, const size_t * ends, size_t n_texts,
                                     kollama_pooling pooling, float * out, kollama_job ** job) {
    return guarded([&] {
        engine &            e = *ctx->engine;
        const auto          pin = e.pin_model();
        const auto *        model = e.model()->handle;
        const size_t        width = e.ranks() ? llama_model_n_cls_out(model) : static_cast<size_t>(llama_model_n_embd_out(model));
        const embed_request request{ tokens, ends, n_texts, pooling, width, out };
        if (e.ranks() != (pooling == KOLLAMA_POOLING_RANK)) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, "this context was made for another pooling");
        }
        if (!e.embeds()) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, "this context was not made for embeddings: model.context(embeddings=True)");
        }
        for (size_t i = 0; i < n_texts; i++) {
            if (request.length(i) == 0) {
                throw failure(KOLLAMA_ERROR_ARGUMENT, format("text %zu has no tokens", i));
            }
            if (request.length(i) > e.n_ctx() || (e.ranks() && request.length(i) > e.n_batch())) {
                throw failure(KOLLAMA_ERROR_CONTEXT_FULL, format("text %zu has %zu tokens, n_ctx is %zu", i, request.length(i),
                                                                 e.ranks() ? std::min(e.n_ctx(), e.n_batch()) : e.n_ctx()));
            }
        }
        for (size_t i = 0; i < request.begin(n_texts); i++) {
            check_token(e.model(), tokens[i]);
        }
        submit_job(*ctx, [&e, request](kollama::job & job) { e.embed(job, request); }, job);
    });
}
