#include "products/kernels.h"

#include <cstdlib>
#include <string_view>

namespace kollama {

const product_kernels * choose_product_kernels() {
    // "0": none, "avx2": not those of AVX-512. To compare with, and for tests of what this CPU would not take.
    const char *           wish = std::getenv("KOLLAMA_PRODUCTS");
    const std::string_view most = wish ? wish : "";
    if (most == "0") {
        return nullptr;
    }
#ifdef KOLLAMA_X86_KERNELS
    __builtin_cpu_init();
    if (most != "avx2" && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")) {
        return &product_kernels_avx512;
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) { // F16C came before both, and has no name in clang
        return &product_kernels_avx2;
    }
#endif
    return nullptr;
}

} // namespace kollama
