// Which sequences hold their first tokens in the same cells of the K/V memory: those of a fork and of
// what it was forked from, until one of them is rewound.

#pragma once

#include <algorithm>
#include <cstddef>
#include <unordered_map>
#include <vector>

namespace kollama {

class shared_cells {
  public:
    explicit shared_cells(size_t n_sequences) : with_(n_sequences) {}

    // dst holds the first n_tokens of src, and nothing else.
    void fork(int src, int dst, size_t n_tokens) {
        for (const auto & [other, n] : with_[src]) {
            set(dst, other, std::min(n, n_tokens));
        }
        set(src, dst, n_tokens);
    }

    // A sequence has no more than n_keep of its tokens left.
    void cut(int id, size_t n_keep) {
        auto & others = with_[id];
        for (auto at = others.begin(); at != others.end();) {
            const auto [other, n] = *at;
            if (n_keep == 0) {
                with_[other].erase(id);
                at = others.erase(at);
                continue;
            }
            at++->second = with_[other][id] = std::min(n, n_keep);
        }
    }

    // Tokens that it shares with any other.
    size_t most(int id) const {
        size_t most = 0;
        for (const auto & [other, n] : with_[id]) {
            most = std::max(most, n);
        }
        return most;
    }

  private:
    void set(int a, int b, size_t n) {
        if (n > 0 && a != b) {
            with_[a][b] = with_[b][a] = n;
        }
    }

    std::vector<std::unordered_map<int, size_t>> with_; // by id: id of another, tokens
};

} // namespace kollama
