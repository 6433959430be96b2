// A row of logits, one float per token of the vocabulary, and the passes over it.

#pragma once

#include "internal.h"
#include "row_kernels.h"

struct kollama_row : kollama::counted<KOLLAMA_HANDLE_ROW> {
    std::vector<float> logits;
    std::atomic<int>   owners{1};

    explicit kollama_row(size_t n_vocab) : logits(n_vocab) {}
};

namespace kollama {

struct row_peak {
    float  value = 0;   // the largest logit
    size_t index = 0;   // of its first place
};

// One pass: the maximum of every block into block_max, the first place of the largest of all.
// Throws KOLLAMA_ERROR_ARGUMENT where a logit is NaN or all are -inf.
row_peak scan_row(const float * logits, size_t n, std::vector<float> & block_max);

// What the two passes over a row find.
struct row_scan {
    std::vector<float> block_max;
    row_peak           peak;
    float              log_total = 0; // log_sum_exp

    void read(const float * logits, size_t n); // throws as scan_row
};

struct row_entry {
    int32_t id;
    float   logit;
};

// The k largest logits, sorted; equal ones by id, so that a seed gives the same text on every
// machine. block_max is scan_row's; order is scratch memory.
void top_of_row(const float * logits, size_t n, size_t k, const std::vector<float> & block_max, std::vector<float> & order,
                std::vector<row_entry> & top);

// log(sum(exp(logits))), given their maximum.
float log_sum_exp(const float * logits, size_t n, float peak);

} // namespace kollama
