// The other side of servers.h: this machine's devices for models elsewhere.

#include "internal.h"

#include "ggml-backend.h"
#include "ggml-rpc.h"

#include <vector>

namespace kollama {
namespace {

std::string device_names() {
    std::string names;
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        if (ggml_backend_dev_t device = ggml_backend_dev_get(i); ggml_backend_dev_type(device) != GGML_BACKEND_DEVICE_TYPE_ACCEL) {
            names += (names.empty() ? "" : ", ") + std::string(ggml_backend_dev_name(device));
        }
    }
    return names;
}

// Those that were named; else every GPU; else the CPU.
std::vector<ggml_backend_dev_t> choose_devices(const char * const * names, size_t n_names) {
    std::vector<ggml_backend_dev_t> chosen;
    for (size_t i = 0; i < n_names; i++) {
        ggml_backend_dev_t device = ggml_backend_dev_by_name(names[i]);
        if (!device || ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_ACCEL) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, std::string("device is '") + names[i] + "'; it can be " + device_names());
        }
        chosen.push_back(device);
    }
    for (auto type : { GGML_BACKEND_DEVICE_TYPE_GPU, GGML_BACKEND_DEVICE_TYPE_IGPU, GGML_BACKEND_DEVICE_TYPE_CPU }) {
        for (size_t i = 0; i < ggml_backend_dev_count() && (chosen.empty() || type != GGML_BACKEND_DEVICE_TYPE_CPU) && n_names == 0; i++) {
            if (ggml_backend_dev_type(ggml_backend_dev_get(i)) == type) {
                chosen.push_back(ggml_backend_dev_get(i));
            }
        }
    }
    return chosen;
}

} // namespace
} // namespace kollama

using namespace kollama;

kollama_status kollama_rpc_serve(const char * endpoint, const char * cache_dir, int32_t n_threads,
                                 const char * const * devices, size_t n_devices) {
    return guarded([&] {
        ggml_backend_reg_t rpc = ggml_backend_reg_by_name("RPC");
        if (!rpc) {
            throw failure(KOLLAMA_ERROR_LOAD, "no RPC library is loaded");
        }
        auto       chosen = choose_devices(devices, n_devices);
        const auto serve  = reinterpret_cast<decltype(ggml_backend_rpc_start_server) *>(
            ggml_backend_reg_get_proc_address(rpc, "ggml_backend_rpc_start_server"));
        serve(endpoint, cache_dir, static_cast<size_t>(n_threads), chosen.size(), chosen.data());
        throw failure(KOLLAMA_ERROR_REMOTE, std::string(endpoint) + ": the server cannot listen there");
    });
}
