// A token of a generation that its consumer replaces: what was computed beyond it is undone, and the
// stream goes on from the token that was sent. From then on nothing is computed before it is asked for.

#include "generation.h"

#include <algorithm>
#include <utility>

namespace kollama {

// The last token that was handed out is replaced. It may have ended the generation, which then goes on.
void engine::send(const std::shared_ptr<generation> & gen, kollama_sampler * sampler, int32_t token) {
    std::lock_guard<std::mutex> lock(mutex_);
    check_open();
    if (gen->n_handed == 0) {
        throw failure(KOLLAMA_ERROR_STATE, "no token was generated yet: there is none to replace");
    }
    if (gen->cancelled || gen->finish == KOLLAMA_FINISH_CANCELLED) {
        throw failure(KOLLAMA_ERROR_CLOSED, "the generation was closed");
    }
    if (gen->status == KOLLAMA_OK) {
        revive(gen, sampler);
    } else if (gen->status != KOLLAMA_PENDING) {
        throw failure(gen->status, gen->reason);
    }
    gen->events.clear();
    gen->awaits_choice = false;
    gen->steps         = true;
    gen->forced        = token;
    gen->n_handed--;
    work_.notify_one();
}

// Takes sequence and sampler again.
void engine::revive(const std::shared_ptr<generation> & gen, kollama_sampler * sampler) {
    if (gen->seq->busy || gen->seq->dropped) {
        throw failure(KOLLAMA_ERROR_BUSY, "the generation had ended, and another call works on its sequence");
    }
    generations_.reserve(generations_.size() + 1);
    sampler_hold hold(sampler, "the generation had ended, and another one uses its sampler");
    if (sampler->n_streams != gen->n_stream) {
        throw failure(KOLLAMA_ERROR_STATE, "the generation had ended, and its sampler has served another stream since");
    }
    gen->sampler   = hold.keep();
    gen->seq->busy = true;
    gen->status    = KOLLAMA_PENDING;
    gen->finish    = KOLLAMA_FINISH_NONE;
    gen->incomplete.clear();
    if (std::find(generations_.begin(), generations_.end(), gen) == generations_.end()) {
        generations_.push_back(gen);
    }
}

// Under the mutex: from the consumer to the engine thread.
void generation::take_forced() {
    if (forced >= 0) {
        sent     = std::exchange(forced, -1);
        place    = n_handed;
        replaces = keeps_row = true;
    }
}

bool generation::replace(engine & e, std::mutex & mutex) {
    replaces = false;
    if (n_dropped > 0 && place + 1 < shifted_at) {
        throw failure(KOLLAMA_ERROR_STATE, "the context was shifted after this token: it cannot be replaced any more");
    }
    while (first_mark + marks.size() > place + 1) {
        marks.pop_back();
    }
    kollama_sampler::mark mark = std::move(marks.back());
    sampler->go_to(std::move(mark));
    history.resize(prompt.size() + place);
    n_told       = 0;
    if (draft) {
        draft->lookup.cut(history.size());
    }
    marks.back() = sampler->here();
    pending      = -1;
    replay(*e.model()->tokenizer);
    target = in_memory();
    if (row_at != place || seq->tokens != target) {
        begun = false;
        return false;
    }
    event event = decide(e, row.data());
    std::lock_guard<std::mutex> lock(mutex);
    publish(std::move(event));
    return true;
}

void generation::replay(const tokenizer & tokenizer) {
    stops.reset();
    utf8 = utf8_stream(tokenizer.text.replaces_each_byte);
    for (size_t i = prompt.size(); i < history.size(); i++) {
        bytes.clear();
        text.clear();
        stops.push(tokenizer.vocab.special[static_cast<size_t>(history[i])] ? "" : tokenizer.texts().bytes(history[i]), bytes);
        utf8.push(bytes, text);
    }
}

} // namespace kollama
