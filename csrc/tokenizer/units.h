// From text to tokens by way of units: stretches that no piece crosses. Words, mostly, and natural
// text repeats its words, so what a unit became is kept.

#pragma once

#include "tokenizer/encoder.h"
#include "tokenizer/pieces.h"

namespace kollama {

// What a unit of up to 31 bytes became, up to 7 tokens of it. One cache line each.
class unit_cache {
  public:
    static constexpr size_t MAX_BYTES  = 31;
    static constexpr size_t MAX_TOKENS = 7;

    struct alignas(64) entry {
        uint64_t key[4] = {}; // the bytes, zeros, and in the last byte the length
        int32_t  tokens[MAX_TOKENS];
        uint32_t n_tokens = 0;
    };

    unit_cache() : entries_(size_t{ 1 } << FIRST_BITS) {}

    // The entry of key, or null.
    const entry * find(const uint64_t * key) const {
        const entry * set = &entries_[set_of(key)];
        return same(set[0], key) ? set : same(set[1], key) ? set + 1 : nullptr;
    }
    void put(const uint64_t * key, const int32_t * tokens, size_t n);

  private:
    // 64 KiB to begin with; what a core's L2 cache and its share of the L3 hold at the most, found
    // with benchmarks/tokenize.py.
    static constexpr unsigned FIRST_BITS = 10, LAST_BITS = 17;

    size_t set_of(const uint64_t * key) const {
        const uint64_t mixed = key[0] * 0x9E3779B97F4A7C15u + key[1] * 0xC2B2AE3D27D4EB4Fu +
                               key[2] * 0x165667B19E3779F9u + key[3] * 0xD6E8FEB86659FD93u;
        return (mixed ^ mixed >> 32) * 0x9E3779B97F4A7C15u >> (64 - bits_ + 1) << 1;
    }
    static bool same(const entry & e, const uint64_t * key) {
        return ((e.key[0] ^ key[0]) | (e.key[1] ^ key[1]) | (e.key[2] ^ key[2]) | (e.key[3] ^ key[3])) == 0;
    }
    void grow();

    std::vector<entry> entries_;
    unsigned           bits_   = FIRST_BITS;
    size_t             n_puts_ = 0; // since the last growth
};

// Turns text that has no special tokens into ids. One thread's.
class unit_encoder {
  public:
    unit_encoder(const vocabulary & vocab, const piece_table & pieces) :
        vocab_(vocab), pieces_(pieces), merger_(pieces.merges()) {}

    // Appends the ids of text. mark_first: as if U+2581 stood before it. offset: where text begins
    // in the caller's text, for spans and errors.
    void encode(std::string_view text, bool mark_first, size_t offset, token_buffer & out);

  private:
    const char * unit_end(const char * begin, const char * p, const char * end) const;
    bool         cut_at(const char * begin, const char * p, const char * end) const;
    bool         mark_at(const char * p, const char * end) const;
    const char * skip_marks(const char * p, const char * end) const;
    void encode_unit(const char * p, const char * end, bool mark_first, token_buffer & out);
    void encode_long(const char * p, const char * end, bool mark_first, token_buffer & out);
    void encode_fresh(const char * p, const char * end, bool mark_first, token_buffer & out);
    size_t symbolise(const char * p, const char * end, bool mark_first);
    void   emit(const symbol * symbols, const span * spans, size_t n, token_buffer & out);
    bool   whole_piece(const char * p, const char * end, bool mark_first, token_buffer & out);

    const vocabulary &  vocab_;
    const piece_table & pieces_;
    merger              merger_;
    unit_cache          cache_;
    std::vector<symbol> symbols_;
    std::vector<span>   spans_;
    std::string         scratch_;
    const char *        text_      = nullptr; // of the call that runs
    const char *        text_end_  = nullptr;
    size_t              offset_    = 0;
    bool                with_spans_ = false;
};

} // namespace kollama
