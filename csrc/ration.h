// How many tokens of prompts one batch reads beside running generations: so many that the batch takes no
// more than a few times as long as one without. That bounds what a stream waits for its next token; of the
// speed of all together nothing is lost, as a batch reads the weights once for all of its rows.

#pragma once

#include <cstddef>

namespace kollama {

class ration {
  public:
    // n_most: tokens of prompts that a batch reads where no generation runs, and the most at all.
    void set_most(size_t n_most) { n_most_ = n_most; }

    size_t tokens(size_t n_running) const;

    // What a batch took.
    void took(size_t n_running, size_t n_prompt, double seconds);

  private:
    size_t n_most_ = 1;
    double alone_  = 0; // seconds of a batch of generations alone, of the latest ones
    double each_   = 0; // seconds that a token of a prompt adds; 0: not known yet
};

} // namespace kollama
