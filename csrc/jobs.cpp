// The thread of an engine, and the jobs that callers hand to it and wait for.

#include "engine.h"

#include "generation.h"

#include <algorithm>
#include <chrono>

namespace kollama {

void engine::run() {
    crew_.join(*this);
    std::unique_lock<std::mutex> lock(mutex_);
    while (!stopping_) {
        // One job or a part of it, then one step of the generations: neither starves the other. An id that was given
        // back is emptied before each, as it may have been taken again meanwhile.
        run_drops();
        const bool did_job = run_job(lock);
        run_drops();
        const bool did_step = run_generations(lock);
        if (!did_job && !did_step && !stopping_ && drops_.empty()) {
            work_.wait(lock);
        }
    }
    for (auto & job : jobs_) {
        finish(*job, KOLLAMA_ERROR_CLOSED, "the context was closed");
    }
    for (auto & gen : generations_) {
        gen->fail(KOLLAMA_ERROR_CLOSED, "the context was closed");
    }
    jobs_.clear();
    generations_.clear();
    ended_ = true;
    done_.notify_all();
    end_watches();
}

bool engine::run_job(std::unique_lock<std::mutex> & lock) {
    if (jobs_.empty()) {
        return false;
    }
    const std::shared_ptr<job> job = jobs_.front();
    jobs_.pop_front();
    abort_   = job->cancelled || stopping_;
    running_ = job;
    kollama_status status = poison_.empty() ? KOLLAMA_OK : poison_status_;
    std::string    reason = poison_;
    if (status == KOLLAMA_OK) {
        lock.unlock();
        status = guarded([&] {
            if (!job->begun) {
                check_cancelled(*job);
            }
            job->again = false;
            job->work(*job);
        });
        reason = status == KOLLAMA_OK ? "" : kollama_last_error();
        lock.lock();
    }
    running_ = nullptr;
    if (status == KOLLAMA_OK && job->again) {
        job->begun = true;
        jobs_.push_back(job);
        return true;
    }
    if (status == KOLLAMA_ERROR_ENGINE && poison_.empty()) {
        poison_ = reason;
    }
    finish(*job, status, std::move(reason));
    return true;
}

void engine::finish(job & job, kollama_status status, std::string reason) {
    job.status = status;
    job.reason = std::move(reason);
    if (&job != running_.get()) { // it would not be in use
        job.work = nullptr; // what it captured is released here, not with the caller's handle
    }
    if (job.seq) {
        set_idle(*job.seq);
    }
    done_.notify_all();
}

void engine::check_cancelled(const job & job) {
    std::unique_lock<std::mutex> lock(mutex_);
    if (job.cancelled || stopping_) {
        lock.unlock();
        throw_cancelled();
    }
}

void engine::throw_cancelled() {
    std::lock_guard<std::mutex> lock(mutex_);
    if (stopping_) {
        throw failure(KOLLAMA_ERROR_CLOSED, "the context was closed");
    }
    throw failure(KOLLAMA_ERROR_ABORTED, "cancelled");
}

bool engine::abort_requested(void * self) {
    engine * e = static_cast<engine *>(self);
    if (e->abandoned_.load(std::memory_order_relaxed)) {
        crew::park(); // rather than spin in the barrier
    }
    return e->is_cancelled() || (e->pace_ && e->pace_->gives_up());
}

std::shared_ptr<job> engine::submit(std::shared_ptr<sequence> seq, std::function<void(job &)> work) {
    auto j  = std::make_shared<job>();
    j->seq  = std::move(seq);
    j->work = std::move(work);
    std::lock_guard<std::mutex> lock(mutex_);
    check_open();
    if (j->seq) {
        if (j->seq->busy) {
            throw failure(KOLLAMA_ERROR_BUSY, "another call works on this sequence");
        }
        j->seq->busy = true;
    }
    jobs_.push_back(j);
    work_.notify_one();
    return j;
}

kollama_status engine::wait(job & job, int32_t timeout_ms) {
    std::unique_lock<std::mutex> lock(mutex_);
    done_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return job.status != KOLLAMA_PENDING; });
    return job.status > KOLLAMA_END ? report(job.status, job.reason) : job.status;
}

void engine::cancel(job & job) {
    std::lock_guard<std::mutex> lock(mutex_);
    cancel_locked(job);
}

// A job that runs ends within one graph; one that waits for its turn ends here, or when its turn comes.
void engine::cancel_locked(job & job) {
    job.cancelled = true;
    if (running_.get() == &job) {
        abort_ = true;
        return;
    }
    const auto queued = std::find_if(jobs_.begin(), jobs_.end(), [&](const auto & other) { return other.get() == &job; });
    if (queued != jobs_.end() && !job.begun) {
        const std::shared_ptr<kollama::job> keep = *queued;
        jobs_.erase(queued);
        finish(job, KOLLAMA_ERROR_ABORTED, "cancelled");
    }
}

} // namespace kollama
