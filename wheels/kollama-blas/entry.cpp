// The entry of this library: ggml's BLAS backend, but for float weights only. Quantized ones it would turn
// into floats for every prompt, which takes longer than ggml's own products of them.

#include "ggml-backend-impl.h"
#include "ggml-blas.h"

static bool (*any_weights)(ggml_backend_dev_t, const ggml_tensor *);

static bool float_weights(ggml_backend_dev_t device, const ggml_tensor * op) {
    return !(op->op == GGML_OP_MUL_MAT && ggml_is_quantized(op->src[0]->type)) && any_weights(device, op);
}

extern "C" {
GGML_BACKEND_API ggml_backend_reg_t ggml_backend_init(void);
}

ggml_backend_reg_t ggml_backend_init(void) {
    ggml_backend_reg_t reg    = ggml_backend_blas_reg();
    ggml_backend_dev_t device = ggml_backend_reg_dev_get(reg, 0);
    if (device->iface.supports_op != float_weights) {
        any_weights               = device->iface.supports_op;
        device->iface.supports_op = float_weights;
    }
    return reg;
}
