// From text to tokens by way of units: stretches that no piece crosses. Words, mostly, and natural
// text repeats its words, so what a unit became is kept.

#pragma once

#include "tokenizer/encoder.h"
#include "tokenizer/pieces.h"
#include "tokenizer/unit_cache.h"

namespace kollama {

// Turns text that has no special tokens into ids. One thread's.
class unit_encoder {
  public:
    unit_encoder(const vocabulary & vocab, const piece_table & pieces) :
        vocab_(vocab), pieces_(pieces), merger_(pieces.merges()), lockstep_(pieces.merges()), words_(vocab.size()),
        phrases_(vocab.size()) {}

    // One text: begin(), then encode() and push() for what it consists of, in order, and finish().
    void begin(std::string_view whole, const token_buffer & out);
    // Appends the ids of the bytes from first to last of whole. mark_first: as if U+2581 stood
    // before them. Spans and errors count from the beginning of whole.
    void encode(size_t first, size_t last, bool mark_first, token_buffer & out);
    // Appends a token that is given.
    void push(int32_t id, span where, token_buffer & out);
    // Only now out is complete.
    void finish(token_buffer & out) { flush(out); }

  private:
    struct waiting;

    void take_unit(const char * p, const char * end, bool far, token_buffer & out);
    void flush(token_buffer & out);
    bool look_up(waiting & unit) const;
    void encode_missed(size_t n_missed);
    void run_lockstep(waiting * const * units, size_t n_units);
    void keep(const waiting & unit);
    void encode_first(const char * p, const char * end, token_buffer & out);
    void encode_fresh(const char * p, const char * end, bool mark_first, token_buffer & out);
    size_t symbolise(const char * p, const char * end, bool mark_first);
    void   emit_short(size_t which, token_buffer & out) const;
    void   emit(const symbol * symbols, const span * spans, size_t n, token_buffer & out);
    bool   whole_piece(const char * p, const char * end, bool mark_first, token_buffer & out);

    const vocabulary &  vocab_;
    const piece_table & pieces_;
    merger              merger_;
    lockstep_merger     lockstep_;
    unit_cache<2>       words_;   // of up to 15 bytes
    unit_cache<4>       phrases_; // of up to 31
    size_t              n_kept_ = 0, n_elsewhere_ = 0;
    bool                words_fit_ = true;
    std::vector<symbol> symbols_;

    static constexpr size_t MAX_BYTES = 31;  // of a unit that can wait, and be kept
    static constexpr size_t WINDOW    = 192; // units that wait: of a text like those before, a few need merging

    // A unit that waits to be encoded with others.
    struct waiting {
        const char * p;
        const void * entry;    // of the cache for its length: its set, then the entry or null
        uint64_t     key[2];   // of one that is no phrase
        uint32_t     first;    // of its tokens in fresh_, where it has no entry; of one that is given: the token
        uint32_t     n_tokens; // likewise
        uint8_t      n_bytes;  // 0: it is given
        bool         is_phrase;
    };
    waiting  window_[WINDOW];
    uint16_t missed_[WINDOW];
    size_t   n_waiting_ = 0;
    token_buffer fresh_; // of those that were in no cache

    std::vector<span>   spans_;
    std::string         scratch_;
    const char *        text_       = nullptr; // whole, of the call that runs
    const char *        text_end_   = nullptr;
    bool                with_spans_ = false;
};

} // namespace kollama
