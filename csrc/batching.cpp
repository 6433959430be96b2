// The engine's side of the default loop: which generations run, in one batch, and what comes of it.

#include "generation.h"

#include <algorithm>
#include <iterator>

namespace kollama {

void engine::start(const std::shared_ptr<generation> & gen, sampler_hold & sampler) {
    std::lock_guard<std::mutex> lock(mutex_);
    check_open();
    if (gen->seq->busy) {
        throw failure(KOLLAMA_ERROR_BUSY, "another call works on this sequence");
    }
    generations_.reserve(generations_.size() + 1); // no failure once the sampler is taken
    gen->owner     = this;
    gen->sampler   = sampler.keep();
    gen->n_stream  = gen->sampler->n_streams;
    gen->seq->busy = true;
    gen->started   = generation::clock::now();
    generations_.push_back(gen);
    work_.notify_one();
}

// In a batch it ends within one graph, and where its consumer chooses a token once that is done; else
// it ends here.
void engine::cancel_locked(generation & gen) {
    gen.cancelled = true;
    if (gen.running) {
        abort_ = true;
    } else if (!gen.choosing) {
        gen.end(KOLLAMA_FINISH_CANCELLED);
    }
    ring();
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

// On the consumer's thread, for a sampler that calls back: the engine's never waits for a callback.
// The mutex is free meanwhile; what ends the generation in that time leaves the sampler to us.
void engine::choose(generation & gen, std::unique_lock<std::mutex> & lock) {
    const model_pin pin(model_);
    gen.choosing = true;
    lock.unlock();
    generation::event event;
    const auto        status = guarded([&] { event = gen.decide(*this, gen.row.data()); });
    const std::string reason = status == KOLLAMA_OK ? "" : kollama_last_error();
    lock.lock();
    gen.choosing = gen.awaits_choice = false;
    if (gen.status != KOLLAMA_PENDING) {
        gen.give_sampler_back();
    } else if (status != KOLLAMA_OK) {
        gen.fail(status, reason);
    } else if (gen.cancelled) {
        gen.end(KOLLAMA_FINISH_CANCELLED);
    } else {
        gen.publish(std::move(event));
    }
    ring();
    work_.notify_one();
}

kollama_status engine::next(generation & gen, int32_t timeout_ms, kollama_event * event) {
    std::unique_lock<std::mutex> lock(mutex_);
    const auto ready = [&] { return !gen.events.empty() || gen.status != KOLLAMA_PENDING || gen.awaits_choice; };
    if (!ready() && !gen.asking) {
        gen.asking = true;
        work_.notify_one();
    }
    if (!gen.news.wait_for(lock, std::chrono::milliseconds(timeout_ms), ready)) {
        return KOLLAMA_PENDING;
    }
    if (gen.events.empty() && gen.status == KOLLAMA_PENDING) {
        choose(gen, lock);
    }
    if (gen.events.empty()) {
        return gen.status == KOLLAMA_OK ? KOLLAMA_END : report(gen.status, gen.reason);
    }
    const bool was_full = gen.events.size() >= gen.ahead;
    generation::event taken = std::move(gen.events.front());
    gen.events.pop_front();
    gen.n_handed++;
    gen.asking     = false;
    gen.handed     = std::move(taken.text);
    gen.handed_top = std::move(taken.top);
    *event = { taken.token, taken.logprob, gen.handed.data(), gen.handed.size(), taken.finish, gen.handed_top.data(), gen.handed_top.size() };
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
    stats->n_drafted         = gen.n_drafted;
    stats->n_accepted        = gen.n_accepted;
    stats->prompt_seconds    = any ? seconds(gen.started, gen.first) : 0;
    stats->generate_seconds  = any ? seconds(gen.first, gen.last) : 0;
    stats->finish            = gen.finish;
    stats->incomplete_length = gen.incomplete.copy(stats->incomplete, sizeof(stats->incomplete));
}

bool engine::run_generations(std::unique_lock<std::mutex> & lock) {
    std::vector<std::shared_ptr<generation>> ready;
    for (auto & gen : generations_) {
        if (!poison_.empty()) {
            gen->fail(poison_status_, poison_);
        } else if (gen->cancelled && !gen->choosing) {
            gen->end(KOLLAMA_FINISH_CANCELLED);
        } else if (gen->wants_step()) {
            gen->running = true;
            gen->take_forced();
            ready.push_back(gen);
        }
    }
    if (ready.empty()) {
        n_running_ = 0;
    } else {
        abort_ = stopping_;
        lock.unlock();
        step(ready);
        lock.lock();
        for (auto & gen : ready) {
            gen->running = false;
        }
    }
    ring(); // once for all tokens of the step
    const auto ended = [](const auto & gen) { return gen->status != KOLLAMA_PENDING; };
    generations_.erase(std::remove_if(generations_.begin(), generations_.end(), ended), generations_.end());
    return !ready.empty();
}

// One batch: a token of each running generation, and of the prompts what the ration leaves.
void engine::step(const std::vector<std::shared_ptr<generation>> & ready) {
    const auto is_done = [&](const std::shared_ptr<generation> & gen) {
        bool       done   = false;
        const auto status = guarded([&] { done = gen->replaces && gen->replace(*this, mutex_); });
        if (status != KOLLAMA_OK) {
            fail(*gen, status);
        }
        return done || status != KOLLAMA_OK;
    };
    std::vector<std::shared_ptr<generation>> undone;
    std::remove_copy_if(ready.begin(), ready.end(), std::back_inserter(undone), is_done);

    std::vector<batch_item>                  items;
    std::vector<std::shared_ptr<generation>> owners;
    size_t                                   n_prompt = 0;
    for (const share & one : allot(undone)) {
        const auto status = guarded([&] {
            items.push_back(one.gen->next_item(*this, one.n_tokens));
            owners.push_back(one.gen);
            n_prompt += one.gen->pending < 0 ? one.n_tokens : 0;
        });
        if (status != KOLLAMA_OK) {
            fail(*one.gen, status);
        }
    }
    if (items.empty()) {
        return;
    }
    const auto start  = generation::clock::now();
    const auto status = try_step(items, owners);
    if (status == KOLLAMA_OK) {
        ration_.took(n_running_, n_prompt, std::chrono::duration<double>(generation::clock::now() - start).count());
        advance(items, owners);
    } else if ((items.size() == 1 && !items[0].emptied) || status == KOLLAMA_ERROR_ENGINE) {
        for (auto & gen : owners) {
            fail(*gen, status);
        }
    } else {
        retry(status, items, owners);
    }
}

// Guesses may be what there is no room for: what a step can do without, it does without.
kollama_status engine::try_step(std::vector<batch_item> & items, const std::vector<std::shared_ptr<generation>> & owners) {
    if (!drafting_) {
        return guarded([&] { decode(items); });
    }
    auto status = guarded([&] { guess(items, owners); });
    if (status == KOLLAMA_ERROR_ENGINE) {
        return status;
    }
    if (status != KOLLAMA_OK) { // half done
        for (auto & gen : owners) {
            gen->draft = nullptr;
        }
    }
    status = guarded([&] { decode(items); });
    if (status == KOLLAMA_OK) {
        drafting_->took(tokens_.size(), pace_->seconds());
    }
    if (status == KOLLAMA_OK || status == KOLLAMA_ERROR_ABORTED || status == KOLLAMA_ERROR_ENGINE) {
        return status;
    }
    bool had_guesses = false, goes_on = true;
    for (batch_item & item : items) {
        had_guesses = had_guesses || item.n_guesses > 0;
        goes_on     = goes_on && !item.emptied;
        item.n_tokens -= item.n_guesses;
        item.n_guesses = 0;
    }
    return had_guesses && goes_on ? guarded([&] { decode(items); }) : status;
}

// Where all go on writing. While prompts are read there is no room in the batch.
void engine::guess(std::vector<batch_item> & items, const std::vector<std::shared_ptr<generation>> & owners) {
    std::vector<drafting::stream> streams;
    const size_t                  room = (n_batch_ - items.size()) / items.size();
    for (size_t i = 0; i < items.size(); i++) {
        generation & gen = *owners[i];
        if (gen.pending < 0) {
            return;
        }
        const size_t n_most = std::min(gen.n_guessable(*this), room);
        streams.push_back({ gen.draft.get(), items[i].seq->id, &gen.history, &items[i].seq->tokens, n_most });
    }
    drafting_->guess(streams, pace_->threads());
    for (size_t i = 0; i < items.size(); i++) {
        if (const stream_draft * draft = streams[i].draft; draft && draft->n_tried > 0) {
            items[i].tokens    = draft->tokens.data();
            items[i].n_guesses = draft->n_tried;
            items[i].n_tokens  = 1 + draft->n_tried;
        }
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
            step({ owners[i] });
        }
    }
}

// By all threads: alone the engine's takes longer for some rows than all of them for a layer.
void engine::scan_rows(std::vector<batch_item> & items, const std::vector<std::shared_ptr<generation>> & owners) {
    std::vector<std::pair<batch_item *, const float *>> rows;
    for (size_t i = 0; i < items.size(); i++) {
        if (items[i].logits && owners[i]->samples_as_is()) {
            rows.emplace_back(&items[i], logits_of(items[i]));
        }
    }
    if (rows.size() < 2) {
        return;
    }
    scans_.resize(std::max(scans_.size(), rows.size()));
    std::atomic<size_t> next{ 0 };
    crew_.run(pace_->threads(), [&](int32_t) noexcept {
        for (size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < rows.size();) {
            rows[i].first->scan = try_scan(rows[i].second, scans_[i]) ? &scans_[i] : nullptr;
        }
    });
}

// What fails here fails again, and is told, where the row is sampled from.
bool engine::try_scan(const float * logits, row_scan & scan) const {
    try {
        scan.read(logits, n_vocab_);
        return true;
    } catch (const std::exception &) {
        return false;
    }
}

void engine::advance(std::vector<batch_item> & items, const std::vector<std::shared_ptr<generation>> & owners) {
    guarded([&] { scan_rows(items, owners); });
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
    if (status == KOLLAMA_ERROR_CONTEXT_FULL && gen.n_generated() > 0) {
        gen.end(KOLLAMA_FINISH_LENGTH); // other sequences filled the context
    } else if (status != KOLLAMA_ERROR_ABORTED) {
        gen.fail(status, reason);
    }
}

} // namespace kollama
