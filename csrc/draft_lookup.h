// Guesses from the text itself: what followed the last tokens where they stood before. Texts that repeat
// their input (edits, summaries, code) often go on as they did there.

#pragma once

#include <cstddef>
#include <cstdint>
#include <unordered_map>
#include <vector>

namespace kollama {

class draft_lookup {
  public:
    // Takes in what the text has grown by since the last call.
    void follow(const std::vector<int32_t> & text);

    // The text is shorter again: only its first n_tokens are as they were.
    void cut(size_t n_tokens);

    // At most n_most tokens that may follow the text, which was followed; empty where its end is new.
    // Returns how many tokens before them stood there likewise.
    size_t guess(size_t n_most, std::vector<int32_t> & guesses) const;

  private:
    static constexpr size_t  LONG = 3, SHORT = 2; // tokens of a key
    static constexpr int32_t NONE = -1;

    // Of keys of one length: where each ended last, and, for each place, where it ended before that.
    struct places {
        std::unordered_map<uint64_t, int32_t> last;
        std::vector<int32_t>                  before; // by place; NONE: nowhere
    };

    uint64_t key(size_t end, size_t length) const;
    void     add(places & of, size_t length);
    void     remove_last(places & of, size_t length);
    size_t   n_alike(size_t place) const;
    bool     find(const places & of, size_t length, size_t & place, size_t & n_same) const;

    std::vector<int32_t> text_;
    places               long_, short_;
};

} // namespace kollama
