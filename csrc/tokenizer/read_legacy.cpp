// The vocabulary of a GGML file of 2023 ("ggml", "ggmf", "ggjt"), as llama.cpp's convert.py wrote it.

#include "tokenizer/chars.h"
#include "tokenizer/pipelines.h"
#include "tokenizer/tokenizer.h"

#include <cmath>
#include <cstring>
#include <istream>

namespace kollama {
namespace {

constexpr int32_t FIRST_BYTE = 3, LAST_BYTE = 258;
constexpr int32_t N_LLAMA    = 32000;  // pieces of Llama's own vocabulary
constexpr float   ADDED      = -1000.0f; // the score that convert.py gave to all of added_tokens.json

class reader {
  public:
    reader(std::istream & stream, uint64_t size) : stream_(stream), left_(size) {}

    void read(void * to, uint64_t n, const char * what) {
        if (n > left_ || !stream_.read(static_cast<char *>(to), static_cast<std::streamsize>(n))) {
            throw failure(KOLLAMA_ERROR_FORMAT, format("truncated: %s is not all there", what));
        }
        left_ -= n;
    }

    template <class T> T number(const char * what) {
        T value;
        read(&value, sizeof(value), what);
        return value;
    }

    uint64_t left() const { return left_; }

  private:
    std::istream & stream_;
    uint64_t       left_;
};

// The piece that a token of the file stands for, with U+2581 for spaces.
std::string piece_of(int32_t id, const std::string & text, token_kind * kind) {
    static const char * const CONTROLS[] = { "<unk>", "<s>", "</s>" };
    if (id < FIRST_BYTE) {
        *kind = id == 0 ? token_kind::unknown : token_kind::control;
        return CONTROLS[id];
    }
    if (id <= LAST_BYTE && text.size() == 1) {
        *kind = token_kind::byte;
        return format("<0x%02X>", static_cast<unsigned>(static_cast<uint8_t>(text[0])));
    }
    *kind = token_kind::normal;
    if (text.empty()) {
        return "[EMPTY_" + std::to_string(id) + "]"; // llama.cpp's name for it
    }
    std::string piece;
    for (char c : text) {
        c == ' ' ? piece += MARK : piece += c;
    }
    return piece;
}

void read(reader & in, tokenizer & out) {
    char magic[4];
    in.read(magic, 4, "the magic number");
    const bool     has_scores = std::memcmp(magic, "lmgg", 4) != 0;
    const uint32_t version    = has_scores ? in.number<uint32_t>("the version") : 0;
    if (has_scores && (version == 0 || version > (std::memcmp(magic, "tjgg", 4) == 0 ? 3u : 1u))) {
        throw failure(KOLLAMA_ERROR_FORMAT, format("version %u of this GGML format is not known", version));
    }
    uint32_t header[7]; // n_vocab, n_embd, n_mult, n_head, n_layer, n_rot, ftype
    in.read(header, sizeof(header), "the header");
    const uint32_t n = header[0];
    if (n < 3 || n >= NO_SYMBOL || n > in.left() / 4) {
        throw failure(KOLLAMA_ERROR_FORMAT, format("the header claims %u tokens", n));
    }
    vocabulary & vocab = out.vocab;
    vocab.pieces.reserve(n, n * 8);
    std::string text;
    for (uint32_t i = 0; i < n; i++) {
        const int32_t  id     = static_cast<int32_t>(i);
        const uint32_t length = in.number<uint32_t>("a token's length");
        if (length > in.left()) {
            throw failure(KOLLAMA_ERROR_FORMAT, format("truncated: token %u claims %u bytes", i, length));
        }
        text.resize(length);
        in.read(text.data(), length, "a token");
        token_kind kind = token_kind::normal;
        vocab.pieces.add(piece_of(id, text, &kind));
        vocab.kinds.push_back(kind);
        const float score = has_scores ? in.number<float>("a token's score") : ADDED;
        if (std::isnan(score)) {
            throw failure(KOLLAMA_ERROR_FORMAT, format("the score of token %u is not a number", i));
        }
        // The pieces of a vocabulary trained as BPE are in the order of their merges, so where the
        // file has one score for all of them, the id tells that order.
        const bool added = score == ADDED && (!has_scores || id >= N_LLAMA);
        vocab.scores.push_back(added && id > LAST_BYTE ? -static_cast<float>(id - LAST_BYTE - 1) : has_scores ? score : 0.0f);
    }
    vocab.ids.build(vocab.pieces);
    vocab.special.assign(n, false);
    vocab.eog.assign(n, false);
    vocab.special[0] = vocab.special[1] = vocab.special[2] = true;
    vocab.unk              = 0;
    vocab.bos              = 1;
    vocab.eos              = 2;
    vocab.eog[2]           = true;
    vocab.add_bos          = true;
    vocab.literal_specials = true;
    out.text.start         = text_rules::strip::one_space;
    out.encodes            = std::make_unique<score_encoder>(
        vocab, std::vector<special_token>{ { "<unk>", 0, true }, { "<s>", 1, true }, { "</s>", 2, true } }, true);
}

} // namespace

void read_legacy(std::istream & stream, uint64_t size, tokenizer & out) {
    reader in(stream, size);
    read(in, out);
}

} // namespace kollama
