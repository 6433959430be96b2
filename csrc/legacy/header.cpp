#include "legacy/header.h"

#include "gguf.h"
#include "llama.h"

#include <memory>

namespace kollama {
namespace {

// Llama-2's and LLaMA-1's, whose files do not say which they are. (LLaMA: params.json, "norm_eps".)
constexpr float    LLAMA_2_EPS = 1e-5f, LLAMA_1_EPS = 1e-6f;
constexpr uint32_t LLAMA_2_CONTEXT = 4096, LLAMA_1_CONTEXT = 2048;

using gguf_owner = std::unique_ptr<gguf_context, decltype(&gguf_free)>;

int32_t gguf_kind(token_kind kind) {
    switch (kind) {
        case token_kind::unknown: return LLAMA_TOKEN_TYPE_UNKNOWN;
        case token_kind::control: return LLAMA_TOKEN_TYPE_CONTROL;
        case token_kind::byte:    return LLAMA_TOKEN_TYPE_BYTE;
        default:                  return LLAMA_TOKEN_TYPE_NORMAL;
    }
}

// What quantize of 2023 called its mix; 4 (q4_1 with f16 embeddings) has no number today.
uint32_t file_type(const legacy_header & header) {
    return header.ftype == 4 ? static_cast<uint32_t>(LLAMA_FTYPE_MOSTLY_Q4_1) : header.ftype;
}

void add_model(gguf_context * out, const legacy_file & file, const legacy_options & options) {
    const legacy_header & h   = file.header;
    const float           eps = options.rms_norm_eps > 0 ? options.rms_norm_eps : LLAMA_2_EPS;
    gguf_set_val_str(out, "general.architecture", "llama");
    gguf_set_val_str(out, "general.name", options.name.c_str());
    gguf_set_val_u32(out, "general.file_type", file_type(h));
    gguf_set_val_u32(out, "general.quantization_version", GGML_QNT_VERSION);
    gguf_set_val_u32(out, "llama.context_length", eps <= LLAMA_1_EPS ? LLAMA_1_CONTEXT : LLAMA_2_CONTEXT);
    gguf_set_val_u32(out, "llama.embedding_length", h.n_embd);
    gguf_set_val_u32(out, "llama.block_count", h.n_layer);
    gguf_set_val_u32(out, "llama.feed_forward_length", file.n_ff);
    gguf_set_val_u32(out, "llama.attention.head_count", h.n_head);
    gguf_set_val_u32(out, "llama.attention.head_count_kv", file.n_head_kv);
    gguf_set_val_f32(out, "llama.attention.layer_norm_rms_epsilon", eps);
    gguf_set_val_u32(out, "llama.rope.dimension_count", h.n_rot);
    gguf_set_val_f32(out, "llama.rope.freq_base", 10000.0f);
    gguf_set_val_u32(out, "llama.vocab_size", h.n_vocab);
    gguf_set_val_str(out, "kollama.source_format", h.format_name().c_str());
}

void add_vocabulary(gguf_context * out, const legacy_vocabulary & vocab, const std::string & json) {
    const size_t              n = vocab.kinds.size();
    std::vector<std::string>  texts;
    std::vector<const char *> pointers;
    std::vector<int32_t>      kinds;
    texts.reserve(n);
    for (size_t id = 0; id < n; id++) {
        texts.emplace_back(vocab.pieces[id]);
        pointers.push_back(texts.back().c_str());
        kinds.push_back(gguf_kind(vocab.kinds[id]));
    }
    gguf_set_val_str (out, "tokenizer.ggml.model", "llama");
    gguf_set_arr_str (out, "tokenizer.ggml.tokens", pointers.data(), n);
    gguf_set_arr_data(out, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, vocab.scores.data(), n);
    gguf_set_arr_data(out, "tokenizer.ggml.token_type", GGUF_TYPE_INT32, kinds.data(), n);
    gguf_set_val_u32 (out, "tokenizer.ggml.unknown_token_id", 0);
    gguf_set_val_u32 (out, "tokenizer.ggml.bos_token_id", 1);
    gguf_set_val_u32 (out, "tokenizer.ggml.eos_token_id", 2);
    gguf_set_val_bool(out, "tokenizer.ggml.add_bos_token", true);
    gguf_set_val_bool(out, "tokenizer.ggml.add_eos_token", false);
    gguf_set_val_bool(out, "tokenizer.ggml.add_space_prefix", true);
    if (vocab.first_added < n) {
        gguf_set_val_u32(out, "kollama.tokenizer.first_added", vocab.first_added);
    }
    if (!json.empty()) {
        gguf_set_val_str(out, "tokenizer.huggingface.json", json.c_str());
    }
}

void add_tensors(gguf_context * out, const std::vector<legacy_tensor> & tensors) {
    for (const legacy_tensor & tensor : tensors) {
        ggml_tensor info{};
        info.type = tensor.type;
        info.ne[0] = static_cast<int64_t>(tensor.ne[0]);
        info.ne[1] = static_cast<int64_t>(tensor.ne[1]);
        info.ne[2] = info.ne[3] = 1;
        info.nb[0] = ggml_type_size(tensor.type);
        info.nb[1] = ggml_row_size(tensor.type, info.ne[0]);
        info.nb[2] = info.nb[3] = info.nb[1] * tensor.ne[1];
        ggml_set_name(&info, tensor.name.c_str());
        gguf_add_tensor(out, &info); // copies
    }
}

} // namespace

std::vector<char> make_gguf_header(const legacy_file & file, const legacy_options & options) {
    const gguf_owner gguf(gguf_init_empty(), gguf_free);
    add_model(gguf.get(), file, options);
    add_vocabulary(gguf.get(), file.vocab, options.tokenizer_json);
    add_tensors(gguf.get(), file.tensors);
    std::vector<char> header(gguf_get_meta_size(gguf.get()));
    gguf_get_meta_data(gguf.get(), header.data());
    return header;
}

} // namespace kollama
