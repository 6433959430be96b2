// What a tokenizer.json has, read but not yet understood.

#pragma once

#include "tokenizer/json.h"
#include "tokenizer/pipelines.h"

namespace kollama {

[[noreturn]] inline void refuse(const std::string & reason) {
    throw failure(KOLLAMA_ERROR_FORMAT, reason);
}

inline std::string quoted(std::string_view text) {
    return "'" + std::string(text) + "'";
}

// A small part of the file, as it is. The large ones are read without.
struct json_value {
    json_reader::kind kind    = json_reader::kind::null;
    std::string       text;
    double            number  = 0;
    bool              boolean = false;
    std::vector<std::pair<std::string, json_value>> members; // of an array, without names

    const json_value * find(std::string_view name) const {
        for (const auto & member : members) {
            if (member.first == name) {
                return member.second.kind == json_reader::kind::null ? nullptr : &member.second;
            }
        }
        return nullptr;
    }
    std::string_view type() const {
        const json_value * found = find("type");
        return found ? std::string_view(found->text) : "";
    }
    std::string string(std::string_view name) const {
        const json_value * found = find(name);
        if (!found || found->kind != json_reader::kind::string) {
            refuse(quoted(name) + " of " + quoted(type()) + " is not a string");
        }
        return found->text;
    }
    bool flag(std::string_view name, bool otherwise) const {
        const json_value * found = find(name);
        if (found && found->kind != json_reader::kind::boolean) {
            refuse(quoted(name) + " is not true or false");
        }
        return found ? found->boolean : otherwise;
    }
};

struct added_token {
    int64_t     id = -1;
    std::string text;
    bool        single_word = false, lstrip = false, rstrip = false, normalized = true, special = false;
};

struct json_file {
    std::vector<added_token> added;
    json_value               normalizer, pre_tokenizer, post_processor, decoder;

    // The model.
    bool                 has_model = false;
    string_list          texts;    // of the vocabulary, in the order of the file
    std::vector<int32_t> text_ids;
    string_list          merges;   // left, right, left, right ...
    std::string          unk;
    bool                 has_unk = false;
    piece_rules          rules;
};

// Throws KOLLAMA_ERROR_FORMAT where it is not JSON, or not of that shape.
json_file read_json_file(std::string_view json);

} // namespace kollama
