#include "tokenizer/units.h"

#include "tokenizer/bits.h"
#include "tokenizer/keys.h"

#include <cstring>

namespace kollama {

// ---- cutting text into units ---------------------------------------------------------------------

namespace {

constexpr size_t BYTES_PER_UNIT = 24; // of those that a Korean text has for the first time

} // namespace

void unit_encoder::begin(std::string_view whole, const token_buffer & out) {
    text_       = whole.data();
    text_end_   = whole.data() + whole.size();
    with_spans_ = out.with_spans();
    words_.expect(whole.size() / BYTES_PER_UNIT);
}

void unit_encoder::push(int32_t id, span where, token_buffer & out) {
    if (with_spans_) {
        out.push(id, where);
        return;
    }
    if (n_waiting_ == WINDOW) {
        flush(out);
    }
    waiting & unit = window_[n_waiting_++];
    unit.n_bytes   = 0;
    unit.first     = static_cast<uint32_t>(id);
}

void unit_encoder::encode(size_t first, size_t last, bool mark_first, token_buffer & out) {
    const char * p        = text_ + first;
    const char * end      = text_ + last;
    char_word    previous = mark_first ? MARK_WORD : NO_CHAR;
    const char * unit     = p;          // where the one begins that has not been taken
    bool         marked   = mark_first; // it has a mark in front
    while (p < end) {
        const size_t n = std::min<size_t>(cut_table::BLOCK, static_cast<size_t>(end - p));
        char         padded[cut_table::BLOCK + 3];
        const char * block = p;
        if (text_end_ - p < static_cast<ptrdiff_t>(sizeof(padded))) { // more would be read than there is
            std::memset(padded, 0, sizeof(padded));
            std::memcpy(padded, p, static_cast<size_t>(text_end_ - p));
            block = padded;
        }
        if (n_waiting_ + cut_table::BLOCK + 1 > WINDOW) { // one more than there are cuts
            flush(out);
        }
        uint32_t     cuts[cut_table::BLOCK];
        const size_t n_cuts = pieces_.cuts().cuts(block, n, &previous, cuts);
        const bool   far    = text_end_ - p >= static_cast<ptrdiff_t>(cut_table::BLOCK + MAX_BYTES + 1);
        size_t       i      = 0;
        if (marked && n_cuts > 0) {
            encode_first(unit, p + cuts[0], out);
            unit   = p + cuts[i++];
            marked = false;
        } else if (n_cuts > 0 && p + cuts[0] == unit) {
            i = 1; // before the first character of all
        }
        for (; i < n_cuts; i++) {
            take_unit(unit, p + cuts[i], far, out);
            unit = p + cuts[i];
        }
        p += n;
    }
    if (marked && first < last) {
        encode_first(unit, end, out);
    } else if (unit < end) {
        take_unit(unit, end, text_end_ - unit > static_cast<ptrdiff_t>(MAX_BYTES), out);
    }
}

// ---- units, many at a time -----------------------------------------------------------------------

// There is room for it in the window. far: MAX_BYTES + 1 can be read from p on.
inline void unit_encoder::take_unit(const char * p, const char * end, bool far, token_buffer & out) {
    const size_t n = static_cast<size_t>(end - p);
    if (n > MAX_BYTES || with_spans_) {
        flush(out);
        encode_fresh(p, end, false, out);
        return;
    }
    waiting & unit = window_[n_waiting_++];
    unit.p         = p;
    unit.n_bytes   = static_cast<uint8_t>(n);
    unit.is_phrase = n > words_.MAX_BYTES || !words_fit_;
    if (!unit.is_phrase) {
        load_key<2>(p, n, far, unit.key);
        unit.entry = words_.set_of(unit.key);
    } else {
        uint64_t key[4];
        load_key<4>(p, n, far, key);
        unit.entry = phrases_.set_of(key);
    }
}

void unit_encoder::flush(token_buffer & out) {
    const size_t n_waiting = n_waiting_;
    n_waiting_ = 0; // also where this throws
    size_t n_missed = 0;
    for (size_t i = 0; i < n_waiting; i++) {
        missed_[n_missed] = static_cast<uint16_t>(i);
        n_missed += !look_up(window_[i]);
    }
    encode_missed(n_missed);
    const size_t most = phrases_.READS;
    int32_t * const start = out.room(n_waiting * most + fresh_.size());
    int32_t *       to    = start;
    for (size_t i = 0; i < n_waiting; i++) {
        const waiting & unit = window_[i];
        if (!unit.entry) {
            to = std::copy_n(fresh_.data() + unit.first, unit.n_tokens, to);
        } else if (!unit.is_phrase) {
            to += words_.get(*static_cast<const unit_cache<2>::entry *>(unit.entry), to);
        } else {
            to += phrases_.get(*static_cast<const unit_cache<4>::entry *>(unit.entry), to);
        }
    }
    out.advance(static_cast<size_t>(to - start));
    fresh_.room(most); // put() reads as many
    for (size_t i = 0; i < n_missed; i++) { // only now: what is put may take the place of what was found
        keep(window_[missed_[i]]);
    }
}

// Finds the unit's entry in the cache; false where there is none.
bool unit_encoder::look_up(waiting & unit) const {
    if (unit.n_bytes == 0) {
        unit.entry = nullptr;
        return false;
    }
    uint64_t key[4];
    if (!unit.is_phrase) {
        const auto * entry = words_.find(static_cast<const unit_cache<2>::entry *>(unit.entry), unit.key);
        unit.entry         = entry;
        if (!entry || entry->n_tokens != words_.ELSEWHERE) {
            return entry;
        }
        load_key<4>(unit.p, unit.n_bytes, false, key);
        unit.entry     = phrases_.set_of(key);
        unit.is_phrase = true;
    } else {
        load_key<4>(unit.p, unit.n_bytes, false, key);
    }
    const auto * entry = phrases_.find(static_cast<const unit_cache<4>::entry *>(unit.entry), key);
    unit.entry         = entry && entry->n_tokens != phrases_.ELSEWHERE ? entry : nullptr;
    return unit.entry;
}

// The tokens of units that are in no cache: into fresh_.
void unit_encoder::encode_missed(size_t n_missed) {
    const known_pieces::line * lines[WINDOW];
    for (size_t i = 0; i < n_missed; i++) {
        const waiting & unit = window_[missed_[i]];
        const bool      may  = unit.n_bytes > 0 && unit.n_bytes <= known_pieces::MAX_BYTES && !unit.is_phrase;
        lines[i]             = may ? pieces_.known().line_of(unit.key) : nullptr;
    }
    fresh_.clear();
    lockstep_.clear();
    waiting * merging[lockstep_merger::MAX_UNITS];
    for (size_t i = 0; i < n_missed; i++) {
        waiting &     unit  = window_[missed_[i]];
        const int32_t known = lines[i] ? known_pieces::find(lines[i], unit.key) : -1;
        const size_t  first = fresh_.size();
        if (known >= 0) {
            fresh_.push(known, {});
        } else if (unit.n_bytes == 0) {
            fresh_.push(static_cast<int32_t>(unit.first), {});
        } else if (pieces_.symbolise(unit.p, unit.p + unit.n_bytes, lockstep_)) {
            const size_t n         = lockstep_.end();
            merging[n]             = &unit;
            if (n + 1 == lockstep_merger::MAX_UNITS) {
                run_lockstep(merging, n + 1);
            }
            continue;
        } else {
            encode_fresh(unit.p, unit.p + unit.n_bytes, false, fresh_);
        }
        unit.first    = static_cast<uint32_t>(first);
        unit.n_tokens = static_cast<uint32_t>(fresh_.size() - first);
    }
    run_lockstep(merging, lockstep_.size());
}

void unit_encoder::run_lockstep(waiting * const * units, size_t n_units) {
    lockstep_.run();
    for (size_t i = 0; i < n_units; i++) {
        const size_t first = fresh_.size();
        emit_short(i, fresh_);
        units[i]->first    = static_cast<uint32_t>(first);
        units[i]->n_tokens = static_cast<uint32_t>(fresh_.size() - first);
    }
    lockstep_.clear();
}

void unit_encoder::keep(const waiting & unit) {
    if (unit.n_bytes == 0) {
        return;
    }
    const int32_t * tokens = fresh_.data() + unit.first;
    bool            fits   = false;
    if (!unit.is_phrase) {
        fits = words_.put(unit.key, tokens, unit.n_tokens);
        // Where the vocabulary spells the words of this text in many tokens, one look-up is better than two.
        n_kept_ += 1;
        n_elsewhere_ += !fits;
        words_fit_ = n_kept_ < 256 || n_elsewhere_ * 8 < n_kept_;
    }
    if (!fits) {
        uint64_t key[4];
        load_key<4>(unit.p, unit.n_bytes, false, key);
        phrases_.put(key, tokens, unit.n_tokens);
    }
}

void unit_encoder::emit_short(size_t which, token_buffer & out) const {
    const size_t   n_tokens = pieces_.n_tokens();
    const symbol * symbols  = lockstep_.symbols(which);
    int32_t *      to       = out.room(lockstep_merger::MAX_SYMBOLS * 4);
    size_t         n        = 0;
    for (uint32_t bits = lockstep_.rest(which); bits != 0; bits &= bits - 1) {
        const symbol s = symbols[lowest_bit(bits)];
        if (s < n_tokens) {
            to[n++] = static_cast<int32_t>(s);
        } else {
            n += pieces_.spell(s, to + n);
        }
    }
    out.advance(n);
}

// ---- one unit ------------------------------------------------------------------------------------

// The unit that begins with a mark which the text does not have.
void unit_encoder::encode_first(const char * p, const char * end, token_buffer & out) {
    flush(out);
    const size_t n = static_cast<size_t>(end - p) + MARK.size();
    if (with_spans_ || n > MAX_BYTES) {
        encode_fresh(p, end, true, out);
        return;
    }
    uint64_t key[4];
    char     bytes[32];
    std::memcpy(bytes, MARK.data(), MARK.size());
    std::memcpy(bytes + MARK.size(), p, static_cast<size_t>(end - p));
    load_key<4>(bytes, n, false, key);
    const auto * hit = phrases_.find(phrases_.set_of(key), key);
    if (hit && hit->n_tokens != phrases_.ELSEWHERE) {
        out.advance(phrases_.get(*hit, out.room(phrases_.READS)));
        return;
    }
    const size_t before = out.size();
    encode_fresh(p, end, true, out);
    out.room(phrases_.MAX_TOKENS); // put() reads as many
    phrases_.put(key, out.data() + before, out.size() - before);
}

bool unit_encoder::whole_piece(const char * p, const char * end, bool mark_first, token_buffer & out) {
    if (end - p > 1024) {
        return false; // longer than any piece
    }
    scratch_.assign(mark_first ? MARK : "");
    for (const char * at = p; at < end; at++) {
        if (*at == ' ' && pieces_.rules().space_is_mark) {
            scratch_ += MARK;
        } else {
            scratch_ += *at;
        }
    }
    const int32_t id = vocab_.ids.find(scratch_);
    if (id < 0 || vocab_.added_only(static_cast<size_t>(id))) {
        return false;
    }
    const char * last = end;
    if (p == end && p < text_end_) { // the mark alone: it counts as part of what it stands before
        uint32_t cp;
        last += decode_utf8(p, text_end_, &cp);
    }
    out.push(id, { static_cast<uint32_t>(p - text_), static_cast<uint32_t>(last - text_) });
    return true;
}

void unit_encoder::encode_fresh(const char * p, const char * end, bool mark_first, token_buffer & out) {
    if (pieces_.rules().ignore_merges && whole_piece(p, end, mark_first, out)) {
        return;
    }
    size_t n = symbolise(p, end, mark_first);
    span * spans = with_spans_ ? spans_.data() : nullptr;
    n = merger_.merge(symbols_.data(), spans, n);
    emit(symbols_.data(), spans, n, out);
}

size_t unit_encoder::symbolise(const char * p, const char * end, bool mark_first) {
    // A character gives at most as many symbols as it has bytes, and so does a mark in front; a
    // space that is a mark may be spelled with three.
    const size_t most = static_cast<size_t>(end - p) * (pieces_.of(MARK_CP) == NO_SYMBOL ? 3 : 1) + 4;
    if (symbols_.size() < most) {
        symbols_.resize(most * 2);
    }
    if (with_spans_ && spans_.size() < symbols_.size()) {
        spans_.resize(symbols_.size());
    }
    symbol *   out = symbols_.data();
    span       pending{ 0, 0 };
    bool       waits = false; // unknown characters that have not been written yet
    const bool fuse  = pieces_.rules().fuse_unk;
    auto put = [&](symbol s, span where) {
        if (with_spans_) {
            spans_[static_cast<size_t>(out - symbols_.data())] = where;
        }
        *out++ = s;
    };
    auto add = [&](uint32_t cp, symbol s, const char * from, size_t n) {
        const uint32_t first = static_cast<uint32_t>(from - text_);
        const span     where{ first, first + static_cast<uint32_t>(n) };
        if (s != NO_SYMBOL) {
            if (waits) {
                put(pieces_.unknown(), pending);
                waits = false;
            }
            put(s, where);
            return;
        }
        char         bytes[4];
        const size_t n_bytes = encode_utf8(cp, bytes);
        bool         spelled = true;
        for (size_t i = 0; i < n_bytes; i++) {
            spelled &= pieces_.of_byte(static_cast<uint8_t>(bytes[i])) != NO_SYMBOL;
        }
        if (spelled) {
            // What waits stays waiting: the order that tokenizers' BPE::merge_word has.
            for (size_t i = 0; i < n_bytes; i++) {
                put(pieces_.of_byte(static_cast<uint8_t>(bytes[i])), where);
            }
        } else if (pieces_.unknown() != NO_SYMBOL) {
            if (waits && fuse) {
                pending.last = where.last;
                return;
            }
            if (waits) {
                put(pieces_.unknown(), pending);
            }
            pending = where;
            waits   = true;
        }
    };
    if (mark_first) {
        // The mark counts as part of the character it stands before, as in tokenizers' offsets.
        uint32_t     cp;
        const size_t n = p < text_end_ ? decode_utf8(p, text_end_, &cp) : 0;
        add(MARK_CP, pieces_.of(MARK_CP), p, n);
    }
    while (p < end) {
        const uint8_t byte = static_cast<uint8_t>(*p);
        if (byte < 128) {
            const bool mark = byte == ' ' && pieces_.rules().space_is_mark;
            add(mark ? MARK_CP : byte, pieces_.of_ascii(byte), p, 1);
            p++;
            continue;
        }
        uint32_t     cp;
        const size_t n = decode_utf8(p, end, &cp);
        if (n == 0) {
            check_utf8({ p, static_cast<size_t>(end - p) }, static_cast<size_t>(p - text_)); // throws
        }
        add(cp, pieces_.of(cp), p, n);
        p += n;
    }
    if (waits) {
        put(pieces_.unknown(), pending);
    }
    return static_cast<size_t>(out - symbols_.data());
}

void unit_encoder::emit(const symbol * symbols, const span * spans, size_t n, token_buffer & out) {
    const size_t n_tokens = pieces_.n_tokens();
    int32_t *    to       = out.room(n);
    size_t       i        = 0;
    if (!spans) {
        for (; i < n && symbols[i] < n_tokens; i++) {
            to[i] = static_cast<int32_t>(symbols[i]);
        }
        out.advance(i);
    }
    for (; i < n; i++) {
        const span where = spans ? spans[i] : span{};
        if (symbols[i] < n_tokens) {
            out.push(static_cast<int32_t>(symbols[i]), where);
            continue;
        }
        int32_t      ids[4];
        const size_t count = pieces_.spell(symbols[i], ids);
        for (size_t k = 0; k < count; k++) {
            out.push(ids[k], where);
        }
    }
}

} // namespace kollama
