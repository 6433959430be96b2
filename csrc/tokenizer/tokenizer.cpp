#include "tokenizer/tokenizer.h"

#include "tokenizer/chars.h"

namespace kollama {

// ---- token_buffer --------------------------------------------------------------------------------

void token_buffer::grow(size_t n) {
    const size_t wanted = std::max(size_ + n, capacity_ + capacity_ / 2);
    int32_t *    moved  = static_cast<int32_t *>(std::realloc(data_, wanted * sizeof(int32_t)));
    if (!moved) {
        throw std::bad_alloc();
    }
    data_     = moved;
    capacity_ = wanted;
}

int32_t * token_buffer::release() {
    room(1);
    int32_t * out = data_;
    if (capacity_ > size_ + size_ / 4 + 64) { // give back what was too much
        if (void * smaller = std::realloc(data_, (size_ + 1) * sizeof(int32_t))) {
            out = static_cast<int32_t *>(smaller);
        }
    }
    data_     = nullptr;
    capacity_ = 0;
    return out;
}

namespace {

// What a piece decodes to.
void append_text(const vocabulary & vocab, size_t id, std::string & out) {
    const std::string_view piece = vocab.spelled(id);
    const token_kind       kind  = vocab.kinds[id];
    const int              byte  = kind == token_kind::byte ? vocabulary::byte_of(piece) : -1;
    const bool             special = kind == token_kind::control || kind == token_kind::unknown || kind == token_kind::user_defined;
    if (byte >= 0) {
        out += static_cast<char>(byte);
    } else if (!vocab.decodes_marks || (special && vocab.literal_specials)) {
        out += piece;
    } else if (kind != token_kind::unused) {
        for (size_t at = 0, mark; at < piece.size(); at = mark + MARK.size()) {
            mark = std::min(piece.find(MARK, at), piece.size());
            out.append(piece.substr(at, mark - at)).append(mark < piece.size(), ' ');
        }
    }
}

} // namespace

// ---- tokenizer -----------------------------------------------------------------------------------

std::unique_ptr<encoder_state> tokenizer::borrow() const {
    {
        std::lock_guard<std::mutex> lock(mutex_);
        if (!idle_.empty()) {
            auto state = std::move(idle_.back());
            idle_.pop_back();
            return state;
        }
    }
    return encodes->make_state();
}

void tokenizer::give_back(std::unique_ptr<encoder_state> state) const {
    std::lock_guard<std::mutex> lock(mutex_);
    idle_.push_back(std::move(state));
}

void tokenizer::encode(std::string_view text, bool add_bos, bool parse_special, token_buffer & out) const {
    if (text.size() > INT32_MAX) {
        throw failure(KOLLAMA_ERROR_ARGUMENT, format("a text of %zu bytes is too long for one call", text.size()));
    }
    if (add_bos) {
        if (vocab.bos < 0) {
            throw failure(KOLLAMA_ERROR_TOKEN, "this vocabulary has no beginning-of-sequence token to add");
        }
        out.push(vocab.bos, { 0, 0 });
    }
    auto state = borrow();
    encodes->encode(*state, text, parse_special, out); // where it throws, the state goes with it
    give_back(std::move(state));
}

const text_table & tokenizer::texts() const {
    std::call_once(texts_once_, [&] {
        std::string bytes;
        texts_.begin(vocab.size());
        for (size_t id = 0; id < vocab.size(); id++) {
            bytes.clear();
            const bool exists = vocab.kinds[id] != token_kind::none;
            if (exists && render) {
                render(static_cast<int32_t>(id), bytes);
            } else if (exists) {
                append_text(vocab, id, bytes);
            }
            texts_.add(bytes, exists);
        }
    });
    return texts_;
}

} // namespace kollama
