// Samplers in the C face.

#include "engine.h"
#include "sampler.h"

#include <utility>

using namespace kollama;

kollama_sampler::kollama_sampler(const kollama_sampler & other) :
    counted(other),
    params(other.params),
    chain(other.chain ? std::make_unique<kollama::chain>(*other.chain) : nullptr),
    forbids(other.forbids),
    rng(other.rng) {}

void kollama_sampler::bind(const kollama_model & model) {
    if (chain) {
        chain->bind(model);
    }
}

void kollama_sampler::begin() {
    n_streams++;
    if (chain) {
        chain->begin();
    }
}

kollama_sampler::mark kollama_sampler::here() const {
    return { rng.n_drawn(), chain ? chain->state() : std::vector<std::unique_ptr<link>>() };
}

void kollama_sampler::go_to(mark mark) {
    rng.go_to(mark.n_drawn);
    if (chain) {
        chain->restore(std::move(mark.links));
    }
}

namespace kollama {

sampler_hold::sampler_hold(kollama_sampler * sampler, const char * busy) : sampler_(sampler) {
    if (sampler->in_use.exchange(true)) {
        sampler_ = nullptr;
        throw failure(KOLLAMA_ERROR_BUSY, busy);
    }
}

sampler_hold::~sampler_hold() {
    if (sampler_) {
        sampler_->in_use = false;
    }
}

kollama_sampler * sampler_hold::keep() {
    return std::exchange(sampler_, nullptr);
}

} // namespace kollama

namespace {

constexpr const char * BUSY = "this sampler is in use by a generation or another thread";

kollama::chain & chain_of(kollama_sampler * sampler) {
    if (!sampler->chain) {
        sampler->chain = std::make_unique<kollama::chain>();
    }
    return *sampler->chain;
}

template <class F> kollama_status add(kollama_sampler * sampler, F make) {
    return guarded([&] {
        sampler_hold hold(sampler, BUSY);
        chain_of(sampler).add(make());
    });
}

std::string text_of(const kollama_text & text) {
    return { text.data, text.size };
}

} // namespace

kollama_sampler * kollama_sampler_init(const kollama_sampler_params * params) {
    return new (std::nothrow) kollama_sampler(*params);
}

void kollama_sampler_free(kollama_sampler * sampler) {
    delete sampler;
}

kollama_status kollama_sampler_clone(kollama_sampler * sampler, kollama_sampler ** out) {
    return guarded([&] {
        sampler_hold hold(sampler, BUSY);
        *out = new kollama_sampler(*sampler);
    });
}

kollama_status kollama_sampler_add(kollama_sampler * sampler, kollama_link_kind kind, const double * values, size_t n_values) {
    return add(sampler, [&] {
        return make_native(kind, values, n_values, seed_for(sampler->params.seed, chain_of(sampler).size()));
    });
}

kollama_status kollama_sampler_add_dry(kollama_sampler * sampler, const double * values, size_t n_values,
                                       const kollama_text * breakers, size_t n_breakers) {
    return add(sampler, [&] {
        std::vector<std::string> texts;
        for (size_t i = 0; i < n_breakers; i++) {
            texts.push_back(text_of(breakers[i]));
        }
        return make_dry(values, n_values, std::move(texts));
    });
}

kollama_status kollama_sampler_add_bias(kollama_sampler * sampler, const int32_t * ids, const kollama_text * texts,
                                        const float * biases, size_t count) {
    return add(sampler, [&] {
        std::vector<llama_logit_bias>              by_id;
        std::vector<std::pair<std::string, float>> by_text;
        for (size_t i = 0; i < count; i++) {
            if (texts[i].data) {
                by_text.emplace_back(text_of(texts[i]), biases[i]);
            } else {
                by_id.push_back({ ids[i], biases[i] });
            }
        }
        return make_bias(std::move(by_id), std::move(by_text));
    });
}

kollama_status kollama_sampler_add_grammar(kollama_sampler * sampler, const kollama_text * grammar, const kollama_text * root) {
    return add(sampler, [&] { return make_grammar(text_of(*grammar), text_of(*root)); });
}

kollama_status kollama_sampler_add_callback(kollama_sampler * sampler, const kollama_text * name, size_t index) {
    return add(sampler, [&] { return make_callback(text_of(*name), index); });
}

void kollama_sampler_set_callback(kollama_sampler * sampler, kollama_callback callback, void * user) {
    kollama::chain & chain = chain_of(sampler);
    chain.callback         = callback;
    chain.user             = user;
}

kollama_status kollama_sampler_add_matcher(kollama_sampler * sampler, const kollama_text * name, size_t index) {
    return add(sampler, [&] { return make_matcher(text_of(*name), index); });
}

void kollama_sampler_set_matchers(kollama_sampler * sampler, const kollama_matcher_calls * calls, void * user) {
    kollama::chain & chain = chain_of(sampler);
    chain.matcher_calls    = *calls;
    chain.matcher_user     = user;
}

void kollama_sampler_choose_by_params(kollama_sampler * sampler) {
    sampler->forbids = true;
}

kollama_status kollama_sampler_sample(kollama_sampler * sampler, kollama_sequence * seq, int32_t * token) {
    return guarded([&] {
        sampler_hold hold(sampler, BUSY);
        const bool   needs_tokens = sampler->chain && sampler->chain->needs_tokens();
        const auto   pin          = seq->engine->pin_model();
        // Copied while no append can begin, which writes the row; into its array the caller may write at any time.
        seq->engine->with_idle(*seq->state, [&] {
            kollama_row * row = seq->state->take_row();
            sampler->copy     = row->logits;
            kollama_row_release(row);
            if (needs_tokens) {
                sampler->tokens = seq->state->tokens;
            }
        });
        sampler->n_streams++;
        sampler->bind(*seq->engine->model());
        *token = sampler->sample(sampler->copy.data(), sampler->copy.size(), sampler->tokens, false).token;
    });
}
