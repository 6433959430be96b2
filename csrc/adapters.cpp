#include "adapters.h"

#include "engine.h"
#include "gguf_check.h"
#include "state.h"

#include <chrono>
#include <cmath>
#include <cstring>
#include <mutex>
#include <thread>

using namespace kollama;

namespace kollama {
namespace {

[[noreturn]] void refuse(const std::string & text) {
    throw failure(KOLLAMA_ERROR_FORMAT, text);
}

bool ends_with(const std::string & text, const std::string & end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

std::string text_of(const uint64_t (&ne)[4]) {
    std::string text = format("%llu x %llu", (unsigned long long) ne[1], (unsigned long long) ne[0]);
    return ne[2] * ne[3] > 1 ? format("%llu x ", (unsigned long long) (ne[2] * ne[3])) + text : text;
}

// What llama.cpp takes on trust: it reads keys as the types that it expects, and multiplies what it finds.
class checker {
  public:
    checker(const kollama_gguf & file, const kollama_model & model) : file_(file), model_(model) {}

    void check() const {
        if (said("general.type") != "adapter" || said("adapter.type") != "lora") {
            refuse("is no LoRA adapter: general.type is '" + said("general.type") + "', adapter.type '" + said("adapter.type") + "'");
        }
        if (said("general.architecture") != model_.architecture) {
            refuse("is an adapter of " + said("general.architecture") + " models; this one is of " + model_.architecture);
        }
        for (const auto & entry : file_.entries) {
            if (entry.key == "adapter.alora.invocation_tokens") {
                refuse("is an activated adapter (aLoRA), which takes effect from some token on: not supported");
            }
        }
        if (file_.tensors.empty()) {
            refuse("has no tensors");
        }
        for (const auto & tensor : file_.tensors) {
            check_tensor(tensor);
        }
    }

  private:
    std::string said(const char * key) const {
        const std::string * value = file_.find(key);
        return value ? *value : "";
    }

    const kollama_gguf::tensor * find(const std::string & name) const {
        for (const auto & tensor : file_.tensors) {
            if (tensor.name == name) {
                return &tensor;
            }
        }
        return nullptr;
    }

    void check_tensor(const kollama_gguf::tensor & a) const {
        if (ends_with(a.name, "_norm.weight")) {
            return; // llama.cpp leaves it out
        }
        if (ends_with(a.name, ".lora_b") && find(a.name.substr(0, a.name.size() - 1) + "a")) {
            return; // checked with the other half
        }
        if (!ends_with(a.name, ".lora_a")) {
            refuse("has a tensor '" + a.name + "', which is no pair of .lora_a and .lora_b");
        }
        const std::string            name = a.name.substr(0, a.name.size() - std::strlen(".lora_a"));
        const kollama_gguf::tensor * b    = find(name + ".lora_b");
        const auto                   of   = model_.shapes.find(name);
        if (!b) {
            refuse("has '" + a.name + "' without its .lora_b");
        }
        if (of == model_.shapes.end()) {
            refuse("is of another model: there is no tensor '" + name + "' in this one");
        }
        for (const auto * half : { &a, b }) {
            if (half->type != GGML_TYPE_F32 && half->type != GGML_TYPE_F16 && half->type != GGML_TYPE_BF16 && half->type != GGML_TYPE_Q8_0) {
                refuse("its tensor '" + half->name + "' is of type " + ggml_type_name(half->type) + "; it can be f32, f16, bf16, q8_0");
            }
        }
        const bool embeds = name == "token_embd.weight"; // llama.cpp has these two the other way round
        if (embeds && model_.shapes.find("output.weight") == model_.shapes.end()) {
            refuse("changes token_embd.weight, which is the output matrix too in this model: llama.cpp cannot do that");
        }
        const auto & w     = of->second.ne;
        const bool   fits  = embeds ? w[0] == b->ne[1] && w[1] == a.ne[1] && a.ne[0] == b->ne[0]
                                    : w[0] == a.ne[0] && w[1] == b->ne[1] && a.ne[1] == b->ne[0];
        const bool   alike = a.ne[2] == w[2] && b->ne[2] == w[2] && a.ne[3] == w[3] && b->ne[3] == w[3];
        if (!fits || !alike) {
            refuse("is of another model: '" + name + "' is " + text_of(w) + " in this one, and the adapter's halves are " +
                   text_of(a.ne) + " and " + text_of(b->ne));
        }
    }

    const kollama_gguf &  file_;
    const kollama_model & model_;
};

// Not owned where it never comes: a failed assertion stopped the thread that has it.
std::unique_lock<std::shared_mutex> lock_loras(const kollama_model & model) {
    std::unique_lock<std::shared_mutex> lock(model.loras_mutex, std::defer_lock);
    while (!lock.try_lock() && !model.loras_stuck) {
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return lock;
}

void load_weights(lora & adapter, const std::string & path) {
    guard      g;
    const auto lock = lock_loras(*adapter.model);
    if (!lock.owns_lock()) {
        throw failure(KOLLAMA_ERROR_ENGINE, "an assertion failed in a context of this model: load the model again for another adapter");
    }
    try {
        adapter.handle = llama_adapter_lora_init(adapter.model->handle, path.c_str());
    } catch (const engine_failure & e) { // a key of another type than llama.cpp expects
        throw failure(KOLLAMA_ERROR_FORMAT, path + ": llama.cpp cannot read the adapter: " + e.what());
    }
    if (!adapter.handle) {
        throw failure(KOLLAMA_ERROR_LOAD, path + ": llama.cpp cannot read the adapter: " + g.errors());
    }
}

} // namespace

lora::~lora() {
    if (handle) {
        const auto free = [model = model, handle = handle] {
            if (const auto lock = lock_loras(*model); lock.owns_lock()) {
                llama_adapter_lora_free(handle);
            }
        };
        try {
            call_on(model->remote, free);
        } catch (const failure &) { // a server is gone, and its memory with it
            model->loras_stuck = true;
        }
    }
    --model->n_loras;
}

std::shared_ptr<lora> load_lora(kollama_model * model, const char * path) {
    auto       adapter = std::make_shared<lora>(model);
    const auto file    = open_model_file(path);
    try {
        if (file.view) {
            refuse("is no GGUF, and LoRA adapters are");
        }
        if (model->vocab_only) {
            throw failure(KOLLAMA_ERROR_STATE, "the model was loaded with vocab_only: it has no weights to adapt");
        }
        check_gguf_names(file.header);
        checker(file.header, *model).check();
    } catch (const failure & e) {
        throw failure(e.status, std::string(path) + ": " + e.what());
    }
    for (const auto & entry : file.header.entries) {
        adapter->metadata.emplace_back(entry.key, entry.value);
        if (entry.key == "adapter.lora.alpha") {
            adapter->alpha = static_cast<float>(std::strtod(entry.value.c_str(), nullptr));
            if (!std::isfinite(adapter->alpha)) {
                throw failure(KOLLAMA_ERROR_FORMAT, std::string(path) + ": its alpha is " + entry.value);
            }
        }
    }
    adapter->n_tensors   = file.header.tensors.size();
    adapter->fingerprint = file_fingerprint(&path, 1);
    try {
        call_on(model->remote, [adapter, path = std::string(path)] { load_weights(*adapter, path); });
    } catch (const failure & e) {
        model->loras_stuck = model->loras_stuck || e.status == KOLLAMA_ERROR_REMOTE;
        throw;
    }
    return adapter;
}

// ---- in a context --------------------------------------------------------------------------------

// What is in memory was computed as the model was before.
void engine::check_vacant() {
    std::lock_guard<std::mutex> lock(mutex_);
    size_t                      n_filled = 0;
    for (const auto & weak : sequences_) {
        if (const auto seq = weak.lock(); seq && !seq->dropped) {
            if (seq->busy) {
                throw failure(KOLLAMA_ERROR_BUSY, "another call works on a sequence of this context");
            }
            n_filled += !seq->tokens.empty();
        }
    }
    if (n_filled > 0) {
        throw failure(KOLLAMA_ERROR_STATE, format("%zu sequence%s of this context hold%s tokens that were computed with the model as it is: "
                                                  "clear() or close() first", n_filled, n_filled == 1 ? "" : "s", n_filled == 1 ? "s" : ""));
    }
}

void engine::set_loras(std::vector<scaled_lora> loras) {
    check_vacant();
    std::vector<llama_adapter_lora *> handles;
    std::vector<float>                scales;
    uint64_t                          key = 0;
    for (const scaled_lora & each : loras) {
        uint32_t bits;
        std::memcpy(&bits, &each.scale, sizeof(bits));
        handles.push_back(each.adapter->handle);
        scales.push_back(each.scale);
        if (each.scale != 0) { // the order does not matter
            key += (each.adapter->fingerprint ^ bits) * 0x9E3779B97F4A7C15u;
        }
    }
    if (llama_set_adapters_lora(ctx_, handles.data(), handles.size(), scales.data()) != 0) {
        throw failure(KOLLAMA_ERROR_DECODE, "llama.cpp refuses these adapters");
    }
    lora_key_ = key;
    reserves_ = true;
    loras_.swap(loras); // those of before are released with the old list
}

void engine::set_control_vector(const std::vector<float> & data, int32_t first, int32_t last) {
    check_vacant();
    guard     g;
    const int n_embd = llama_model_n_embd(model_->handle);
    if (llama_set_adapter_cvec(ctx_, data.empty() ? nullptr : data.data(), data.size(), n_embd, first, last) != 0) {
        throw failure(KOLLAMA_ERROR_DECODE, "llama.cpp refuses this control vector: " + g.errors());
    }
    control_key_ = data.empty() ? 0 : checksum(reinterpret_cast<const uint8_t *>(data.data()), data.size() * sizeof(float)) + first * 7919u + last;
    reserves_    = true;
}

uint64_t engine::adapters_key() const {
    return lora_key_ ^ (control_key_ * 0xBF58476D1CE4E5B9u);
}

} // namespace kollama

kollama_status kollama_lora_load(kollama_model * model, const char * path, kollama_lora ** out) {
    return guarded([&] { *out = new kollama_lora{ load_lora(model, path) }; });
}

void kollama_lora_free(kollama_lora * lora) {
    delete lora;
}

float kollama_lora_alpha(const kollama_lora * lora) {
    return lora->state->alpha;
}

size_t kollama_lora_n_kv(const kollama_lora * lora) {
    return lora->state->metadata.size();
}

const char * kollama_lora_key(const kollama_lora * lora, size_t index, size_t * length) {
    *length = lora->state->metadata[index].first.size();
    return lora->state->metadata[index].first.data();
}

const char * kollama_lora_value(const kollama_lora * lora, size_t index, size_t * length) {
    *length = lora->state->metadata[index].second.size();
    return lora->state->metadata[index].second.data();
}

kollama_status kollama_context_set_loras(kollama_context * ctx, kollama_lora * const * loras, const float * scales, size_t n_loras,
                                         kollama_job ** out) {
    return guarded([&] {
        engine &                 e   = *ctx->engine;
        const auto               pin = e.pin_model();
        std::vector<scaled_lora> list;
        for (size_t i = 0; i < n_loras; i++) {
            if (loras[i]->state->model != e.model()) {
                throw failure(KOLLAMA_ERROR_ARGUMENT, format("adapter %zu was loaded for another model", i));
            }
            if (!std::isfinite(scales[i])) {
                throw failure(KOLLAMA_ERROR_ARGUMENT, format("the scale of adapter %zu is not finite", i));
            }
            for (const scaled_lora & other : list) {
                if (other.adapter == loras[i]->state) {
                    throw failure(KOLLAMA_ERROR_ARGUMENT, format("adapter %zu is there twice", i));
                }
            }
            list.push_back({ loras[i]->state, scales[i] });
        }
        e.check_vacant();
        submit_job(*ctx, [&e, list](kollama::job &) { e.set_loras(list); }, out);
    });
}

kollama_status kollama_context_set_control_vector(kollama_context * ctx, const float * data, size_t n_data, int32_t first, int32_t last,
                                                  kollama_job ** out) {
    return guarded([&] {
        engine &     e       = *ctx->engine;
        const auto   pin     = e.pin_model();
        const int    n_layer = llama_model_n_layer(e.model()->handle);
        const size_t n_embd  = static_cast<size_t>(llama_model_n_embd(e.model()->handle));
        if (n_data != 0 && (n_data != n_embd * (n_layer - 1) || first < 1 || last < first || last >= n_layer)) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, format("a control vector of this model has %d rows of %zu numbers, for layers 1 to %d",
                                                         n_layer - 1, n_embd, n_layer - 1));
        }
        e.check_vacant();
        submit_job(*ctx, [&e, copy = std::vector<float>(data, data + n_data), first, last](kollama::job &) {
            e.set_control_vector(copy, first, last);
        }, out);
    });
}
