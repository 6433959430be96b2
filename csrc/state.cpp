#include "state.h"

#include <algorithm>
#include <cstring>
#include <fstream>

using namespace kollama;

namespace kollama {
namespace {

constexpr char     MAGIC[8] = { 'K', 'O', 'L', 'L', 'A', 'M', 'A', 'S' };
constexpr uint32_t VERSION  = 2;

// All numbers in the byte order of the machine: llama.cpp's data has it, too.
struct state_header {
    char     magic[8];
    uint32_t version;
    uint32_t byte_order; // 1
    uint64_t checksum;   // of all bytes behind this field
    char     commit[40]; // of llama.cpp
    uint64_t model;      // fingerprint
    char     shape[96];  // of the model, to be read by people
    char     cache[40];  // kinds of K and V, likewise
    uint64_t adapters;   // LoRA and control vector; 0: none
    uint64_t n_kept;     // of the sequence
    uint64_t n_tokens;
    uint64_t n_data;
};
static_assert(sizeof(state_header) == 240, "no padding: it is written as it lies in memory");

constexpr size_t AFTER_CHECKSUM = offsetof(state_header, commit);

template <size_t N> void put(char (&to)[N], const std::string & text) {
    std::memset(to, 0, N);
    std::memcpy(to, text.data(), std::min(N - 1, text.size()));
}

template <size_t N> std::string get(const char (&from)[N]) {
    return std::string(from, strnlen(from, N));
}

std::string shape_of(const engine & e) {
    char desc[64] = {};
    llama_model_desc(e.model()->handle, desc, sizeof(desc));
    return format("%s, n_layer %d, n_embd %d, n_vocab %zu", desc, llama_model_n_layer(e.model()->handle),
                  llama_model_n_embd(e.model()->handle), e.n_vocab());
}

state_header header_for(const engine & e) {
    state_header header = {};
    std::memcpy(header.magic, MAGIC, sizeof(MAGIC));
    std::memcpy(header.commit, KOLLAMA_LLAMA_COMMIT, std::min(sizeof(header.commit), std::strlen(KOLLAMA_LLAMA_COMMIT)));
    header.version    = VERSION;
    header.byte_order = 1;
    header.model      = e.model()->fingerprint;
    header.adapters   = e.adapters_key();
    put(header.shape, shape_of(e));
    put(header.cache, e.cache_kind());
    return header;
}

[[noreturn]] void refuse(const std::string & why) {
    throw failure(KOLLAMA_ERROR_FORMAT, "the saved sequence " + why);
}

// llama.cpp's data of an attention cache: sections of cells and their rows. It checks lengths and
// types itself, but takes any position, and a cell at a negative one could never be removed again.
class cell_reader {
  public:
    cell_reader(const saved_sequence & saved) : at_(saved.data + 8), left_(saved.size < 8 ? 0 : saved.size - 8) {}

    // Throws where a cell is at no place of the sequence.
    void check(size_t n_tokens) {
        while (left_ > 0 && take<uint32_t>() == 1) { // one stream; llama.cpp refuses another number
            const uint32_t n_cells = take<uint32_t>();
            for (uint32_t i = 0; i < n_cells && left_ > 0; i++) {
                const int32_t position = take<int32_t>();
                skip(8); // of which sequences
                if (position < 0 || static_cast<size_t>(position) >= n_tokens) {
                    refuse("is damaged: it holds a token at a place where there is none");
                }
            }
            if (n_cells > 0) {
                skip_rows(n_cells);
            }
        }
    }

  private:
    template <class T> T take() {
        T value = {};
        if (left_ >= sizeof(T)) {
            std::memcpy(&value, at_, sizeof(T));
        }
        skip(sizeof(T));
        return value;
    }

    void skip(uint64_t n) {
        n = n > left_ ? left_ : n; // what lies behind is llama.cpp's to refuse
        at_ += n;
        left_ -= n;
    }

    void skip_rows(uint64_t n_cells) {
        const bool     transposed = take<uint32_t>() != 0;
        const uint32_t n_layers   = take<uint32_t>();
        for (uint32_t i = 0; i < 2 * static_cast<uint64_t>(n_layers) && left_ > 0; i++) { // K, then V
            skip(4);                                                                      // its type
            const bool     by_element = i >= n_layers && transposed;
            const uint64_t row        = by_element ? take<uint32_t>() : take<uint64_t>();
            const uint64_t n_rows     = by_element ? take<uint32_t>() : 1;
            skip(row > left_ || n_rows > left_ ? left_ : row * n_rows > left_ ? left_ : row * n_rows * n_cells);
        }
    }

    const uint8_t * at_;
    uint64_t        left_;
};

// Other kinds of memory have other cells.
bool has_plain_cells(const llama_model * model) {
    const llama_rope_type rope = llama_model_rope_type(model);
    char                  arch[64], value[8];
    if (llama_model_meta_val_str(model, "general.architecture", arch, sizeof(arch)) < 0 ||
        llama_model_meta_val_str(model, (std::string(arch) + ".ple.ngram_size").c_str(), value, sizeof(value)) >= 0) {
        return false;
    }
    return !llama_model_is_recurrent(model) && !llama_model_is_hybrid(model) && rope != LLAMA_ROPE_TYPE_MROPE &&
           rope != LLAMA_ROPE_TYPE_IMROPE;
}

} // namespace

uint64_t checksum(const uint8_t * data, size_t size) {
    uint64_t h = size * 0x9E3779B97F4A7C15u + 1;
    for (; size >= 8; data += 8, size -= 8) {
        uint64_t word;
        std::memcpy(&word, data, 8);
        h = (h ^ word) * 0x9E3779B97F4A7C15u;
        h ^= h >> 29;
    }
    uint64_t rest = 0;
    std::memcpy(&rest, data, size);
    h = (h ^ rest) * 0xBF58476D1CE4E5B9u;
    return h ^ (h >> 32);
}

uint64_t file_fingerprint(const char * const * paths, size_t n_paths) {
    constexpr size_t     N_SAMPLES = 16, SAMPLE = 4096;
    std::vector<uint8_t> seen;
    for (size_t i = 0; i < n_paths; i++) {
        std::ifstream file(paths[i], std::ios::binary | std::ios::ate);
        const int64_t size = file ? static_cast<int64_t>(file.tellg()) : 0;
        const auto *  raw  = reinterpret_cast<const uint8_t *>(&size);
        seen.insert(seen.end(), raw, raw + sizeof(size));
        for (size_t k = 0; k < N_SAMPLES && size > 0; k++) {
            // The weights' end included.
            const int64_t last = std::max<int64_t>(0, size - static_cast<int64_t>(SAMPLE));
            file.seekg(last / static_cast<int64_t>(N_SAMPLES - 1) * static_cast<int64_t>(k));
            const size_t before = seen.size();
            seen.resize(before + SAMPLE);
            file.read(reinterpret_cast<char *>(seen.data() + before), SAMPLE);
            file.clear();
        }
    }
    return checksum(seen.data(), seen.size());
}

std::vector<uint8_t> write_state_header(const sequence & seq, size_t n_data, const engine & e) {
    const auto & tokens = seq.tokens;
    state_header header = header_for(e);
    header.n_kept       = seq.n_kept;
    header.n_tokens     = tokens.size();
    header.n_data       = n_data;
    const size_t         n_ids = tokens.size() * sizeof(int32_t);
    std::vector<uint8_t> blob(sizeof(header) + n_ids + n_data);
    std::memcpy(blob.data(), &header, sizeof(header));
    std::copy_n(reinterpret_cast<const uint8_t *>(tokens.data()), n_ids, blob.data() + sizeof(header));
    return blob;
}

void seal_state(std::vector<uint8_t> & blob) {
    const uint64_t sum = checksum(blob.data() + AFTER_CHECKSUM, blob.size() - AFTER_CHECKSUM);
    std::memcpy(blob.data() + offsetof(state_header, checksum), &sum, sizeof(sum));
}

saved_sequence read_state(const uint8_t * blob, size_t size, const engine & e) {
    const state_header own = header_for(e);
    state_header       header;
    if (size < sizeof(header)) {
        refuse(format("has %zu bytes: too few for one", size));
    }
    std::memcpy(&header, blob, sizeof(header));
    if (std::memcmp(header.magic, MAGIC, sizeof(MAGIC)) != 0) {
        refuse("is none: it does not begin with KOLLAMAS");
    }
    if (header.version != VERSION || header.byte_order != 1) {
        refuse("is of another version of kollama, or of a machine with another byte order");
    }
    const size_t room = size - sizeof(header);
    if (header.n_tokens > room / sizeof(int32_t) || header.n_data != room - header.n_tokens * sizeof(int32_t)) {
        refuse("is truncated or damaged: its lengths do not come to its size");
    }
    if (checksum(blob + AFTER_CHECKSUM, size - AFTER_CHECKSUM) != header.checksum) {
        refuse("is damaged: its checksum is wrong");
    }
    if (std::memcmp(header.commit, own.commit, sizeof(own.commit)) != 0) {
        refuse("is of another build: its llama.cpp is " + get(header.commit).substr(0, 12) + ", this one " +
               get(own.commit).substr(0, 12));
    }
    if (header.model != own.model || std::memcmp(header.shape, own.shape, sizeof(own.shape)) != 0) {
        refuse("is of another model: " + get(header.shape) + "; this is " + get(own.shape) +
               (get(header.shape) == get(own.shape) ? ", with other weights" : ""));
    }
    if (std::memcmp(header.cache, own.cache, sizeof(own.cache)) != 0) {
        refuse("is of a context with " + get(header.cache) + "; this one has " + get(own.cache));
    }
    if (header.adapters != own.adapters) {
        refuse("was computed with other LoRA adapters or another control vector than this context has now");
    }
    saved_sequence saved;
    saved.tokens.resize(header.n_tokens);
    std::copy_n(blob + sizeof(header), header.n_tokens * sizeof(int32_t), reinterpret_cast<uint8_t *>(saved.tokens.data()));
    for (int32_t token : saved.tokens) {
        check_token(e.model(), token);
    }
    saved.n_kept = static_cast<size_t>(header.n_kept);
    saved.data = blob + size - header.n_data;
    saved.size = header.n_data;
    if (has_plain_cells(e.model()->handle)) {
        cell_reader(saved).check(saved.tokens.size());
    }
    return saved;
}

std::string engine::cache_kind() const {
    return cache_kind_;
}

// ---- jobs ----------------------------------------------------------------------------------------

std::vector<uint8_t> engine::save(const sequence & seq) {
    const size_t         n    = seq.tokens.empty() ? 0 : llama_state_seq_get_size(ctx_, seq.id);
    std::vector<uint8_t> blob = write_state_header(seq, n, *this);
    guard                g;
    if (n > 0 && llama_state_seq_get_data(ctx_, blob.data() + blob.size() - n, n, seq.id) != n) {
        throw failure(KOLLAMA_ERROR_DECODE, "llama.cpp cannot save this sequence: " + g.errors());
    }
    seal_state(blob);
    return blob;
}

// Where llama.cpp refuses the data, what was there is gone: it clears the sequence first.
void engine::load(sequence & seq, const saved_sequence & saved) {
    llama_memory_t memory = llama_get_memory(ctx_);
    rewind(seq, 0);
    if (saved.tokens.empty()) {
        return;
    }
    guard      g;
    const bool read  = llama_state_seq_set_data(ctx_, saved.data, saved.size, seq.id) == saved.size;
    const auto n_end = static_cast<llama_pos>(saved.tokens.size()) - 1;
    if (!read || llama_memory_seq_pos_max(memory, seq.id) != n_end || llama_memory_seq_pos_min(memory, seq.id) < 0) {
        llama_memory_seq_rm(memory, seq.id, -1, -1);
        if (g.errors().find("V transposition") != std::string::npos) {
            refuse("is of a context with another flash_attn, and the sequence is now empty");
        }
        throw failure(KOLLAMA_ERROR_DECODE, format("the saved sequence of %zu tokens cannot be restored, and the sequence is now "
                                                   "empty; other sequences may leave no room for it: %s",
                                                   saved.tokens.size(), g.errors().c_str()));
    }
    seq.tokens = saved.tokens;
    seq.n_kept = saved.n_kept;
}

// Cells of its own for all that it shares with others.
void engine::copy_shared(sequence & seq) {
    std::vector<uint8_t> data(llama_state_seq_get_size(ctx_, seq.id));
    {
        guard g;
        if (llama_state_seq_get_data(ctx_, data.data(), data.size(), seq.id) != data.size()) {
            throw failure(KOLLAMA_ERROR_DECODE, "llama.cpp cannot copy this sequence: " + g.errors());
        }
    }
    saved_sequence copy;
    copy.tokens = seq.tokens;
    copy.n_kept = seq.n_kept;
    copy.data   = data.data();
    copy.size   = data.size();
    load(seq, copy);
}

} // namespace kollama

kollama_status kollama_sequence_save(kollama_sequence * seq, kollama_blob ** blob, kollama_job ** out) {
    return guarded([&] {
        auto handle = std::make_unique<kollama_blob>();
        submit_job(seq, [e = seq->engine.get(), state = seq->state, bytes = handle->bytes](job &) { *bytes = e->save(*state); }, out);
        *blob = handle.release();
    });
}

kollama_status kollama_sequence_load(kollama_sequence * seq, const void * blob, size_t size, kollama_job ** out) {
    return guarded([&] {
        engine &             e     = *seq->engine;
        const auto           pin   = e.pin_model();
        const saved_sequence saved = read_state(static_cast<const uint8_t *>(blob), size, e);
        if (saved.tokens.size() > e.n_ctx()) {
            throw failure(KOLLAMA_ERROR_CONTEXT_FULL, format("the saved sequence has %zu tokens, n_ctx is %zu", saved.tokens.size(), e.n_ctx()));
        }
        submit_job(seq, [&e, state = seq->state, saved](job &) { e.load(*state, saved); }, out);
    });
}

const void * kollama_blob_data(const kollama_blob * blob, size_t * size) {
    *size = blob->bytes->size();
    return blob->bytes->data();
}

void kollama_blob_free(kollama_blob * blob) {
    delete blob;
}
