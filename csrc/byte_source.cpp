#include "byte_source.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

#ifdef _WIN32
#    include <windows.h>
#else
#    include <fcntl.h>
#    include <unistd.h>
#endif

namespace kollama {
namespace {

namespace fs = std::filesystem;

constexpr size_t BUFFER_BYTES = 256 << 10;
constexpr size_t PART_BYTES   = 1 << 30; // below what one system call reads

// Reads at offsets without a shared position, and without a mapping: mapped pages count as resident.
class file_source : public byte_source {
  public:
    explicit file_source(const std::string & path) {
        const fs::path  file = fs::u8path(path);
        std::error_code error;
        if (!fs::is_regular_file(file, error)) {
            throw failure(KOLLAMA_ERROR_IO, "is not a regular file");
        }
#ifdef _WIN32
        handle_ = CreateFileW(file.c_str(), GENERIC_READ, FILE_SHARE_READ, nullptr, OPEN_EXISTING, FILE_ATTRIBUTE_NORMAL, nullptr);
        if (handle_ == INVALID_HANDLE_VALUE) {
            throw failure(KOLLAMA_ERROR_IO, "cannot be opened for reading");
        }
#else
        descriptor_ = open(file.c_str(), O_RDONLY | O_CLOEXEC);
        if (descriptor_ < 0) {
            throw failure(KOLLAMA_ERROR_IO, format("cannot be opened for reading: %s", std::strerror(errno)));
        }
#endif
        size_ = fs::file_size(file, error);
    }

    ~file_source() override {
#ifdef _WIN32
        CloseHandle(handle_);
#else
        close(descriptor_);
#endif
    }

    uint64_t size() const override { return size_; }

    void read(uint64_t offset, void * to, size_t n) const override {
        char * out = static_cast<char *>(to);
        while (n > 0) {
            const size_t got = read_some(offset, out, std::min(n, PART_BYTES));
            if (got == 0) {
                throw failure(KOLLAMA_ERROR_IO, format("reading failed at byte %llu: the file ends there now",
                                                       (unsigned long long) offset));
            }
            out += got;
            offset += got;
            n -= got;
        }
    }

  private:
    size_t read_some(uint64_t offset, void * to, size_t n) const {
#ifdef _WIN32
        OVERLAPPED at{};
        at.Offset     = static_cast<DWORD>(offset);
        at.OffsetHigh = static_cast<DWORD>(offset >> 32);
        DWORD got     = 0;
        if (!ReadFile(handle_, to, static_cast<DWORD>(n), &got, &at) && GetLastError() != ERROR_HANDLE_EOF) {
            throw failure(KOLLAMA_ERROR_IO, format("reading failed at byte %llu", (unsigned long long) offset));
        }
        return got;
#else
        for (;;) {
            const ssize_t got = pread(descriptor_, to, n, static_cast<off_t>(offset));
            if (got >= 0) {
                return static_cast<size_t>(got);
            }
            if (errno != EINTR) {
                throw failure(KOLLAMA_ERROR_IO, format("reading failed at byte %llu: %s", (unsigned long long) offset,
                                                       std::strerror(errno)));
            }
        }
#endif
    }

#ifdef _WIN32
    HANDLE handle_ = INVALID_HANDLE_VALUE;
#else
    int descriptor_ = -1;
#endif
    uint64_t size_ = 0;
};

class memory_source : public byte_source {
  public:
    memory_source(const void * data, size_t size) : data_(static_cast<const char *>(data)), size_(size) {}

    uint64_t size() const override { return size_; }

    void read(uint64_t offset, void * to, size_t n) const override {
        if (offset > size_ || n > size_ - offset) {
            throw failure(KOLLAMA_ERROR_IO, "reading past the end");
        }
        if (n > 0) {
            std::memcpy(to, data_ + offset, n);
        }
    }

  private:
    const char * data_;
    size_t       size_;
};

} // namespace

std::unique_ptr<byte_source> open_file(const std::string & path) {
    return std::make_unique<file_source>(path);
}

std::unique_ptr<byte_source> open_memory(const void * data, size_t size) {
    return std::make_unique<memory_source>(data, size);
}

source_reader::source_reader(const byte_source & source)
    : source_(source), buffer_(static_cast<size_t>(std::min<uint64_t>(source.size(), BUFFER_BYTES))) {}

void source_reader::need(uint64_t n, const std::string & what) const {
    if (n > left()) {
        throw failure(KOLLAMA_ERROR_FORMAT,
                      format("truncated at byte %llu: %s needs %llu bytes, the file has %llu more", (unsigned long long) offset_,
                             what.c_str(), (unsigned long long) n, (unsigned long long) left()));
    }
}

void source_reader::read(void * to, size_t n, const char * what) {
    need(n, what);
    char * out = static_cast<char *>(to);
    while (n > 0) {
        if (offset_ < buffer_start_ || offset_ >= buffer_start_ + filled_) {
            buffer_start_ = offset_;
            filled_       = static_cast<size_t>(std::min<uint64_t>(buffer_.size(), left()));
            source_.read(offset_, buffer_.data(), filled_);
        }
        const size_t at   = static_cast<size_t>(offset_ - buffer_start_);
        const size_t part = std::min(n, filled_ - at);
        std::memcpy(out, buffer_.data() + at, part);
        out += part;
        offset_ += part;
        n -= part;
    }
}

void source_reader::skip(uint64_t n, const char * what) {
    need(n, what);
    offset_ += n;
}

void source_reader::fail(uint64_t at, const std::string & reason) const {
    throw failure(KOLLAMA_ERROR_FORMAT, format("byte %llu: %s", (unsigned long long) at, reason.c_str()));
}

} // namespace kollama
