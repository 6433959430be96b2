#include "generation.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace kollama {

void generation::release() {
    owner->set_idle(*seq);
    sampler->in_use = false;
    sampler         = nullptr;
    news.notify_all();
}

void generation::fail(kollama_status why, std::string what) {
    if (status == KOLLAMA_PENDING) {
        status = why;
        reason = std::move(what);
        release();
    }
}

void generation::end(kollama_finish how) {
    if (status == KOLLAMA_PENDING) {
        status     = KOLLAMA_OK;
        finish     = how;
        incomplete = utf8.incomplete();
        release();
    }
}

// Keeps what memory and prompt have in common. Of a prompt that is all there the last token is read
// again: its logits are needed.
void generation::begin(engine & e) {
    begun = true;
    if (prompt.size() > e.n_ctx()) {
        throw failure(KOLLAMA_ERROR_CONTEXT_FULL, format("the prompt has %zu tokens, n_ctx is %zu", prompt.size(), e.n_ctx()));
    }
    const size_t limit = std::min(seq->tokens.size(), prompt.size() - 1);
    while (n_read < limit && seq->tokens[n_read] == prompt[n_read]) {
        n_read++;
    }
    seq->row_valid = false; // this loop samples from llama.cpp's own row
    try {
        e.rewind(*seq, n_read);
    } catch (const failure &) {
        n_read = 0; // a memory that cannot go back is empty now
    }
    n_reused = n_read;
}

batch_item generation::next_item(size_t budget) {
    if (pending >= 0) {
        return { seq.get(), &pending, 1, true };
    }
    const size_t n = std::min(budget, prompt.size() - n_read);
    return { seq.get(), prompt.data() + n_read, n, n_read + n == prompt.size() };
}

kollama_sampler::choice generation::sample(engine & e, float * logits) {
    if (!ignore_eos) {
        return sampler->sample(logits, e.n_vocab(), true);
    }
    masked.clear();
    for (int32_t id : e.eog_tokens()) {
        masked.push_back(logits[id]);
        logits[id] = -std::numeric_limits<float>::infinity();
    }
    kollama_sampler::choice chosen = sampler->sample(logits, e.n_vocab(), true);
    // The logprob of the model's own distribution counts the end tokens in.
    const double log_total = logits[chosen.token] - chosen.logprob;
    double       missing   = 0;
    for (float logit : masked) {
        missing += std::exp(logit - log_total);
    }
    chosen.logprob -= static_cast<float>(std::log1p(missing));
    return chosen;
}

// What a sampled token adds to the text, and whether it is the last.
kollama_finish generation::take(engine & e, int32_t token) {
    bytes.clear();
    text.clear();
    kollama_finish how = KOLLAMA_FINISH_NONE;
    if (llama_vocab_is_eog(e.model()->vocab, token)) {
        how = KOLLAMA_FINISH_EOS;
    } else {
        const tokenizer &      t     = *e.model()->tokenizer;
        const std::string_view piece = t.vocab.special[static_cast<size_t>(token)] ? "" : t.texts().bytes(token);
        if (stops.push(piece, bytes)) {
            how = KOLLAMA_FINISH_STOP;
        } else if ((max_tokens >= 0 && n_sampled >= static_cast<size_t>(max_tokens)) || seq->tokens.size() >= e.n_ctx()) {
            how = KOLLAMA_FINISH_LENGTH;
        }
    }
    if (how != KOLLAMA_FINISH_NONE && how != KOLLAMA_FINISH_STOP) {
        stops.flush(bytes);
    }
    utf8.push(bytes, text);
    if (how == KOLLAMA_FINISH_STOP) {
        utf8.flush(text); // what stands before a stop string is complete, or broken for good
    }
    return how;
}

void generation::advance(engine & e, std::mutex & mutex, const batch_item & item) {
    if (pending < 0) {
        n_read += item.n_tokens;
    }
    if (!item.logits) {
        return;
    }
    const kollama_sampler::choice chosen = sample(e, e.logits_of(item));
    pending = chosen.token;
    n_sampled++;
    const kollama_finish how = take(e, chosen.token);

    std::lock_guard<std::mutex> lock(mutex);
    last = clock::now();
    if (n_sampled == 1) {
        first = last;
    }
    events.push_back({ chosen.token, chosen.logprob, text, how });
    if (how != KOLLAMA_FINISH_NONE) {
        end(how);
    }
    news.notify_all();
}

// ---- the engine's side ---------------------------------------------------------------------------

void engine::start(const std::shared_ptr<generation> & gen, kollama_sampler * sampler) {
    std::lock_guard<std::mutex> lock(mutex_);
    check_open();
    if (gen->seq->busy) {
        throw failure(KOLLAMA_ERROR_BUSY, "another call works on this sequence");
    }
    generations_.reserve(generations_.size() + 1); // no failure once the sampler is taken
    if (sampler->in_use.exchange(true)) {
        throw failure(KOLLAMA_ERROR_BUSY, "this sampler is in use by another generation");
    }
    gen->owner     = this;
    gen->sampler   = sampler;
    gen->seq->busy = true;
    gen->started   = generation::clock::now();
    generations_.push_back(gen);
    work_.notify_one();
}

// In a batch it ends within one graph; else it ends here.
void engine::cancel_locked(generation & gen) {
    gen.cancelled = true;
    if (gen.running) {
        abort_ = true;
    } else {
        gen.end(KOLLAMA_FINISH_CANCELLED);
    }
    work_.notify_one();
}

void engine::request_cancel(generation & gen) {
    std::lock_guard<std::mutex> lock(mutex_);
    cancel_locked(gen);
}

void engine::cancel(generation & gen) {
    std::unique_lock<std::mutex> lock(mutex_);
    cancel_locked(gen);
    gen.news.wait(lock, [&] { return gen.status != KOLLAMA_PENDING; });
}

kollama_status engine::next(generation & gen, int32_t timeout_ms, kollama_event * event) {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto ready = [&] { return !gen.events.empty() || gen.status != KOLLAMA_PENDING; };
    if (!gen.news.wait_for(lock, std::chrono::milliseconds(timeout_ms), ready)) {
        return KOLLAMA_PENDING;
    }
    if (gen.events.empty()) {
        return gen.status == KOLLAMA_OK ? KOLLAMA_END : report(gen.status, gen.reason);
    }
    const bool was_full = gen.events.size() >= gen.ahead;
    generation::event taken = std::move(gen.events.front());
    gen.events.pop_front();
    gen.n_handed++;
    gen.handed = std::move(taken.text);
    *event     = { taken.token, taken.logprob, gen.handed.data(), gen.handed.size(), taken.finish };
    if (was_full) {
        work_.notify_one();
    }
    return KOLLAMA_OK;
}

void engine::get_stats(generation & gen, kollama_generation_stats * stats) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto seconds = [](auto from, auto to) { return std::chrono::duration<double>(to - from).count(); };
    const bool any = gen.first != generation::clock::time_point{};
    *stats = {};
    stats->n_prompt          = gen.prompt.size();
    stats->n_reused          = gen.n_reused;
    stats->n_generated       = gen.n_handed;
    stats->prompt_seconds    = any ? seconds(gen.started, gen.first) : 0;
    stats->generate_seconds  = any ? seconds(gen.first, gen.last) : 0;
    stats->finish            = gen.finish;
    stats->incomplete_length = gen.incomplete.copy(stats->incomplete, sizeof(stats->incomplete));
}

bool engine::run_generations(std::unique_lock<std::mutex> & lock) {
    std::vector<std::shared_ptr<generation>> ready;
    for (auto & gen : generations_) {
        if (!poison_.empty()) {
            gen->fail(KOLLAMA_ERROR_ENGINE, poison_);
        } else if (gen->cancelled) {
            gen->end(KOLLAMA_FINISH_CANCELLED);
        } else if (gen->wants_step()) {
            gen->running = true;
            ready.push_back(gen);
        }
    }
    if (!ready.empty()) {
        abort_ = stopping_;
        lock.unlock();
        step(ready);
        lock.lock();
        for (auto & gen : ready) {
            gen->running = false;
        }
    }
    const auto ended = [](const auto & gen) { return gen->status != KOLLAMA_PENDING; };
    generations_.erase(std::remove_if(generations_.begin(), generations_.end(), ended), generations_.end());
    return !ready.empty();
}

// One batch: a token of each running generation, then as much of the waiting prompts as fits.
void engine::step(std::vector<std::shared_ptr<generation>> & ready) {
    std::stable_partition(ready.begin(), ready.end(), [](const auto & gen) { return gen->pending >= 0; });
    std::vector<batch_item>                  items;
    std::vector<std::shared_ptr<generation>> owners;
    size_t                                   budget = n_batch_;
    for (auto & gen : ready) {
        const auto status = guarded([&] {
            if (!gen->begun) {
                gen->begin(*this);
            }
            if (budget > 0) {
                items.push_back(gen->next_item(budget));
                owners.push_back(gen);
                budget -= items.back().n_tokens;
            }
        });
        if (status != KOLLAMA_OK) {
            fail(*gen, status);
        }
    }
    if (items.empty()) {
        return;
    }
    const auto status = guarded([&] { decode(items); });
    if (status == KOLLAMA_OK) {
        advance(items, owners);
    } else if ((items.size() == 1 && !items[0].emptied) || status == KOLLAMA_ERROR_ENGINE) {
        for (auto & gen : owners) {
            fail(*gen, status);
        }
    } else {
        retry(status, items, owners);
    }
}

// A batch of several failed. An aborted step is none: the generation that was cancelled is ended by
// the loop, the others go on. Else each is tried alone: what one lacks, the others need not suffer from.
void engine::retry(kollama_status status, const std::vector<batch_item> & items,
                   const std::vector<std::shared_ptr<generation>> & owners) {
    for (size_t i = 0; i < items.size(); i++) {
        if (items[i].emptied) {
            set_last_error("a batch failed, and this model's memory cannot go back to before it");
            fail(*owners[i], KOLLAMA_ERROR_DECODE);
        } else if (status != KOLLAMA_ERROR_ABORTED) {
            std::vector<std::shared_ptr<generation>> alone{ owners[i] };
            step(alone);
        }
    }
}

void engine::advance(const std::vector<batch_item> & items, const std::vector<std::shared_ptr<generation>> & owners) {
    for (size_t i = 0; i < items.size(); i++) {
        const auto status = guarded([&] { owners[i]->advance(*this, mutex_, items[i]); });
        if (status != KOLLAMA_OK) {
            fail(*owners[i], status);
        }
    }
}

void engine::fail(generation & gen, kollama_status status) {
    const std::string           reason = kollama_last_error();
    std::lock_guard<std::mutex> lock(mutex_);
    if (status == KOLLAMA_ERROR_ENGINE && poison_.empty()) {
        poison_ = reason;
    }
    if (status == KOLLAMA_ERROR_CONTEXT_FULL && gen.n_sampled > 0) {
        gen.end(KOLLAMA_FINISH_LENGTH); // other sequences filled the context
    } else if (status != KOLLAMA_ERROR_ABORTED) {
        gen.fail(status, reason);
    }
}

} // namespace kollama

using namespace kollama;

struct kollama_generation {
    std::shared_ptr<engine>     owner;
    std::shared_ptr<generation> state;
};

kollama_status kollama_generation_init(kollama_sequence * seq, kollama_sampler * sampler, const int32_t * prompt, size_t n_prompt,
                                       const kollama_generation_params * params, kollama_generation ** out) {
    return guarded([&] {
        auto gen        = std::make_shared<generation>();
        gen->seq        = seq->state;
        gen->utf8       = utf8_stream(seq->engine->model()->tokenizer->text.replaces_each_byte);
        gen->max_tokens = params->max_tokens;
        gen->ignore_eos = params->ignore_eos;
        gen->ahead      = std::max(1, params->ahead);
        if (n_prompt == 0) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, "the prompt has no tokens");
        }
        for (size_t i = 0; i < n_prompt; i++) {
            check_token(seq->engine->model(), prompt[i]);
        }
        gen->prompt.assign(prompt, prompt + n_prompt);
        for (size_t i = 0; i < params->n_stops; i++) {
            if (params->stop_lengths[i] == 0) {
                throw failure(KOLLAMA_ERROR_ARGUMENT, "a stop string is empty");
            }
            gen->stops.add({ params->stops[i], params->stop_lengths[i] });
        }
        auto handle = std::make_unique<kollama_generation>(kollama_generation{ seq->engine, gen });
        seq->engine->start(gen, sampler);
        *out = handle.release();
    });
}

void kollama_generation_free(kollama_generation * gen) {
    if (gen) {
        gen->owner->cancel(*gen->state);
        delete gen;
    }
}

kollama_status kollama_generation_next(kollama_generation * gen, int32_t timeout_ms, kollama_event * event) {
    return gen->owner->next(*gen->state, timeout_ms, event);
}

void kollama_generation_request_cancel(kollama_generation * gen) {
    gen->owner->request_cancel(*gen->state);
}

void kollama_generation_cancel(kollama_generation * gen) {
    gen->owner->cancel(*gen->state);
}

void kollama_generation_get_stats(kollama_generation * gen, kollama_generation_stats * stats) {
    gen->owner->get_stats(*gen->state, stats);
}
