#include "drafting.h"

#include <algorithm>
#include <cstdlib>

namespace kollama {
namespace {

// Kinds of guesses, and how many of each are thought to be right until it was seen.
struct kind {
    double from; // tokens that were alike before them; or the draft model's own probability
    double share;
};
constexpr kind LOOKED_UP[] = { { 0, 0.3 }, { 3, 0.5 }, { 5, 0.65 }, { 9, 0.8 }, { 17, 0.9 } };
constexpr kind MODELED[]   = { { 0, 0.2 }, { 0.3, 0.4 }, { 0.5, 0.6 }, { 0.7, 0.8 }, { 0.9, 0.95 } };

template <size_t N> size_t kind_of(const kind (&kinds)[N], double sure) {
    size_t at = 0;
    while (at + 1 < N && sure >= kinds[at + 1].from) {
        at++;
    }
    return at;
}

// For measuring, and for tests that must not depend on a machine's speed.
size_t fixed_number() {
    const char * text = std::getenv("KOLLAMA_DRAFT_TOKENS");
    return text ? std::min<size_t>(std::strtoul(text, nullptr, 10), drafting::MOST) : 0;
}

} // namespace

drafting::drafting(std::unique_ptr<draft_model> model) : model_(std::move(model)), all_(0.7), fixed_(fixed_number()) {
    for (const kind & k : LOOKED_UP) {
        if (!model_) {
            rates_.emplace_back(k.share);
        }
    }
    for (const kind & k : MODELED) {
        if (model_) {
            rates_.emplace_back(k.share);
        }
    }
}

drafting::~drafting() = default;

void drafting::guess(std::vector<stream> & streams, int32_t n_threads) {
    choices_.assign(streams.size(), {});
    for (stream & s : streams) {
        if (s.draft) {
            s.draft->guesses.clear();
            s.draft->kinds.clear();
            s.draft->n_tried = 0;
        }
    }
    if (model_) {
        ask_model(streams, n_threads);
    } else {
        look_up(streams);
    }
    for (size_t i = 0; i < streams.size(); i++) {
        if (choices_[i].n_chosen == 0) {
            continue;
        }
        stream_draft & draft = *streams[i].draft;
        draft.n_tried = std::min(choices_[i].n_chosen, draft.guesses.size());
        draft.tokens.assign(1, streams[i].text->back());
        draft.tokens.insert(draft.tokens.end(), draft.guesses.begin(), draft.guesses.begin() + static_cast<ptrdiff_t>(draft.n_tried));
    }
}

bool drafting::choose(draft_worth::cost of_making) {
    if (fixed_ == 0) {
        return worth_.choose(choices_, of_making);
    }
    size_t room = draft_worth::MOST_ROWS - std::min(draft_worth::MOST_ROWS, choices_.size());
    for (draft_worth::stream & choice : choices_) {
        choice.n_chosen = std::min({ fixed_, choice.chances.size(), room });
        room -= choice.n_chosen;
    }
    return true;
}

void drafting::look_up(std::vector<stream> & streams) {
    for (size_t i = 0; i < streams.size(); i++) {
        if (!streams[i].draft) {
            continue;
        }
        stream_draft & draft = *streams[i].draft;
        draft.lookup.follow(*streams[i].text);
        const size_t n_alike = draft.lookup.guess(streams[i].n_most, draft.guesses);
        const size_t kind    = kind_of(LOOKED_UP, static_cast<double>(n_alike));
        draft.kinds.assign(draft.guesses.size(), kind);
        double chance = 1;
        for (size_t j = 0; j < draft.guesses.size(); j++) {
            choices_[i].chances.push_back(chance *= rates_[kind].share());
        }
    }
    choose({});
}

// Twice: whether the model is to be asked, and how many of its guesses are tried.
void drafting::ask_model(std::vector<stream> & streams, int32_t n_threads) {
    std::vector<draft_model::request> requests(streams.size());
    draft_worth::cost                 cost{ model_->seconds_each(), 0 };
    for (size_t i = 0; i < streams.size(); i++) {
        draft_model::request & r = requests[i];
        r.id   = streams[i].id;
        r.n_most = 0;
        if (!streams[i].draft) {
            continue;
        }
        r.text = *streams[i].in_memory;
        r.text.push_back(streams[i].text->back());
        const size_t most = model_->n_most_tokens(), there = r.text.size();
        r.n_most          = std::min(streams[i].n_most, there < most ? most - there : 0);
        double chance     = 1;
        for (size_t j = 0; j < r.n_most; j++) {
            choices_[i].chances.push_back(chance *= all_.share());
        }
        if (r.n_most > 0) {
            cost.once += static_cast<double>(model_->n_behind(r.id, r.text)) * model_->seconds_a_token();
        }
    }
    const bool pays = choose(cost);
    const auto none = [](const draft_model::request & r) { return r.n_most == 0; };
    for (size_t i = 0; i < streams.size(); i++) {
        requests[i].n_most = choices_[i].n_chosen;
    }
    if (std::all_of(requests.begin(), requests.end(), none)) {
        return;
    }
    const double plain = worth_.seconds(streams.size());
    const double least = pays && plain > 0 ? model_->seconds_each() / plain : 0; // what a turn must be worth
    const auto   share = [&](double chance) { return rates_[kind_of(MODELED, chance)].share(); };
    requests.erase(std::remove_if(requests.begin(), requests.end(), none), requests.end());
    model_->guess(requests, n_threads, [&](const std::vector<double> & chances) {
        double reached = 1;
        for (double chance : chances) {
            reached *= share(chance);
        }
        return fixed_ > 0 || reached > least;
    });
    size_t next = 0;
    for (size_t i = 0; i < streams.size(); i++) {
        draft_worth::stream & choice = choices_[i];
        if (choice.n_chosen == 0) {
            choice.chances.clear();
            continue;
        }
        draft_model::request & r     = requests[next++];
        stream_draft &         draft = *streams[i].draft;
        draft.guesses                = std::move(r.guesses);
        choice.n_chosen              = draft.guesses.size();
        choice.chances.clear();
        double chance = 1;
        for (double own : r.chances) {
            draft.kinds.push_back(kind_of(MODELED, own));
            choice.chances.push_back(chance *= share(own));
        }
    }
    if (pays) {
        choose({});
    }
}

void drafting::saw(stream_draft & draft, size_t n_tried, size_t n_right, bool then_wrong, int32_t next) {
    draft.n_drafted += n_tried;
    draft.n_accepted += n_right;
    if (n_tried > 0) {
        for (size_t kind = 0; kind < rates_.size(); kind++) {
            const auto   end = draft.kinds.begin() + static_cast<ptrdiff_t>(n_right);
            const size_t n   = static_cast<size_t>(std::count(draft.kinds.begin(), end, kind));
            const bool   was_wrong = then_wrong && draft.kinds[n_right] == kind;
            if (n > 0 || was_wrong) {
                rates_[kind].saw(n, was_wrong);
            }
        }
        all_.saw(n_right, then_wrong);
    } else if (!model_ && !draft.guesses.empty()) { // it costs nothing to see whether it would have been right
        const bool is_right = draft.guesses[0] == next;
        rates_[draft.kinds[0]].saw(is_right, !is_right);
    }
    draft.guesses.clear(); // seen
}

} // namespace kollama
