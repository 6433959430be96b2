// A chain of links over an array of candidates: the general path, for every sampler of llama.h, for
// grammars and for callbacks.

#pragma once

#include "internal.h"
#include "row.h"

#include <functional>
#include <random>
#include <string>

struct kollama_model;

namespace kollama {

// No logit is beyond this: llama.cpp sorts by int(6.4 * logit), and inf - inf would be NaN.
constexpr float LOGIT_LIMIT = 1e8f;

// Random numbers that can go back to where they were.
class random_source {
  public:
    explicit random_source(uint32_t seed) : seed_(seed), engine_(seed) {}

    uint32_t operator()() {
        n_drawn_++;
        return static_cast<uint32_t>(engine_());
    }

    uint64_t n_drawn() const { return n_drawn_; }

    void go_to(uint64_t n_drawn) {
        engine_.seed(seed_);
        engine_.discard(n_drawn);
        n_drawn_ = n_drawn;
    }

  private:
    uint32_t     seed_;
    std::mt19937 engine_;
    uint64_t     n_drawn_ = 0;
};

// 53 bits of two draws: std::uniform_real_distribution differs between standard libraries.
inline double uniform(random_source & rng) {
    const uint64_t high = rng() >> 5, low = rng() >> 6;
    return (high * 67108864.0 + low) / 9007199254740992.0;
}

// One choice on its way through the links: a row of all tokens, and candidates once a link needs them so.
struct step {
    const float *                   row;    // n_vocab logits; null where there are candidates
    std::string                     blamed; // for what is wrong with it
    llama_token_data_array          cur;    // then never empty between two links, no logit NaN or infinite
    std::vector<llama_token_data> & storage;
    const std::vector<int32_t> &    tokens; // those before the one to choose
    size_t                          n_vocab;
    random_source &                 rng;
    kollama_callback                callback;
    void *                          user;
};

class chain;

class link {
  public:
    explicit link(std::string name) : name(std::move(name)) {}
    virtual ~link() = default;

    virtual void attach(const chain &) {} // of which it is part from here on
    virtual void bind(const kollama_model &) {}
    // A stream begins after these tokens.
    virtual void begin(const std::vector<int32_t> &) {}
    // A token that was generated in the stream.
    virtual void accept(int32_t) {}
    // Changes or removes candidates, or chooses: sets cur.selected.
    virtual void apply(step & s) = 0;
    // Whether a row will do: it may have logits of NaN, or nothing that is left. Else there are candidates.
    virtual bool takes_row() const { return false; }
    // Whether a token may be chosen; apply alone decides where this is not overridden.
    virtual bool allows(int32_t) { return true; }
    virtual bool chooses() const { return false; }
    // Masks what allows() refuses: left out until it has refused a choice.
    virtual bool masks() const { return false; }
    // Of a link that masks: -inf for what it does not allow. At least one logit is finite after it.
    virtual void mask(float *, size_t) {}
    virtual bool ended() const { return false; } // only an end token can come
    virtual bool calls_back() const { return false; }
    virtual bool remembers() const { return false; } // what was accepted changes what it does
    virtual bool keeps_state() const { return false; } // what it did before changes what it does, and no stream tells

    virtual std::unique_ptr<link> clone() const = 0;

    const std::string name;
};

class chain {
  public:
    chain() = default;
    chain(const chain & other);
    chain & operator=(const chain &) = delete;

    void add(std::unique_ptr<link> link);
    void bind(const kollama_model & model);
    void begin();

    int32_t choose(const float * logits, size_t n_vocab, const std::vector<int32_t> & tokens, size_t n_known, random_source & rng);
    // Throws where a link does not allow this token after those.
    void check_allows(const std::vector<int32_t> & tokens, int32_t token);

    // The links that keep a state, as they are now; and back.
    std::vector<std::unique_ptr<link>> state() const;
    void restore(std::vector<std::unique_ptr<link>> state);

    // The parts of choose: brings the links to where the stream is, of which n_known tokens are known to
    // be as they were; what they say of a token; goes on.
    void follow(const std::vector<int32_t> & tokens, size_t n_known = 0);
    bool allows(int32_t id);
    void mask(float * logits, size_t n_vocab);
    void accept(int32_t id);

    bool   ended() const;
    bool   calls_back() const;
    bool   needs_tokens() const;
    size_t size() const { return links_.size(); }

    kollama_callback callback = nullptr;
    void *           user     = nullptr;

    kollama_matcher_calls matcher_calls{};
    void *                matcher_user = nullptr;

  private:
    int32_t run(const float * logits, size_t n_vocab, const std::vector<int32_t> & tokens, random_source & rng, bool with_masks);

    std::vector<std::unique_ptr<link>> links_;
    uint64_t                           bound_ = 0; // serial of the model
    std::vector<int32_t>               stream_;    // what the links have seen
    size_t                             start_  = 0;     // tokens of it that were not generated
    bool                               begun_  = false;
    bool                               clean_  = false; // all links have accepted all of it
    std::vector<llama_token_data>      storage_;
    std::vector<float>                 block_max_;
};

// Drops what cannot be chosen and brings what is left into LOGIT_LIMIT. Throws where a logit is NaN
// or nothing is left; name is that of the link to blame.
void settle(step & s, const std::string & name);

// All tokens of the row that can be chosen become candidates, as settle leaves them.
void take_row(step & s);

// The row goes on as a copy in memory of a link's own, as settle leaves it, with -inf for what cannot be chosen.
void copy_row(step & s, std::vector<float> & to);

// As scan_row, but what is wrong is told with the name of who left the row so.
row_peak scan_row_of(step & s, std::vector<float> & block_max);

// Drops candidates whose probability would be 0 in float: log(0) and 0/0 lie ahead in some samplers.
void drop_unlikely(step & s);

uint32_t seed_for(uint32_t seed, size_t index); // of a link that draws by itself

std::unique_ptr<link> make_native(kollama_link_kind kind, const double * values, size_t n_values, uint32_t seed);
std::unique_ptr<link> make_dry(const double * values, size_t n_values, std::vector<std::string> breakers);
std::unique_ptr<link> make_draw();
std::unique_ptr<link> make_bias(std::vector<llama_logit_bias> by_id, std::vector<std::pair<std::string, float>> by_text);
std::unique_ptr<link> make_grammar(std::string text, std::string root);
std::unique_ptr<link> make_callback(std::string name, size_t index);
std::unique_ptr<link> make_matcher(std::string name, size_t index);

} // namespace kollama
