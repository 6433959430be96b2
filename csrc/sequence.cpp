// Jobs and sequences: the part of the C face that hands work to an engine.

#include "engine.h"

#include <algorithm>
#include <cstring>

using namespace kollama;

kollama_status kollama_job_wait(kollama_job * job, int32_t timeout_ms) {
    return job->owner->wait(*job->state, timeout_ms);
}

void kollama_job_cancel(kollama_job * job) {
    job->owner->cancel(*job->state);
}

void kollama_job_free(kollama_job * job) {
    delete job;
}

static void submit_job(const std::shared_ptr<engine> & e, std::shared_ptr<sequence> seq, std::function<void(job &)> work,
                       kollama_job ** out) {
    auto handle   = std::make_unique<kollama_job>();
    handle->owner = e;
    handle->state = e->submit(std::move(seq), std::move(work));
    *out          = handle.release();
}

void kollama::submit_job(kollama_sequence * seq, std::function<void(job &)> work, kollama_job ** out) {
    ::submit_job(seq->engine, seq->state, std::move(work), out);
}

void kollama::submit_job(kollama_context & ctx, std::function<void(job &)> work, kollama_job ** out) {
    ::submit_job(ctx.engine, nullptr, std::move(work), out);
}

kollama_row * sequence::take_row() const {
    if (!row_valid) {
        throw failure(KOLLAMA_ERROR_STATE, "there are no logits: append a token first");
    }
    ++row->owners;
    return row;
}

namespace {

struct appending {
    std::shared_ptr<sequence> seq;
    std::vector<int32_t>      tokens;
    size_t                    n_done   = 0;
    size_t                    n_before = 0;
    bool                      had_row  = false;
};

// Reads the next tokens of them; where it throws, the sequence is as it was before the first.
void append_part(engine & e, kollama::job & job, appending & a) {
    sequence & seq = *a.seq;
    if (a.n_done == 0) {
        a.n_before = seq.tokens.size();
        a.had_row  = seq.row_valid;
    }
    try {
        if (!seq.row) {
            seq.row = new kollama_row(e.n_vocab());
        }
        e.check_cancelled(job);
        const size_t            n    = std::min(e.n_part(), a.tokens.size() - a.n_done);
        const bool              last = a.n_done + n == a.tokens.size();
        std::vector<batch_item> items{ { &seq, a.tokens.data() + a.n_done, n, last } };
        e.decode(items);
        a.n_done += n;
        job.again = !last;
        if (last) {
            e.check_cancelled(job); // one that came after the last graph: not too late
            std::memcpy(seq.row->logits.data(), e.logits_of(items[0]), e.n_vocab() * sizeof(float));
            seq.row_valid = true;
        }
    } catch (const engine_failure &) {
        throw; // nothing runs in this context any more
    } catch (...) {
        if (seq.tokens.size() < a.n_before) {
            throw failure(KOLLAMA_ERROR_DECODE, "it failed, and this model's memory cannot go back: the sequence is now empty");
        }
        e.rewind(seq, a.n_before);
        seq.row_valid = a.had_row; // the row was not touched
        throw;
    }
}

} // namespace

kollama_status kollama_sequence_init(kollama_context * ctx, kollama_sequence ** out) {
    return guarded([&] { *out = new kollama_sequence{ ctx->engine, ctx->engine->take_slot() }; });
}

void kollama_sequence_free(kollama_sequence * seq) {
    if (seq) {
        seq->engine->drop_slot(*seq->state);
        delete seq;
    }
}

kollama_status kollama_sequence_append(kollama_sequence * seq, const int32_t * tokens, size_t n_tokens, kollama_job ** out) {
    return guarded([&] {
        engine & e = *seq->engine;
        if (n_tokens == 0) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, "there is no token to append");
        }
        for (size_t i = 0; i < n_tokens; i++) {
            check_token(e.model(), tokens[i]);
        }
        e.with_idle(*seq->state, [&] {
            const size_t n_before = seq->state->tokens.size();
            if (n_tokens > e.n_ctx() - n_before) {
                throw failure(KOLLAMA_ERROR_CONTEXT_FULL, format("%zu tokens after the %zu already there are more than n_ctx=%zu",
                                                                 n_tokens, n_before, e.n_ctx()));
            }
        });
        auto all = std::make_shared<appending>();
        all->seq = seq->state;
        all->tokens.assign(tokens, tokens + n_tokens);
        auto work = [&e, all](kollama::job & job) { append_part(e, job, *all); };
        submit_job(seq, std::move(work), out);
    });
}

kollama_status kollama_sequence_rewind(kollama_sequence * seq, size_t n_keep, kollama_job ** out) {
    return guarded([&] {
        engine & e = *seq->engine;
        e.with_idle(*seq->state, [&] {
            const size_t length = seq->state->tokens.size();
            if (n_keep > length) {
                throw failure(KOLLAMA_ERROR_ARGUMENT, format("cannot keep the first %zu tokens of %zu", n_keep, length));
            }
        });
        auto work = [&e, state = seq->state, n_keep](kollama::job &) {
            e.rewind(*state, n_keep);
            state->row_valid = false;
        };
        submit_job(seq, std::move(work), out);
    });
}

kollama_status kollama_sequence_fork(kollama_sequence * seq, kollama_sequence * dst, kollama_job ** out) {
    auto work = [e = seq->engine.get(), src = seq->state, dst = dst->state](kollama::job &) { e->fork(*src, *dst); };
    return guarded([&] { submit_job(seq, std::move(work), out); });
}

kollama_status kollama_sequence_length(kollama_sequence * seq, size_t * n_tokens) {
    return guarded([&] { seq->engine->with_idle(*seq->state, [&] { *n_tokens = seq->state->tokens.size(); }); });
}

kollama_status kollama_sequence_tokens(kollama_sequence * seq, int32_t * tokens, size_t n_tokens) {
    return guarded([&] {
        seq->engine->with_idle(*seq->state, [&] {
            std::copy_n(seq->state->tokens.begin(), std::min(n_tokens, seq->state->tokens.size()), tokens);
        });
    });
}

kollama_status kollama_sequence_logits(kollama_sequence * seq, kollama_row ** out) {
    return guarded([&] {
        seq->engine->with_idle(*seq->state, [&] { *out = seq->state->take_row(); });
    });
}
