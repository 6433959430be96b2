#include "draft_model.h"

#include "row.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>

namespace kollama {
namespace {

double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// The first is taken as it is.
void learn(double & usual, double seconds) {
    usual = usual == 0 ? seconds : usual + (seconds - usual) * 0.2;
}

size_t n_common(const std::vector<int32_t> & a, const std::vector<int32_t> & b) {
    const size_t n = std::min(a.size(), b.size());
    return static_cast<size_t>(std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(n), b.begin()).first - a.begin());
}

} // namespace

void draft_model::check(const kollama_model & target) const {
    const auto refuse = [](const std::string & why) { throw failure(KOLLAMA_ERROR_ARGUMENT, "the draft model " + why); };
    if (model_->vocab_only) {
        refuse("was loaded with vocab_only: it has no weights to compute with");
    }
    if (llama_model_is_recurrent(model_->handle) || llama_model_is_hybrid(model_->handle)) {
        refuse("is recurrent: its memory cannot go back behind a wrong guess");
    }
    if (llama_model_has_encoder(model_->handle) || !llama_model_has_decoder(model_->handle)) {
        refuse("is not one that continues a text");
    }
    const int32_t n = llama_vocab_n_tokens(target.vocab), n_own = llama_vocab_n_tokens(model_->vocab);
    if (n != n_own) {
        refuse(format("has another vocabulary: %d tokens, and the model %d", n_own, n));
    }
    for (int32_t id = 0; id < n; id++) {
        const char * text = llama_vocab_get_text(target.vocab, id);
        const char * own  = llama_vocab_get_text(model_->vocab, id);
        if (std::strcmp(text, own) != 0) {
            refuse(format("has another vocabulary: token %d is '%s', and '%s' in the model", id, own, text));
        }
    }
}

draft_model::draft_model(kollama_model * model, const setup & setup) :
    model_(model),
    n_vocab_(static_cast<size_t>(llama_vocab_n_tokens(model->vocab))),
    n_positions_(std::min<size_t>(setup.params.n_ctx, model->n_positions)),
    tokens_(setup.params.n_seq_max) {
    check(setup.target);
    llama_context_params p = setup.params;
    p.n_outputs_max   = p.n_seq_max;
    p.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_AUTO;
    p.type_k = p.type_v = GGML_TYPE_F16;
    p.swa_full          = true; // it goes back after each step
    guard g;
    {
        std::shared_lock<std::shared_mutex> lock(model_->loras_mutex);
        ctx_ = llama_init_from_model(model_->handle, p);
    }
    if (!ctx_ || !llama_get_memory(ctx_)) {
        llama_free(ctx_);
        throw failure(KOLLAMA_ERROR_LOAD, "the draft model's context cannot be made: " +
                                              (g.errors().empty() ? "llama.cpp gave no reason" : g.errors()));
    }
    n_batch_ = llama_n_batch(ctx_);
    llama_attach_threadpool(ctx_, setup.threadpool, nullptr);
    ++model_->n_contexts;
}

draft_model::~draft_model() {
    llama_free(ctx_);
    --model_->n_contexts;
}

// Where that was a graph of this model's, the lock it is laid out with may be held.
void draft_model::stop_for_ever() {
    if (decodes_ && reserves_) {
        model_->loras_stuck = true;
    }
}

void draft_model::add(int id, int32_t token, bool wants_logits) {
    std::vector<int32_t> & there = tokens_[static_cast<size_t>(id)];
    batch_.push_back(token);
    positions_.push_back(static_cast<llama_pos>(there.size()));
    seq_ids_.push_back(id);
    outputs_.push_back(wants_logits);
    there.push_back(token);
}

// llama.cpp's code; where it is not 0, the sequences are as they were before the batch.
int32_t draft_model::decode(int32_t n_threads) {
    n_seq_ids_.assign(batch_.size(), 1);
    seq_id_ptrs_.resize(batch_.size());
    for (size_t i = 0; i < batch_.size(); i++) {
        seq_id_ptrs_[i] = &seq_ids_[i];
    }
    llama_batch batch = {};
    batch.n_tokens    = static_cast<int32_t>(batch_.size());
    batch.token       = batch_.data();
    batch.pos         = positions_.data();
    batch.n_seq_id    = n_seq_ids_.data();
    batch.seq_id      = seq_id_ptrs_.data();
    batch.logits      = outputs_.data();
    std::shared_lock<std::shared_mutex> lock(model_->loras_mutex, std::defer_lock);
    if (reserves_) {
        lock.lock();
    }
    llama_set_n_threads(ctx_, n_threads, n_threads);
    guard g;
    decodes_           = true;
    const int32_t code = llama_decode(ctx_, batch);
    decodes_           = false;
    reserves_          = false;
    for (size_t i = 0; code != 0 && i < batch_.size(); i++) {
        keep(seq_ids_[i], static_cast<size_t>(positions_[i]));
    }
    if (code < 0) {
        broken_ = true;
        log_warning(format("the draft model failed with code %d, and guesses no more: %s", code, g.errors().c_str()));
    }
    batch_.clear();
    positions_.clear();
    seq_ids_.clear();
    outputs_.clear();
    return code;
}

void draft_model::forget_all() {
    llama_memory_clear(llama_get_memory(ctx_), false);
    for (auto & tokens : tokens_) {
        tokens.clear();
    }
}

void draft_model::keep(int id, size_t n_tokens) {
    std::vector<int32_t> & there = tokens_[static_cast<size_t>(id)];
    if (n_tokens < there.size()) {
        llama_memory_seq_rm(llama_get_memory(ctx_), id, static_cast<llama_pos>(n_tokens), -1);
        there.resize(n_tokens);
    }
}

size_t draft_model::n_behind(int id, const std::vector<int32_t> & text) const {
    return text.size() - n_common(tokens_[static_cast<size_t>(id)], text);
}

// All of each text but the last token, whose logits the first turn needs.
void draft_model::catch_up(std::vector<request> & requests, int32_t n_threads) {
    for (request & r : requests) {
        const std::vector<int32_t> & there = tokens_[static_cast<size_t>(r.id)];
        keep(r.id, std::min(n_common(there, r.text), r.text.size() - 1));
        const size_t n_before = there.size();
        const double start    = now();
        bool         is_again = false;
        while (there.size() + 1 < r.text.size()) {
            const size_t n = std::min(n_batch_, r.text.size() - 1 - there.size());
            for (size_t i = 0; i < n; i++) {
                add(r.id, r.text[there.size()], false);
            }
            const int32_t code = decode(n_threads);
            if (code != 0 && (code != 1 || is_again)) {
                return;
            }
            if (code == 1) { // full: of sequences, perhaps, that nobody follows any more
                forget_all();
                is_again = true;
            }
        }
        if (there.size() > n_before + 16) { // fewer say little of a long text
            learn(seconds_a_token_, (now() - start) / static_cast<double>(there.size() - n_before));
        }
    }
}

// One guess more of each request that wants one and has all before it.
bool draft_model::next_turn(std::vector<request> & requests, size_t turn, int32_t n_threads) {
    std::vector<request *> asked;
    for (request & r : requests) {
        const std::vector<int32_t> & there = tokens_[static_cast<size_t>(r.id)];
        if (!broken_ && r.guesses.size() == turn && turn < r.n_most && there.size() + 1 == r.text.size() + turn &&
            there.size() + 1 < n_positions_ && asked.size() < n_batch_) {
            add(r.id, turn == 0 ? r.text.back() : r.guesses.back(), true);
            asked.push_back(&r);
        }
    }
    const double start = now();
    if (asked.empty() || decode(n_threads) != 0) {
        return false;
    }
    for (size_t i = 0; i < asked.size(); i++) {
        const float *  logits = llama_get_logits_ith(ctx_, static_cast<int32_t>(i));
        scan_.read(logits, n_vocab_);
        asked[i]->guesses.push_back(static_cast<int32_t>(scan_.peak.index));
        asked[i]->chances.push_back(std::exp(scan_.peak.value - scan_.log_total));
    }
    learn(seconds_each_, now() - start);
    return true;
}

} // namespace kollama
