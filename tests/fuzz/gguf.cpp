// libFuzzer: any bytes as a GGUF header -> an error, or a header that holds what its users rely on.
// See scripts/fuzz.sh.

#include "gguf_check.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>

using namespace kollama;

namespace {

void check(bool ok, const char * what) {
    if (!ok) {
        std::fprintf(stderr, "%s\n", what);
        std::abort();
    }
}

void look(const byte_source & source) {
    const kollama_gguf gguf = scan_gguf(source);
    check_gguf(gguf, source);
    for (const auto & tensor : gguf.tensors) {
        check(tensor.n_bytes > 0 && tensor.name.size() <= 64, "an empty or unnamed tensor");
        check(gguf.data_start + tensor.offset + tensor.n_bytes <= source.size(), "a tensor beyond the file");
        check(tensor.offset % gguf.alignment == 0, "a tensor that is not aligned");
    }
    for (const auto & entry : gguf.entries) {
        if (entry.array_offset == 0) {
            continue;
        }
        uint64_t n_bytes = 0;
        if (entry.array_type == GGUF_TYPE_STRING) {
            read_strings(source, entry, [&](std::string & text) { n_bytes += 8 + text.size(); });
        } else {
            n_bytes = read_array(source, entry).size();
        }
        check(entry.array_offset + n_bytes <= source.size(), "an array beyond the file");
    }
}

// A small model's header with a key for each thing that is checked.
std::string seed(const char * architecture, bool has_weights) {
    gguf_context * gguf = gguf_init_empty();
    const auto     key  = [&](const char * name) { return std::string(architecture) + "." + name; };
    gguf_set_val_str(gguf, "general.architecture", architecture);
    gguf_set_val_u32(gguf, "general.alignment", 32);
    for (const char * name : { "block_count", "context_length", "embedding_length", "feed_forward_length", "attention.head_count",
                               "attention.head_count_kv", "attention.key_length", "rope.dimension_count", "expert_count",
                               "expert_used_count", "ssm.group_count", "ssm.time_step_rank", "wkv.head_size", "vocab_size" }) {
        gguf_set_val_u32(gguf, key(name).c_str(), 32);
    }
    gguf_set_val_f32(gguf, key("attention.layer_norm_rms_epsilon").c_str(), 1e-5f);
    const int32_t sections[4] = { 8, 8, 0, 0 };
    gguf_set_arr_data(gguf, key("rope.dimension_sections").c_str(), GGUF_TYPE_INT32, sections, 4);
    const char * tokens[3] = { "<unk>", "<s>", "\xea\xb0\x80" };
    const float  scores[3] = { 0, -1, -2 };
    gguf_set_val_str(gguf, "tokenizer.ggml.model", "llama");
    gguf_set_arr_str(gguf, "tokenizer.ggml.tokens", tokens, 3);
    gguf_set_arr_data(gguf, "tokenizer.ggml.scores", GGUF_TYPE_FLOAT32, scores, 3);
    ggml_context * shapes = ggml_init({ 8 * ggml_tensor_overhead(), nullptr, true });
    size_t         n_data = 0;
    if (has_weights) {
        const std::pair<const char *, ggml_type> matrices[] = { { "token_embd.weight", GGML_TYPE_F16 }, { "blk.0.ffn_up.weight", GGML_TYPE_Q4_0 } };
        for (const auto & [name, type] : matrices) {
            ggml_tensor * tensor = ggml_set_name(ggml_new_tensor_2d(shapes, type, 32, 3), name);
            gguf_add_tensor(gguf, tensor);
            n_data += GGML_PAD(ggml_nbytes(tensor), 32);
        }
        gguf_add_tensor(gguf, ggml_set_name(ggml_new_tensor_1d(shapes, GGML_TYPE_F32, 32), "output_norm.weight"));
        n_data += 128;
    }
    std::string out(gguf_get_meta_size(gguf), '\0');
    gguf_get_meta_data(gguf, out.data());
    out.append(n_data, '\1');
    ggml_free(shapes);
    gguf_free(gguf);
    return out;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size) {
    try {
        look(*open_memory(data, size));
    } catch (const failure & e) {
        check(e.status == KOLLAMA_ERROR_FORMAT && e.what()[0] != '\0', e.what());
    }
    return 0;
}

extern "C" int LLVMFuzzerInitialize(int *, char ***) {
    if (const char * folder = std::getenv("KOLLAMA_FUZZ_SEEDS")) {
        for (const char * architecture : { "llama", "olmo2", "qwen3moe", "nemotron_h_moe", "mamba2" }) {
            for (bool has_weights : { false, true }) {
                const std::string bytes = seed(architecture, has_weights);
                const std::string path  = std::string(folder) + "/" + architecture + (has_weights ? "" : "-header");
                std::FILE *       file  = std::fopen(path.c_str(), "wb");
                check(file, "the folder of the seeds cannot be written");
                std::fwrite(bytes.data(), 1, bytes.size(), file);
                std::fclose(file);
            }
        }
        std::exit(0);
    }
    return 0;
}
