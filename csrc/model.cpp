#include "model.h"

#include "offload.h"
#include "products/accelerator.h"
#include "state.h"
#include "tokenizer/handle.h"
#include "tokenizer/read_gguf.h"
#include "tokenizer/wrap_llama.h"

#include <algorithm>
#include <cctype>
#include <cstring>
#include <future>

namespace kollama {
namespace {

// Types whose weights ggml's CPU backend keeps in an order of its own: a mapped file would stay
// resident beside that copy. On x86-64: Q4_0, Q4_K, IQ4_NL, MXFP4 (ggml-cpu/repack.cpp, read at the
// pinned commit); Q2_K needs AVX-512 and is left to the mapping.
bool is_repacked(ggml_type type) {
    return type == GGML_TYPE_Q4_0 || type == GGML_TYPE_Q4_K || type == GGML_TYPE_IQ4_NL || type == GGML_TYPE_MXFP4;
}

// Whether the weights had better stay as they lie in the file. llama.cpp can be told so of all or of none.
// Experts are ggml's to multiply.
bool keeps_order(const kollama_gguf & gguf) {
    return std::all_of(gguf.tensors.begin(), gguf.tensors.end(), [](const auto & tensor) {
        return !is_repacked(tensor.type) || (tensor.ne[2] <= 1 && product_keeps_order(tensor.type));
    });
}

// Whether reading the weights costs less memory than mapping them: where the CPU repacks at least
// an eighth of the file. Below that the page cache is worth more than the copy costs.
bool reads_better_than_maps(const kollama_gguf & gguf) {
    if (keeps_order(gguf)) {
        return false;
    }
    uint64_t repacked = 0, total = 0;
    for (const auto & tensor : gguf.tensors) {
        total += tensor.n_bytes;
        repacked += is_repacked(tensor.type) ? tensor.n_bytes : 0;
    }
    return repacked > total / 8;
}

llama_load_mode choose_load_mode(const kollama_model_params & params, const kollama_gguf & gguf, bool on_gpu) {
    const bool map = params.load_mode == KOLLAMA_LOAD_MMAP ||
                     (params.load_mode == KOLLAMA_LOAD_AUTO && (on_gpu || !reads_better_than_maps(gguf)));
    if (params.mlock) {
        return map ? LLAMA_LOAD_MODE_MMAP_MLOCK : LLAMA_LOAD_MODE_MLOCK;
    }
    return map ? LLAMA_LOAD_MODE_MMAP : LLAMA_LOAD_MODE_NONE;
}

// llama.cpp's own words, without the names of its functions.
std::string reason_of(const std::string & errors) {
    std::string text = errors;
    for (const char * prefix : { "llama_model_load_from_file_impl: ", "llama_model_load: ", "error loading model: ",
                                 "error loading model hyperparameters: ", "error loading model vocabulary: ",
                                 "error loading model architecture: ", "gguf_init_from_file_impl: ",
                                 "failed to load model", "gguf_init_from_file_ptr: " }) {
        for (size_t at; (at = text.find(prefix)) != std::string::npos;) {
            text.erase(at, std::strlen(prefix));
        }
    }
    while (!text.empty() && (text.back() == ' ' || text.back() == ';')) {
        text.pop_back();
    }
    return text.empty() ? "llama.cpp gave no reason" : text;
}

struct progress_state {
    const kollama_model_params * params;
    bool                         stopped = false;
};

bool on_progress(float done, void * user) {
    auto * state   = static_cast<progress_state *>(user);
    state->stopped = is_shutting_down() || !state->params->progress(done, state->params->progress_user);
    return !state->stopped;
}

// The native tokenizer of a file, or null where its vocabulary is of a kind that llama.cpp does. Where
// another is given in its place, a tokenizer.json inside is not looked at: that is a way past a bad one.
std::shared_ptr<tokenizer> read_native(model_file & file, bool is_replaced) {
    auto own = std::make_shared<tokenizer>();
    if (file.view) {
        take_legacy_vocabulary(std::move(file.view->vocabulary()), *own);
    } else {
        own = read_gguf_tokenizer(*file.bytes, file.header, !is_replaced);
    }
    if (own) {
        own->texts(); // or the first token of a stream would wait for it
    }
    return own;
}

// The tokenizer of a model: its own, which may be null, or llama.cpp's, or what replaces it.
std::shared_ptr<const tokenizer> make_tokenizer(const kollama_model & model, std::shared_ptr<tokenizer> own,
                                                const kollama_gguf & gguf, const char * replacement) {
    if (own && own->vocab.size() == static_cast<size_t>(llama_vocab_n_tokens(model.vocab))) {
        take_ends(model.vocab, own->vocab);
    } else {
        own = std::make_shared<tokenizer>();
        wrap_llama_vocabulary(model.vocab, gguf_adds_space(gguf, model.vocab), nullptr, *own);
    }
    if (!replacement) {
        return own;
    }
    auto other = read_tokenizer(replacement, &own->vocab);
    try {
        check_same_pieces(own->vocab, other->vocab);
    } catch (const failure & e) {
        throw failure(e.status, std::string(replacement) + ": does not fit the model: " + e.what());
    }
    take_ends(own->vocab, other->vocab);
    return other;
}

void check_legacy(const std::string & path, size_t n_paths, const kollama_model_params & params, const model_file & first) {
    if (!first.view) {
        if (params.rms_norm_eps > 0) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, path + ": a GGUF has its own rms_norm_eps; it can be given for GGML files of 2023 only");
        }
        return;
    }
    if (n_paths > 1) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, path + ": a GGML file of 2023 has no further parts");
    }
    if (params.load_mode == KOLLAMA_LOAD_MMAP) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, path + ": a GGML file of 2023 is read, it cannot be mapped: leave mmap at \"auto\"");
    }
}

llama_model * load_weights(const char * const * paths, size_t n_paths, const model_file & first, llama_model_params & params) {
    if (!first.view) {
        return n_paths == 1 ? llama_model_load_from_file(paths[0], params)
                            : llama_model_load_from_splits(const_cast<const char **>(paths), n_paths, params);
    }
    const source_stream stream(*first.view);
    if (!stream.file()) {
        throw failure(KOLLAMA_ERROR_LOAD, "this platform cannot load it in place: convert it to GGUF first");
    }
    return llama_model_load_from_file_ptr(stream.file(), params);
}

void add_shapes(const kollama_gguf & gguf, std::unordered_map<std::string, kollama_model::shape> & shapes) {
    for (const auto & tensor : gguf.tensors) {
        std::copy_n(tensor.ne, 4, shapes[tensor.name].ne);
    }
}

// Where the layers of the model can go, in the order that they are dealt out in.
std::vector<ggml_backend_dev_t> devices_for(const std::shared_ptr<servers> & remote) {
    std::vector<ggml_backend_dev_t> devices = remote ? remote->devices() : std::vector<ggml_backend_dev_t>();
    const auto                      own     = gpu_devices();
    devices.insert(devices.end(), own.begin(), own.end());
    return devices;
}

int32_t choose_layers(const char * const * paths, size_t n_paths, const kollama_gguf & first,
                      const std::vector<ggml_backend_dev_t> & devices) {
    if (devices.empty()) {
        return 0;
    }
    std::vector<std::string> names(paths + 1, paths + n_paths);
    if (n_paths == 1) {
        names = other_parts(paths[0], first);
    }
    std::vector<model_file>           others;
    std::vector<const kollama_gguf *> parts{ &first };
    for (const std::string & name : names) {
        others.push_back(open_for_loading(name));
    }
    for (const model_file & other : others) {
        parts.push_back(&other.header);
    }
    return fitting_layers(parts, devices);
}

void load(const char * const * paths, size_t n_paths, const kollama_model_params & params,
          const std::shared_ptr<servers> & remote, kollama_model ** out) {
    const std::string path  = paths[0];
    model_file        first = open_for_loading(path, { params.rms_norm_eps });
    std::unordered_map<std::string, kollama_model::shape> shapes;
    add_shapes(first.header, shapes);
    for (size_t i = 1; i < n_paths; i++) {
        add_shapes(open_for_loading(paths[i]).header, shapes);
    }
    check_legacy(path, n_paths, params, first);
    std::vector<ggml_backend_dev_t> devices  = devices_for(remote);
    const int32_t                   n_layers = params.n_gpu_layers != KOLLAMA_LAYERS_AUTO ? params.n_gpu_layers
                                                                                          : choose_layers(paths, n_paths, first.header, devices);
    devices.push_back(nullptr);
    // A stream cannot be mapped, and repacking is for weights that were read.
    const llama_load_mode mode = first.view ? (params.mlock ? LLAMA_LOAD_MODE_MLOCK : LLAMA_LOAD_MODE_NONE)
                                            : choose_load_mode(params, first.header, n_layers != 0);

    progress_state     state{ &params };
    llama_model_params lparams  = llama_model_default_params();
    lparams.n_gpu_layers        = n_layers;
    lparams.devices             = remote ? devices.data() : nullptr; // llama.cpp's own choice is that of gpu_devices
    lparams.load_mode           = mode;
    lparams.use_extra_bufts     = !keeps_order(first.header);
    lparams.vocab_only          = params.vocab_only;
    lparams.progress_callback           = params.progress ? on_progress : [](float, void *) { return !is_shutting_down(); };
    lparams.progress_callback_user_data = &state;

    // While llama.cpp reads the weights and a vocabulary of its own; after it, where no thread is to be had.
    auto own = std::async(std::launch::async | std::launch::deferred, [&] { return read_native(first, params.tokenizer != nullptr); });

    auto  model = std::make_unique<kollama_model>();
    guard g;
    model->handle = load_weights(paths, n_paths, first, lparams);
    if (!model->handle) {
        if (state.stopped) {
            throw failure(KOLLAMA_ERROR_ABORTED, "the load was stopped");
        }
        throw failure(KOLLAMA_ERROR_LOAD, reason_of(g.errors()));
    }
    model->vocab      = llama_model_get_vocab(model->handle);
    model->format     = first.header.format;
    model->uses_mmap  = !params.vocab_only && (mode == LLAMA_LOAD_MODE_MMAP || mode == LLAMA_LOAD_MODE_MMAP_MLOCK);
    model->vocab_only = params.vocab_only;
    model->remote     = remote;
    const int32_t n_all = llama_model_n_layer(model->handle) + 1;
    model->n_gpu_layers = devices.size() == 1 ? 0 : n_layers < 0 ? n_all : std::min(n_layers, n_all);
    model->fingerprint = file_fingerprint(paths, n_paths);
    model->shapes      = std::move(shapes);
    if (const auto learned = model->shapes.find("position_embd.weight"); learned != model->shapes.end()) {
        model->n_positions = learned->second.ne[1];
    }
    if (const std::string * architecture = first.header.find("general.architecture")) {
        model->architecture = *architecture;
    }
    try {
        model->tokenizer = make_tokenizer(*model, own.get(), first.header, params.tokenizer);
    } catch (...) {
        llama_model_free(model->handle);
        throw;
    }
    *out = model.release();
}

// load(), with the file named in what it throws.
void load_named(const char * const * paths, size_t n_paths, const kollama_model_params & params,
                const std::shared_ptr<servers> & remote, kollama_model ** out) {
    try {
        load(paths, n_paths, params, remote, out);
    } catch (const failure & e) {
        const std::string text = e.what();
        throw failure(e.status, text.compare(0, std::strlen(paths[0]), paths[0]) == 0 ? text : std::string(paths[0]) + ": " + text);
    }
}

// A load with servers, on a thread that may be given up: it owns all that it looks at.
struct remote_load {
    std::vector<std::string>  paths;
    std::string               tokenizer;
    kollama_model_params      params;
    std::shared_ptr<servers>  remote;
    std::atomic<float>        done{ 0 };
    std::atomic<bool>         goes_on{ true };
    kollama_model *           model = nullptr;

    void run() {
        std::vector<const char *> pointers;
        for (const std::string & path : paths) {
            pointers.push_back(path.c_str());
        }
        load_named(pointers.data(), pointers.size(), params, remote, &model);
        remote->keep_alive();
    }
};

void load_remotely(const char * const * paths, size_t n_paths, const kollama_model_params & params, kollama_model ** out) {
    const auto state = std::make_shared<remote_load>();
    state->paths.assign(paths, paths + n_paths);
    state->params           = params;
    state->params.tokenizer = params.tokenizer ? (state->tokenizer = params.tokenizer).c_str() : nullptr;
    state->params.progress  = [](float done, void * user) -> int {
        auto & self = *static_cast<remote_load *>(user);
        self.done   = done;
        return self.goes_on;
    };
    state->params.progress_user = state.get();
    state->remote               = servers::connect({ params.servers, params.servers + params.n_servers });
    state->remote->call([state] { state->run(); }, [&] {
        // The caller's callable, on the caller's thread.
        if (is_shutting_down() || (params.progress && !params.progress(state->done, params.progress_user))) {
            state->goes_on = false;
        }
        return state->goes_on.load();
    });
    *out = state->model;
    if (params.progress) {
        params.progress(1, params.progress_user);
    }
}

} // namespace

void check_token(const kollama_model * model, int32_t token) {
    const int32_t n_vocab = llama_vocab_n_tokens(model->vocab);
    if (token < 0 || token >= n_vocab) {
        throw failure(KOLLAMA_ERROR_TOKEN, format("token id %d is outside the vocabulary, 0 to %d", token, n_vocab - 1));
    }
}

bool gguf_adds_space(const kollama_gguf & gguf, const llama_vocab * vocab) {
    const std::string * said = gguf.find("tokenizer.ggml.add_space_prefix");
    return said ? *said == "true" : llama_vocab_type(vocab) == LLAMA_VOCAB_TYPE_SPM;
}

} // namespace kollama

using namespace kollama;

kollama_status kollama_model_load(const char * const * paths, size_t n_paths, const kollama_model_params * params,
                                  kollama_model ** out) {
    return guarded([&] {
        const at_work here;
        if (!here) {
            throw failure(KOLLAMA_ERROR_CLOSED, "the interpreter is at its end");
        }
        if (params->n_servers > 0) {
            load_remotely(paths, n_paths, *params, out);
        } else {
            load_named(paths, n_paths, *params, nullptr, out);
        }
    });
}

kollama_status kollama_model_free(kollama_model * model) {
    if (!model) {
        return KOLLAMA_OK;
    }
    if (const int n = model->n_contexts - model->n_abandoned) {
        return report(KOLLAMA_ERROR_BUSY, format("%d context%s of this model %s open: close %s first", n, n == 1 ? "" : "s",
                                                 n == 1 ? "is" : "are", n == 1 ? "it" : "them"));
    }
    if (const int n = model->n_loras; n && !model->n_abandoned) {
        return report(KOLLAMA_ERROR_BUSY, format("%d LoRA adapter%s of this model %s open: close %s first", n, n == 1 ? "" : "s",
                                                 n == 1 ? "is" : "are", n == 1 ? "it" : "them"));
    }
    if (model->n_pins) {
        return report(KOLLAMA_ERROR_BUSY, "another thread is using this model's tokenizer");
    }
    if (model->n_abandoned) {
        return KOLLAMA_OK; // closed for the caller; what was said when the assertion failed
    }
    return guarded([&] {
        if (const at_work here; here) { // else it goes with the process
            try {
                call_on(model->remote, [handle = model->handle] { llama_model_free(handle); });
            } catch (const failure & e) {
                log_warning(std::string(e.what()) + "; its memory here stays until the process ends");
            }
            delete model;
        }
    });
}

kollama_status kollama_model_tokenizer(const kollama_model * model, kollama_tokenizer ** out) {
    return guarded([&] {
        auto handle       = std::make_unique<kollama_tokenizer>();
        handle->tokenizer = model->tokenizer;
        *out              = handle.release();
    });
}

void kollama_model_pin(kollama_model * model) {
    ++model->n_pins;
}

void kollama_model_unpin(kollama_model * model) {
    --model->n_pins;
}

const char * kollama_model_format(const kollama_model * model) {
    return model->format.c_str();
}

int32_t kollama_model_n_vocab(const kollama_model * model) {
    return llama_vocab_n_tokens(model->vocab);
}

int32_t kollama_model_n_ctx_train(const kollama_model * model) {
    return llama_model_n_ctx_train(model->handle);
}

int32_t kollama_model_n_embd(const kollama_model * model) {
    return llama_model_n_embd(model->handle);
}

int32_t kollama_model_n_embd_out(const kollama_model * model) {
    return llama_model_n_embd_out(model->handle);
}

int32_t kollama_model_n_layer(const kollama_model * model) {
    return llama_model_n_layer(model->handle);
}

int32_t kollama_model_n_gpu_layers(const kollama_model * model) {
    return model->n_gpu_layers;
}

uint64_t kollama_model_n_params(const kollama_model * model) {
    return llama_model_n_params(model->handle);
}

uint64_t kollama_model_size(const kollama_model * model) {
    return llama_model_size(model->handle);
}

bool kollama_model_uses_mmap(const kollama_model * model) {
    return model->uses_mmap;
}

int32_t kollama_model_desc(const kollama_model * model, char * buf, size_t size) {
    return llama_model_desc(model->handle, buf, size);
}

int32_t kollama_model_meta_count(const kollama_model * model) {
    return llama_model_meta_count(model->handle);
}

int32_t kollama_model_meta_key(const kollama_model * model, int32_t index, char * buf, size_t size) {
    return llama_model_meta_key_by_index(model->handle, index, buf, size);
}

int32_t kollama_model_meta_value(const kollama_model * model, int32_t index, char * buf, size_t size) {
    return llama_model_meta_val_str_by_index(model->handle, index, buf, size);
}

void kollama_model_get_rank_info(const kollama_model * model, kollama_rank_info * info) {
    const auto cls     = model->shapes.find("cls.weight");
    const bool is_head = model->shapes.count("cls.output.weight") || (cls != model->shapes.end() && cls->second.ne[1] == 1);
    *info         = {};
    info->n_scores = is_head ? static_cast<int32_t>(llama_model_n_cls_out(model->handle)) : 0;
    info->bos     = llama_vocab_bos(model->vocab);
    info->sep     = llama_vocab_sep(model->vocab);
    info->eos     = llama_vocab_eos(model->vocab) >= 0 ? llama_vocab_eos(model->vocab) : info->sep;
    info->add_bos = llama_vocab_get_add_bos(model->vocab) && info->bos >= 0;
    info->add_eos = llama_vocab_get_add_eos(model->vocab) && info->eos >= 0;
    info->add_sep = llama_vocab_get_add_sep(model->vocab) && info->sep >= 0;
    info->prompt  = llama_model_chat_template(model->handle, "rerank");
}

const char * kollama_model_chat_template(const kollama_model * model) {
    return llama_model_chat_template(model->handle, nullptr);
}
