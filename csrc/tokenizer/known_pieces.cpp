#include "tokenizer/known_pieces.h"

#include "tokenizer/bits.h"
#include "tokenizer/keys.h"
#include "tokenizer/pieces.h"

#include <memory>

namespace kollama {
namespace {

// A piece as text has it, with a space where it begins with U+2581; empty where it is long, or has U+2581 inside.
std::string_view as_text(std::string_view piece, bool space_is_mark, char * memory) {
    size_t n = 0;
    if (space_is_mark && piece.substr(0, MARK.size()) == MARK) {
        memory[n++] = ' ';
        piece.remove_prefix(MARK.size());
    }
    if (n + piece.size() > known_pieces::MAX_BYTES || (space_is_mark && piece.find(MARK) != piece.npos)) {
        return {};
    }
    piece.copy(memory + n, piece.size());
    return { memory, n + piece.size() };
}

} // namespace

void known_pieces::put(const uint64_t * key, int32_t id) {
    auto & line = const_cast<known_pieces::line &>(*line_of(key));
    for (auto & e : line.entries) {
        if (e.what == 0) { // where a line is full, a unit is merged like any other
            e.first = key[0];
            e.rest  = static_cast<uint32_t>(key[1]);
            e.what  = static_cast<uint32_t>(key[1] >> 56 << 28) | static_cast<uint32_t>(id);
            return;
        }
    }
}

void known_pieces::build(const vocabulary & vocab, const piece_table & pieces) {
    struct candidate {
        uint64_t key[2];
        int32_t  id;
    };
    std::vector<candidate> known;
    candidate              batch[lockstep_merger::MAX_UNITS];
    size_t                 n_batch = 0;
    const auto             merger  = std::make_unique<lockstep_merger>(pieces.merges());
    auto run = [&] {
        merger->run();
        for (size_t i = 0; i < n_batch; i++) {
            const uint32_t rest = merger->rest(i);
            if ((rest & (rest - 1)) == 0 && merger->symbols(i)[lowest_bit(rest)] == static_cast<symbol>(batch[i].id)) {
                known.push_back(batch[i]);
            }
        }
        merger->clear();
        n_batch = 0;
    };
    for (size_t id = 0; id < vocab.size(); id++) {
        char                   memory[MAX_BYTES];
        const std::string_view text = as_text(vocab.pieces[id], pieces.rules().space_is_mark, memory);
        if (text.empty() || !pieces.symbolise(text.data(), text.data() + text.size(), *merger)) {
            continue;
        }
        candidate & c = batch[merger->end()];
        c.id          = static_cast<int32_t>(id);
        load_key<2>(text.data(), text.size(), false, c.key);
        if (++n_batch == lockstep_merger::MAX_UNITS) {
            run();
        }
    }
    run();
    n_lines_ = known.size() / 2 + 1;
    lines_   = zeroed_array<line>(n_lines_);
    for (const candidate & c : known) {
        put(c.key, c.id);
    }
}

} // namespace kollama
