// The rules of a grammar, and whether llama.cpp can follow them.

#pragma once

#include "errors.h"

#include <string>
#include <vector>

namespace kollama {

// An element of a rule: ALTERNATIVE, TERMINAL, or the number of a rule.
using gbnf_element = int32_t;
constexpr gbnf_element ALTERNATIVE = -1, TERMINAL = -2;

struct gbnf_rules {
    std::vector<std::string>               names;
    std::vector<std::vector<gbnf_element>> elements;
    std::vector<bool>                      defined;
};

// Throws KOLLAMA_ERROR_ARGUMENT where a rule is missing, can begin with itself, or is nested too deep.
void check_rules(const gbnf_rules & all);

} // namespace kollama
