#include "legacy/gguf_view.h"

#include "legacy/header.h"
#include "legacy/repack.h"

#include <algorithm>
#include <cstring>

namespace kollama {
namespace {

constexpr size_t BLOCKS_AT_ONCE = 4096; // repacked through a buffer of about 100 KB

} // namespace

gguf_view::gguf_view(const byte_source & source, const legacy_options & options) : source_(source), file_(scan_legacy(source)) {
    header_        = make_gguf_header(file_, options);
    uint64_t start = header_.size();
    for (const legacy_tensor & tensor : file_.tensors) {
        starts_.push_back(start);
        start += GGML_PAD(tensor.n_bytes, GGUF_DEFAULT_ALIGNMENT);
    }
    size_ = start;
}

void gguf_view::read(uint64_t offset, void * to, size_t n) const {
    char * out = static_cast<char *>(to);
    while (n > 0) {
        if (offset < header_.size()) {
            const size_t part = static_cast<size_t>(std::min<uint64_t>(n, header_.size() - offset));
            std::memcpy(out, header_.data() + offset, part);
            out += part, offset += part, n -= part;
            continue;
        }
        const size_t   i      = static_cast<size_t>(std::upper_bound(starts_.begin(), starts_.end(), offset) - starts_.begin()) - 1;
        const uint64_t within = offset - starts_[i];
        const uint64_t end    = i + 1 < starts_.size() ? starts_[i + 1] : size_;
        const uint64_t bytes  = file_.tensors[i].n_bytes;
        const bool     data   = within < bytes;
        const size_t   part   = static_cast<size_t>(std::min<uint64_t>(n, data ? bytes - within : end - offset));
        if (part == 0) {
            throw failure(KOLLAMA_ERROR_IO, "reading past the end");
        }
        data ? read_tensor(file_.tensors[i], within, out, part) : static_cast<void>(std::memset(out, 0, part));
        out += part, offset += part, n -= part;
    }
}

void gguf_view::read_tensor(const legacy_tensor & tensor, uint64_t offset, char * to, size_t n) const {
    if (!needs_repacking(file_.header, tensor.type)) {
        source_.read(tensor.offset + offset, to, n);
        return;
    }
    const size_t         old_size = legacy_block_bytes(file_.header, tensor.type), new_size = ggml_type_size(tensor.type);
    const uint64_t       n_blocks = tensor.n_bytes / new_size;
    const size_t         at_once  = std::min(BLOCKS_AT_ONCE, n / new_size + 2);
    std::vector<uint8_t> from(at_once * old_size), made(at_once * new_size);
    while (n > 0) {
        const uint64_t block = offset / new_size;
        const size_t   skip  = static_cast<size_t>(offset % new_size);
        const size_t   count = static_cast<size_t>(std::min<uint64_t>({ at_once, n_blocks - block, (skip + n + new_size - 1) / new_size }));
        source_.read(tensor.offset + block * old_size, from.data(), count * old_size);
        repack_blocks(file_.header, tensor.type, from.data(), made.data(), count);
        const size_t part = std::min(n, count * new_size - skip);
        std::memcpy(to, made.data() + skip, part);
        to += part, offset += part, n -= part;
    }
}

kollama_gguf gguf_view::description() const {
    // The scanner's checks are part of the bargain: what llama.cpp sees has passed them.
    kollama_gguf out = scan_gguf(*this);
    out.format       = file_.header.format_name();
    return out;
}

} // namespace kollama
