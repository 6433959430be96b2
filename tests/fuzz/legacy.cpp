// libFuzzer: any bytes as a GGML file of 2023 -> the GGUF that it would be, all of it. See scripts/fuzz.sh.

#include "legacy/gguf_view.h"

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

struct material {
    const char * magic;
    uint32_t     version;
    uint32_t     ftype, type;
    uint32_t     block, block_bytes;
};

// Small enough to mutate well: one layer, few tokens, one block a row.
std::string file_of(const material & m) {
    const uint32_t n_embd = 32, n_ff = 32, n_vocab = 262;
    std::string    out = m.magic;
    auto number = [&](uint32_t n) { out.append(reinterpret_cast<const char *>(&n), 4); };
    if (m.version) {
        number(m.version);
    }
    for (uint32_t field : { n_vocab, n_embd, 1u, 2u, 1u, 16u, m.ftype }) {
        number(field);
    }
    for (uint32_t i = 0; i < n_vocab; i++) {
        const std::string text = i < 3 ? "" : i < 259 ? std::string(1, static_cast<char>(i - 3)) : "가" + std::to_string(i);
        number(static_cast<uint32_t>(text.size()));
        out += text;
        if (std::strcmp(m.magic, "lmgg") != 0) {
            number(0xC0000000u + i);
        }
    }
    auto tensor = [&](const std::string & name, uint32_t columns, uint32_t rows) {
        const bool matrix = rows > 0;
        number(matrix ? 2 : 1);
        number(static_cast<uint32_t>(name.size()));
        number(matrix ? m.type : 0);
        number(columns);
        if (matrix) {
            number(rows);
        }
        out += name;
        if (std::strcmp(m.magic, "tjgg") == 0) {
            out.append((32 - out.size() % 32) % 32, '\0');
        }
        out.append(matrix ? columns / m.block * m.block_bytes * rows : columns * 4, '\1');
    };
    tensor("tok_embeddings.weight", n_embd, n_vocab);
    tensor("norm.weight", n_embd, 0);
    tensor("output.weight", n_embd, n_vocab);
    for (const char * name : { "wq", "wk", "wv", "wo" }) {
        tensor(std::string("layers.0.attention.") + name + ".weight", n_embd, n_embd);
    }
    tensor("layers.0.attention_norm.weight", n_embd, 0);
    tensor("layers.0.feed_forward.w1.weight", n_embd, n_ff);
    tensor("layers.0.feed_forward.w2.weight", n_ff, n_embd);
    tensor("layers.0.feed_forward.w3.weight", n_embd, n_ff);
    tensor("layers.0.ffn_norm.weight", n_embd, 0);
    return out;
}

const material SEEDS[] = {
    { "lmgg", 0, 1, 1, 1, 2 },    { "fmgg", 1, 2, 2, 32, 20 },  { "tjgg", 1, 3, 3, 32, 24 },  { "tjgg", 1, 8, 6, 32, 22 },
    { "tjgg", 2, 2, 2, 32, 20 },  { "tjgg", 2, 9, 7, 32, 24 },  { "tjgg", 2, 7, 8, 32, 36 },  { "tjgg", 3, 2, 2, 32, 18 },
    { "tjgg", 3, 0, 0, 1, 4 },    { "tjgg", 3, 7, 8, 32, 34 },
};

} // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size) {
    const auto source = open_memory(data, size);
    try {
        const gguf_view view(*source, {});
        // Read in parts that cut blocks, and compared with one read.
        std::vector<char> whole(view.size()), parts(view.size());
        view.read(0, whole.data(), whole.size());
        const size_t step = 17 + size % 97;
        for (size_t at = 0; at < parts.size(); at += step) {
            view.read(at, parts.data() + at, std::min(step, parts.size() - at));
        }
        check(whole == parts, "a read in parts differs from one read");
        const kollama_gguf gguf = view.description();
        check(gguf.tensors.size() == view.file().tensors.size(), "tensors are missing");
        for (size_t i = 0; i < gguf.tensors.size(); i++) {
            check(gguf.tensors[i].n_bytes == view.file().tensors[i].n_bytes, "a tensor has another size");
        }
    } catch (const failure & e) {
        check(e.status == KOLLAMA_ERROR_FORMAT, e.what());
    }
    return 0;
}

extern "C" int LLVMFuzzerInitialize(int *, char ***) {
    if (const char * folder = std::getenv("KOLLAMA_FUZZ_SEEDS")) {
        for (size_t i = 0; i < std::size(SEEDS); i++) {
            const std::string text = file_of(SEEDS[i]);
            const auto        source = open_memory(text.data(), text.size());
            gguf_view(*source, {}); // a seed must be sound
            std::FILE * file = std::fopen((std::string(folder) + "/legacy-" + std::to_string(i)).c_str(), "wb");
            check(file && std::fwrite(text.data(), 1, text.size(), file) == text.size(), "cannot write the seeds");
            std::fclose(file);
        }
        std::exit(0);
    }
    return 0;
}
