#include "gguf_check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <unordered_set>

namespace kollama {
namespace {

constexpr uint64_t MAX_TOKENS = 1 << 22; // llama.cpp needs about 250 bytes for each, whatever the file spends on it

// Read at the pinned commit of llama.cpp, src/models/*.cpp: integer divisions by what a file says.
constexpr const char * NEVER_ZERO[]      = { "ssm.group_count", "ssm.time_step_rank", "wkv.head_size", "experts_per_group",
                                             "attention.output_group_count" };
constexpr const char * DIVIDE_BY_HEADS[] = { "deepseek2", "gemma2", "gemma3", "olmo2", "phimoe" };
constexpr const char * DIVIDE_BY_EXPERTS[] = { "glm4moe",  "grovemoe", "llada-moe", "mellum",   "nemotron_h_moe", "qwen2moe",
                                               "qwen35moe", "qwen3moe", "qwen3next", "qwen3vlmoe", "qwen4exp", "rnd1" };
constexpr const char * ROTATE_BY_SECTIONS[] = { "paddleocr", "qwen2vl", "qwen35", "qwen35moe", "qwen3tts", "qwen3vl", "qwen3vlmoe", "qwen4exp" };

template <size_t N> bool is_one_of(const std::string & name, const char * const (&names)[N]) {
    return std::any_of(names, names + N, [&](const char * other) { return name == other; });
}

bool ends_with(const std::string & text, const std::string & end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

[[noreturn]] void refuse(const std::string & text) {
    throw failure(KOLLAMA_ERROR_FORMAT, text);
}

class checker {
  public:
    checker(const kollama_gguf & gguf, const byte_source & source) : gguf_(gguf), source_(source) {
        const std::string * name = gguf.find("general.architecture");
        architecture_            = name ? *name : "";
    }

    void check() const {
        check_gguf_names(gguf_);
        check_tokens();
        for (const auto & entry : gguf_.entries) {
            if (ends_with(entry.key, "_epsilon")) {
                check_epsilon(entry);
            }
        }
        for (const char * key : NEVER_ZERO) {
            for (int64_t value : numbers(key)) {
                if (value == 0) {
                    refuse(architecture_ + "." + key + " is 0");
                }
            }
        }
        if (is_one_of(architecture_, DIVIDE_BY_HEADS) && first("attention.head_count") < 1) {
            refuse(architecture_ + ".attention.head_count is missing or 0");
        }
        const bool mixed = architecture_ == "nemotron_h_moe"; // layers without experts have 0
        if (is_one_of(architecture_, DIVIDE_BY_EXPERTS) && least("expert_used_count", mixed) < 1 &&
            least("expert_feed_forward_length", mixed) < 1) {
            refuse(architecture_ + ".expert_used_count is missing or 0");
        }
        check_heads();
        for (const auto & tensor : gguf_.tensors) {
            check_tensor(tensor);
        }
    }

  private:
    // A number, or an array of them, below the architecture's name; nothing where it is neither.
    std::vector<int64_t> numbers(const std::string & name) const {
        const std::string key = architecture_ + "." + name;
        for (const auto & entry : gguf_.entries) {
            if (entry.key != key) {
                continue;
            }
            if (entry.array_offset == 0) {
                return { std::strtoll(entry.value.c_str(), nullptr, 10) };
            }
            if (entry.array_type == GGUF_TYPE_INT32 || entry.array_type == GGUF_TYPE_UINT32) {
                const std::vector<char> bytes = read_array(source_, entry);
                std::vector<int32_t>    values(bytes.size() / 4);
                std::memcpy(values.data(), bytes.data(), values.size() * 4);
                return { values.begin(), values.end() };
            }
        }
        return {};
    }

    int64_t first(const std::string & name) const {
        const auto found = numbers(name);
        return found.empty() ? 0 : found.front();
    }

    // Of an array the smallest, or the largest where any will do.
    int64_t least(const std::string & name, bool any) const {
        const auto found = numbers(name);
        const auto ends  = std::minmax_element(found.begin(), found.end());
        return found.empty() ? 0 : any ? *ends.second : *ends.first;
    }

    void check_tokens() const {
        uint64_t count = 0;
        for (const auto & entry : gguf_.entries) {
            if (entry.key == "tokenizer.ggml.tokens") {
                count = entry.array_count;
            }
        }
        const std::string * kind = gguf_.find("tokenizer.ggml.model");
        if (kind && (*kind == "none" || *kind == "no_vocab")) { // llama.cpp makes as many as this says
            count = std::max<int64_t>(0, first("vocab_size"));
        }
        if (count > MAX_TOKENS) {
            refuse(format("a vocabulary of %llu tokens", (unsigned long long) count));
        }
    }

    // Normalisation asserts that it is not negative, on every worker.
    void check_epsilon(const kollama_gguf::entry & entry) const {
        const double value = std::strtod(entry.value.c_str(), nullptr);
        if (entry.array_offset == 0 && !(std::isfinite(value) && value >= 0)) {
            refuse(entry.key + " is " + entry.value);
        }
    }

    // Rotation asserts that it is of pairs, and of no more than a head has.
    void check_heads() const {
        const int64_t n_head = first("attention.head_count"), n_embd = first("embedding_length");
        int64_t       head = first("attention.key_length");
        if (head == 0) {
            head = n_head > 0 ? n_embd / n_head : 0;
        }
        const int64_t rotated = first("rope.dimension_count");
        if (rotated % 2 != 0 || rotated < 0 || (head > 0 && rotated > head)) {
            refuse(format("%s.rope.dimension_count is %lld, in heads of %lld", architecture_.c_str(), (long long) rotated, (long long) head));
        }
        auto       sections = numbers("rope.dimension_sections");
        const bool used     = !sections.empty() || is_one_of(architecture_, ROTATE_BY_SECTIONS);
        sections.resize(std::min<size_t>(sections.size(), 3)); // the fourth alone is not enough
        if (used && std::none_of(sections.begin(), sections.end(), [](int64_t n) { return n > 0; })) {
            refuse(architecture_ + ".rope.dimension_sections has no section");
        }
    }

    // The CPU multiplies matrices of most types, and computes with anything else in f32 alone.
    static void check_tensor(const kollama_gguf::tensor & tensor) {
        const bool is_matrix = tensor.ne[1] * tensor.ne[2] * tensor.ne[3] > 1 && ends_with(tensor.name, ".weight") &&
                               !ends_with(tensor.name, "_norm.weight") && !ends_with(tensor.name, "ssm_conv1d.weight");
        const bool is_table  = ends_with(tensor.name, "tid2eid.weight") && tensor.type == GGML_TYPE_I32;
        const bool multiplies = tensor.type == GGML_TYPE_F32 || ggml_get_type_traits(tensor.type)->to_float;
        if (is_matrix ? !multiplies && !is_table : tensor.type != GGML_TYPE_F32) {
            refuse(format("tensor '%s' is of type %s, which it cannot be computed with", tensor.name.c_str(), ggml_type_name(tensor.type)));
        }
    }

    const kollama_gguf & gguf_;
    const byte_source &  source_;
    std::string          architecture_;
};

} // namespace

void check_gguf_names(const kollama_gguf & gguf) {
    std::unordered_set<std::string> seen;
    for (const auto & entry : gguf.entries) {
        if (!seen.insert(entry.key).second) {
            refuse("key '" + entry.key + "' occurs twice");
        }
    }
    seen.clear();
    for (const auto & tensor : gguf.tensors) {
        if (!seen.insert(tensor.name).second) {
            refuse("tensor '" + tensor.name + "' occurs twice");
        }
        if (tensor.name.empty() || std::any_of(tensor.ne, tensor.ne + 4, [](uint64_t n) { return n == 0; })) {
            refuse("tensor '" + tensor.name + "' is empty, or has no name");
        }
    }
}

void check_gguf(const kollama_gguf & gguf, const byte_source & source) {
    checker(gguf, source).check();
}

} // namespace kollama
