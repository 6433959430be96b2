#include "legacy/format.h"

#include "tokenizer/chars.h"

#include <cmath>
#include <cstring>

namespace kollama {
namespace {

constexpr int32_t  FIRST_BYTE = 3, LAST_BYTE = 258;
constexpr size_t   N_LLAMA = 32000;     // pieces of Llama's own vocabulary
constexpr float    ADDED   = -1000.0f;  // the score that convert.py gave to all of added_tokens.json
constexpr float    RUN_OF_SPACES = -1e9f; // what Llama's own vocabulary gives to U+2581 and runs of it
constexpr uint32_t MAX_VOCAB = 1 << 18; // no Llama of 2023 has a quarter of it; bounds what a lying header can cost
constexpr uint32_t MAX_TEXT  = 1 << 21; // bytes, of all tokens together; the same

const char * const MAGICS[] = { "lmgg", "fmgg", "tjgg" }; // in the order of legacy_kind

// The piece that a token of the file stands for, with U+2581 for spaces.
std::string piece_of(int32_t id, const std::string & text, token_kind * kind) {
    static const char * const CONTROLS[] = { "<unk>", "<s>", "</s>" };
    if (id < FIRST_BYTE) {
        *kind = id == 0 ? token_kind::unknown : token_kind::control;
        return CONTROLS[id];
    }
    // The range matters: later tokens may be one byte long, too.
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

bool is_run_of_marks(std::string_view piece) {
    for (; piece.substr(0, MARK.size()) == MARK; piece.remove_prefix(MARK.size())) {
    }
    return piece.empty();
}

// The pieces of a vocabulary trained as BPE are in the order of their merges: where the file has one
// score for all of them, or none, the id tells that order.
float score_of_id(size_t id) {
    return -(static_cast<float>(id) - (LAST_BYTE + 1));
}

// The first id from which on all tokens have the score of added ones. Id 1259 of Llama's own has it, too.
uint32_t find_added(const std::vector<float> & scores) {
    size_t first = scores.size();
    while (first > N_LLAMA && scores[first - 1] == ADDED) {
        first--;
    }
    return first < scores.size() ? static_cast<uint32_t>(first) : UINT32_MAX;
}

} // namespace

void order_by_id(const string_list & pieces, std::vector<float> & scores) {
    scores.assign(pieces.size(), 0.0f);
    for (size_t id = LAST_BYTE + 1; id < pieces.size(); id++) {
        scores[id] = is_run_of_marks(pieces[id]) ? RUN_OF_SPACES : score_of_id(id);
    }
}

bool is_legacy_magic(const char * magic) {
    for (const char * known : MAGICS) {
        if (std::memcmp(magic, known, 4) == 0) {
            return true;
        }
    }
    return false;
}

std::string legacy_header::format_name() const {
    static const char * const NAMES[] = { "ggml", "ggmf", "ggjt" };
    const std::string         name    = NAMES[static_cast<int>(kind)];
    return version ? name + " v" + std::to_string(version) : name;
}

legacy_header read_legacy_header(source_reader & in) {
    legacy_header out;
    char          magic[4];
    in.read(magic, 4, "the magic number");
    size_t kind = 0;
    while (kind < 3 && std::memcmp(magic, MAGICS[kind], 4) != 0) {
        kind++;
    }
    if (kind == 3) {
        in.fail(0, "not a GGML file of 2023");
    }
    out.kind = static_cast<legacy_kind>(kind);
    if (out.kind != legacy_kind::ggml) {
        out.version           = in.number<uint32_t>("the version");
        const uint32_t newest = out.kind == legacy_kind::ggjt ? 3 : 1;
        if (out.version == 0 || out.version > newest) {
            in.fail(4, format("version %u of this GGML format is not known, 1 to %u are", out.version, newest));
        }
    }
    for (uint32_t * field : { &out.n_vocab, &out.n_embd, &out.n_mult, &out.n_head, &out.n_layer, &out.n_rot, &out.ftype }) {
        *field = in.number<uint32_t>("the header");
    }
    return out;
}

legacy_vocabulary read_legacy_vocabulary(source_reader & in, const legacy_header & header) {
    const uint32_t n        = header.n_vocab;
    const uint64_t smallest = header.has_scores() ? 8 : 4;
    if (n < 3 || n > MAX_VOCAB) {
        in.fail(in.offset() - 28, format("the header claims %u tokens; a Llama of 2023 has 3 to %u", n, MAX_VOCAB));
    }
    in.need(n * smallest, format("a vocabulary of %u tokens", n));
    legacy_vocabulary out;
    out.pieces.reserve(n, static_cast<size_t>(n) * 8);
    out.scores.reserve(n);
    out.kinds.reserve(n);
    std::string text;
    uint64_t    n_bytes = 0;
    for (uint32_t i = 0; i < n; i++) {
        const int32_t  id     = static_cast<int32_t>(i);
        const uint64_t start  = in.offset();
        const uint32_t length = in.number<uint32_t>("a token's length");
        in.need(length, format("token %u", i));
        if ((n_bytes += length) > MAX_TEXT) {
            in.fail(start, format("token %u: a vocabulary of more than %u bytes of text is none of 2023", i, MAX_TEXT));
        }
        text.resize(length);
        in.read(text.data(), length, "a token");
        const float score = header.has_scores() ? in.number<float>("a token's score") : 0.0f;
        if (std::isnan(score)) {
            in.fail(in.offset() - 4, format("the score of token %u is not a number", i));
        }
        token_kind kind = token_kind::normal;
        out.pieces.add(piece_of(id, text, &kind));
        if (kind == token_kind::normal && text.find('\0') != std::string::npos) {
            in.fail(start, format("token %u has a NUL in its text", i)); // llama.cpp would cut it there
        }
        out.kinds.push_back(kind);
        out.scores.push_back(score);
    }
    out.has_scores  = header.has_scores();
    out.first_added = out.has_scores ? find_added(out.scores) : n > N_LLAMA ? N_LLAMA : UINT32_MAX;
    for (size_t id = N_LLAMA; id < n; id++) {
        out.scores[id] = out.scores[id] == ADDED ? score_of_id(id) : out.scores[id];
    }
    return out;
}

} // namespace kollama
