#include "tokenizer/llama_kinds.h"

#include <algorithm>

namespace kollama {

// llama_vocab::impl::load, "auto-detect special tokens by text".
void correct_kinds(vocabulary & vocab, const std::function<int32_t(const char *)> & named) {
    auto find = [&](const char * text) { return vocab.ids.find(text); };
    auto make_control = [&](int32_t id) {
        if (id >= 0 && vocab.kinds[static_cast<size_t>(id)] != token_kind::unknown) {
            vocab.kinds[static_cast<size_t>(id)] = token_kind::control;
        }
    };
    struct role {
        std::initializer_list<const char *> keys, texts;
    };
    static const role ROLES[] = {
        { { "fim_pre_token_id", "prefix_token_id" },
          { "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<｜fim▁begin｜>", "<PRE>", "▁<PRE>", "<|code_prefix|>", "<|prefix|>" } },
        { { "fim_suf_token_id", "suffix_token_id" },
          { "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<｜fim▁hole｜>", "<SUF>", "▁<SUF>", "<|code_suffix|>", "<|suffix|>" } },
        { { "fim_mid_token_id", "middle_token_id" },
          { "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<｜fim▁end｜>", "<MID>", "▁<MID>", "<|code_middle|>", "<|middle|>" } },
        { { "fim_pad_token_id" }, { "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]" } },
        { { "fim_rep_token_id" }, { "<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>" } },
        { { "fim_sep_token_id" }, { "<|file_sep|>" } },
    };
    for (const role & r : ROLES) {
        int32_t id = -1;
        for (const char * key : r.keys) {
            id = std::max(id, named(key));
        }
        for (auto text = r.texts.begin(); id < 0 && text != r.texts.end(); text++) {
            id = find(*text);
            make_control(id);
        }
        if (&r >= ROLES + 3 && id >= 0) {
            vocab.eog[static_cast<size_t>(id)] = true;
        }
    }
    for (const char * text : END_OF_GENERATION) {
        if (const int32_t id = find(text); id >= 0) {
            vocab.eog[static_cast<size_t>(id)] = true;
            make_control(id);
        }
    }
    for (const char * text : { "<|channel|>", "<|message|>", "<|start|>", "<|constrain|>" }) {
        if (const int32_t id = find(text); id >= 0) {
            vocab.kinds[static_cast<size_t>(id)] = token_kind::user_defined;
        }
    }
    for (int32_t id : { vocab.eos, named("eot_token_id"), named("eom_token_id") }) {
        if (id >= 0) {
            vocab.eog[static_cast<size_t>(id)] = true;
        }
    }
    auto demote = [&](const char * text, token_kind kind) {
        const int32_t id = find(text);
        if (id >= 0 && vocab.eog[static_cast<size_t>(id)]) {
            vocab.eog[static_cast<size_t>(id)]   = false;
            vocab.kinds[static_cast<size_t>(id)] = kind;
        }
    };
    auto has = [&](const char * text) {
        const int32_t id = find(text);
        return id >= 0 && vocab.eog[static_cast<size_t>(id)];
    };
    const bool calls = has("<|call|>") || has("<|calls|>");
    if (calls && (has("<|return|>") || has("<|flush|>"))) {
        demote("<|end|>", token_kind::user_defined);
    }
    if (has("<|tool_response>") || has("<|plamo:eos|>")) {
        demote("</s>", token_kind::normal);
    }
    for (size_t id = 0; id < vocab.size(); id++) {
        vocab.special[id] = vocab.kinds[id] == token_kind::control || vocab.kinds[id] == token_kind::unknown;
    }
}

std::vector<special_token> specials_of(const vocabulary & vocab, bool is_phi3) {
    std::vector<special_token> out;
    for (size_t id = 0; id < vocab.size(); id++) {
        const token_kind kind = vocab.kinds[id];
        if (kind != token_kind::control && kind != token_kind::user_defined && kind != token_kind::unknown) {
            continue;
        }
        special_token token;
        token.text       = vocab.pieces[id];
        token.id         = static_cast<int32_t>(id);
        token.is_special = kind != token_kind::user_defined;
        token.rstrip     = is_phi3 && token.text != "<unk>" && token.text != "<s>" && token.text != "<|endoftext|>";
        out.push_back(std::move(token));
    }
    return out;
}

} // namespace kollama
