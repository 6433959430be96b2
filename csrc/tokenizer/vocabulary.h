// The pieces of a vocabulary: their texts, what each is for, and what it decodes to.

#pragma once

#include "errors.h"

#include <cstdint>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace kollama {

// The texts of many strings in one buffer.
class string_list {
  public:
    void reserve(size_t count, size_t bytes) { ends_.reserve(count), bytes_.reserve(bytes); }
    void add(std::string_view text) { bytes_.append(text), ends_.push_back(bytes_.size()); }
    // For a producer that appends: write to bytes(), then close() the string.
    std::string & bytes() { return bytes_; }
    void          close() { ends_.push_back(bytes_.size()); }

    size_t           size() const { return ends_.size(); }
    std::string_view operator[](size_t i) const {
        const size_t start = i ? ends_[i - 1] : 0;
        return { bytes_.data() + start, ends_[i] - start };
    }

  private:
    std::string         bytes_;
    std::vector<size_t> ends_;
};

// text -> index in a string_list, which must outlive it. Open addressing, a 32-bit tag in each slot.
class string_index {
  public:
    // Of equal texts the last one wins; returns the first pair of equal texts, or { -1, -1 }.
    std::pair<int32_t, int32_t> build(const string_list & strings);
    int32_t                     find(std::string_view text) const; // -1: none

  private:
    const string_list *   strings_ = nullptr;
    std::vector<uint64_t> slots_; // tag << 32 | index + 1; 0 is empty
    unsigned              shift_ = 64;
};

enum class token_kind : uint8_t {
    normal,
    unknown,
    control,
    user_defined,
    unused,
    byte,
    none, // no piece has this id
};

// Texts of tokens that end a generation, whatever else a file says: llama.cpp's list
// (llama_vocab::impl::load).
constexpr const char * END_OF_GENERATION[] = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>", "<end_of_turn>",
    "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]", "<|end_of_text|>", "<end_of_utterance>",
    "<eos>", "<turn|>", "<|tool_response>", "<｜end▁of▁sentence｜>", "[e~[",
};

struct vocabulary {
    string_list             pieces;
    string_index            ids;
    std::vector<float>      scores; // of a vocabulary that merges by score; else empty
    uint32_t                first_added = UINT32_MAX; // ids from here on merge after all others, whatever their score
    std::vector<token_kind> kinds;
    std::vector<bool>       special; // left out by skip_special
    std::vector<bool>       eog;     // ends a generation
    std::vector<bool>       outside; // added to the model's own vocabulary, which does not have it; may be empty
    // Of added tokens that are looked for in normalised text: that form, which they decode to.
    std::unordered_map<int32_t, std::string> normalised;
    int32_t                 bos = -1, eos = -1, unk = -1;
    bool                    add_bos          = false; // the file asks for it
    bool                    decodes_marks    = true;  // U+2581 in a piece decodes to a space
    bool                    literal_specials = false; // but not in control and user-defined ones (llama.cpp)

    size_t size() const { return kinds.size(); }
    bool   added_only(size_t id) const { return !outside.empty() && outside[id]; }

    // The text that a token decodes to, before U+2581 and bytes are made of it.
    std::string_view spelled(size_t id) const {
        const auto found = normalised.empty() ? normalised.end() : normalised.find(static_cast<int32_t>(id));
        return found == normalised.end() ? pieces[id] : std::string_view(found->second);
    }

    // Throws KOLLAMA_ERROR_TOKEN for an id outside the vocabulary.
    void check(int32_t token) const;

    // The byte of a piece such as <0xEA>, or -1.
    static int byte_of(std::string_view piece);
    // And back: the id of the piece of a byte, or -1.
    int32_t byte_id(uint8_t byte) const;
};

} // namespace kollama
