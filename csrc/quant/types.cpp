#include "quant/types.h"

#include "internal.h"

#include <cctype>

namespace kollama {

// tools/quantize/quantize.cpp of the pinned llama.cpp, read there: it is no API.
const file_type FILE_TYPES[] = {
    { "f32", LLAMA_FTYPE_ALL_F32 },            { "f16", LLAMA_FTYPE_MOSTLY_F16 },
    { "bf16", LLAMA_FTYPE_MOSTLY_BF16 },       { "q8_0", LLAMA_FTYPE_MOSTLY_Q8_0 },
    { "q5_1", LLAMA_FTYPE_MOSTLY_Q5_1 },       { "q5_0", LLAMA_FTYPE_MOSTLY_Q5_0 },
    { "q4_1", LLAMA_FTYPE_MOSTLY_Q4_1 },       { "q4_0", LLAMA_FTYPE_MOSTLY_Q4_0 },
    { "q6_k", LLAMA_FTYPE_MOSTLY_Q6_K },       { "q5_k", LLAMA_FTYPE_MOSTLY_Q5_K_M },
    { "q5_k_m", LLAMA_FTYPE_MOSTLY_Q5_K_M },   { "q5_k_s", LLAMA_FTYPE_MOSTLY_Q5_K_S },
    { "q4_k", LLAMA_FTYPE_MOSTLY_Q4_K_M },     { "q4_k_m", LLAMA_FTYPE_MOSTLY_Q4_K_M },
    { "q4_k_s", LLAMA_FTYPE_MOSTLY_Q4_K_S },   { "q3_k", LLAMA_FTYPE_MOSTLY_Q3_K_M },
    { "q3_k_l", LLAMA_FTYPE_MOSTLY_Q3_K_L },   { "q3_k_m", LLAMA_FTYPE_MOSTLY_Q3_K_M },
    { "q3_k_s", LLAMA_FTYPE_MOSTLY_Q3_K_S },   { "q2_k", LLAMA_FTYPE_MOSTLY_Q2_K },
    { "q2_k_s", LLAMA_FTYPE_MOSTLY_Q2_K_S },   { "iq4_nl", LLAMA_FTYPE_MOSTLY_IQ4_NL },
    { "iq4_xs", LLAMA_FTYPE_MOSTLY_IQ4_XS },   { "iq3_m", LLAMA_FTYPE_MOSTLY_IQ3_M },
    { "iq3_s", LLAMA_FTYPE_MOSTLY_IQ3_S },     { "iq3_xs", LLAMA_FTYPE_MOSTLY_IQ3_XS },
    { "iq3_xxs", LLAMA_FTYPE_MOSTLY_IQ3_XXS }, { "iq2_m", LLAMA_FTYPE_MOSTLY_IQ2_M },
    { "iq2_s", LLAMA_FTYPE_MOSTLY_IQ2_S },     { "iq2_xs", LLAMA_FTYPE_MOSTLY_IQ2_XS },
    { "iq2_xxs", LLAMA_FTYPE_MOSTLY_IQ2_XXS }, { "iq1_m", LLAMA_FTYPE_MOSTLY_IQ1_M },
    { "iq1_s", LLAMA_FTYPE_MOSTLY_IQ1_S },     { "tq2_0", LLAMA_FTYPE_MOSTLY_TQ2_0 },
    { "tq1_0", LLAMA_FTYPE_MOSTLY_TQ1_0 },     { "q2_0", LLAMA_FTYPE_MOSTLY_Q2_0 },
    { "q1_0", LLAMA_FTYPE_MOSTLY_Q1_0 },       { "mxfp4_moe", LLAMA_FTYPE_MOSTLY_MXFP4_MOE },
    { "mxfp4", LLAMA_FTYPE_MOSTLY_MXFP4_MOE }, { COPY, LLAMA_FTYPE_ALL_F32 },
    { nullptr, LLAMA_FTYPE_ALL_F32 },
};

static bool same(const char * a, const std::string & b) {
    size_t i = 0;
    for (; a[i] && i < b.size(); i++) {
        if (std::tolower(static_cast<unsigned char>(a[i])) != std::tolower(static_cast<unsigned char>(b[i]))) {
            return false;
        }
    }
    return !a[i] && i == b.size();
}

llama_ftype find_file_type(const std::string & name) {
    for (const file_type * entry = FILE_TYPES; entry->name; entry++) {
        if (same(entry->name, name)) {
            return entry->type;
        }
    }
    throw failure(KOLLAMA_ERROR_ARGUMENT, "'" + name + "' is no type to quantize to");
}

ggml_type find_tensor_type(const std::string & name) {
    for (int i = 0; i < GGML_TYPE_COUNT; i++) {
        const ggml_type type = static_cast<ggml_type>(i);
        if (can_quantize_to(type) && same(ggml_type_name(type), name)) {
            return type;
        }
    }
    throw failure(KOLLAMA_ERROR_ARGUMENT, "'" + name + "' is no type to quantize a tensor to");
}

// Those that ggml_quantize_chunk has a case for; it asserts on any other.
bool can_quantize_to(ggml_type type) {
    switch (type) {
        case GGML_TYPE_F32: case GGML_TYPE_F16: case GGML_TYPE_BF16:
        case GGML_TYPE_Q1_0: case GGML_TYPE_Q2_0: case GGML_TYPE_Q4_0: case GGML_TYPE_Q4_1:
        case GGML_TYPE_Q5_0: case GGML_TYPE_Q5_1: case GGML_TYPE_Q8_0:
        case GGML_TYPE_MXFP4: case GGML_TYPE_NVFP4:
        case GGML_TYPE_Q2_K: case GGML_TYPE_Q3_K: case GGML_TYPE_Q4_K: case GGML_TYPE_Q5_K: case GGML_TYPE_Q6_K:
        case GGML_TYPE_TQ1_0: case GGML_TYPE_TQ2_0:
        case GGML_TYPE_IQ1_S: case GGML_TYPE_IQ1_M: case GGML_TYPE_IQ2_XXS: case GGML_TYPE_IQ2_XS:
        case GGML_TYPE_IQ2_S: case GGML_TYPE_IQ3_XXS: case GGML_TYPE_IQ3_S: case GGML_TYPE_IQ4_NL:
        case GGML_TYPE_IQ4_XS:
            return true;
        default:
            return false;
    }
}

bool can_quantize_from(ggml_type type) {
    return type == GGML_TYPE_F32 || ggml_get_type_traits(type)->to_float;
}

} // namespace kollama
