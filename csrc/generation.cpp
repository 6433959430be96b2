#include "generation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

namespace kollama {

void generation::give_sampler_back() {
    sampler->in_use = false;
    sampler         = nullptr;
}

void generation::release() {
    owner->set_idle(*seq);
    if (!choosing) {
        give_sampler_back();
    }
    owner->announce(*this);
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

bool generation::wants_step() const {
    if (status != KOLLAMA_PENDING || cancelled || awaits_choice) {
        return false;
    }
    if (forced >= 0 || pending < 0) {
        return true;
    }
    if (steps || (shifts_next() && ahead != INT32_MAX)) { // before a shift the last token must be the consumer's
        return asking && events.empty();
    }
    return events.size() < ahead;
}

// Keeps what memory and target have in common. Of a target that is all there the last token is read
// again: its logits are needed.
void generation::begin(engine & e) {
    begun = true;
    if (target.size() > e.n_ctx()) {
        throw failure(KOLLAMA_ERROR_CONTEXT_FULL, format("the prompt has %zu tokens, n_ctx is %zu", target.size(), e.n_ctx()));
    }
    if (!resumes()) {
        e.borrow(seq, target);
    }
    const size_t limit   = std::min(resumes() ? seq->tokens.size() : seq->n_exact(), target.size() - 1);
    n_read               = 0;
    while (n_read < limit && seq->tokens[n_read] == target[n_read]) {
        n_read++;
    }
    seq->row_valid = false; // this loop samples from llama.cpp's own row
    try {
        e.rewind(*seq, n_read);
    } catch (const failure &) {
        n_read = 0; // a memory that cannot go back is empty now
    }
    if (!resumes()) {
        n_reused = n_read;
    }
    if (e.drafts() && !calls_back && !draft) {
        draft = std::make_unique<stream_draft>();
    }
}

batch_item generation::next_item(engine & e, size_t budget) {
    if (shifts_next()) {
        shift(e);
    }
    if (pending >= 0) {
        return { seq.get(), &pending, 1, true };
    }
    const size_t n = std::min(budget, target.size() - n_read);
    return { seq.get(), target.data() + n_read, n, n_read + n == target.size() };
}

// None where a token that is sent may replace the next one: it is not to be computed before it is asked
// for. Nor beyond what the text may have, or a shift, which comes when it would come without.
size_t generation::n_guessable(const engine & e) const {
    if (!draft || keeps_row) {
        return 0;
    }
    const size_t full = shift_at > 0 ? shift_at : e.n_ctx(), n_then = seq->tokens.size() + 1;
    size_t       n    = std::min({ drafting::MOST, full > n_then ? full - n_then : 0, ahead - 1 });
    if (max_tokens >= 0) {
        n = std::min(n, static_cast<size_t>(max_tokens) - n_generated() - 1);
    }
    return n;
}

// Drops the older half of what need not be kept.
void generation::shift(engine & e) {
    const size_t n_drop = std::max<size_t>(1, (seq->tokens.size() - n_keep) / 2);
    e.shift(*seq, n_keep, n_drop, true);
    n_dropped += n_drop;
    shifted_at = n_generated();
}

std::vector<int32_t> generation::in_memory() const {
    std::vector<int32_t> tokens(history);
    tokens.erase(tokens.begin() + static_cast<ptrdiff_t>(n_dropped ? n_keep : 0),
                 tokens.begin() + static_cast<ptrdiff_t>(n_dropped ? n_keep + n_dropped : 0));
    return tokens;
}

kollama_sampler::choice generation::sample(engine & e, float * logits, row_scan * scan) {
    if (!ignore_eos) {
        return sampler->sample(logits, e.n_vocab(), history, true, n_told, scan);
    }
    masked.clear();
    for (int32_t id : e.eog_tokens()) {
        masked.push_back(logits[id]);
        logits[id] = -std::numeric_limits<float>::infinity();
    }
    kollama_sampler::choice chosen = sampler->sample(logits, e.n_vocab(), history, true, n_told);
    for (size_t i = 0; i < masked.size(); i++) {
        logits[e.eog_tokens()[i]] = masked[i];
    }
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
        } else if (sampler->ended()) {
            how = KOLLAMA_FINISH_STOP;
            stops.flush(bytes);
        } else if ((max_tokens >= 0 && n_generated() >= static_cast<size_t>(max_tokens)) ||
                   (shift_at == 0 && seq->tokens.size() >= e.n_ctx())) {
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
    float * logits = e.logits_of(item);
    if (calls_back || keeps_row) {
        row.assign(logits, logits + e.n_vocab());
        row_at = n_generated();
    }
    if (calls_back && sent < 0) {
        std::lock_guard<std::mutex> lock(mutex);
        awaits_choice = forced < 0;
        e.announce(*this);
        return;
    }
    std::vector<event> decided;
    std::exception_ptr failed;
    try {
        decide_all(e, item, decided);
    } catch (...) {
        failed = std::current_exception();
    }
    if (item.n_guesses > 0) {
        e.take_back_guesses(*seq); // before the consumer may have the sequence back
    }
    {
        std::lock_guard<std::mutex> lock(mutex);
        publish_all(decided);
    }
    if (failed) {
        std::rethrow_exception(failed);
    }
}

// A token of each row, for as long as they are those that were guessed: what is drawn from a row behind
// a wrong guess would follow another text.
void generation::decide_all(engine & e, const batch_item & item, std::vector<event> & events) {
    size_t n_right = 0;
    for (;;) {
        events.push_back(decide(e, e.logits_of(item, n_right), n_right == 0 ? item.scan : nullptr));
        const bool is_last  = events.back().finish != KOLLAMA_FINISH_NONE;
        const bool is_wrong = n_right < item.n_guesses && draft->guesses[n_right] != pending;
        if (is_last || is_wrong || n_right == item.n_guesses) {
            if (draft) {
                e.drafts()->saw(*draft, item.n_guesses, n_right, is_wrong, pending);
            }
            return;
        }
        seq->tokens.push_back(pending); // decode made room
        n_right++;
    }
}

generation::event generation::decide(engine & e, float * logits, row_scan * scan) {
    event event;
    if (!scan && (n_top > 0 || sent >= 0)) {
        own_scan.read(logits, e.n_vocab());
        scan = &own_scan;
    }
    if (n_top > 0) {
        top_of_row(logits, e.n_vocab(), std::min(n_top, e.n_vocab()), scan->block_max, order, top);
        for (const row_entry & entry : top) {
            event.top.push_back({ entry.id, entry.logit - scan->log_total });
        }
    }
    const bool                    sampled = sent < 0;
    const kollama_sampler::choice chosen  = choose(e, logits, scan);
    pending       = chosen.token;
    event.token   = chosen.token;
    event.logprob = chosen.logprob;
    history.push_back(chosen.token);
    n_told        = sampled ? history.size() : 0;
    event.finish  = take(e, chosen.token);
    event.text    = text;
    return event;
}

// The sampler's choice, or the token that was sent in its place.
kollama_sampler::choice generation::choose(engine & e, float * logits, row_scan * scan) {
    if (sent < 0) {
        const kollama_sampler::choice chosen = sample(e, logits, scan);
        marks.push_back(sampler->here());
        return chosen;
    }
    if (sampler->chain) {
        sampler->chain->check_allows(history, sent);
    }
    const int32_t token = std::exchange(sent, -1);
    return { token, logits[token] - scan->log_total };
}

void generation::publish_all(std::vector<event> & events) {
    if (draft) {
        n_drafted  = draft->n_drafted;
        n_accepted = draft->n_accepted;
    }
    for (event & event : events) {
        publish(std::move(event));
    }
}

void generation::publish(event event) {
    if (forced >= 0) {
        return; // it follows a token that was replaced meanwhile
    }
    while (first_mark + 1 < n_handed) {
        marks.pop_front();
        first_mark++;
    }
    const kollama_finish how = event.finish;
    last = clock::now();
    if (first == clock::time_point{}) {
        first = last;
    }
    events.push_back(std::move(event));
    if (how != KOLLAMA_FINISH_NONE) {
        end(how); // announces it
    } else {
        owner->announce(*this);
    }
}

} // namespace kollama

using namespace kollama;

struct kollama_generation {
    std::shared_ptr<engine>     owner;
    std::shared_ptr<generation> state;
};

namespace {

void check_shift(const engine & e, const generation & gen) {
    if (gen.shift_at == 0) {
        return;
    }
    e.check_can_shift();
    if (gen.shift_at > e.n_ctx() || gen.n_keep + 2 > gen.shift_at || gen.n_keep > gen.prompt.size()) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, format("n_keep is %zu; of a prompt of %zu tokens it can be 0 to %zu", gen.n_keep,
                                                     gen.prompt.size(), std::min(gen.prompt.size(), gen.shift_at - 2)));
    }
}

} // namespace

kollama_status kollama_generation_init(kollama_sequence * seq, kollama_sampler * sampler, const int32_t * prompt, size_t n_prompt,
                                       const kollama_generation_params * params, kollama_generation ** out) {
    return guarded([&] {
        auto gen        = std::make_shared<generation>();
        gen->seq        = seq->state;
        gen->max_tokens = params->max_tokens;
        gen->shift_at   = params->shift_at;
        gen->n_keep     = params->n_keep;
        gen->ignore_eos = params->ignore_eos;
        gen->ahead      = std::max(1, params->ahead);
        gen->n_top      = params->n_top;
        gen->key        = params->key;
        gen->watch      = params->watch ? params->watch->state : nullptr;
        if (n_prompt == 0) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, "the prompt has no tokens");
        }
        for (size_t i = 0; i < n_prompt; i++) {
            check_token(seq->engine->model(), prompt[i]);
        }
        gen->prompt.assign(prompt, prompt + n_prompt);
        gen->target = gen->history = gen->prompt;
        check_shift(*seq->engine, *gen);
        for (size_t i = 0; i < params->n_stops; i++) {
            if (params->stop_lengths[i] == 0) {
                throw failure(KOLLAMA_ERROR_ARGUMENT, "a stop string is empty");
            }
            gen->stops.add({ params->stops[i], params->stop_lengths[i] });
        }
        gen->replay(*seq->engine->model()->tokenizer);
        auto handle = std::make_unique<kollama_generation>(kollama_generation{ seq->engine, gen });
        const auto   pin = seq->engine->pin_model();
        sampler_hold hold(sampler, "this sampler is in use by another generation");
        sampler->bind(*seq->engine->model());
        sampler->begin();
        gen->calls_back = sampler->chain && sampler->chain->calls_back();
        seq->engine->start(gen, hold);
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

kollama_news kollama_generation_look(kollama_generation * gen, bool for_end) {
    return gen->owner->look(*gen->state, for_end);
}

kollama_status kollama_generation_send(kollama_generation * gen, kollama_sampler * sampler, int32_t token) {
    return guarded([&] {
        const auto pin = gen->owner->pin_model();
        check_token(gen->owner->model(), token);
        gen->owner->send(gen->state, sampler, token);
    });
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
