#include "backend.h"

#include "internal.h"
#include "products/accelerator.h"

#ifndef _WIN32
#    include <dlfcn.h>
#    include <unwind.h>
#endif

namespace kollama {

ggml_backend_dev_t cpu_device() {
    ggml_backend_dev_t cpu = ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_CPU);
    if (!cpu) {
        throw failure(KOLLAMA_ERROR_ENGINE, "no CPU backend is loaded");
    }
    return cpu;
}

void * cpu_function_address(const char * name) {
    void * function = ggml_backend_reg_get_proc_address(ggml_backend_dev_backend_reg(cpu_device()), name);
    if (!function) {
        throw failure(KOLLAMA_ERROR_ENGINE, std::string("the CPU backend has no ") + name);
    }
    return function;
}

bool has_gpu() {
    return ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_GPU) || ggml_backend_dev_by_type(GGML_BACKEND_DEVICE_TYPE_IGPU);
}

#ifdef _WIN32

bool in_backend() {
    return true;
}

bool in_library_of(ggml_backend_reg_t) {
    return true;
}

#else

// Backends are libraries apart from ggml's base and from llama.cpp: whose code is on the stack can be
// told from the addresses, without symbols.
static bool is_of(ggml_backend_reg_t reg, const void * address) {
    Dl_info code, data;
    return dladdr(address, &code) && dladdr(reg, &data) && data.dli_fbase == code.dli_fbase;
}

bool in_library_of(ggml_backend_reg_t reg) {
    struct search {
        ggml_backend_reg_t reg;
        bool               found;
    } state{ reg, false };
    _Unwind_Backtrace(
        [](_Unwind_Context * frame, void * user) {
            auto & state = *static_cast<search *>(user);
            state.found  = is_of(state.reg, reinterpret_cast<const void *>(_Unwind_GetIP(frame)));
            return state.found ? _URC_END_OF_STACK : _URC_NO_REASON;
        },
        &state);
    return state.found;
}

bool in_backend() {
    for (size_t i = 0; i < ggml_backend_reg_count(); i++) {
        // Not this very library: what it computes, it computes in the CPU's.
        if (ggml_backend_reg_get(i) != product_backend() && in_library_of(ggml_backend_reg_get(i))) {
            return true;
        }
    }
    return false;
}

#endif

} // namespace kollama
