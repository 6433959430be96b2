#include "gbnf_rules.h"

#include <algorithm>

namespace kollama {
namespace {

constexpr size_t MAX_DEPTH = 1000; // of rules that begin with rules that begin with ...

void check_references(const gbnf_rules & all) {
    for (size_t i = 0; i < all.elements.size(); i++) {
        if (!all.defined[i]) {
            throw failure(KOLLAMA_ERROR_ARGUMENT, "the grammar uses a rule '" + all.names[i] + "' and does not define it");
        }
    }
}

// The rules that can be empty: those with an alternative none of whose elements is left to wait for.
std::vector<bool> nullable(const gbnf_rules & all) {
    struct alternative {
        size_t rule, n_waiting = 0;
    };
    std::vector<alternative>         alternatives;
    std::vector<std::vector<size_t>> uses(all.elements.size()); // of a rule: by these alternatives
    for (size_t i = 0; i < all.elements.size(); i++) {
        alternatives.push_back({ i });
        for (gbnf_element e : all.elements[i]) {
            if (e == ALTERNATIVE) {
                alternatives.push_back({ i });
                continue;
            }
            alternatives.back().n_waiting++; // for ever, where it is a terminal
            if (e >= 0) {
                uses[static_cast<size_t>(e)].push_back(alternatives.size() - 1);
            }
        }
    }
    std::vector<bool>   found(all.elements.size());
    std::vector<size_t> todo;
    const auto          check = [&](const alternative & a) {
        if (a.n_waiting == 0 && !found[a.rule]) {
            found[a.rule] = true;
            todo.push_back(a.rule);
        }
    };
    std::for_each(alternatives.begin(), alternatives.end(), check);
    while (!todo.empty()) {
        const size_t rule = todo.back();
        todo.pop_back();
        for (size_t user : uses[rule]) {
            alternatives[user].n_waiting--;
            check(alternatives[user]);
        }
    }
    return found;
}

// For each rule those that one of its alternatives can begin with.
std::vector<std::vector<int32_t>> first_rules(const gbnf_rules & all) {
    const std::vector<bool>           empty = nullable(all);
    std::vector<std::vector<int32_t>> firsts(all.elements.size());
    for (size_t i = 0; i < all.elements.size(); i++) {
        bool at_start = true;
        for (gbnf_element e : all.elements[i]) {
            if (e >= 0 && at_start) {
                firsts[i].push_back(e);
            }
            at_start = e == ALTERNATIVE || (at_start && e >= 0 && empty[static_cast<size_t>(e)]);
        }
        std::sort(firsts[i].begin(), firsts[i].end());
        firsts[i].erase(std::unique(firsts[i].begin(), firsts[i].end()), firsts[i].end());
    }
    return firsts;
}

void check_recursion(const gbnf_rules & all) {
    const auto          firsts = first_rules(all);
    std::vector<size_t> depth(all.elements.size()); // 0: not seen; of the deepest chain below it, once it is left
    std::vector<bool>   open(all.elements.size());
    struct frame {
        size_t rule, next = 0;
    };
    for (size_t root = 0; root < all.elements.size(); root++) {
        std::vector<frame> stack;
        if (depth[root] == 0) {
            stack.push_back({ root });
        }
        while (!stack.empty()) {
            frame & top    = stack.back();
            open[top.rule] = true;
            if (top.next < firsts[top.rule].size()) {
                const size_t next = static_cast<size_t>(firsts[top.rule][top.next++]);
                if (open[next]) {
                    throw failure(KOLLAMA_ERROR_ARGUMENT, "the grammar's rule '" + all.names[next] +
                                                              "' can begin with itself (left recursion): write it as a repetition");
                }
                if (depth[next] == 0) {
                    stack.push_back({ next });
                }
                continue;
            }
            size_t below = 0;
            for (int32_t first : firsts[top.rule]) {
                below = std::max(below, depth[static_cast<size_t>(first)]);
            }
            depth[top.rule] = below + 1;
            open[top.rule]  = false;
            if (below >= MAX_DEPTH) {
                throw failure(KOLLAMA_ERROR_ARGUMENT, format("the grammar's rules are nested more than %zu deep", MAX_DEPTH));
            }
            stack.pop_back();
        }
    }
}

} // namespace

void check_rules(const gbnf_rules & all) {
    check_references(all);
    check_recursion(all);
}

} // namespace kollama
