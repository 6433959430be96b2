/* Preloaded by tests/test_abandoned.py: makes an assertion fail where the test wants it, in the libraries as
 * they ship. `fault_arm` chooses the place; the next thread that comes by there fails.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

enum place { NOWHERE, WORKER, ENGINE_IN_GRAPH, ENGINE_OUTSIDE };

static atomic_int          armed;
static _Thread_local bool  is_engine;
static atomic_int          decoding; /* threads in llama_decode */

void fault_arm(int place) {
    armed = place;
}

static bool is_called_from(void * address, const char * library) {
    Dl_info info;
    return dladdr(address, &info) && info.dli_fname && strstr(info.dli_fname, library);
}

/* The libraries are not in the global scope: what they call is found here first, and passed on by name. */
static void * next(const char * library, const char * name) {
    void * handle = dlopen(library, RTLD_NOW | RTLD_NOLOAD);
    return handle ? dlsym(handle, name) : 0;
}

static void fail_here(int place) {
    if (atomic_compare_exchange_strong(&armed, &place, NOWHERE)) {
        void (*ggml_abort)(const char *, int, const char *, ...) = next("libkollama-ggml-base.so", "ggml_abort");
        ggml_abort("fault.c", 1, "GGML_ASSERT(%s) failed", "the test wants it");
    }
}

struct ggml_tensor;
struct llama_context;

/* As struct llama_batch: passed by value, so its size must be right. */
struct batch {
    int    n_tokens;
    void * arrays[6];
};

int llama_decode(struct llama_context * ctx, struct batch batch) {
    int (*real)(struct llama_context *, struct batch) = next("libkollama-llama.so", "llama_decode");
    is_engine = true;
    decoding++;
    const int code = real(ctx, batch);
    decoding--;
    return code;
}

/* Asked by operations, on every thread of a graph. */
bool ggml_are_same_shape(const struct ggml_tensor * a, const struct ggml_tensor * b) {
    bool (*real)(const struct ggml_tensor *, const struct ggml_tensor *) = next("libkollama-ggml-base.so", "ggml_are_same_shape");
    if (armed != NOWHERE && decoding && is_called_from(__builtin_return_address(0), "ggml-cpu")) {
        fail_here(is_engine ? ENGINE_IN_GRAPH : WORKER);
    }
    return real(a, b);
}

/* Asked by llama.cpp while it builds a graph. */
size_t ggml_row_size(int type, long long n) {
    size_t (*real)(int, long long) = next("libkollama-ggml-base.so", "ggml_row_size");
    if (armed == ENGINE_OUTSIDE && is_engine && is_called_from(__builtin_return_address(0), "kollama-llama")) {
        fail_here(ENGINE_OUTSIDE);
    }
    return real(type, n);
}
