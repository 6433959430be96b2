// Small links of our own.

#include "chain.h"
#include "model.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace kollama {
namespace {

// A draw with probability proportional to exp(logit).
class draw_link : public link {
  public:
    draw_link() : link("draw") {}

    void apply(step & s) override {
        float peak = -LOGIT_LIMIT;
        for (size_t i = 0; i < s.cur.size; i++) {
            peak = std::max(peak, s.cur.data[i].logit);
        }
        double total = 0;
        for (size_t i = 0; i < s.cur.size; i++) {
            s.cur.data[i].p = std::exp(s.cur.data[i].logit - peak);
            total += s.cur.data[i].p;
        }
        double left = uniform(s.rng) * total;
        for (size_t i = 0; i < s.cur.size; i++) {
            if (s.cur.data[i].p > 0) {
                s.cur.selected = static_cast<int64_t>(i);
                if ((left -= s.cur.data[i].p) < 0) {
                    return;
                }
            }
        }
    }

    bool                  chooses() const override { return true; }
    std::unique_ptr<link> clone() const override { return std::make_unique<draw_link>(*this); }
};

class bias_link : public link {
  public:
    bias_link(std::vector<llama_logit_bias> by_id, std::vector<std::pair<std::string, float>> by_text) :
        link("logit_bias"), by_id_(std::move(by_id)), by_text_(std::move(by_text)) {}

    void bind(const kollama_model & model) override {
        bias_.assign(llama_vocab_n_tokens(model.vocab), 0.0f);
        for (const llama_logit_bias & bias : by_id_) {
            check_token(&model, bias.token);
            bias_[static_cast<size_t>(bias.token)] += bias.bias;
        }
        for (const auto & [text, bias] : by_text_) {
            token_buffer ids;
            model.tokenizer->encode(text, false, true, ids);
            if (ids.size() == 0) {
                throw failure(KOLLAMA_ERROR_TOKEN, "logit_bias: the text '" + text + "' has no tokens");
            }
            for (size_t i = 0; i < ids.size(); i++) {
                bias_[ids.data()[i]] += bias;
            }
        }
    }

    bool takes_row() const override { return true; }

    void apply(step & s) override {
        if (s.row) {
            copy_row(s, logits_);
            for (size_t i = 0; i < s.n_vocab; i++) { // what is removed stays so, whatever the bias
                logits_[i] = logits_[i] == -std::numeric_limits<float>::infinity() ? logits_[i] : logits_[i] + bias_[i];
            }
            s.blamed = name;
            return;
        }
        for (size_t i = 0; i < s.cur.size; i++) {
            s.cur.data[i].logit += bias_[static_cast<size_t>(s.cur.data[i].id)];
        }
        s.cur.sorted = false;
        settle(s, name);
    }

    std::unique_ptr<link> clone() const override { return std::make_unique<bias_link>(*this); }

  private:
    std::vector<llama_logit_bias>              by_id_;
    std::vector<std::pair<std::string, float>> by_text_;
    std::vector<float>                         bias_; // of every token
    std::vector<float>                         logits_;
};

} // namespace

std::unique_ptr<link> make_draw() {
    return std::make_unique<draw_link>();
}

std::unique_ptr<link> make_bias(std::vector<llama_logit_bias> by_id, std::vector<std::pair<std::string, float>> by_text) {
    return std::make_unique<bias_link>(std::move(by_id), std::move(by_text));
}

} // namespace kollama
