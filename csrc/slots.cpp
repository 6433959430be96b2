// The sequences of a context: ids that callers take and give back, and who works on one.

#include "engine.h"

#include "generation.h"

#include <algorithm>

namespace kollama {

std::shared_ptr<sequence> engine::take_slot() {
    std::lock_guard<std::mutex> lock(mutex_);
    check_open();
    if (embeds_) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, "this context was made for embeddings: it has no sequences");
    }
    const auto free = std::find(slots_.begin(), slots_.end(), false);
    if (free == slots_.end()) {
        throw failure(KOLLAMA_ERROR_ARGUMENT,
                      format("all %zu sequences of this context are in use: close one, or make the context with a larger n_seq_max",
                             slots_.size()));
    }
    auto seq = std::make_shared<sequence>();
    seq->id  = static_cast<int>(free - slots_.begin());
    *free    = true;
    sequences_[seq->id] = seq;
    return seq;
}

void engine::drop_slot(sequence & seq) {
    std::lock_guard<std::mutex> lock(mutex_);
    seq.dropped = true;
    if (!seq.busy) {
        set_idle(seq);
        return;
    }
    if (running_ && running_->seq.get() == &seq) {
        cancel_locked(*running_);
    }
    const std::deque<std::shared_ptr<job>> jobs = jobs_;
    for (auto & job : jobs) {
        if (job->seq.get() == &seq) {
            cancel_locked(*job);
        }
    }
    const std::vector<std::shared_ptr<generation>> generations = generations_;
    for (auto & gen : generations) {
        if (gen->seq.get() == &seq) {
            cancel_locked(*gen);
        }
    }
}

void engine::set_idle(sequence & seq) {
    seq.busy = false;
    if (seq.dropped) {
        slots_[seq.id] = false; // may be taken at once: its memory is emptied before anything else runs
        drops_.push_back(seq.id);
        work_.notify_one();
    }
}

void engine::run_drops() {
    for (int id : drops_) {
        if (poison_.empty() && guarded([&] { llama_memory_seq_rm(llama_get_memory(ctx_), id, -1, -1); }) != KOLLAMA_OK) {
            poison_ = kollama_last_error();
        }
        shared_.cut(id, 0);
    }
    drops_.clear();
}

void engine::with_idle(sequence & seq, const std::function<void()> & f) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (closed_) {
        throw failure(KOLLAMA_ERROR_CLOSED, "the context is closed");
    }
    if (seq.busy) {
        throw failure(KOLLAMA_ERROR_BUSY, "another call works on this sequence");
    }
    f();
}

} // namespace kollama
