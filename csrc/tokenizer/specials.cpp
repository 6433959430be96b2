#include "tokenizer/specials.h"

#include "tokenizer/bits.h"
#include "tokenizer/chars.h"
#include "tokenizer/sse2.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <unordered_set>

namespace kollama {

// ---- pattern_set ---------------------------------------------------------------------------------

void pattern_set::build(const std::vector<special_token> & tokens) {
    nodes_.assign(1, {});
    n_patterns_ = tokens.size();
    firsts_.fill(false);
    for (size_t i = 0; i < tokens.size(); i++) {
        const std::string & text = tokens[i].text;
        uint32_t            at   = 0;
        for (char c : text) {
            const uint8_t byte = static_cast<uint8_t>(c);
            uint32_t      next = child(at, byte);
            if (next == 0) {
                next = static_cast<uint32_t>(nodes_.size());
                node fresh;
                fresh.byte         = byte;
                fresh.depth        = nodes_[at].depth + 1;
                fresh.next_sibling = nodes_[at].first_child;
                nodes_.push_back(fresh);
                nodes_[at].first_child = next;
            }
            at = next;
        }
        nodes_[at].pattern  = static_cast<int32_t>(i);
        const uint8_t first = static_cast<uint8_t>(text[0]);
        firsts_[first]      = true;
        for (unsigned second = 0; second < 256; second++) {
            if (text.size() == 1 || second == static_cast<uint8_t>(text[1])) {
                const unsigned pair = first * 256u + second;
                pairs_[pair / 64] |= uint64_t{ 1 } << (pair % 64);
            }
        }
    }
    beginnings_.clear();
    for (unsigned first = 0; first < 256; first++) {
        if (firsts_[first]) {
            beginnings_.push_back(beginning_of(first));
        }
    }
    if (beginnings_.size() > FEW) {
        beginnings_.clear();
    }
}

pattern_set::beginning pattern_set::beginning_of(unsigned first) const {
    unsigned n = 0, last = 0;
    for (unsigned second = 0; second < 256; second++) {
        const unsigned pair = first * 256 + second;
        if (pairs_[pair / 64] >> (pair % 64) & 1) {
            n++;
            last = second;
        }
    }
    beginning out;
    std::memset(out.first, static_cast<int>(first), sizeof(out.first));
    std::memset(out.second, static_cast<int>(last), sizeof(out.second));
    std::memset(out.any, n == 1 ? 0 : -1, sizeof(out.any));
    return out;
}

// Whether a pattern may begin with the first two bytes at p, or text ends with the first.
bool pattern_set::begins(const char * p, const char * end) const {
    const unsigned pair = static_cast<uint8_t>(*p) * 256u + (p + 1 < end ? static_cast<uint8_t>(p[1]) : 0u);
    return p + 1 == end || (pairs_[pair / 64] >> (pair % 64) & 1);
}

// As next(), but where it finds none it may stop a block or less before the end.
const char * pattern_set::skip_blocks(const char * p, const char * end) const {
#ifdef KOLLAMA_SSE2
    const auto sixteen = [](const char * from) { return _mm_loadu_si128(reinterpret_cast<const __m128i *>(from)); };
    for (; !beginnings_.empty() && end - p > 16; p += 16) {
        const __m128i firsts = sixteen(p), seconds = sixteen(p + 1);
        __m128i       found  = _mm_setzero_si128();
        for (const beginning & one : beginnings_) {
            const __m128i second = _mm_or_si128(_mm_cmpeq_epi8(seconds, sixteen(one.second)), sixteen(one.any));
            found = _mm_or_si128(found, _mm_and_si128(_mm_cmpeq_epi8(firsts, sixteen(one.first)), second));
        }
        for (uint64_t bits = static_cast<uint32_t>(_mm_movemask_epi8(found)); bits != 0; bits &= bits - 1) {
            if (begins(p + lowest_bit(bits), end)) {
                return p + lowest_bit(bits);
            }
        }
    }
#endif
    return p;
}

const char * pattern_set::next(const char * p, const char * end) const {
    for (p = skip_blocks(p, end); p < end; p++) {
        if (firsts_[static_cast<uint8_t>(*p)] && begins(p, end)) {
            return p;
        }
    }
    return end;
}

// ---- leftmost, longest ---------------------------------------------------------------------------

namespace {

// The character that ends before p.
uint32_t last_char(const char * begin, const char * p) {
    const char * start = p - 1;
    while (start > begin && (static_cast<uint8_t>(*start) & 0xC0) == 0x80) {
        start--;
    }
    uint32_t cp = 0;
    return decode_utf8(start, p, &cp) ? cp : 0;
}

uint32_t first_char(const char * p, const char * end) {
    uint32_t cp = 0;
    return decode_utf8(p, end, &cp) ? cp : 0;
}

const char * skip_spaces_back(const char * begin, const char * p) {
    while (p > begin && is_space(last_char(begin, p))) {
        do {
            p--;
        } while ((static_cast<uint8_t>(*p) & 0xC0) == 0x80);
    }
    return p;
}

const char * skip_spaces(const char * p, const char * end) {
    uint32_t cp;
    for (size_t n; p < end && (n = decode_utf8(p, end, &cp)) > 0 && is_space(cp);) {
        p += n;
    }
    return p;
}

} // namespace

void leftmost_specials::build(std::vector<special_token> tokens) {
    tokens_      = std::move(tokens);
    for (const special_token & token : tokens_) {
        all_special_ &= token.is_special;
        looks_around_ |= token.lstrip || token.rstrip || token.single_word;
    }
    patterns_.build(tokens_);
}

void leftmost_specials::split(std::string_view text, bool parse_special, std::vector<fragment> & out) const {
    const char * begin = text.data();
    const char * end   = begin + text.size();
    const char * done  = begin; // what stands before is in a fragment
    if (looks_around_) {
        check_utf8(text);
    }
    auto plain = [&](const char * until) {
        if (done < until) {
            out.push_back({ static_cast<size_t>(done - begin), static_cast<size_t>(until - begin), -1 });
        }
    };
    for (const char * p = begin; (p = patterns_.next(p, end)) < end;) {
        const special_token * token = nullptr;
        patterns_.at(p, end, [&](size_t index, size_t) { token = &tokens_[index]; });
        if (!token) {
            p++;
            continue;
        }
        const char * first = p;
        const char * last  = p + token->text.size();
        p                  = last; // the next search goes on here, whether or not this match counts
        if (token->is_special && !parse_special) {
            continue;
        }
        if (token->single_word && ((first > begin && is_word(last_char(begin, first))) ||
                                   (last < end && is_word(first_char(last, end))))) {
            continue;
        }
        if (token->lstrip) {
            first = std::max(skip_spaces_back(begin, first), done);
        }
        if (token->rstrip) {
            last = skip_spaces(last, end);
        }
        plain(first);
        if (first < last) { // else all of it is white space that the token before has taken
            out.push_back({ static_cast<size_t>(first - begin), static_cast<size_t>(last - begin), token->id });
        }
        done = last;
    }
    plain(end);
}

// ---- the longest first ---------------------------------------------------------------------------

void longest_first_specials::build(std::vector<special_token> tokens) {
    // llama.cpp sorts ids by length alone and not stably: of equal lengths the order is what std::sort makes of so many
    // numbers, so the same call on as many.
    std::vector<int32_t> order(tokens.size());
    std::iota(order.begin(), order.end(), 0);
    const auto size_of = [&](int32_t i) { return tokens[static_cast<size_t>(i)].text.size(); };
    std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return size_of(a) > size_of(b); });
    std::unordered_set<std::string> seen[2];
    for (const int32_t i : order) {
        const special_token & token = tokens[static_cast<size_t>(i)];
        for (set * to : { &all_, token.is_special ? nullptr : &plain_ }) {
            if (to && seen[to == &all_].insert(token.text).second) { // of two with one text the first is found
                to->tokens.push_back(token);
                to->strips |= token.lstrip || token.rstrip;
            }
        }
    }
    all_.patterns.build(all_.tokens);
    plain_.patterns.build(plain_.tokens);
}

void longest_first_specials::split(std::string_view text, bool parse_special, std::vector<fragment> & out) const {
    (parse_special ? all_ : plain_).split(text, out);
}

// Only tokens that overlap compete, so each cluster of overlapping ones is settled by itself. Where
// a token takes white space along, the whole text is one cluster.
void longest_first_specials::set::split(std::string_view text, std::vector<fragment> & out) const {
    const char *        begin = text.data();
    const char *        end   = begin + text.size();
    const char *        done  = begin;
    std::vector<size_t> which;
    std::vector<bool>   seen(tokens.size());
    auto note = [&](const char * p, const char ** last) {
        patterns.at(p, end, [&](size_t index, size_t length) {
            *last = std::max(*last, p + length);
            if (!seen[index]) {
                seen[index] = true;
                which.push_back(index);
            }
        });
    };
    auto plain = [&](const char * until) {
        if (done < until) {
            out.push_back({ static_cast<size_t>(done - begin), static_cast<size_t>(until - begin), -1 });
        }
    };
    if (strips) {
        const char * last = begin;
        for (const char * p = begin; (p = patterns.next(p, end)) < end; p++) {
            note(p, &last);
        }
        split_cluster(text, 0, text.size(), which, out);
        return;
    }
    for (const char * p = begin; (p = patterns.next(p, end)) < end;) {
        const char * first = p;
        const char * last  = p;
        note(p, &last);
        if (last == first) {
            p++;
            continue;
        }
        for (p++; p < last; p++) {
            note(p, &last);
        }
        plain(first);
        split_cluster(text, static_cast<size_t>(first - begin), static_cast<size_t>(last - begin), which, out);
        for (size_t index : which) {
            seen[index] = false;
        }
        which.clear();
        done = p = last;
    }
    plain(end);
}

void longest_first_specials::set::split_cluster(std::string_view text, size_t first, size_t last,
                                                std::vector<size_t> & which, std::vector<fragment> & out) const {
    if (which.size() == 1 && tokens[which[0]].text.size() == last - first && !strips) { // mostly a new line
        out.push_back({ first, last, tokens[which[0]].id });
        return;
    }
    const auto space = [](char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }; // isspace of the C locale
    std::sort(which.begin(), which.end());
    std::vector<fragment> now{ { first, last, -1 } }, next;
    for (size_t index : which) {
        const special_token & token = tokens[index];
        next.clear();
        for (fragment part : now) {
            while (part.id < 0) {
                const size_t match = text.substr(0, part.last).find(token.text, part.first);
                if (match == std::string_view::npos) {
                    break;
                }
                const size_t after = match + token.text.size();
                size_t       left = match, right = after;
                while (token.lstrip && left > part.first && space(text[left - 1])) {
                    left--;
                }
                while (token.rstrip && right < part.last && space(text[right])) {
                    right++;
                }
                if (left > part.first) {
                    next.push_back({ part.first, left, -1 });
                }
                next.push_back({ left, right, token.id });
                part.first = right;
                if (right == part.last) {
                    break;
                }
            }
            if (part.id >= 0 || part.first < part.last) {
                next.push_back(part);
            }
        }
        now.swap(next);
    }
    out.insert(out.end(), now.begin(), now.end());
}

} // namespace kollama
