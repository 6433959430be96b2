#include "products/accelerator.h"

#include "backend.h"
#include "crew.h"
#include "products/graph.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu.h"

#include <cstring>
#include <type_traits>

namespace kollama {
namespace {

constexpr const char * NAME = "kollama";

// What one context of llama.cpp computes with. One thread's.
struct instance {
    product_graph      graph;
    int                n_threads = 1;
    ggml_backend_owner cpu; // whose threads do the work
};

ggml_guid_t guid() {
    static ggml_guid value = { 0x6b, 0x6f, 0x6c, 0x6c, 0x61, 0x6d, 0x61, 0x2d, 0x70, 0x72, 0x6f, 0x64, 0x75, 0x63, 0x74, 0x73 };
    return &value;
}

// The products are operations of a graph for the CPU backend: its threads wait for work there, and others
// beside them would be in their way.
ggml_status graph_compute(ggml_backend_t backend, ggml_cgraph * graph) {
    auto &        self     = *static_cast<instance *>(backend->context);
    ggml_cgraph * replaced = self.graph.of(*graph, self.n_threads);
    if (!replaced) {
        return GGML_STATUS_ALLOC_FAILED;
    }
    // Of a context without a pool, ggml makes one for every graph.
    cpu_function<decltype(ggml_backend_cpu_set_threadpool)>("ggml_backend_cpu_set_threadpool")(self.cpu.get(), crew::pool());
    return ggml_backend_graph_compute(self.cpu.get(), replaced);
}

// ---- ggml's interfaces ---------------------------------------------------------------------------

const char * backend_name(ggml_backend_t) {
    return NAME;
}

void backend_free(ggml_backend_t backend) {
    delete static_cast<instance *>(backend->context);
    delete backend;
}

void set_n_threads(ggml_backend_t backend, int n_threads) {
    auto & self    = *static_cast<instance *>(backend->context);
    self.n_threads = n_threads;
    cpu_function<decltype(ggml_backend_cpu_set_n_threads)>("ggml_backend_set_n_threads")(self.cpu.get(), n_threads);
}

void set_abort_callback(ggml_backend_t backend, ggml_abort_callback callback, void * user) {
    auto & self = *static_cast<instance *>(backend->context);
    cpu_function<decltype(ggml_backend_cpu_set_abort_callback)>("ggml_backend_set_abort_callback")(self.cpu.get(), callback, user);
}

ggml_backend_t device_init(ggml_backend_dev_t device, const char *) {
    auto self = std::unique_ptr<instance>(new instance{ product_graph(*static_cast<const product_kernels *>(device->context)) });
    self->cpu.reset(ggml_backend_dev_init(cpu_device(), nullptr));
    if (!self->cpu) {
        return nullptr;
    }
    ggml_backend_i functions = {};
    functions.get_name       = backend_name;
    functions.free           = backend_free;
    functions.graph_compute  = graph_compute;
    auto * backend = new ggml_backend{ guid(), functions, device, self.get() };
    self.release();
    set_n_threads(backend, GGML_DEFAULT_N_THREADS);
    return backend;
}

const char * device_name(ggml_backend_dev_t) {
    return NAME;
}

const char * device_description(ggml_backend_dev_t) {
    return "matrix products of quantized weights, on the CPU";
}

void device_memory(ggml_backend_dev_t, size_t * free, size_t * total) {
    *free = *total = 0; // none of its own
}

enum ggml_backend_dev_type device_type(ggml_backend_dev_t) {
    return GGML_BACKEND_DEVICE_TYPE_ACCEL;
}

void device_props(ggml_backend_dev_t device, ggml_backend_dev_props * props) {
    *props             = {};
    props->name        = device_name(device);
    props->description = device_description(device);
    props->type        = device_type(device);
    props->caps        = {};
    props->caps.buffer_from_host_ptr = true;
    props->caps.mmap_support         = true;
}

ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t) {
    return ggml_backend_cpu_buffer_type();
}

ggml_backend_buffer_t device_buffer_from_host(ggml_backend_dev_t, void * memory, size_t size, size_t) {
    return ggml_backend_cpu_buffer_from_ptr(memory, size);
}

// Tiles of AMX are faster than anything here, for weights in their order.
bool has_amx() {
    const auto extra = cpu_function<std::remove_pointer_t<ggml_backend_dev_get_extra_bufts_t>>("ggml_backend_dev_get_extra_bufts");
    for (ggml_backend_buffer_type_t * type = extra(cpu_device()); type && *type; type++) {
        if (std::strcmp(ggml_backend_buft_name(*type), "AMX") == 0) {
            return true;
        }
    }
    return false;
}

// llama.cpp uses these operations only where they are computed on the device that it takes a layer to be
// on, which is the CPU itself.
bool must_be_cpus(ggml_op op) {
    return op == GGML_OP_GATED_DELTA_NET || op == GGML_OP_LIGHTNING_INDEXER || op == GGML_OP_DSV4_HC_PRE || op == GGML_OP_DSV4_HC_COMB ||
           op == GGML_OP_DSV4_HC_POST;
}

// A BLAS, for products of floats.
bool is_for_another(const ggml_tensor * op) {
    if (op->op != GGML_OP_MUL_MAT || ggml_is_quantized(op->src[0]->type)) {
        return false;
    }
    for (size_t i = 0; i < ggml_backend_dev_count(); i++) {
        const ggml_backend_dev_t device = ggml_backend_dev_get(i);
        if (ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_ACCEL && ggml_backend_dev_backend_reg(device) != product_backend() &&
            ggml_backend_dev_supports_op(device, op)) {
            return true;
        }
    }
    return false;
}

// All that the CPU computes: a graph that is cut wherever a product begins and ends costs a thousand
// handovers between backends for a token.
bool device_supports_op(ggml_backend_dev_t, const ggml_tensor * op) {
    return product_backend_computes() && !must_be_cpus(op->op) && !is_for_another(op) && ggml_backend_dev_supports_op(cpu_device(), op);
}

bool device_supports_buffer(ggml_backend_dev_t, ggml_backend_buffer_type_t type) {
    return ggml_backend_dev_supports_buft(cpu_device(), type);
}

const char * reg_name(ggml_backend_reg_t) {
    return NAME;
}

size_t reg_device_count(ggml_backend_reg_t) {
    return 1;
}

ggml_backend_dev_t reg_device(ggml_backend_reg_t reg, size_t) {
    return static_cast<ggml_backend_dev_t>(reg->context);
}

void * reg_function(ggml_backend_reg_t, const char * name) {
    return std::strcmp(name, "ggml_backend_set_n_threads") == 0     ? reinterpret_cast<void *>(set_n_threads)
           : std::strcmp(name, "ggml_backend_set_abort_callback") == 0 ? reinterpret_cast<void *>(set_abort_callback)
                                                                       : nullptr;
}

ggml_backend_reg_t make_reg() {
    const product_kernels * kernels = choose_product_kernels();
    if (!kernels) {
        return nullptr;
    }
    static ggml_backend_device device = {};
    static ggml_backend_reg    reg    = {};
    reg.api_version            = GGML_BACKEND_API_VERSION;
    reg.iface.get_name         = reg_name;
    reg.iface.get_device_count = reg_device_count;
    reg.iface.get_device       = reg_device;
    reg.iface.get_proc_address = reg_function;
    reg.context                = &device;
    device.reg                        = &reg;
    device.context                    = const_cast<product_kernels *>(kernels);
    device.iface.get_name             = device_name;
    device.iface.get_description      = device_description;
    device.iface.get_memory           = device_memory;
    device.iface.get_type             = device_type;
    device.iface.get_props            = device_props;
    device.iface.init_backend         = device_init;
    device.iface.get_buffer_type      = device_buffer_type;
    device.iface.buffer_from_host_ptr = device_buffer_from_host;
    device.iface.supports_op          = device_supports_op;
    device.iface.supports_buft        = device_supports_buffer;
    return &reg;
}

} // namespace

ggml_backend_reg_t product_backend() {
    static const ggml_backend_reg_t reg = make_reg();
    return reg;
}

// Prompts go to a GPU even where their weights are not there, but only past the CPU backend itself.
bool product_backend_computes() {
    return product_backend() && !has_gpu();
}

bool product_keeps_order(ggml_type type) {
    return type == GGML_TYPE_Q4_0 && product_backend_computes() && !has_amx();
}

} // namespace kollama
