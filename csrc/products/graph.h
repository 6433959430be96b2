// A graph of ggml's, with what kernels take as operations of our own.

#pragma once

#include "products/attention.h"
#include "products/few.h"
#include "products/product.h"
#include "products/prompt_attention.h"

#include "ggml-impl.h"

#include <deque>
#include <vector>

namespace kollama {

class product_graph {
  public:
    explicit product_graph(const product_kernels & kernels) : kernels_(kernels) {}

    // What the CPU backend computes in the place of graph, with n_threads: valid until the next call. Null:
    // there is no memory for it.
    ggml_cgraph * of(const ggml_cgraph & graph, int n_threads);

  private:
    bool                   build(const ggml_cgraph & graph, int n_threads);
    bool                   reserve(int n_threads);
    void                   add(ggml_custom_op_t run, void * of);
    void                   add_product(const ggml_tensor * op, int n_threads);
    few_products &         add_few(const ggml_tensor * op);
    template <class T, class... OF> const T & shared(std::deque<T> & all, ggml_custom_op_t run, OF... of);
    const attended_cells & cells_of(const ggml_tensor * op);
    const row_runs &       runs_of(const ggml_tensor * op);
    void                   gather(const ggml_cgraph & graph, int at, few_products & into);

    const product_kernels &      kernels_;
    uint64_t                     uid_       = 0; // of the graph that this was made of; 0: none that is known
    int                          n_threads_ = 0;
    std::deque<product>          products_;
    std::deque<few_products>     fews_;
    std::deque<attended_cells>   attended_;
    std::deque<attention>        attentions_;
    std::deque<row_runs>         runs_;
    std::deque<prompt_attention> prompt_attentions_;
    const product *              before_ = nullptr; // whose tiles are there
    std::vector<bool>            gathered_;         // by node: computed with an earlier one
    std::vector<ggml_tensor *>   nodes_;
    std::deque<ggml_tensor>      operations_;
    ggml_cgraph                  replaced_ = {};
    scratch                      tiles_, panels_, narrow_, parts_;
};

} // namespace kollama
