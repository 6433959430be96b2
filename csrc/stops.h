// Stop strings, matched on bytes as they come: across token borders, and none ever leaks.

#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace kollama {

// Knuth-Morris-Pratt for several patterns: constant time per byte and pattern, whatever the text.
class stop_matcher {
  public:
    void add(std::string_view pattern);

    // Appends to out what can no longer be part of a stop string. True where one is complete: what
    // stands before it is in out, it and what follows are gone.
    bool push(std::string_view bytes, std::string & out);

    void reset(); // to the text's beginning

    // Appends what was held back: the text ends otherwise.
    void flush(std::string & out);

  private:
    struct pattern {
        std::string         text;
        std::vector<size_t> fallback; // by matched length: the longest proper border
        size_t              matched = 0;
    };

    std::vector<pattern> patterns_;
    std::string          held_; // the longest text that may still begin a stop string
};

} // namespace kollama
