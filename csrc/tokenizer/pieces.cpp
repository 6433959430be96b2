#include "tokenizer/pieces.h"

#include <algorithm>
#include <numeric>

namespace kollama {
namespace {

// What a lying file can cost. Each piece of a real vocabulary is made of two others in about two ways.
constexpr size_t   SPARE_RULES    = 1 << 16;
constexpr uint64_t MOST_LOOKED_UP = 1 << 28; // bytes of parts of pieces

// The characters of a piece. Pieces need not be UTF-8 in a GGUF: what is not, is no character.
bool characters(std::string_view piece, std::vector<uint32_t> & cps) {
    cps.clear();
    const char * end = piece.data() + piece.size();
    for (const char * p = piece.data(); p < end;) {
        uint32_t     cp;
        const size_t n = decode_utf8(p, end, &cp);
        if (n == 0) {
            return false;
        }
        cps.push_back(cp);
        p += n;
    }
    return true;
}

void check_size(size_t n_symbols) {
    if (n_symbols >= NO_SYMBOL) {
        throw failure(KOLLAMA_ERROR_FORMAT, format("a vocabulary of %zu pieces is larger than the %u that fit here", n_symbols,
                                                   NO_SYMBOL));
    }
}

} // namespace

void piece_table::set(uint32_t cp, symbol s) {
    if (page_of_[cp >> 8] == 0) {
        page_of_[cp >> 8] = static_cast<uint16_t>(pages_.size() / 256);
        pages_.resize(pages_.size() + 256, NO_SYMBOL);
    }
    pages_[page_of_[cp >> 8] * 256u + (cp & 255)] = s;
}

symbol piece_table::add_extra(std::vector<int32_t> ids) {
    std::array<int32_t, 5> entry{ static_cast<int32_t>(ids.size()) };
    std::copy(ids.begin(), ids.end(), entry.begin() + 1);
    extra_.push_back(entry);
    check_size(n_tokens_ + extra_.size());
    return static_cast<symbol>(n_tokens_ + extra_.size() - 1);
}

size_t piece_table::spell(symbol s, int32_t * ids) const {
    const auto & entry = extra_[s - n_tokens_];
    std::copy(entry.begin() + 1, entry.begin() + 1 + entry[0], ids);
    return static_cast<size_t>(entry[0]);
}

// Hands a unit's symbols to to. false where that is not simple: some are unknown, or too many.
bool piece_table::symbolise(const char * p, const char * end, lockstep_merger & to) const {
    if (rules_.ignore_merges || end - p > static_cast<ptrdiff_t>(lockstep_merger::MAX_SYMBOLS)) {
        return false;
    }
    to.begin();
    while (p < end) {
        const uint8_t byte   = static_cast<uint8_t>(*p);
        size_t        length = 1;
        symbol        s;
        if (byte < 128) {
            s = of_ascii(byte);
        } else if (byte >= 0xEA && byte <= 0xEC && end - p >= 3 && (p[1] & 0xC0) == 0x80 && (p[2] & 0xC0) == 0x80) { // Hangul
            s      = of_basic((byte & 0x0Fu) << 12 | (p[1] & 0x3Fu) << 6 | (p[2] & 0x3Fu));
            length = 3;
        } else {
            uint32_t cp;
            length = decode_utf8(p, end, &cp);
            if (length == 0) {
                return false;
            }
            s = of(cp);
        }
        if (s != NO_SYMBOL) {
            to.add(s);
        } else if (knows_bytes_ && byte >= 128) {
            for (size_t i = 0; i < length; i++) {
                to.add(of_byte(static_cast<uint8_t>(p[i])));
            }
        } else {
            return false;
        }
        p += length;
    }
    return true;
}

void piece_table::begin(const vocabulary & vocab, const piece_rules & rules) {
    rules_    = rules;
    n_tokens_ = vocab.size();
    check_size(n_tokens_);
    cuts_.begin(n_tokens_, rules_.space_is_mark);
    std::vector<uint32_t> cps;
    for (size_t id = 0; id < n_tokens_; id++) { // the characters that are tokens
        const std::string_view piece = vocab.pieces[id];
        if (piece.size() <= 4 && !vocab.added_only(id) && characters(piece, cps) && cps.size() == 1) {
            set(cps[0], static_cast<symbol>(id));
        }
    }
}

void piece_table::finish() {
    for (uint32_t c = 0; c < 128; c++) {
        ascii_[c] = of(c);
    }
    if (rules_.space_is_mark) {
        ascii_[' '] = of(MARK_CP);
    }
    // A cut between two unknown characters would part what fuse_unk joins: next to a known one, or
    // where bytes stand in for every unknown one, none can. With ignore_merges whole words count.
    // And one that becomes no token at all leaves its neighbours side by side.
    auto       where = cut_table::rule::nowhere;
    const bool can   = rules_.cuttable && !rules_.ignore_merges;
    if (can && knows_bytes_) {
        where = cut_table::rule::between_pairs;
    } else if (can && unknown_ != NO_SYMBOL && of(MARK_CP) != NO_SYMBOL) {
        where = cut_table::rule::before_marks;
    }
    cuts_.finish(where, rules_.split_marks);
}

void piece_table::build_by_score(const vocabulary & vocab) {
    begin(vocab, piece_rules{});
    const size_t n = vocab.size();

    // Equal scores have equal ranks: of two such pairs the leftmost is merged first.
    std::vector<uint32_t> order(n), ranks(n);
    std::iota(order.begin(), order.end(), 0u);
    auto added = [&](uint32_t id) { return id >= vocab.first_added; };
    std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
        return added(a) != added(b) ? added(b) : vocab.scores[a] > vocab.scores[b];
    });
    for (size_t i = 0, rank = 0; i < n; i++) {
        rank += i > 0 && (vocab.scores[order[i]] != vocab.scores[order[i - 1]] || added(order[i]) != added(order[i - 1]));
        ranks[order[i]] = static_cast<uint32_t>(rank);
    }

    auto byte_id = [&](uint8_t byte) {
        const int32_t id   = vocab.byte_id(byte);
        const char    self = static_cast<char>(byte);
        return id >= 0 ? id : vocab.ids.find({ &self, 1 });
    };
    knows_bytes_ = true;
    unknown_     = vocab.unk >= 0 ? add_extra({ vocab.unk }) : NO_SYMBOL;
    for (unsigned byte = 0; byte < 256; byte++) {
        const int32_t id = byte_id(static_cast<uint8_t>(byte));
        bytes_[byte]     = id >= 0 ? add_extra({ id }) : NO_SYMBOL;
        knows_bytes_ &= id >= 0;
    }

    // No piece is as long as most parts of a very long one: looking each up would take quadratic time.
    std::vector<bool> lengths;
    for (size_t id = 0; id < n; id++) {
        const size_t length = vocab.pieces[id].size();
        lengths.resize(std::max(lengths.size(), length + 1));
        lengths[length] = true;
    }
    uint64_t n_looked_up   = 0; // bytes
    auto     symbol_of_part = [&](std::string_view part) -> symbol {
        n_looked_up += lengths[part.size()] ? part.size() : 0;
        const int32_t id = lengths[part.size()] ? vocab.ids.find(part) : -1;
        if (id >= 0) {
            return static_cast<symbol>(id);
        }
        if (part.size() != utf8_length(static_cast<uint8_t>(part[0]))) {
            return NO_SYMBOL;
        }
        uint32_t cp = 0;
        decode_utf8(part.data(), part.data() + part.size(), &cp);
        if (of(cp) != NO_SYMBOL) {
            return of(cp);
        }
        std::vector<int32_t> spelled;
        for (char c : part) {
            const int32_t byte = byte_id(static_cast<uint8_t>(c));
            if (byte < 0) {
                spelled.assign(vocab.unk >= 0, vocab.unk);
                break;
            }
            spelled.push_back(byte);
        }
        set(cp, add_extra(spelled));
        return of(cp);
    };
    std::vector<merge_rule> rules;
    rules.reserve(n * 2);
    for (size_t id = 0; id < n; id++) {
        const std::string_view piece = vocab.pieces[id];
        const size_t           first = utf8_length(static_cast<uint8_t>(piece[0]));
        if (first == 0 || first >= piece.size() || valid_utf8(piece) != piece.size()) {
            continue; // one character, or nothing that text can become
        }
        bool formed = false;
        for (size_t cut = first; cut < piece.size(); cut += utf8_length(static_cast<uint8_t>(piece[cut]))) {
            const symbol left = symbol_of_part(piece.substr(0, cut));
            if (left == NO_SYMBOL) {
                continue;
            }
            const symbol right = symbol_of_part(piece.substr(cut));
            if (right != NO_SYMBOL) {
                rules.push_back({ left, right, ranks[id], static_cast<symbol>(id) });
                formed = true;
            }
        }
        if (rules.size() > 8 * n + SPARE_RULES || n_looked_up > MOST_LOOKED_UP) {
            throw failure(KOLLAMA_ERROR_FORMAT, format("the tokens up to %zu are made of others in more ways than any tokenizer's", id));
        }
        if (formed) {
            cuts_.note(piece);
        }
    }
    // A byte that stands in for a character merges with nothing, which its own piece might: but where
    // that is in no rule, the two need not be told apart.
    std::vector<bool> merges(n);
    for (const merge_rule & rule : rules) {
        for (symbol part : { rule.left, rule.right }) {
            if (part < n) {
                merges[part] = true;
            }
        }
    }
    for (symbol & byte : bytes_) {
        int32_t id[4];
        if (byte != NO_SYMBOL && spell(byte, id) == 1 && !merges[static_cast<size_t>(id[0])]) {
            byte = static_cast<symbol>(id[0]);
        }
    }
    merges_.build(std::move(rules));
    finish();
    known_.build(vocab, *this);
}

void piece_table::build_by_rank(const vocabulary & vocab, const piece_rules & rules, const std::vector<merge_rule> & merges) {
    begin(vocab, rules);
    bytes_.fill(NO_SYMBOL);
    knows_bytes_ = rules.byte_fallback;
    for (unsigned byte = 0; byte < 256; byte++) {
        const int32_t id = rules.byte_fallback ? vocab.byte_id(static_cast<uint8_t>(byte)) : -1;
        if (id >= 0 && !vocab.added_only(static_cast<size_t>(id))) {
            bytes_[byte] = static_cast<symbol>(id);
        }
        knows_bytes_ &= bytes_[byte] != NO_SYMBOL;
    }
    unknown_ = vocab.unk >= 0 ? static_cast<symbol>(vocab.unk) : NO_SYMBOL;
    std::vector<bool> noted(n_tokens_); // most pieces are the result of several merges
    for (const merge_rule & rule : merges) {
        if (!noted[rule.result]) {
            noted[rule.result] = true;
            cuts_.note(vocab.pieces[rule.result]);
        }
        for (symbol part : { rule.left, rule.right }) {
            // A merge of what stands in for unknown characters crosses cuts that go by characters.
            const int byte = vocabulary::byte_of(vocab.pieces[part]);
            if (part == unknown_ || (byte >= 0 && bytes_[byte] == part)) {
                rules_.cuttable = false;
            }
        }
    }
    merges_.build(merges);
    finish();
    known_.build(vocab, *this);
}

} // namespace kollama
