#include "tokenizer/text_memo.h"

namespace kollama {
namespace {

constexpr size_t OF_ENTRY = 128; // about what one takes beside its text and tokens

} // namespace

const std::vector<int32_t> * text_memo::find(std::string_view text) {
    std::string key(text);
    if (const auto found = new_.find(key); found != new_.end()) {
        return &found->second;
    }
    const auto found = old_.find(key);
    if (found == old_.end()) {
        return nullptr;
    }
    std::vector<int32_t> tokens = std::move(found->second);
    old_.erase(found);
    return &keep(std::move(key), std::move(tokens));
}

void text_memo::put(std::string_view text, std::vector<int32_t> tokens) {
    keep(std::string(text), std::move(tokens));
}

const std::vector<int32_t> & text_memo::keep(std::string && text, std::vector<int32_t> && tokens) {
    const size_t n = OF_ENTRY + text.size() + tokens.size() * sizeof(int32_t);
    if (n_bytes_ + n > MOST_BYTES) {
        old_     = std::move(new_);
        new_     = {};
        n_bytes_ = 0;
    }
    n_bytes_ += n;
    return new_.insert_or_assign(std::move(text), std::move(tokens)).first->second;
}

} // namespace kollama
