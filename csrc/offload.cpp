#include "offload.h"

#include "internal.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace kollama {
namespace {

// Left free on each device: its driver's own needs, and buffers for a graph.
constexpr uint64_t MARGIN   = 512ull << 20;
constexpr uint64_t N_CTX    = 4096; // tokens of cache that room is kept for: the default n_ctx
constexpr uint64_t N_UBATCH = 512;

struct weights {
    std::vector<uint64_t> layers; // bytes of each, with its cache
    uint64_t              output    = 0;
    uint64_t              n_vocab   = 0;
    bool                  has_output = false;
    uint64_t              embedding = 0;
};

// Of "blk.12.attn_k.weight" 12; -1 for what is in no layer.
int layer_of(const std::string & name) {
    return name.compare(0, 4, "blk.") == 0 ? std::atoi(name.c_str() + 4) : -1;
}

bool ends_with(const std::string & text, const char * end) {
    const size_t n = std::strlen(end);
    return text.size() >= n && text.compare(text.size() - n, n, end) == 0;
}

// In f16. Of attention that is computed otherwise (a fused tensor, a compressed cache) the width of the model
// stands for both: more than they have.
uint64_t cache_bytes(const kollama_gguf::tensor & t, uint64_t n_ctx) {
    if (ends_with(t.name, ".attn_k.weight") || ends_with(t.name, ".attn_v.weight")) {
        return t.ne[1] * n_ctx * 2;
    }
    if (ends_with(t.name, ".attn_qkv.weight") || ends_with(t.name, ".attn_kv_a_mqa.weight")) {
        return t.ne[0] * n_ctx * 4;
    }
    return 0;
}

weights count(const std::vector<const kollama_gguf *> & parts) {
    uint64_t n_ctx = N_CTX;
    if (const std::string * architecture = parts[0]->find("general.architecture")) {
        if (const std::string * trained = parts[0]->find(*architecture + ".context_length")) {
            n_ctx = std::min<uint64_t>(n_ctx, std::strtoull(trained->c_str(), nullptr, 10));
        }
    }
    weights w;
    for (const kollama_gguf * part : parts) {
        for (const auto & t : part->tensors) {
            const int layer = layer_of(t.name);
            if (layer >= 0) {
                w.layers.resize(std::max(w.layers.size(), static_cast<size_t>(layer) + 1));
                w.layers[layer] += t.n_bytes + cache_bytes(t, n_ctx);
            } else if (t.name == "token_embd.weight") { // stays with the CPU
                w.embedding = t.n_bytes;
                w.n_vocab   = t.ne[1];
            } else {
                w.output += t.n_bytes;
                w.has_output |= t.name == "output.weight";
            }
        }
    }
    if (!w.has_output) {
        w.output += w.embedding; // a copy of it
    }
    return w;
}

} // namespace

std::vector<ggml_backend_dev_t> gpu_devices() {
    std::vector<ggml_backend_dev_t> found;
    for (auto type : { GGML_BACKEND_DEVICE_TYPE_GPU, GGML_BACKEND_DEVICE_TYPE_IGPU }) {
        for (size_t i = 0; i < ggml_backend_dev_count() && (type == GGML_BACKEND_DEVICE_TYPE_GPU || found.empty()); i++) {
            if (ggml_backend_dev_type(ggml_backend_dev_get(i)) == type) {
                found.push_back(ggml_backend_dev_get(i));
            }
        }
    }
    return found;
}

int32_t fitting_layers(const std::vector<const kollama_gguf *> & parts, const std::vector<ggml_backend_dev_t> & devices) {
    const weights w      = count(parts);
    uint64_t      room   = 0;
    std::string   names;
    const uint64_t kept  = MARGIN + w.n_vocab * N_UBATCH * sizeof(float);
    for (ggml_backend_dev_t device : devices) {
        size_t free = 0, total = 0;
        ggml_backend_dev_memory(device, &free, &total);
        room += total == 0 ? UINT64_MAX / 1024 : free > kept ? free - kept : 0; // 0 of 0: it does not say
        names += (names.empty() ? "" : ", ") + format("%s (%zu of %zu MiB free)", ggml_backend_dev_name(device), free >> 20, total >> 20);
    }
    const int32_t n_all = static_cast<int32_t>(w.layers.size()) + 1;
    uint64_t      taken = 0;
    int32_t       n     = 0;
    for (; n < n_all; n++) {
        const uint64_t next = n == 0 ? w.output : w.layers[w.layers.size() - static_cast<size_t>(n)];
        if (taken + next > room) {
            break;
        }
        taken += next;
    }
    log_info(format("n_gpu_layers=\"auto\": %d of %d layers, %llu MiB with the cache of %llu tokens, on %s", n, n_all,
                    static_cast<unsigned long long>(taken >> 20), static_cast<unsigned long long>(N_CTX), names.c_str()));
    return n;
}

} // namespace kollama
