// News of generations for one thread that watches all those of a context, so that an event loop need
// not wait in any of them.

#include "generation.h"

#include <chrono>

namespace kollama {

// Under the mutex. Whoever holds it rings once it has changed all it wants to.
void engine::announce(generation & gen) {
    gen.news.notify_all();
    const bool wanted = gen.armed == generation::watched::for_all ||
                        (gen.armed == generation::watched::for_end && (gen.status != KOLLAMA_PENDING || gen.awaits_choice));
    if (wanted) {
        gen.armed = generation::watched::no;
        told_.push_back(gen.key); // look made room for it
    }
}

void engine::ring() {
    if (!told_.empty()) {
        watch_.notify_one();
    }
}

kollama_news engine::look(generation & gen, bool for_end) {
    std::lock_guard<std::mutex> lock(mutex_);
    if (gen.status != KOLLAMA_PENDING) {
        return KOLLAMA_NEWS_END;
    }
    if (!gen.events.empty() && !for_end) {
        return KOLLAMA_NEWS_TOKEN;
    }
    if (gen.awaits_choice && !gen.choosing && gen.events.empty()) {
        return KOLLAMA_NEWS_CHOICE;
    }
    told_.reserve(told_.size() + generations_.size() + 1);
    gen.armed = for_end ? generation::watched::for_end : generation::watched::for_all;
    return KOLLAMA_NEWS_NONE;
}

kollama_status engine::wait_news(int32_t timeout_ms, std::vector<uint64_t> & keys) {
    std::unique_lock<std::mutex> lock(mutex_);
    watch_.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return !told_.empty() || unwatched_; });
    keys = told_;
    told_.clear(); // keeps the room that look made
    if (!keys.empty()) {
        return KOLLAMA_OK;
    }
    return unwatched_ ? KOLLAMA_END : KOLLAMA_PENDING;
}

void engine::end_watch() {
    std::lock_guard<std::mutex> lock(mutex_);
    unwatched_ = true;
    watch_.notify_all();
}

} // namespace kollama

using namespace kollama;

struct kollama_watch {
    std::shared_ptr<engine> owner;
    std::vector<uint64_t>   keys;
};

kollama_status kollama_watch_init(kollama_context * ctx, kollama_watch ** out) {
    return guarded([&] { *out = new kollama_watch{ ctx->engine, {} }; });
}

void kollama_watch_free(kollama_watch * watch) {
    delete watch;
}

kollama_status kollama_watch_wait(kollama_watch * watch, int32_t timeout_ms, const uint64_t ** keys, size_t * n_keys) {
    const kollama_status status = watch->owner->wait_news(timeout_ms, watch->keys);
    *keys   = watch->keys.data();
    *n_keys = watch->keys.size();
    return status;
}

void kollama_watch_end(kollama_watch * watch) {
    watch->owner->end_watch();
}
