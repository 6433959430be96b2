// tokenizer.json of Hugging Face `tokenizers`: the part of it that Llama's family uses. What is not
// known here is refused by name, never ignored: it would change ids.
//
// Read from the sources of tokenizers 0.23.3.

#include "tokenizer/chars.h"
#include "tokenizer/json_file.h"
#include "tokenizer/tokenizer.h"

namespace kollama {
namespace {

// ---- vocabulary ----------------------------------------------------------------------------------

// How many ids there are: with those beyond the file's last that model has and does not use.
size_t count_ids(int64_t last, const vocabulary * model) {
    const size_t named = static_cast<size_t>(last + 1);
    size_t       used  = model ? model->size() : 0;
    while (used > named && model->kinds[used - 1] == token_kind::unused) {
        used--;
    }
    return used == named ? model->size() : named;
}

void place_pieces(json_file & in, const vocabulary * model, vocabulary & vocab) {
    int64_t last = -1;
    for (int32_t id : in.text_ids) {
        last = std::max<int64_t>(last, id);
    }
    for (const added_token & token : in.added) {
        last = std::max(last, token.id);
    }
    const size_t         n = count_ids(last, model);
    std::vector<int64_t> source(n, -1); // of each id: index in the file; from in.texts.size() on an added token
    string_index         index;
    const auto           doubles = index.build(in.texts);
    if (doubles.first >= 0) {
        refuse("the vocabulary has the piece " + quoted(in.texts[static_cast<size_t>(doubles.first)]) + " twice");
    }
    for (size_t i = 0; i < in.texts.size(); i++) {
        int64_t & at = source[static_cast<size_t>(in.text_ids[i])];
        if (at >= 0) {
            refuse(format("the pieces %s and %s both have id %d", quoted(in.texts[static_cast<size_t>(at)]).c_str(),
                          quoted(in.texts[i]).c_str(), in.text_ids[i]));
        }
        at = static_cast<int64_t>(i);
    }
    vocab.outside.assign(n, false);
    for (size_t i = 0; i < in.added.size(); i++) {
        const added_token & token = in.added[i];
        const int32_t       known = index.find(token.text);
        int64_t &           at    = source[static_cast<size_t>(token.id)];
        if (known >= 0 ? in.text_ids[static_cast<size_t>(known)] != token.id : at >= 0) {
            refuse(format("the added token %s has id %lld, which in the vocabulary is another piece's", quoted(token.text).c_str(),
                          (long long) token.id));
        }
        if (known < 0) {
            at = static_cast<int64_t>(in.texts.size() + i);
            vocab.outside[static_cast<size_t>(token.id)] = true;
        }
    }
    vocab.pieces.reserve(n, n * 8);
    vocab.kinds.assign(n, token_kind::normal);
    vocab.special.assign(n, false);
    vocab.eog.assign(n, false);
    for (size_t id = 0; id < n; id++) {
        if (source[id] < 0) {
            const bool unused = model && id < model->size() && model->kinds[id] == token_kind::unused;
            vocab.kinds[id]   = unused ? token_kind::unused : token_kind::none;
            vocab.pieces.add(unused ? model->pieces[id] : std::string_view());
            continue;
        }
        const size_t i = static_cast<size_t>(source[id]);
        vocab.pieces.add(i < in.texts.size() ? in.texts[i] : in.added[i - in.texts.size()].text);
    }
    const auto same = vocab.ids.build(vocab.pieces);
    if (same.first >= 0 && !vocab.pieces[static_cast<size_t>(same.first)].empty()) {
        refuse("two added tokens are " + quoted(vocab.pieces[static_cast<size_t>(same.first)]));
    }
    for (const added_token & token : in.added) {
        const size_t id = static_cast<size_t>(token.id);
        vocab.special[id] = vocab.special[id] || token.special;
        if (token.special) {
            vocab.kinds[id] = token_kind::control;
        }
    }
    if (in.has_unk) {
        vocab.unk = vocab.ids.find(in.unk);
        if (vocab.unk < 0) {
            refuse("the unknown token " + quoted(in.unk) + " is not in the vocabulary");
        }
    }
}

// bos, eos and what ends a generation: by the template that the file puts around a text, else by the
// names that models give them.
void find_ends(const json_file & in, vocabulary & vocab) {
    const json_value * processor = &in.post_processor;
    if (processor->type() == "Sequence" && processor->find("processors")) {
        for (const auto & member : processor->find("processors")->members) {
            if (member.second.type() == "TemplateProcessing") {
                processor = &member.second;
            }
        }
    }
    if (processor->type() == "TemplateProcessing" && processor->find("single")) {
        bool before = true;
        for (const auto & member : processor->find("single")->members) {
            if (const json_value * token = member.second.find("SpecialToken")) {
                const int32_t id = vocab.ids.find(token->string("id"));
                if (id >= 0 && (before ? vocab.bos : vocab.eos) < 0) {
                    (before ? vocab.bos : vocab.eos) = id;
                    vocab.add_bos |= before;
                }
            } else {
                before = false;
            }
        }
    }
    auto by_name = [&](std::initializer_list<const char *> names) {
        for (const char * name : names) {
            for (const added_token & token : in.added) {
                if (token.special && token.text == name) {
                    return static_cast<int32_t>(token.id);
                }
            }
        }
        return -1;
    };
    if (vocab.bos < 0) {
        vocab.bos = by_name({ "<s>", "<bos>", "<|begin_of_text|>", "[BOS]" });
    }
    if (vocab.eos < 0) {
        vocab.eos = by_name({ "</s>", "<eos>", "<|end_of_text|>", "<|endoftext|>", "[EOS]" });
    }
    if (vocab.eos >= 0) {
        vocab.eog[static_cast<size_t>(vocab.eos)] = true;
    }
    for (const char * name : END_OF_GENERATION) {
        if (const int32_t id = by_name({ name }); id >= 0) {
            vocab.eog[static_cast<size_t>(id)] = true;
        }
    }
}

// ---- normaliser, pre-tokenizer, decoder ----------------------------------------------------------

void read_normalizer(const json_value & in, rank_rules & out) {
    if (in.kind == json_reader::kind::null) {
        return;
    }
    if (in.type() == "Sequence") {
        if (const json_value * parts = in.find("normalizers")) {
            for (const auto & member : parts->members) {
                read_normalizer(member.second, out);
            }
        }
    } else if (in.type() == "Prepend") {
        if (std::string text = in.string("prepend"); !text.empty()) {
            out.steps.push_back({ true, "", std::move(text) });
        }
    } else if (in.type() == "Replace") {
        const json_value * pattern = in.find("pattern");
        if (!pattern || !pattern->find("String")) {
            refuse("the normalizer 'Replace' with a regular expression is not done here, only with a string");
        }
        if (std::string text = pattern->string("String"); !text.empty()) {
            out.steps.push_back({ false, std::move(text), in.string("content") });
        }
    } else {
        refuse("the normalizer " + quoted(in.type()) + " is not done here; those of Llama's family, Prepend and Replace, are");
    }
}

bool leaves_no_space(const rank_rules & rules) {
    bool none = false;
    for (const normal_step & step : rules.steps) {
        const bool brings = step.content.find(' ') != std::string::npos;
        none = !brings && (none || (!step.prepend && step.pattern == " "));
    }
    return none;
}

void read_pre_tokenizer(const json_value & in, rank_rules & out) {
    if (in.kind == json_reader::kind::null) {
        return;
    }
    if (in.type() == "Sequence") {
        const json_value * parts = in.find("pretokenizers");
        if (parts && parts->members.size() == 1) {
            read_pre_tokenizer(parts->members[0].second, out);
            return;
        }
    } else if (in.type() == "Metaspace") {
        const json_value * scheme = in.find("prepend_scheme");
        const std::string name   = scheme ? in.string("prepend_scheme") : "always";
        out.metaspace            = name == "always" ? mark_scheme::always : name == "first" ? mark_scheme::first
                                 : name == "never" ? mark_scheme::never : mark_scheme::none;
        if (out.metaspace == mark_scheme::none) {
            refuse("Metaspace has the unknown prepend_scheme " + quoted(name));
        }
        if (!in.flag("add_prefix_space", true)) {
            if (scheme && name != "never") {
                refuse("Metaspace has add_prefix_space false and prepend_scheme " + quoted(name));
            }
            out.metaspace = mark_scheme::never;
        }
        if (in.string("replacement") != MARK) {
            refuse("Metaspace with the replacement " + quoted(in.string("replacement")) + " is not done here, only U+2581");
        }
        out.pieces.split_marks = in.flag("split", true);
        return;
    } else if (in.type() == "Split") { // Gemma's file splits at spaces that its normalizer has replaced
        const json_value * pattern = in.find("pattern");
        if (pattern && pattern->find("String") && pattern->string("String") == " " && leaves_no_space(out)) {
            return;
        }
    }
    refuse("the pre-tokenizer " + quoted(in.type()) + " is not done here; that of Llama's family, Metaspace, is" +
           (in.type() == "ByteLevel" || in.type() == "Sequence" ? ". Byte-level BPE is read from a GGUF" : ""));
}

struct decoder_steps {
    bool marks = false, bytes = false, fuse = false, any = false;
};

void read_decoder(const json_value & in, decoder_steps & seen, text_rules & out) {
    const auto type = in.type();
    seen.any        = true;
    if (type == "Sequence") {
        if (const json_value * parts = in.find("decoders")) {
            for (const auto & member : parts->members) {
                read_decoder(member.second, seen, out);
            }
        }
        return;
    }
    if (type == "Replace") {
        const json_value * pattern = in.find("pattern");
        if (pattern && pattern->find("String") && pattern->string("String") == MARK && in.string("content") == " " &&
            !seen.fuse) {
            seen.marks = true;
            return;
        }
    } else if (type == "ByteFallback" && !seen.fuse) {
        seen.bytes = true;
        return;
    } else if (type == "Fuse") {
        seen.fuse = true;
        return;
    } else if (type == "Strip" && seen.fuse && in.string("content") == " ") {
        const json_value * start = in.find("start");
        const json_value * stop  = in.find("stop");
        if (start && stop && (start->number == 0 || start->number == 1) && stop->number == 0) {
            out.start = start->number == 1 ? text_rules::strip::one_space : text_rules::strip::nothing;
            return;
        }
    } else if (type == "Metaspace" && !seen.fuse) {
        seen.marks = true;
        const json_value * scheme = in.find("prepend_scheme");
        if ((!scheme || scheme->text != "never") && in.flag("add_prefix_space", true)) {
            out.start = text_rules::strip::marks_of_first;
        }
        return;
    }
    refuse("the decoder " + quoted(type) + " is not done here, or not at this place; those of Llama's family are: Replace of "
           "U+2581, ByteFallback, Fuse, Strip, and Metaspace");
}

std::vector<merge_rule> resolve_merges(const json_file & in, const vocabulary & vocab) {
    std::vector<merge_rule> rules;
    std::string             both;
    rules.reserve(in.merges.size() / 2);
    auto id_of = [&](size_t merge, std::string_view piece) {
        const int32_t id = vocab.ids.find(piece);
        if (id < 0 || vocab.added_only(static_cast<size_t>(id))) {
            refuse(format("merge %zu needs the piece %s, which the vocabulary does not have", merge, quoted(piece).c_str()));
        }
        return static_cast<symbol>(id);
    };
    for (size_t i = 0; i < in.merges.size() / 2; i++) {
        const std::string_view left = in.merges[2 * i], right = in.merges[2 * i + 1];
        both.assign(left).append(right);
        rules.push_back({ id_of(i, left), id_of(i, right), static_cast<uint32_t>(i), id_of(i, both) });
    }
    return rules;
}

} // namespace

void read_json(std::string_view json, tokenizer & out, const vocabulary * model) {
    json_file    in    = read_json_file(json);
    vocabulary & vocab = out.vocab;
    rank_rules   rules;
    place_pieces(in, model, vocab);
    find_ends(in, vocab);
    rules.pieces = in.rules;
    read_normalizer(in.normalizer, rules);
    read_pre_tokenizer(in.pre_tokenizer, rules);

    decoder_steps steps;
    if (in.decoder.kind == json_reader::kind::null) { // tokenizers would put spaces between; nobody means that
        steps = { true, true, true, true };
        out.text.start = !rules.steps.empty() && rules.steps[0].prepend ? text_rules::strip::one_space
                                                                        : text_rules::strip::nothing;
    } else {
        read_decoder(in.decoder, steps, out.text);
    }
    vocab.decodes_marks = steps.marks;
    for (size_t id = 0; id < vocab.size(); id++) {
        if (steps.bytes && vocab.kinds[id] != token_kind::none && vocabulary::byte_of(vocab.pieces[id]) >= 0) {
            vocab.kinds[id] = token_kind::byte;
        }
    }
    rules.merges = resolve_merges(in, vocab);
    for (const added_token & token : in.added) {
        (token.normalized ? rules.normalized : rules.raw)
            .push_back({ token.text, static_cast<int32_t>(token.id), token.special, token.lstrip, token.rstrip, token.single_word });
    }
    out.encodes = std::make_unique<rank_encoder>(vocab, std::move(rules));
}

} // namespace kollama
