#include "model_file.h"
#include "quant/quantization.h"
#include "quant/types.h"

#include <cstring>
#include <filesystem>
#include <unordered_map>

namespace kollama {
namespace {

using quantization = kollama_quantization;

void add_part(quantization & q, const std::string & path, const kollama_gguf & gguf) {
    for (const auto & found : gguf.tensors) {
        quantization::tensor tensor{};
        tensor.name = found.name;
        tensor.from = tensor.to = found.type;
        std::copy(found.ne, found.ne + 4, tensor.ne);
        tensor.part         = q.parts.size();
        tensor.offset       = gguf.data_start + found.offset;
        tensor.n_bytes_from = tensor.n_bytes_to = found.n_bytes;
        q.tensors.push_back(std::move(tensor));
    }
    q.parts.push_back(path);
    q.size_before += std::filesystem::file_size(std::filesystem::u8path(path));
}

kollama_gguf scan(const std::string & path) {
    model_file file = open_for_loading(path);
    if (file.view) {
        throw failure(KOLLAMA_ERROR_FORMAT, path + ": a GGML file of 2023; convert it to GGUF first");
    }
    return std::move(file.header);
}

void open(quantization & q, const std::string & path) {
    const kollama_gguf  first = scan(path);
    add_part(q, path, first);
    for (const std::string & part : other_parts(path, first)) {
        add_part(q, part, scan(part));
    }
}

// ---- what llama.cpp would do ---------------------------------------------------------------------

// Names as a regular expression that fits them alone: llama.cpp takes nothing simpler.
std::string pattern_of(const std::vector<std::string> & names) {
    std::string pattern;
    for (const auto & name : names) {
        pattern += pattern.empty() ? "^(?:" : "|";
        for (char c : name) {
            pattern += std::strchr("^$\\.*+?()[]{}|", c) ? std::string{ '\\', c } : std::string(1, c);
        }
    }
    return pattern + ")$";
}

struct override_list {
    std::vector<std::string>                 patterns;
    std::vector<llama_model_tensor_override> entries; // ends in a null pattern

    explicit override_list(const kollama_quantize_params & params) {
        constexpr size_t                              NAMES_PER_PATTERN = 32; // std::regex recurses on each
        std::map<ggml_type, std::vector<std::string>> names;
        std::vector<ggml_type>                        types;
        const auto                                    add = [&](ggml_type type) {
            patterns.push_back(pattern_of(names[type]));
            types.push_back(type);
            names[type].clear();
        };
        for (size_t i = 0; i < params.n_overrides; i++) {
            const ggml_type type = find_tensor_type(params.overrides[i].type);
            names[type].push_back(params.overrides[i].name);
            if (names[type].size() == NAMES_PER_PATTERN) {
                add(type);
            }
        }
        for (const auto & [type, left] : names) {
            if (!left.empty()) {
                add(type);
            }
        }
        for (size_t i = 0; i < patterns.size(); i++) {
            entries.push_back({ patterns[i].c_str(), types[i] });
        }
        entries.push_back({ nullptr, GGML_TYPE_COUNT });
    }
};

llama_model_quantize_params make_params(const kollama_quantize_params & params) {
    llama_model_quantize_params out = llama_model_quantize_default_params();
    out.dry_run                = true;
    out.nthread                = 1;
    out.ftype                  = find_file_type(params.type);
    out.only_copy              = std::strcmp(params.type, COPY) == 0;
    out.allow_requantize       = params.allow_requantize;
    out.quantize_output_tensor = !params.leave_output;
    out.pure                   = params.pure;
    if (params.output_type) {
        out.output_tensor_type = find_tensor_type(params.output_type);
    }
    if (params.embedding_type) {
        out.token_embedding_type = find_tensor_type(params.embedding_type);
    }
    return out;
}

bool is_embedding(const std::string & name) {
    return name == "token_embd.weight" || name == "per_layer_token_embd.weight";
}

// llama.cpp looks for no other type where the one that was asked for does not fit: it asserts.
void check_fits(const quantization & q, const llama_model_quantize_params & params) {
    for (const auto & tensor : q.tensors) {
        const ggml_type type = is_embedding(tensor.name)        ? params.token_embedding_type
                               : tensor.name == "output.weight" ? params.output_tensor_type
                                                                : GGML_TYPE_COUNT;
        if (type != GGML_TYPE_COUNT && tensor.ne[0] % ggml_blck_size(type) != 0) {
            throw failure(KOLLAMA_ERROR_ARGUMENT,
                          format("%s has rows of %lld weights, which %s does not fit: it needs a multiple of %lld",
                                 tensor.name.c_str(), (long long) tensor.ne[0], ggml_type_name(type),
                                 (long long) ggml_blck_size(type)));
        }
    }
}

std::string dry_run(const quantization & q, llama_model_quantize_params params) {
    std::vector<llama_model_imatrix_data> importance;
    for (const auto & [name, values] : q.importance) {
        importance.push_back({ name.c_str(), values.data(), values.size() });
    }
    if (!importance.empty()) {
        importance.push_back({ nullptr, nullptr, 0 });
        params.imatrix = importance.data();
    }
    guard       g;
    log_capture log;
    if (llama_model_quantize(q.parts[0].c_str(), "", &params) != 0) {
        std::string       reason = g.errors();
        const std::string prefix = "llama_model_quantize: failed to quantize: ";
        for (size_t at; (at = reason.find(prefix)) != std::string::npos;) {
            reason.erase(at, prefix.size());
        }
        throw failure(KOLLAMA_ERROR_LOAD, q.parts[0] + ": " + (reason.empty() ? "llama.cpp gave no reason" : reason));
    }
    return std::move(log.text);
}

// Reads a line "[  12/ 291] NAME   - [ 4096, 4096, 1, 1], type = f16, size = ... MiB -> ... MiB (q4_K)".
bool read_line(const std::string & line, std::string * name, std::string * type) {
    const size_t begin = line.find("] "), kind = line.rfind(", type = ");
    const size_t end   = kind == std::string::npos ? kind : line.rfind(" - [", kind);
    if (line[0] != '[' || begin == std::string::npos || end == std::string::npos || end < begin + 2) {
        return false;
    }
    *name = line.substr(begin + 2, end - begin - 2);
    name->erase(name->find_last_not_of(' ') + 1);
    const size_t arrow = line.find(" -> ", kind), open = line.rfind('('), close = line.rfind(')');
    *type = arrow != std::string::npos && open < close && close != std::string::npos ? line.substr(open + 1, close - open - 1) : "";
    return true;
}

// Puts the tensors into the order of the dry run and sets the type that it gave each.
void take_plan(quantization & q, const std::string & log) {
    std::unordered_map<std::string, size_t> known;
    for (size_t i = 0; i < q.tensors.size(); i++) {
        known[q.tensors[i].name] = i;
    }
    std::vector<quantization::tensor> planned;
    std::string                       name, type;
    for (size_t begin = 0, end; (end = log.find('\n', begin)) != std::string::npos; begin = end + 1) {
        const std::string line = log.substr(begin, end - begin);
        if (line.empty() || !read_line(line, &name, &type)) {
            continue;
        }
        const auto found = known.find(name);
        if (found == known.end()) {
            continue; // and then one is missing below
        }
        planned.push_back(q.tensors[found->second]);
        planned.back().to = type.empty() ? planned.back().from : find_tensor_type(type);
        known.erase(found);
    }
    if (planned.size() != q.tensors.size()) {
        throw failure(KOLLAMA_ERROR_ENGINE, format("llama.cpp planned %zu of %zu tensors", planned.size(), q.tensors.size()));
    }
    q.tensors = std::move(planned);
}

// ---- what it would trip over ---------------------------------------------------------------------

// llama.cpp's list of what comes out as garbage without an importance matrix, and ggml's of what asserts.
bool requires_importance(const quantization::tensor & tensor, llama_ftype ftype) {
    if (ggml_quantize_requires_imatrix(tensor.to)) {
        return true;
    }
    if (is_embedding(tensor.name) || tensor.name == "output.weight") {
        return false;
    }
    return tensor.to == GGML_TYPE_IQ3_XXS || tensor.to == GGML_TYPE_IQ2_S || tensor.to == GGML_TYPE_IQ1_M ||
           (tensor.to == GGML_TYPE_Q2_K && ftype == LLAMA_FTYPE_MOSTLY_Q2_K_S);
}

void attach_importance(quantization & q, quantization::tensor & tensor, llama_ftype ftype) {
    const auto found = q.importance.find(tensor.name);
    if (found != q.importance.end()) {
        const uint64_t needed = static_cast<uint64_t>(tensor.ne[0]) * tensor.ne[2] * tensor.ne[3];
        if (found->second.size() == needed) {
            tensor.importance = &found->second;
        } else if (!is_embedding(tensor.name)) { // of embeddings an imatrix counts rows, not columns
            throw failure(KOLLAMA_ERROR_ARGUMENT,
                          format("the importance matrix has %zu values for %s, which needs %llu: it is of another model",
                                 found->second.size(), tensor.name.c_str(), (unsigned long long) needed));
        }
    }
    tensor.needs_importance = !tensor.importance && requires_importance(tensor, ftype);
}

void check_types(const quantization::tensor & tensor, bool allow_requantize) {
    const char * from = ggml_type_name(tensor.from);
    const char * to   = ggml_type_name(tensor.to);
    if (ggml_is_quantized(tensor.from) && !allow_requantize) {
        throw failure(KOLLAMA_ERROR_ARGUMENT,
                      format("%s is %s already: begin with an f16, bf16 or f32 file, or allow_requantize, which costs quality",
                             tensor.name.c_str(), from));
    }
    if (!can_quantize_from(tensor.from) || tensor.ne[0] % ggml_blck_size(tensor.to) != 0) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, format("%s cannot go from %s to %s", tensor.name.c_str(), from, to));
    }
}

// ---- the new file's header -----------------------------------------------------------------------

void set_keys(gguf_context * out, const quantization & q, const kollama_quantize_params & params) {
    std::unique_ptr<gguf_context, quantization::free_gguf> source(gguf_init_from_file(q.parts[0].c_str(), { true, nullptr }));
    if (!source) {
        throw failure(KOLLAMA_ERROR_FORMAT, q.parts[0] + ": its header cannot be read");
    }
    gguf_set_kv(out, source.get());
    for (const char * key : { "split.no", "split.count", "split.tensors.count", "general.alignment" }) {
        gguf_remove_key(out, key); // one file, of the usual alignment
    }
    gguf_set_val_u32(out, "general.quantization_version", GGML_QNT_VERSION);
    if (std::strcmp(params.type, COPY) != 0) {
        gguf_set_val_u32(out, "general.file_type", find_file_type(params.type));
    }
    if (q.importance.empty()) {
        return;
    }
    if (params.importance_file) {
        gguf_set_val_str(out, "quantize.imatrix.file", params.importance_file);
    }
    if (params.importance_dataset) {
        gguf_set_val_str(out, "quantize.imatrix.dataset", params.importance_dataset);
    }
    gguf_set_val_u32(out, "quantize.imatrix.entries_count", static_cast<uint32_t>(q.importance.size()));
    if (params.importance_chunks >= 0) {
        gguf_set_val_u32(out, "quantize.imatrix.chunks_count", static_cast<uint32_t>(params.importance_chunks));
    }
}

void make_header(quantization & q, const kollama_quantize_params & params) {
    q.header.reset(gguf_init_empty());
    set_keys(q.header.get(), q, params);
    const ggml_init_params memory{ (q.tensors.size() + 1) * ggml_tensor_overhead(), nullptr, true };
    std::unique_ptr<ggml_context, decltype(&ggml_free)> shapes(ggml_init(memory), ggml_free);
    if (!shapes) {
        throw std::bad_alloc();
    }
    uint64_t data = 0;
    for (auto & tensor : q.tensors) {
        ggml_tensor * shape = ggml_new_tensor(shapes.get(), tensor.to, 4, tensor.ne);
        ggml_set_name(shape, tensor.name.c_str());
        gguf_add_tensor(q.header.get(), shape);
        tensor.n_bytes_to = ggml_nbytes(shape);
        data += GGML_PAD(tensor.n_bytes_to, gguf_get_alignment(q.header.get()));
    }
    q.size_after = gguf_get_meta_size(q.header.get()) + data;
}

void plan(quantization & q, const kollama_quantize_params & params) {
    q.header.reset();
    q.importance.clear();
    for (size_t i = 0; i < params.n_importance; i++) {
        const kollama_importance & entry = params.importance[i];
        q.importance[entry.name].assign(entry.values, entry.values + entry.n_values);
    }
    llama_model_quantize_params options = make_params(params);
    const override_list         overrides(params);
    options.tt_overrides = overrides.patterns.empty() ? nullptr : overrides.entries.data();
    check_fits(q, options);
    take_plan(q, dry_run(q, options));
    for (auto & tensor : q.tensors) {
        tensor.importance       = nullptr;
        tensor.needs_importance = false;
        if (tensor.from != tensor.to) {
            check_types(tensor, params.allow_requantize);
            attach_importance(q, tensor, options.ftype);
        }
    }
    make_header(q, params);
}

} // namespace
} // namespace kollama

using namespace kollama;

const char * kollama_quantize_file_type(size_t index) {
    return FILE_TYPES[index].name;
}

const char * kollama_quantize_tensor_type(size_t index) {
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        if (can_quantize_to(static_cast<ggml_type>(i)) && index-- == 0) {
            return ggml_type_name(static_cast<ggml_type>(i));
        }
    }
    return nullptr;
}

kollama_status kollama_quantization_open(const char * path, kollama_quantization ** out) {
    return guarded([&] {
        auto q = std::make_unique<kollama_quantization>();
        open(*q, path);
        *out = q.release();
    });
}

void kollama_quantization_free(kollama_quantization * quantization) {
    delete quantization;
}

kollama_status kollama_quantization_plan(kollama_quantization * quantization, const kollama_quantize_params * params) {
    return guarded([&] { plan(*quantization, *params); });
}

const char * kollama_quantization_part(const kollama_quantization * quantization, size_t index) {
    return index < quantization->parts.size() ? quantization->parts[index].c_str() : nullptr;
}

size_t kollama_quantization_n_tensors(const kollama_quantization * quantization) {
    return quantization->tensors.size();
}

void kollama_quantization_tensor(const kollama_quantization * quantization, size_t index, kollama_quantized_tensor * tensor) {
    const auto & found       = quantization->tensors[index];
    tensor->name             = found.name.c_str();
    tensor->from             = ggml_type_name(found.from);
    tensor->to               = ggml_type_name(found.to);
    tensor->n_bytes_from     = found.n_bytes_from;
    tensor->n_bytes_to       = found.n_bytes_to;
    tensor->needs_importance = found.needs_importance;
}

uint64_t kollama_quantization_size_before(const kollama_quantization * quantization) {
    return quantization->size_before;
}

uint64_t kollama_quantization_size_after(const kollama_quantization * quantization) {
    return quantization->size_after;
}
