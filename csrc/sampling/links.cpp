// The links that are llama.cpp's samplers.

#include "chain.h"
#include "model.h"

#include <algorithm>
#include <limits>

namespace kollama {
namespace {

constexpr llama_token NO_TOKEN = -2; // -1 is adaptive-p's "none pending", and it asserts on that
constexpr size_t INFILL_CANDIDATES = 4096; // it compares each with each

struct sampler_free {
    void operator()(llama_sampler * sampler) const { llama_sampler_free(sampler); }
};
using sampler_ptr = std::unique_ptr<llama_sampler, sampler_free>;

struct traits {
    bool    changes_logits = false;
    bool    fears_zeros    = false; // takes the logarithm of a probability
    bool    chooses        = false;
    bool    keeps_state    = false; // random numbers, or a running mean, of its own
    int32_t window         = 0; // of the stream that it remembers; -1: n_ctx_train
};

// A sampler of llama.cpp. Some need the vocabulary, so all are made when the model is known.
class native_link : public link {
  public:
    using make = std::function<llama_sampler *(const kollama_model &, int32_t window)>;

    native_link(std::string name, const traits & traits, make make) :
        link(std::move(name)), traits_(traits), make_(std::move(make)) {}

    void bind(const kollama_model & model) override {
        const int32_t n_train = std::clamp(llama_model_n_ctx_train(model.handle), 1, KOLLAMA_MAX_LAST_N);
        window_               = traits_.window < 0 ? n_train : traits_.window;
        sampler_.reset(make_(model, window_));
        if (!sampler_) {
            throw failure(KOLLAMA_ERROR_STATE, "llama.cpp cannot make the sampler " + name);
        }
    }

    void begin(const std::vector<int32_t> & tokens) override {
        if (!remembers()) {
            return;
        }
        llama_sampler_reset(sampler_.get());
        const size_t n = std::min<size_t>(window_, tokens.size());
        for (size_t i = tokens.size() - n; i < tokens.size(); i++) {
            llama_sampler_accept(sampler_.get(), tokens[i]);
        }
    }

    void accept(int32_t token) override { llama_sampler_accept(sampler_.get(), token); }

    void apply(step & s) override {
        if (traits_.fears_zeros) {
            drop_unlikely(s);
        }
        run(s.cur);
        if (traits_.changes_logits) {
            settle(s, "the sampler " + name);
        }
    }

    bool chooses() const override { return traits_.chooses; }
    bool remembers() const override { return traits_.window != 0; }
    bool keeps_state() const override { return traits_.keeps_state; }

    std::unique_ptr<link> clone() const override {
        auto copy = std::make_unique<native_link>(name, traits_, make_);
        copy->take_over(*this);
        return copy;
    }

  protected:
    void run(llama_token_data_array & candidates) {
        try {
            llama_sampler_apply(sampler_.get(), &candidates);
        } catch (const engine_failure & e) { // nothing but this sampler is broken
            throw failure(KOLLAMA_ERROR_STATE, "the sampler " + name + " failed: " + e.what());
        }
    }

    // The state of another of this kind.
    void take_over(const native_link & other) {
        window_ = other.window_;
        if (other.sampler_) {
            sampler_.reset(llama_sampler_clone(other.sampler_.get()));
        }
    }

    const traits traits_;
    const make   make_;
    sampler_ptr  sampler_;
    int32_t      window_ = 0;
};

// llama.cpp's clone of it begins its random numbers anew: they are drawn again up to where they were.
class adaptive_link : public native_link {
  public:
    adaptive_link(const traits & traits, make make) : native_link("adaptive_p", traits, std::move(make)) {}

    void bind(const kollama_model & model) override {
        n_drawn_ = 0;
        native_link::bind(model);
    }

    void apply(step & s) override {
        native_link::apply(s);
        n_drawn_ += s.cur.size > 1 ? 1 : 0; // one candidate is taken without a draw
    }

    std::unique_ptr<link> clone() const override {
        auto copy = std::make_unique<adaptive_link>(traits_, make_);
        if (sampler_) {
            copy->sampler_.reset(llama_sampler_clone(sampler_.get()));
            for (copy->n_drawn_ = 0; copy->n_drawn_ < n_drawn_; copy->n_drawn_++) {
                llama_token_data       two[2] = { { 0, 0, 0 }, { 1, 0, 0 } };
                llama_token_data_array array  = { two, 2, -1, false };
                llama_sampler_apply(copy->sampler_.get(), &array);
            }
            llama_sampler_accept(copy->sampler_.get(), NO_TOKEN); // none of these was chosen
        }
        return copy;
    }

  private:
    size_t n_drawn_ = 0;
};

// Of a row the k largest are found without a list of all.
class top_k_link : public native_link {
  public:
    explicit top_k_link(int32_t k) :
        native_link("top_k", {}, [k](const kollama_model &, int32_t) { return llama_sampler_init_top_k(k); }), k_(k) {}

    bool takes_row() const override { return k_ > 0; }

    void apply(step & s) override {
        if (!s.row) {
            native_link::apply(s);
            return;
        }
        scan_row_of(s, block_max_);
        top_of_row(s.row, s.n_vocab, std::min(static_cast<size_t>(k_), s.n_vocab), block_max_, order_, top_);
        s.storage.clear();
        for (const row_entry & entry : top_) {
            s.storage.push_back({ entry.id, entry.logit, 0.0f });
        }
        s.row = nullptr;
        s.cur = { s.storage.data(), s.storage.size(), -1, true };
        settle(s, s.blamed);
    }

    std::unique_ptr<link> clone() const override {
        auto copy = std::make_unique<top_k_link>(k_);
        copy->take_over(*this);
        return copy;
    }

  private:
    const int32_t          k_;
    std::vector<float>     block_max_, order_;
    std::vector<row_entry> top_;
};

// Penalties and DRY change the logits of tokens that were there: of a row they are shown no others.
class repetition_link : public native_link {
  public:
    using native_link::native_link;

    bool takes_row() const override { return true; }

    void apply(step & s) override {
        if (!s.row) {
            native_link::apply(s);
            return;
        }
        copy_row(s, logits_);
        const size_t n = std::min<size_t>(static_cast<size_t>(window_), s.tokens.size());
        recent_.assign(s.tokens.end() - static_cast<ptrdiff_t>(n), s.tokens.end());
        std::sort(recent_.begin(), recent_.end());
        recent_.erase(std::unique(recent_.begin(), recent_.end()), recent_.end());
        candidates_.clear();
        for (const int32_t id : recent_) {
            if (const float logit = logits_[static_cast<size_t>(id)]; logit != -std::numeric_limits<float>::infinity()) {
                candidates_.push_back({ id, logit, 0.0f });
            }
        }
        llama_token_data_array few{ candidates_.data(), candidates_.size(), -1, false };
        run(few);
        for (size_t i = 0; i < few.size; i++) {
            logits_[static_cast<size_t>(few.data[i].id)] = few.data[i].logit;
        }
        s.blamed = "the sampler " + name;
    }

    std::unique_ptr<link> clone() const override {
        auto copy = std::make_unique<repetition_link>(name, traits_, make_);
        copy->take_over(*this);
        return copy;
    }

  private:
    std::vector<float>            logits_;
    std::vector<int32_t>          recent_;
    std::vector<llama_token_data> candidates_;
};

class infill_link : public native_link {
  public:
    infill_link() : native_link("infill", { true }, [](const kollama_model & model, int32_t) { return llama_sampler_init_infill(model.vocab); }) {}

    void bind(const kollama_model & model) override {
        if (llama_vocab_eot(model.vocab) < 0 && llama_vocab_eos(model.vocab) < 0) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, "infill needs a vocabulary with an end token");
        }
        native_link::bind(model);
    }

    void apply(step & s) override {
        if (s.cur.size > INFILL_CANDIDATES) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, format("infill compares all candidates with each other, and %zu are too many: "
                                                         "put top_k before it", s.cur.size));
        }
        native_link::apply(s);
    }

    std::unique_ptr<link> clone() const override { return std::make_unique<infill_link>(); }
};

template <class F> std::unique_ptr<link> native(const char * name, const traits & traits, F make) {
    return std::make_unique<native_link>(name, traits, [make](const kollama_model &, int32_t) { return make(); });
}

} // namespace

std::unique_ptr<link> make_native(kollama_link_kind kind, const double * values, size_t n_values, uint32_t seed) {
    float f[4] = {};
    for (size_t i = 0; i < std::min<size_t>(n_values, 4); i++) {
        f[i] = static_cast<float>(values[i]);
    }
    const auto whole = [&](size_t i) { return static_cast<int32_t>(i < n_values ? values[i] : 0); };
    const float a = f[0], b = f[1], c = f[2], d = f[3];
    traits logits, zeros, draws, chooser;
    logits.changes_logits = zeros.fears_zeros = draws.keeps_state = true;
    chooser.chooses = chooser.fears_zeros = chooser.keeps_state = true;
    switch (kind) {
        case KOLLAMA_LINK_PENALTIES:
            logits.window = whole(0);
            return std::make_unique<repetition_link>("penalties", logits, [=](const kollama_model & model, int32_t window) {
                return llama_sampler_init_penalties(llama_vocab_n_tokens(model.vocab), window, b, c, d);
            });
        case KOLLAMA_LINK_TOP_N_SIGMA: return native("top_n_sigma", logits, [=] { return llama_sampler_init_top_n_sigma(a); });
        case KOLLAMA_LINK_TOP_K: return std::make_unique<top_k_link>(whole(0));
        case KOLLAMA_LINK_TYPICAL_P:
            return native("typical_p", zeros, [=, keep = whole(1)] { return llama_sampler_init_typical(a, keep); });
        case KOLLAMA_LINK_TOP_P: return native("top_p", {}, [=, keep = whole(1)] { return llama_sampler_init_top_p(a, keep); });
        case KOLLAMA_LINK_MIN_P: return native("min_p", {}, [=, keep = whole(1)] { return llama_sampler_init_min_p(a, keep); });
        case KOLLAMA_LINK_XTC:
            return native("xtc", draws, [=, keep = whole(2)] { return llama_sampler_init_xtc(a, b, keep, seed); });
        case KOLLAMA_LINK_TEMPERATURE: return native("temperature", logits, [=] { return llama_sampler_init_temp_ext(a, b, c); });
        case KOLLAMA_LINK_MIROSTAT:
            return std::make_unique<native_link>("mirostat", chooser, [=](const kollama_model & model, int32_t) {
                return llama_sampler_init_mirostat(llama_vocab_n_tokens(model.vocab), seed, a, b, 100);
            });
        case KOLLAMA_LINK_MIROSTAT_V2: return native("mirostat", chooser, [=] { return llama_sampler_init_mirostat_v2(seed, a, b); });
        case KOLLAMA_LINK_ADAPTIVE_P:
            return std::make_unique<adaptive_link>(chooser, [=](const kollama_model &, int32_t) {
                return llama_sampler_init_adaptive_p(a, b, seed);
            });
        case KOLLAMA_LINK_INFILL: return std::make_unique<infill_link>();
        case KOLLAMA_LINK_DRAW: return make_draw();
    }
    throw failure(KOLLAMA_ERROR_ARGUMENT, "there is no such sampler link");
}

std::unique_ptr<link> make_dry(const double * values, size_t n_values, std::vector<std::string> breakers) {
    if (n_values != 4) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, "dry takes four numbers");
    }
    const float   multiplier = static_cast<float>(values[0]), base = static_cast<float>(values[1]);
    const int32_t allowed    = static_cast<int32_t>(values[2]);
    traits        t;
    t.changes_logits = true;
    t.window         = static_cast<int32_t>(values[3]);
    return std::make_unique<repetition_link>("dry", t, [=](const kollama_model & model, int32_t window) {
        std::vector<const char *> texts;
        for (const std::string & breaker : breakers) {
            texts.push_back(breaker.c_str());
        }
        return llama_sampler_init_dry(model.vocab, multiplier, base, allowed, window, texts.data(), texts.size());
    });
}

} // namespace kollama
