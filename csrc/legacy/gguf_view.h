// A GGML file of 2023 as the GGUF that it would be: a header made for it, and the tensors' bytes from
// where they lie, repacked on the way where their blocks are old.

#pragma once

#include "gguf_scan.h"
#include "legacy/format.h"

#include <cstdio>

namespace kollama {

struct legacy_options {
    float       rms_norm_eps = 0; // the file does not have it; 0: Llama-2's 1e-5
    std::string tokenizer_json;   // kept in the header, where not empty
    std::string name;             // general.name
};

class gguf_view : public byte_source {
  public:
    // The source must outlive it. Throws KOLLAMA_ERROR_FORMAT.
    gguf_view(const byte_source & source, const legacy_options & options);

    uint64_t size() const override { return size_; }
    void     read(uint64_t offset, void * to, size_t n) const override;

    const legacy_file & file() const { return file_; }
    legacy_vocabulary & vocabulary() { return file_.vocab; } // may be moved from: the header has it
    kollama_gguf        description() const;                 // as a scan of this GGUF would give it

  private:
    void read_tensor(const legacy_tensor & tensor, uint64_t offset, char * to, size_t n) const;

    const byte_source &   source_;
    legacy_file           file_;
    std::vector<char>     header_;
    std::vector<uint64_t> starts_; // of the tensors' data
    uint64_t              size_ = 0;
};

// A stream over a source, for llama.cpp. The source must outlive it.
class source_stream {
  public:
    explicit source_stream(const byte_source & source);
    ~source_stream();
    source_stream(const source_stream &)             = delete;
    source_stream & operator=(const source_stream &) = delete;

    FILE * file() const { return file_; } // null where the platform has none such (Windows)

  private:
    std::vector<char> buffer_;
    FILE *            file_;
};

} // namespace kollama
