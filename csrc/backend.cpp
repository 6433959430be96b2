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

bool has_other_devices() {
    return ggml_backend_dev_count() > (product_backend() ? 2u : 1u);
}

#ifdef _WIN32

bool in_backend() {
    return true;
}

#else

// Backends are libraries apart from ggml's base and from llama.cpp: whose code is on the stack can be
// told from the addresses, without symbols.
static bool is_of_a_backend(const void * address) {
    Dl_info code, reg;
    if (!dladdr(address, &code)) {
        return false;
    }
    for (size_t i = 0; i < ggml_backend_reg_count(); i++) {
        if (ggml_backend_reg_get(i) == product_backend()) {
            continue; // this very library: what it computes, it computes in the CPU's
        }
        if (dladdr(ggml_backend_reg_get(i), &reg) && reg.dli_fbase == code.dli_fbase) {
            return true;
        }
    }
    return false;
}

bool in_backend() {
    bool found = false;
    _Unwind_Backtrace(
        [](_Unwind_Context * frame, void * user) {
            bool & found = *static_cast<bool *>(user);
            found        = is_of_a_backend(reinterpret_cast<const void *>(_Unwind_GetIP(frame)));
            return found ? _URC_END_OF_STACK : _URC_NO_REASON;
        },
        &found);
    return found;
}

#endif

} // namespace kollama
