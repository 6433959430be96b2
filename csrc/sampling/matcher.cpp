// What a library of the caller's allows, as a link: a grammar that csrc does not know.

#include "chain.h"
#include "model.h"

#include <algorithm>
#include <limits>

namespace kollama {
namespace {

constexpr float MINUS_INF = -std::numeric_limits<float>::infinity();

class matcher_link : public link {
  public:
    matcher_link(std::string name, size_t index) : link(std::move(name)), index_(index) {}

    void attach(const chain & owner) override { owner_ = &owner; }

    void bind(const kollama_model & model) override {
        bits_.resize((static_cast<size_t>(llama_vocab_n_tokens(model.vocab)) + 31) / 32);
        check(calls().bind(owner_->matcher_user, index_, &model));
    }

    void begin(const std::vector<int32_t> &) override {
        ended_ = false;
        check(calls().begin(owner_->matcher_user, index_));
    }

    bool allows(int32_t token) override { return check(calls().allows(owner_->matcher_user, index_, token)); }

    void accept(int32_t token) override { ended_ = check(calls().accept(owner_->matcher_user, index_, token)); }

    void apply(step & s) override {
        fill();
        for (size_t i = 0; i < s.cur.size; i++) {
            if (!may(static_cast<size_t>(s.cur.data[i].id))) {
                s.cur.data[i].logit = MINUS_INF;
            }
        }
        settle(s, none_left());
    }

    void mask(float * logits, size_t n_vocab) override {
        fill();
        bool any = false;
        for (size_t word = 0; word * 32 < n_vocab; word++) {
            const size_t first = word * 32, last = std::min(first + 32, n_vocab);
            if (bits_[word] == 0) {
                std::fill(logits + first, logits + last, MINUS_INF);
                continue;
            }
            for (size_t id = first; id < last; id++) {
                logits[id] = may(id) ? logits[id] : MINUS_INF;
                any |= logits[id] != MINUS_INF;
            }
        }
        if (!any) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, none_left());
        }
    }

    bool masks() const override { return true; }
    bool remembers() const override { return true; }
    bool ended() const override { return ended_; }

    std::unique_ptr<link> clone() const override { return std::make_unique<matcher_link>(*this); }

  private:
    const kollama_matcher_calls & calls() const { return owner_->matcher_calls; }

    bool may(size_t id) const { return bits_[id / 32] >> (id % 32) & 1; }

    void fill() { check(calls().mask(owner_->matcher_user, index_, bits_.data(), bits_.size())); }

    std::string none_left() const { return name + " allows none of the tokens that are left here"; }

    bool check(int answer) const {
        if (answer < 0) {
            throw failure(KOLLAMA_ERROR_CALLBACK, name + " failed");
        }
        return answer != 0;
    }

    const size_t          index_;
    const chain *         owner_ = nullptr;
    std::vector<uint32_t> bits_;
    bool                  ended_ = false;
};

} // namespace

std::unique_ptr<link> make_matcher(std::string name, size_t index) {
    return std::make_unique<matcher_link>(std::move(name), index);
}

} // namespace kollama
