// A link that calls back: it sees and changes a dense row, removed candidates at -inf.

#include "chain.h"
#include "row.h"

#include <limits>
#include <utility>

namespace kollama {
namespace {

class callback_link : public link {
  public:
    callback_link(std::string name, size_t index) : link(std::move(name)), index_(index) {}

    ~callback_link() override { kollama_row_release(row_); }

    void apply(step & s) override {
        if (!row_ || row_->logits.size() != s.n_vocab) {
            kollama_row_release(std::exchange(row_, nullptr));
            row_ = new kollama_row(s.n_vocab);
        }
        std::vector<float> & logits = row_->logits;
        if (s.row) {
            copy_row(s, logits);
        } else {
            logits.assign(s.n_vocab, -std::numeric_limits<float>::infinity());
            for (size_t i = 0; i < s.cur.size; i++) {
                logits[static_cast<size_t>(s.cur.data[i].id)] = s.cur.data[i].logit;
            }
            s.row = logits.data();
        }
        if (s.callback(s.user, index_, s.tokens.data(), s.tokens.size(), row_) != 0) {
            throw failure(KOLLAMA_ERROR_CALLBACK, "the sampler link " + name + " raised an exception");
        }
        s.blamed = "the sampler link " + name;
        copy_row(s, settled_);
    }

    bool takes_row() const override { return true; }

    bool calls_back() const override { return true; }

    std::unique_ptr<link> clone() const override { return std::make_unique<callback_link>(name, index_); }

  private:
    const size_t       index_;
    kollama_row *      row_ = nullptr; // shared with the arrays over it, into which other threads may write
    std::vector<float> settled_;
};

} // namespace

std::unique_ptr<link> make_callback(std::string name, size_t index) {
    return std::make_unique<callback_link>(std::move(name), index);
}

} // namespace kollama
