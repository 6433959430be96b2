// A grammar as a link. The chain runs without it first; only where it refuses the choice, the whole
// vocabulary is masked.

#include "chain.h"
#include "gbnf.h"
#include "model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace kollama {
namespace {

constexpr size_t MAX_PIECE = 4096; // bytes: llama.cpp recurses over a token's characters

constexpr const char * NONE_LEFT = "the grammar allows none of the tokens here (with ignore_eos it cannot end)";

class grammar_link : public link {
  public:
    grammar_link(std::string text, std::string root) :
        link("grammar"), text_(std::move(text)), root_(std::move(root)), found_(check_grammar(text_, root_)) {}

    ~grammar_link() override { llama_sampler_free(sampler_); }

    void bind(const kollama_model & model) override {
        for (const std::string & token : found_.tokens) {
            llama_token ids[2];
            if (llama_tokenize(model.vocab, token.data(), static_cast<int32_t>(token.size()), ids, 2, false, true) != 1) {
                throw failure(KOLLAMA_ERROR_TOKEN, "the grammar's " + token + " is no token of this model");
            }
        }
        for (int32_t id : found_.ids) {
            check_token(&model, id);
        }
        const int32_t n_vocab = llama_vocab_n_tokens(model.vocab);
        banned_.assign(static_cast<size_t>(n_vocab), false);
        for (int32_t id = 0; id < n_vocab; id++) {
            const char * piece = llama_vocab_get_text(model.vocab, id);
            if (piece && std::strlen(piece) > MAX_PIECE) {
                throw failure(KOLLAMA_ERROR_TOKEN, format("token %d has more than %zu bytes: too long for a grammar", id, MAX_PIECE));
            }
            // Their text is not part of what is generated; a grammar that names tokens may mean them.
            banned_[id] = model.tokenizer->vocab.special[static_cast<size_t>(id)] && !llama_vocab_is_eog(model.vocab, id) &&
                          found_.tokens.empty() && found_.ids.empty();
        }
        llama_sampler_free(sampler_);
        sampler_ = llama_sampler_init_grammar(model.vocab, text_.c_str(), root_.c_str());
        if (!sampler_) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, "llama.cpp cannot read the grammar");
        }
        fresh_ = true;
    }

    void begin(const std::vector<int32_t> &) override {
        if (!fresh_) {
            llama_sampler_reset(sampler_); // parses it again
            fresh_ = true;
        }
    }

    void accept(int32_t token) override {
        fresh_ = false;
        if (!allows(token)) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, format("the grammar does not allow token %d here", token));
        }
        llama_sampler_accept(sampler_, token);
    }

    bool allows(int32_t token) override {
        if (banned_[static_cast<size_t>(token)]) {
            return false;
        }
        llama_token_data       candidate = { token, 1.0f, 0.0f };
        llama_token_data_array one       = { &candidate, 1, -1, false };
        llama_sampler_apply(sampler_, &one);
        return candidate.logit == 1.0f;
    }

    void apply(step & s) override {
        for (size_t i = 0; i < s.cur.size; i++) {
            if (banned_[static_cast<size_t>(s.cur.data[i].id)]) {
                s.cur.data[i].logit = -std::numeric_limits<float>::infinity();
            }
        }
        settle(s, "the grammar");
        llama_sampler_apply(sampler_, &s.cur);
        settle(s, NONE_LEFT);
    }

    void mask(float * logits, size_t n_vocab) override {
        const float minus_inf = -std::numeric_limits<float>::infinity();
        storage_.clear();
        for (size_t id = 0; id < n_vocab; id++) {
            if (!banned_[id] && logits[id] != minus_inf) {
                storage_.push_back({ static_cast<int32_t>(id), logits[id], 0.0f });
            }
        }
        llama_token_data_array cur = { storage_.data(), storage_.size(), -1, false };
        llama_sampler_apply(sampler_, &cur);
        std::fill(logits, logits + n_vocab, minus_inf);
        bool any = false;
        for (size_t i = 0; i < cur.size; i++) {
            logits[cur.data[i].id] = cur.data[i].logit;
            any |= cur.data[i].logit != minus_inf;
        }
        if (!any) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, NONE_LEFT);
        }
    }

    bool masks() const override { return true; }
    bool remembers() const override { return true; }

    std::unique_ptr<link> clone() const override {
        auto copy     = std::make_unique<grammar_link>(text_, root_);
        copy->banned_ = banned_;
        copy->fresh_  = fresh_;
        if (sampler_) {
            copy->sampler_ = llama_sampler_clone(sampler_);
        }
        return copy;
    }

  private:
    const std::string text_, root_;
    const gbnf        found_;
    llama_sampler *   sampler_ = nullptr;
    std::vector<bool> banned_;
    std::vector<llama_token_data> storage_; // of mask
    bool              fresh_ = false; // nothing was accepted
};

} // namespace

std::unique_ptr<link> make_grammar(std::string text, std::string root) {
    return std::make_unique<grammar_link>(std::move(text), std::move(root));
}

} // namespace kollama
