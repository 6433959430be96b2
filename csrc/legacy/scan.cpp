// The tensor records of a GGML file of 2023, every one checked against the file and the header.

#include "legacy/format.h"
#include "legacy/repack.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

namespace kollama {
namespace {

constexpr uint32_t MAX_LAYERS = 512;      // llama.cpp's LLAMA_MAX_LAYERS
constexpr uint32_t MAX_WIDTH  = 1 << 20;  // of n_embd, n_ff: keeps products of two in 64 bits by far
constexpr uint32_t MAX_NAME   = 63;       // ggml's GGML_MAX_NAME with its NUL
constexpr uint64_t ALIGNMENT  = 32;       // of tensor data in ggjt
constexpr uint32_t TENSORS_OF_LAYER = 9;

struct name_pair {
    const char *legacy, *gguf;
};

constexpr name_pair OF_MODEL[] = {
    { "tok_embeddings.weight", "token_embd.weight" },
    { "norm.weight", "output_norm.weight" },
    { "output.weight", "output.weight" },
};

constexpr name_pair OF_LAYER[TENSORS_OF_LAYER] = {
    { "attention.wq.weight", "attn_q.weight" },         { "attention.wk.weight", "attn_k.weight" },
    { "attention.wv.weight", "attn_v.weight" },         { "attention.wo.weight", "attn_output.weight" },
    { "attention_norm.weight", "attn_norm.weight" },    { "feed_forward.w1.weight", "ffn_gate.weight" },
    { "feed_forward.w2.weight", "ffn_down.weight" },    { "feed_forward.w3.weight", "ffn_up.weight" },
    { "ffn_norm.weight", "ffn_norm.weight" },
};

const char * retired_type(uint32_t type) {
    switch (type) {
        case 4:  return "q4_2";
        case 5:  return "q4_3";
        default: return nullptr;
    }
}

// A header that llama.cpp can work with, before anything is computed from it.
void check_header(const source_reader & in, const legacy_header & h) {
    const uint64_t start = h.kind == legacy_kind::ggml ? 4 : 8;
    auto check = [&](size_t field, const char * name, uint32_t value, uint32_t low, uint32_t high) {
        if (value < low || value > high) {
            in.fail(start + 4 * field, format("%s is %u; it can be %u to %u", name, value, low, high));
        }
    };
    check(1, "n_embd", h.n_embd, 1, MAX_WIDTH);
    check(3, "n_head", h.n_head, 1, std::min<uint32_t>(h.n_embd, 4096));
    check(4, "n_layer", h.n_layer, 1, MAX_LAYERS);
    if (h.n_embd % h.n_head != 0) {
        in.fail(start + 4, format("n_embd %u is not a multiple of n_head %u", h.n_embd, h.n_head));
    }
    if (h.n_rot != h.n_embd / h.n_head || h.n_rot % 2 != 0) {
        in.fail(start + 20, format("n_rot is %u; a Llama with heads of %u has that, an even number", h.n_rot, h.n_embd / h.n_head));
    }
    const char * retired = h.ftype == 5 ? "q4_2" : h.ftype == 6 ? "q4_3" : nullptr;
    if (retired) {
        in.fail(start + 24, format("its weights are %s, a type that llama.cpp removed in May 2023: no program since reads it", retired));
    }
    check(6, "ftype", h.ftype, 0, 18);
}

// GGUF's name, or an empty one.
std::string gguf_name(const std::string & name, uint32_t n_layer) {
    for (const name_pair & pair : OF_MODEL) {
        if (name == pair.legacy) {
            return pair.gguf;
        }
    }
    unsigned layer = 0;
    int      used  = 0;
    if (std::sscanf(name.c_str(), "layers.%4u.%n", &layer, &used) == 1 && used > 0 && layer < n_layer) {
        for (const name_pair & pair : OF_LAYER) {
            if (name == "layers." + std::to_string(layer) + "." + pair.legacy) {
                return "blk." + std::to_string(layer) + "." + pair.gguf;
            }
        }
    }
    return {};
}

legacy_tensor read_tensor(source_reader & in, const legacy_header & header) {
    const uint64_t start       = in.offset();
    const uint32_t n_dims      = in.number<uint32_t>("a tensor's rank");
    const uint32_t name_length = in.number<uint32_t>("a tensor's name length");
    const uint32_t type        = in.number<uint32_t>("a tensor's type");
    if (n_dims < 1 || n_dims > 2) {
        in.fail(start, format("a tensor has %u dimensions; a Llama has only 1 and 2", n_dims));
    }
    if (name_length == 0 || name_length > MAX_NAME) {
        in.fail(start + 4, format("a tensor's name claims a length of %u bytes", name_length));
    }
    legacy_tensor out{};
    out.n_dims = n_dims;
    out.ne[1]  = 1;
    for (uint32_t i = 0; i < n_dims; i++) {
        out.ne[i] = in.number<uint32_t>("a tensor's shape");
        if (out.ne[i] == 0 || out.ne[i] > MAX_WIDTH) {
            in.fail(in.offset() - 4, format("a tensor's shape has %llu", (unsigned long long) out.ne[i]));
        }
    }
    std::string name(name_length, '\0');
    in.read(name.data(), name_length, "a tensor's name");
    out.name = gguf_name(name, header.n_layer);
    if (out.name.empty()) {
        for (char & c : name) {
            c = c >= ' ' && c <= '~' ? c : '?';
        }
        in.fail(start, "tensor '" + name + "' is not one of a Llama with this many layers");
    }
    if (const char * retired = retired_type(type)) {
        in.fail(start + 8, "tensor '" + name + "' is " + retired + ", a type that llama.cpp removed in May 2023");
    }
    out.type                  = type < GGML_TYPE_COUNT ? static_cast<ggml_type>(type) : GGML_TYPE_COUNT;
    const uint64_t block_size = out.type == GGML_TYPE_COUNT ? 0 : legacy_block_bytes(header, out.type);
    if (block_size == 0) {
        in.fail(start + 8, format("tensor '%s' has the type %u, which %s does not have", name.c_str(), type, header.format_name().c_str()));
    }
    const uint64_t per_block = static_cast<uint64_t>(ggml_blck_size(out.type));
    if (out.ne[0] % per_block != 0) {
        in.fail(start + 12, format("tensor '%s' has rows of %llu, not a multiple of %llu as its type %s needs", name.c_str(),
                                   (unsigned long long) out.ne[0], (unsigned long long) per_block, ggml_type_name(out.type)));
    }
    if (header.kind == legacy_kind::ggjt) {
        in.skip((ALIGNMENT - in.offset() % ALIGNMENT) % ALIGNMENT, "a tensor's padding");
    }
    const uint64_t n_blocks = out.ne[0] / per_block * out.ne[1];
    out.offset       = in.offset();
    out.n_bytes_file = n_blocks * block_size;
    out.n_bytes      = n_blocks * ggml_type_size(out.type);
    in.need(out.n_bytes_file, "tensor '" + name + "'");
    in.skip(out.n_bytes_file, "a tensor");
    return out;
}

// The shapes that a Llama of this header has, but for what they tell: heads of keys, and n_ff.
class shapes {
  public:
    shapes(const source_reader & in, legacy_file & file) : in_(in), file_(file) {
        for (const legacy_tensor & tensor : file.tensors) {
            if (!by_name_.emplace(tensor.name, &tensor).second) {
                in.fail(tensor.offset, "tensor '" + tensor.name + "' is there twice");
            }
        }
    }

    void check() {
        const legacy_header & h = file_.header;
        const uint64_t n_embd = h.n_embd, head = h.n_embd / h.n_head;
        check_whole(find("token_embd.weight"));
        const uint64_t n_kv = find("blk.0.attn_k.weight").ne[1], n_ff = find("blk.0.ffn_gate.weight").ne[1];
        if (n_kv % head != 0 || h.n_head % (n_kv / head) != 0) {
            in_.fail(find("blk.0.attn_k.weight").offset, format("keys of width %llu do not go with %u heads of %llu",
                                                                (unsigned long long) n_kv, h.n_head, (unsigned long long) head));
        }
        file_.n_head_kv = static_cast<uint32_t>(n_kv / head);
        file_.n_ff      = static_cast<uint32_t>(n_ff);
        expect("token_embd.weight", n_embd, h.n_vocab);
        expect("output_norm.weight", n_embd);
        expect("output.weight", n_embd, h.n_vocab);
        for (uint32_t i = 0; i < h.n_layer; i++) {
            const std::string blk = "blk." + std::to_string(i) + ".";
            expect(blk + "attn_norm.weight", n_embd);
            expect(blk + "attn_q.weight", n_embd, n_embd);
            expect(blk + "attn_k.weight", n_embd, n_kv);
            expect(blk + "attn_v.weight", n_embd, n_kv);
            expect(blk + "attn_output.weight", n_embd, n_embd);
            expect(blk + "ffn_norm.weight", n_embd);
            expect(blk + "ffn_gate.weight", n_embd, n_ff);
            expect(blk + "ffn_up.weight", n_embd, n_ff);
            expect(blk + "ffn_down.weight", n_ff, n_embd);
        }
    }

  private:
    // Before ggjt, models above 7B came in 2 to 8 files, each with a part of every matrix.
    void check_whole(const legacy_tensor & embeddings) const {
        const uint64_t columns = embeddings.ne[0], n_embd = file_.header.n_embd;
        if (columns < n_embd && n_embd % columns == 0 && n_embd / columns <= 8) {
            in_.fail(embeddings.offset, format("this is one of %llu parts of a model (.bin, .bin.1 ...); kollama reads models in one file",
                                               (unsigned long long) (n_embd / columns)));
        }
    }

    const legacy_tensor & find(const std::string & name) const {
        const auto found = by_name_.find(name);
        if (found == by_name_.end()) {
            throw failure(KOLLAMA_ERROR_FORMAT, format("truncated at byte %llu: tensor '%s' is missing",
                                                       (unsigned long long) in_.offset(), name.c_str()));
        }
        return *found->second;
    }

    void expect(const std::string & name, uint64_t columns, uint64_t rows = 0) const {
        const legacy_tensor & tensor = find(name);
        if (tensor.n_dims != (rows ? 2 : 1) || tensor.ne[0] != columns || tensor.ne[1] != std::max<uint64_t>(rows, 1)) {
            in_.fail(tensor.offset, format("tensor '%s' has %llu columns and %llu rows, not %llu and %llu", name.c_str(),
                                           (unsigned long long) tensor.ne[0], (unsigned long long) tensor.ne[1],
                                           (unsigned long long) columns, (unsigned long long) std::max<uint64_t>(rows, 1)));
        }
        if (!rows && tensor.type != GGML_TYPE_F32) {
            in_.fail(tensor.offset, "tensor '" + name + "' is a norm, and not f32");
        }
    }

    const source_reader &                                    in_;
    legacy_file &                                            file_;
    std::unordered_map<std::string, const legacy_tensor *> by_name_;
};

// What another program's file with this magic has in the names of its tensors.
const char * other_architecture(const byte_source & source) {
    static const struct {
        const char *in_name, *model;
    } OTHERS[] = {
        { "gpt_neox.", "GPT-NeoX (Polyglot-Ko, Pythia, StableLM ...)" }, { "transformer.blocks.", "MPT" },
        { "transformer.word_embeddings", "Falcon or BLOOM" },            { "transformer.h.", "GPT-J, GPT-2 or Falcon" },
        { "transformer.wte", "GPT-J or GPT-2" },                         { "model/h", "GPT-2" },
        { "model/wte", "GPT-2" },                                        { "model.decoder.", "OPT" },
        { "encoder.conv", "Whisper" },                                   { "blocks.0.att.", "RWKV" },
    };
    std::string bytes(static_cast<size_t>(std::min<uint64_t>(source.size(), 4 << 20)), '\0'); // names follow the vocabulary
    source.read(0, bytes.data(), bytes.size());
    for (const auto & other : OTHERS) {
        if (bytes.find(other.in_name) != std::string::npos) {
            return other.model;
        }
    }
    return nullptr;
}

legacy_file scan(source_reader & in) {
    legacy_file out;
    out.header = read_legacy_header(in);
    check_header(in, out.header);
    out.vocab = read_legacy_vocabulary(in, out.header);
    const size_t most = std::size(OF_MODEL) + TENSORS_OF_LAYER * out.header.n_layer;
    while (in.left() > 0) {
        if (out.tensors.size() == most) {
            in.fail(in.offset(), format("%llu bytes follow the last tensor", (unsigned long long) in.left()));
        }
        out.tensors.push_back(read_tensor(in, out.header));
    }
    string_index pieces;
    if (const auto [first, second] = pieces.build(out.vocab.pieces); first >= 0) {
        throw failure(KOLLAMA_ERROR_FORMAT, format("the tokens %d and %d have the same text", first, second));
    }
    shapes(in, out).check();
    return out;
}

} // namespace

legacy_file scan_legacy(const byte_source & source) {
    try {
        source_reader in(source);
        return scan(in);
    } catch (const failure & e) {
        const char * other = e.status == KOLLAMA_ERROR_FORMAT ? other_architecture(source) : nullptr;
        if (other) {
            throw failure(KOLLAMA_ERROR_FORMAT, std::string("a GGML file of 2023 of another kind of model, ") + other +
                                                    "; kollama reads Llama's (" + e.what() + ")");
        }
        throw;
    }
}

} // namespace kollama
