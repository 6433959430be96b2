// News of generations for threads that watch many of them, so that an event loop, or one thread with
// several requests, need not wait in any of them.

#include "generation.h"

#include <algorithm>
#include <chrono>

namespace kollama {

// Under the mutex. Whoever holds it rings once it has changed all it wants to.
void engine::announce(generation & gen) {
    gen.news.notify_all();
    const bool wanted = gen.armed == generation::watched::for_all ||
                        (gen.armed == generation::watched::for_end && (gen.status != KOLLAMA_PENDING || gen.awaits_choice));
    if (wanted) {
        gen.armed = generation::watched::no;
        gen.watch->told.push_back(gen.key); // look made room for it
    }
}

void engine::ring() {
    for (const auto & weak : watches_) {
        const auto watch = weak.lock();
        if (watch && !watch->told.empty()) {
            watch->news.notify_one();
        }
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
    if (gen.watch) {
        auto & told = gen.watch->told;
        told.reserve(told.size() + generations_.size() + 1);
        gen.armed = for_end ? generation::watched::for_end : generation::watched::for_all;
    }
    return KOLLAMA_NEWS_NONE;
}

std::shared_ptr<watch_state> engine::make_watch() {
    auto                        made = std::make_shared<watch_state>();
    std::lock_guard<std::mutex> lock(mutex_);
    made->over = ended_;
    watches_.erase(std::remove_if(watches_.begin(), watches_.end(), [](const auto & weak) { return weak.expired(); }), watches_.end());
    watches_.push_back(made);
    return made;
}

kollama_status engine::wait_news(watch_state & watch, int32_t timeout_ms, std::vector<uint64_t> & keys) {
    std::unique_lock<std::mutex> lock(mutex_);
    watch.news.wait_for(lock, std::chrono::milliseconds(timeout_ms), [&] { return !watch.told.empty() || watch.over; });
    keys = watch.told;
    watch.told.clear(); // keeps the room that look made
    if (!keys.empty()) {
        return KOLLAMA_OK;
    }
    return watch.over ? KOLLAMA_END : KOLLAMA_PENDING;
}

void engine::tell(watch_state & watch, uint64_t key) {
    std::lock_guard<std::mutex> lock(mutex_);
    watch.told.reserve(watch.told.size() + generations_.size() + 2); // leaves the room that look made
    watch.told.push_back(key);
    watch.news.notify_one();
}

void engine::end_watch(watch_state & watch) {
    std::lock_guard<std::mutex> lock(mutex_);
    watch.over = true;
    watch.news.notify_all();
}

void engine::end_watches() {
    for (const auto & weak : watches_) {
        if (const auto watch = weak.lock()) {
            watch->over = true;
            watch->news.notify_all();
        }
    }
}

} // namespace kollama

using namespace kollama;

kollama_status kollama_watch_init(kollama_context * ctx, kollama_watch ** out) {
    return guarded([&] { *out = new kollama_watch{ ctx->engine, ctx->engine->make_watch(), {} }; });
}

void kollama_watch_free(kollama_watch * watch) {
    delete watch;
}

kollama_status kollama_watch_wait(kollama_watch * watch, int32_t timeout_ms, const uint64_t ** keys, size_t * n_keys) {
    const kollama_status status = watch->owner->wait_news(*watch->state, timeout_ms, watch->keys);
    *keys   = watch->keys.data();
    *n_keys = watch->keys.size();
    return status;
}

kollama_status kollama_watch_tell(kollama_watch * watch, uint64_t key) {
    return guarded([&] { watch->owner->tell(*watch->state, key); });
}

void kollama_watch_end(kollama_watch * watch) {
    watch->owner->end_watch(*watch->state);
}
