#include "tokenizer/json_file.h"

namespace kollama {
namespace {

constexpr int64_t MAX_ID = NO_SYMBOL - 1;

json_value read_value(json_reader & in) {
    json_value out;
    out.kind = in.peek();
    switch (out.kind) {
        case json_reader::kind::object: {
            in.begin_object();
            for (std::string key; in.next_key(key);) {
                out.members.emplace_back(key, read_value(in));
            }
            break;
        }
        case json_reader::kind::array:
            in.begin_array();
            while (in.next_item()) {
                out.members.emplace_back("", read_value(in));
            }
            break;
        case json_reader::kind::string: in.string(out.text); break;
        case json_reader::kind::number: out.number = in.number(); break;
        case json_reader::kind::boolean: out.boolean = in.boolean(); break;
        case json_reader::kind::null: in.take_null(); break;
    }
    return out;
}

void read_added(json_reader & in, json_file & out) {
    in.begin_array();
    while (in.next_item()) {
        added_token token;
        in.begin_object();
        for (std::string key; in.next_key(key);) {
            if (key == "id") {
                token.id = in.integer(0, MAX_ID);
            } else if (key == "content") {
                in.string(token.text);
            } else if (bool * flag = key == "single_word" ? &token.single_word : key == "lstrip" ? &token.lstrip
                                   : key == "rstrip" ? &token.rstrip : key == "normalized" ? &token.normalized
                                   : key == "special" ? &token.special : nullptr) {
                *flag = in.boolean();
            } else {
                in.skip();
            }
        }
        if (token.id < 0) {
            in.fail("an added token without an id");
        }
        if (!token.text.empty()) { // tokenizers passes over an empty one
            out.added.push_back(std::move(token));
        }
    }
}

void read_vocab(json_reader & in, json_file & out) {
    if (in.peek() != json_reader::kind::object) {
        in.fail("the model's vocabulary is not an object of pieces and ids, as that of a BPE is");
    }
    in.begin_object();
    for (std::string key; in.next_key(key);) {
        out.texts.add(key);
        out.text_ids.push_back(static_cast<int32_t>(in.integer(0, MAX_ID)));
    }
}

void read_merges(json_reader & in, json_file & out) {
    std::string text;
    in.begin_array();
    while (in.next_item()) {
        if (in.peek() == json_reader::kind::string) { // "left right", as files before 2024 have it
            text.clear();
            in.string(text);
            const size_t space = text.find(' ');
            if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
                in.fail("a merge is two pieces with a space between, not " + quoted(text));
            }
            out.merges.add(std::string_view(text).substr(0, space));
            out.merges.add(std::string_view(text).substr(space + 1));
            continue;
        }
        in.begin_array();
        int n_parts = 0;
        for (; in.next_item(); n_parts++) {
            if (n_parts == 2) {
                in.fail("a merge has two pieces, this one has more");
            }
            in.string(out.merges.bytes());
            out.merges.close();
        }
        if (n_parts != 2) {
            in.fail("a merge has two pieces, this one has fewer");
        }
    }
    if (out.merges.size() / 2 >= (NO_RULE)) {
        in.fail("more merges than fit here");
    }
}

void read_model(json_reader & in, json_file & out) {
    std::string text;
    out.has_model         = true;
    out.rules.byte_fallback = false;
    in.begin_object();
    for (std::string key; in.next_key(key);) {
        if (key == "type") {
            text.clear();
            in.string(text);
            if (text != "BPE") {
                in.fail("the model is of type " + quoted(text) + "; only BPE is read from a tokenizer.json");
            }
        } else if (key == "vocab") {
            read_vocab(in, out);
        } else if (key == "merges") {
            read_merges(in, out);
        } else if (key == "unk_token") {
            if (!in.take_null()) {
                out.has_unk = true;
                in.string(out.unk);
            }
        } else if (key == "fuse_unk" || key == "byte_fallback" || key == "ignore_merges") {
            bool & flag = key == "fuse_unk" ? out.rules.fuse_unk : key == "byte_fallback" ? out.rules.byte_fallback
                                                                                          : out.rules.ignore_merges;
            if (!in.take_null()) {
                flag = in.boolean();
            }
        } else if (key == "continuing_subword_prefix" || key == "end_of_word_suffix") {
            text.clear();
            if (!in.take_null()) {
                in.string(text);
            }
            if (!text.empty()) {
                in.fail("a BPE with a " + key + " is not of Llama's family and is not read here");
            }
        } else if (key == "dropout") {
            if (!in.take_null()) {
                in.fail("with dropout the ids of a text are random; set it to null");
            }
        } else {
            in.skip();
        }
    }
}

} // namespace

json_file read_json_file(std::string_view json) {
    json_reader in(json);
    json_file   out;
    in.begin_object();
    for (std::string key; in.next_key(key);) {
        if (key == "model") {
            read_model(in, out);
        } else if (key == "added_tokens") {
            read_added(in, out);
        } else if (json_value * part = key == "normalizer" ? &out.normalizer : key == "pre_tokenizer" ? &out.pre_tokenizer
                                : key == "post_processor" ? &out.post_processor : key == "decoder" ? &out.decoder : nullptr) {
            *part = read_value(in);
        } else {
            in.skip();
        }
    }
    in.end();
    if (!out.has_model || out.texts.size() == 0) {
        refuse("it is JSON, but no tokenizer.json: it has no model with a vocabulary");
    }
    return out;
}

} // namespace kollama
