#include "tokenizer/pipelines.h"

namespace kollama {

// ---- by score ------------------------------------------------------------------------------------

struct score_encoder::state : encoder_state {
    unit_encoder          units;
    std::vector<fragment> fragments;

    state(const vocabulary & vocab, const piece_table & pieces) : units(vocab, pieces) {}
};

namespace {

span span_of(const fragment & part) {
    return { static_cast<uint32_t>(part.first), static_cast<uint32_t>(part.last) };
}

} // namespace

score_encoder::score_encoder(const vocabulary & vocab, std::vector<special_token> specials, bool add_space_prefix) :
    vocab_(vocab), add_space_prefix_(add_space_prefix) {
    pieces_.build_by_score(vocab);
    specials_.build(std::move(specials));
}

std::unique_ptr<encoder_state> score_encoder::make_state() const {
    return std::make_unique<state>(vocab_, pieces_);
}

void score_encoder::encode(encoder_state & base, std::string_view text, bool parse_special, token_buffer & out) const {
    auto & s = static_cast<state &>(base);
    if (text.empty()) {
        return;
    }
    s.units.begin(text, out);
    if (specials_.empty(parse_special)) {
        s.units.encode(0, text.size(), add_space_prefix_, out);
    } else {
        encode_around_specials(s, text, parse_special, out);
    }
    s.units.finish(out);
}

void score_encoder::encode_around_specials(state & s, std::string_view text, bool parse_special, token_buffer & out) const {
    s.fragments.clear();
    specials_.split(text, parse_special, s.fragments);
    bool after_special = true; // the beginning counts as one
    for (const fragment & part : s.fragments) {
        if (part.id >= 0) {
            s.units.push(part.id, span_of(part), out);
        } else {
            s.units.encode(part.first, part.last, add_space_prefix_ && after_special, out);
        }
        after_special = part.id >= 0;
    }
}

// ---- by rank -------------------------------------------------------------------------------------

struct rank_encoder::state : encoder_state {
    unit_encoder          units;
    std::vector<fragment> raw, normalized;
    std::string           text, swap;          // a segment, normalised
    std::vector<span>     sources, swap_sources; // of each of its bytes, in the caller's text

    state(const vocabulary & vocab, const piece_table & pieces) : units(vocab, pieces) {}
};

rank_encoder::rank_encoder(vocabulary & vocab, rank_rules rules) : vocab_(vocab), rules_(std::move(rules)) {
    bool marks_spaces = false;
    for (const normal_step & step : rules_.steps) {
        if (step.prepend && step.content == MARK && !prefixes_) {
            prefixes_ = true;
        } else if (!step.prepend && step.pattern == " " && step.content == MARK) {
            marks_spaces = true;
        } else {
            in_place_ = false;
        }
    }
    rules_.pieces.space_is_mark = rules_.metaspace != mark_scheme::none || (in_place_ && marks_spaces);
    pieces_.build_by_rank(vocab, rules_.pieces, rules_.merges);
    rules_.merges = {};
    for (special_token & token : rules_.normalized) { // looked for in normalised text, so normalised themselves
        state s(vocab_, pieces_);
        normalise(s, token.text, 0, false);
        if (s.text != token.text) {
            vocab.normalised[token.id] = s.text;
        }
        token.text = s.text;
    }
    const auto is_empty = [](const special_token & token) { return token.text.empty(); };
    rules_.normalized.erase(std::remove_if(rules_.normalized.begin(), rules_.normalized.end(), is_empty), rules_.normalized.end());
    raw_.build(std::move(rules_.raw));
    normalized_.build(std::move(rules_.normalized));
}

std::unique_ptr<encoder_state> rank_encoder::make_state() const {
    return std::make_unique<state>(vocab_, pieces_);
}

void rank_encoder::encode(encoder_state & base, std::string_view text, bool parse_special, token_buffer & out) const {
    auto & s = static_cast<state &>(base);
    s.units.begin(text, out);
    if (raw_.empty(parse_special)) {
        encode_segment(s, text, 0, text.size(), parse_special, out);
        s.units.finish(out);
        return;
    }
    s.raw.clear();
    raw_.split(text, parse_special, s.raw);
    for (const fragment & part : s.raw) {
        if (part.id >= 0) {
            s.units.push(part.id, span_of(part), out);
        } else {
            encode_segment(s, text, part.first, part.last, parse_special, out);
        }
    }
    s.units.finish(out);
}

// A stretch between added tokens that are looked for in the text as it is.
void rank_encoder::encode_segment(state & s, std::string_view text, size_t first, size_t last, bool parse_special,
                                  token_buffer & out) const {
    if (first == last) {
        return;
    }
    if (in_place_ && normalized_.empty(parse_special)) {
        encode_words(s, text, first, last, first == 0, prefixes_, out);
        return;
    }
    const std::string_view segment = text.substr(first, last - first);
    check_utf8(segment, first);
    s.units.finish(out);
    normalise(s, segment, first, out.with_spans());
    s.units.begin(s.text, out);
    const size_t before = out.spans.size();
    s.normalized.clear();
    normalized_.split(s.text, parse_special, s.normalized);
    for (const fragment & part : s.normalized) {
        if (part.id >= 0) {
            s.units.push(part.id, span_of(part), out);
        } else {
            encode_words(s, s.text, part.first, part.last, first == 0 && part.first == 0, false, out);
        }
    }
    s.units.finish(out);
    for (size_t i = before; i < out.spans.size(); i++) { // from the normalised text to the caller's
        span & where = out.spans[i];
        where = where.first < where.last ? span{ s.sources[where.first].first, s.sources[where.last - 1].last }
                                         : span{ s.sources.back().last, s.sources.back().last };
    }
}

void rank_encoder::encode_words(state & s, std::string_view text, size_t first, size_t last, bool at_start, bool prefixed,
                                token_buffer & out) const {
    bool mark = prefixed;
    if (!prefixed && (rules_.metaspace == mark_scheme::always || (rules_.metaspace == mark_scheme::first && at_start))) {
        mark = text[first] != ' ' && text.substr(first, last - first).substr(0, MARK.size()) != MARK;
    }
    s.units.encode(first, last, mark, out);
}

// Applies the steps; leaves the result in s.text, and in s.sources where each byte comes from.
void rank_encoder::normalise(state & s, std::string_view text, size_t offset, bool with_spans) const {
    s.text.assign(text);
    s.sources.clear();
    for (size_t i = 0, n; with_spans && i < text.size(); i += n) {
        n = std::max<size_t>(1, utf8_length(static_cast<uint8_t>(text[i])));
        const uint32_t first = static_cast<uint32_t>(offset + i);
        s.sources.insert(s.sources.end(), n, span{ first, first + static_cast<uint32_t>(n) });
    }
    for (const normal_step & step : rules_.steps) {
        if (step.prepend) {
            if (!s.text.empty()) {
                s.text.insert(0, step.content);
                if (with_spans) {
                    s.sources.insert(s.sources.begin(), step.content.size(), s.sources[0]);
                }
            }
            continue;
        }
        s.swap.clear();
        s.swap_sources.clear();
        size_t at = 0;
        for (size_t match; (match = s.text.find(step.pattern, at)) != std::string::npos; at = match + step.pattern.size()) {
            s.swap.append(s.text, at, match - at).append(step.content);
            if (with_spans) {
                const span where{ s.sources[match].first, s.sources[match + step.pattern.size() - 1].last };
                s.swap_sources.insert(s.swap_sources.end(), s.sources.begin() + static_cast<ptrdiff_t>(at),
                                      s.sources.begin() + static_cast<ptrdiff_t>(match));
                s.swap_sources.insert(s.swap_sources.end(), step.content.size(), where);
            }
        }
        s.swap.append(s.text, at);
        if (with_spans) {
            s.swap_sources.insert(s.swap_sources.end(), s.sources.begin() + static_cast<ptrdiff_t>(at), s.sources.end());
        }
        s.text.swap(s.swap);
        s.sources.swap(s.swap_sources);
    }
}

} // namespace kollama
