#include "products/accelerator.h"

#include "backend.h"
#include "crew.h"
#include "products/product.h"

#include "ggml-backend-impl.h"
#include "ggml-cpu.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <new>

namespace kollama {
namespace {

constexpr const char * NAME = "kollama";

// What one context of llama.cpp computes with. One thread's.
struct instance {
    const product_kernels &                        kernels;
    int                                            n_threads = 1;
    ggml_backend_owner                             cpu; // whose threads do the work
    std::deque<product>                            products;
    scratch                                        tiles, panels, graph;
};

ggml_guid_t guid() {
    static ggml_guid value = { 0x6b, 0x6f, 0x6c, 0x6c, 0x61, 0x6d, 0x61, 0x2d, 0x70, 0x72, 0x6f, 0x64, 0x75, 0x63, 0x74, 0x73 };
    return &value;
}

void on_quantise(ggml_tensor *, int ith, int nth, void * of) {
    static_cast<const product *>(of)->quantise(static_cast<size_t>(ith), static_cast<size_t>(nth));
}

void on_multiply(ggml_tensor *, int ith, int, void * of) {
    static_cast<product *>(of)->multiply(static_cast<size_t>(ith));
}

// ---- one graph -----------------------------------------------------------------------------------

// Two for each product, where none has the activations of the one before.
size_t most_nodes(const instance & self) {
    return self.products.size() * 2;
}

size_t graph_bytes(size_t n_nodes) {
    return (ggml_tensor_overhead() + 64) * n_nodes + ggml_graph_overhead_custom(n_nodes, false) + 1024;
}

// Memory for the products, which use it one after another: as much as the largest needs.
bool reserve(instance & self) {
    size_t tiles = 0, panels = 0;
    for (const product & p : self.products) {
        tiles  = std::max(tiles, p.tiles_bytes());
        panels = std::max(panels, p.panels_bytes());
    }
    if (!self.tiles.reserve(tiles) || !self.panels.reserve(panels) || !self.graph.reserve(graph_bytes(most_nodes(self)))) {
        return false;
    }
    for (product & p : self.products) {
        p.use(self.tiles.data(), self.panels.data());
    }
    return true;
}

// The products as operations of a graph for the CPU backend: its threads wait for work there, and others
// beside them would be in their way.
ggml_status compute(instance & self) {
    const size_t n_nodes = most_nodes(self);
    const ggml_context_owner ctx(ggml_init({ graph_bytes(n_nodes), self.graph.data(), false }));
    if (!ctx) {
        return GGML_STATUS_ALLOC_FAILED;
    }
    ggml_cgraph * graph = ggml_new_graph_custom(ctx.get(), n_nodes, false);
    auto add = [&](ggml_custom_op_t run, const product & p) {
        ggml_build_forward_expand(graph, ggml_custom_4d(ctx.get(), GGML_TYPE_F32, 1, 1, 1, 1, nullptr, 0, run, GGML_N_TASKS_MAX,
                                                        const_cast<product *>(&p)));
    };
    const product * before = nullptr;
    for (const product & p : self.products) {
        if (!before || !p.same_activations(*before)) {
            add(on_quantise, p);
        }
        add(on_multiply, p);
        before = &p;
    }
    // Of a context without a pool, ggml makes one for every graph.
    cpu_function<decltype(ggml_backend_cpu_set_threadpool)>("ggml_backend_cpu_set_threadpool")(self.cpu.get(), crew::pool());
    return ggml_backend_graph_compute(self.cpu.get(), graph);
}

ggml_status graph_compute(ggml_backend_t backend, ggml_cgraph * graph) {
    auto & self = *static_cast<instance *>(backend->context);
    self.products.clear();
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const ggml_tensor * node = ggml_graph_node(graph, i);
        if (node->op == GGML_OP_MUL_MAT && (node->flags & GGML_TENSOR_FLAG_COMPUTE)) { // the others are views
            self.products.emplace_back(self.kernels, node, self.n_threads);
        }
    }
    if (self.products.empty()) {
        return GGML_STATUS_SUCCESS;
    }
    return reserve(self) ? compute(self) : GGML_STATUS_ALLOC_FAILED;
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
    auto self = std::unique_ptr<instance>(new instance{ *static_cast<const product_kernels *>(device->context) });
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

bool device_supports_op(ggml_backend_dev_t device, const ggml_tensor * op) {
    // Prompts go to a GPU even where their weights are not there, but only past the CPU backend itself.
    static const bool gpu = has_gpu();
    return op->op == GGML_OP_MUL_MAT && !gpu && product::takes(*static_cast<const product_kernels *>(device->context), op);
}

bool device_supports_buffer(ggml_backend_dev_t, ggml_backend_buffer_type_t type) {
    return ggml_backend_buft_is_host(type);
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

} // namespace kollama
