#ifndef _GNU_SOURCE
#    define _GNU_SOURCE // fopencookie
#endif

#include "legacy/gguf_view.h"

#include <cerrno>

namespace kollama {
namespace {

// glibc reads a stream of one's own through its buffer, whatever is asked for: with its 8 KB that is half
// a million calls for 4 GB, and a fifth of the time. This one stays in a core's cache.
constexpr size_t BUFFER_BYTES = 256 << 10;

#if !defined(_WIN32)

struct cursor {
    const byte_source * source;
    uint64_t            at = 0;
};

// No exception may pass through the C library.
long read_some(void * cookie, char * to, size_t n) noexcept {
    auto * c    = static_cast<cursor *>(cookie);
    n           = static_cast<size_t>(std::min<uint64_t>({ n, c->source->size() - c->at, 1 << 30 }));
    try {
        c->source->read(c->at, to, n);
    } catch (...) {
        errno = EIO;
        return -1;
    }
    c->at += n;
    return static_cast<long>(n);
}

// The new position, or -1.
int64_t seek_to(void * cookie, int64_t offset, int whence) noexcept {
    auto *        c    = static_cast<cursor *>(cookie);
    const int64_t base = whence == SEEK_SET ? 0 : static_cast<int64_t>(whence == SEEK_CUR ? c->at : c->source->size());
    if (offset < -base || static_cast<uint64_t>(base + offset) > c->source->size()) {
        errno = EINVAL;
        return -1;
    }
    c->at = static_cast<uint64_t>(base + offset);
    return base + offset;
}

int close_cursor(void * cookie) noexcept {
    delete static_cast<cursor *>(cookie);
    return 0;
}

#endif

#if defined(_WIN32)

FILE * open_stream(const byte_source &) {
    return nullptr;
}

#elif defined(__APPLE__) || defined(__FreeBSD__)

FILE * open_stream(const byte_source & source) {
    auto * c = new cursor{ &source };
    FILE * stream = funopen(
        c, [](void * cookie, char * to, int n) { return static_cast<int>(read_some(cookie, to, static_cast<size_t>(n))); },
        nullptr, [](void * cookie, fpos_t offset, int whence) { return static_cast<fpos_t>(seek_to(cookie, offset, whence)); },
        close_cursor);
    if (!stream) {
        delete c;
        throw std::bad_alloc();
    }
    return stream;
}

#else

FILE * open_stream(const byte_source & source) {
    cookie_io_functions_t calls{};
    calls.read  = [](void * cookie, char * to, size_t n) { return static_cast<ssize_t>(read_some(cookie, to, n)); };
    calls.seek  = [](void * cookie, off64_t * offset, int whence) {
        const int64_t at = seek_to(cookie, *offset, whence);
        *offset          = at < 0 ? *offset : at;
        return at < 0 ? -1 : 0;
    };
    calls.close = close_cursor;
    auto * c      = new cursor{ &source };
    FILE * stream = fopencookie(c, "rb", calls);
    if (!stream) {
        delete c;
        throw std::bad_alloc();
    }
    return stream;
}

#endif

} // namespace

source_stream::source_stream(const byte_source & source) : buffer_(BUFFER_BYTES), file_(open_stream(source)) {
    if (file_) {
        std::setvbuf(file_, buffer_.data(), _IOFBF, buffer_.size());
    }
}

source_stream::~source_stream() {
    if (file_) {
        std::fclose(file_);
    }
}

} // namespace kollama
