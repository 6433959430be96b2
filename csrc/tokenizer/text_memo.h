// What texts became, as long as they come again: a chat is sent whole every time, and most of it was sent before.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace kollama {

class text_memo {
  public:
    static constexpr size_t MOST_TEXT = 256 * 1024; // bytes that one is worth keeping of: longer ones are no part of a chat

    // The tokens of text, or null. Good until the next call.
    const std::vector<int32_t> * find(std::string_view text);

    void put(std::string_view text, std::vector<int32_t> tokens);

  private:
    // Two generations: when the new one is full it becomes the old one, and what is in that and did not come again is
    // forgotten. A chat of 100,000 tokens has room in one.
    static constexpr size_t MOST_BYTES = 1 << 20;
    using generation = std::unordered_map<std::string, std::vector<int32_t>>;

    const std::vector<int32_t> & keep(std::string && text, std::vector<int32_t> && tokens);

    generation new_, old_;
    size_t     n_bytes_ = 0; // of the new one
};

} // namespace kollama
