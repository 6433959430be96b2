#include "products/graph.h"

#include <algorithm>
#include <cstring>

namespace kollama {
namespace {

constexpr int NEAR = 16; // nodes ahead that are searched for products with the same activations

void on_tile(ggml_tensor *, int ith, int nth, void * of) {
    static_cast<const product *>(of)->tile(static_cast<size_t>(ith), static_cast<size_t>(nth));
}

void on_multiply(ggml_tensor *, int ith, int, void * of) {
    static_cast<product *>(of)->multiply(static_cast<size_t>(ith));
}

void on_few(ggml_tensor *, int ith, int, void * of) {
    static_cast<few_products *>(of)->run(static_cast<size_t>(ith));
}

void on_list(ggml_tensor *, int ith, int nth, void * of) {
    static_cast<attended_cells *>(of)->list(static_cast<size_t>(ith), static_cast<size_t>(nth));
}

void on_attend(ggml_tensor *, int ith, int nth, void * of) {
    static_cast<attention *>(of)->attend(static_cast<size_t>(ith), static_cast<size_t>(nth));
}

void on_find(ggml_tensor *, int ith, int nth, void * of) {
    static_cast<row_runs *>(of)->find(static_cast<size_t>(ith), static_cast<size_t>(nth));
}

void on_attend_prompt(ggml_tensor *, int ith, int, void * of) {
    static_cast<prompt_attention *>(of)->attend(static_cast<size_t>(ith));
}

void on_merge(ggml_tensor *, int ith, int nth, void * of) {
    static_cast<const attention *>(of)->merge(static_cast<size_t>(ith), static_cast<size_t>(nth));
}

bool computes(const ggml_tensor * node) {
    return (node->flags & GGML_TENSOR_FLAG_COMPUTE) && !ggml_op_is_empty(node->op);
}

// Whether op gives the same when it is computed before node, which comes before it, and so does node.
bool can_pass(const ggml_tensor * op, const ggml_tensor * node) {
    for (const ggml_tensor * src : node->src) {
        if (src && overlap(op, src)) {
            return false;
        }
    }
    return !overlap(op, node) && !overlap(op->src[1], node); // weights are never written
}

} // namespace

ggml_cgraph * product_graph::of(const ggml_cgraph & graph, int n_threads) {
    // llama.cpp computes one graph again as long as its tensors stay where they are, and says so.
    if (graph.uid == 0 || graph.uid != uid_ || n_threads != n_threads_) {
        uid_ = 0;
        if (!build(graph, n_threads)) {
            return nullptr;
        }
        uid_       = graph.uid;
        n_threads_ = n_threads;
    }
    for (product & p : products_) {
        p.begin();
    }
    for (few_products & p : fews_) {
        p.begin();
    }
    for (attention & a : attentions_) {
        a.begin();
    }
    for (prompt_attention & a : prompt_attentions_) {
        a.begin();
    }
    return &replaced_;
}

bool product_graph::build(const ggml_cgraph & graph, int n_threads) {
    products_.clear();
    fews_.clear();
    attentions_.clear();
    attended_.clear();
    prompt_attentions_.clear();
    runs_.clear();
    nodes_.clear();
    operations_.clear();
    before_ = nullptr;
    gathered_.assign(static_cast<size_t>(graph.n_nodes), false);
    for (int i = 0; i < graph.n_nodes; i++) {
        ggml_tensor * node = graph.nodes[i];
        if (gathered_[static_cast<size_t>(i)]) {
            continue;
        }
        if (!computes(node)) {
            nodes_.push_back(node);
        } else if (few_products::takes(kernels_, node)) {
            gather(graph, i, add_few(node));
        } else if (product::takes(kernels_, node)) {
            add_product(node, n_threads);
        } else if (attention::takes(node)) {
            attention & a = attentions_.emplace_back(kernels_, node, cells_of(node));
            add(on_attend, &a);
            if (a.shares_parts()) {
                add(on_merge, &a);
            }
        } else if (prompt_attention::takes(node)) {
            add(on_attend_prompt, &prompt_attentions_.emplace_back(kernels_, node, runs_of(node)));
        } else {
            nodes_.push_back(node);
        }
    }
    replaced_         = graph; // its hash table too: what may be fused is asked there
    replaced_.size    = static_cast<int>(nodes_.size());
    replaced_.n_nodes = static_cast<int>(nodes_.size());
    replaced_.nodes   = nodes_.data();
    return reserve(n_threads);
}

// Memory for the products, which use it one after another: as much as the largest needs.
bool product_graph::reserve(int n_threads) {
    size_t tiles = 0, panels = 0, narrow = 0, parts = 0;
    for (const product & p : products_) {
        tiles  = std::max(tiles, p.tiles_bytes());
        panels = std::max(panels, p.panels_bytes());
    }
    for (const few_products & p : fews_) {
        narrow = std::max(narrow, p.tile_bytes() * static_cast<size_t>(n_threads));
    }
    for (const attention & a : attentions_) {
        parts = std::max(parts, a.bytes(static_cast<size_t>(n_threads)));
    }
    for (const prompt_attention & a : prompt_attentions_) {
        parts = std::max(parts, a.bytes() * static_cast<size_t>(n_threads));
    }
    if (!parts_.reserve(parts) || !tiles_.reserve(tiles) || !panels_.reserve(panels) || !narrow_.reserve(narrow)) {
        return false;
    }
    for (product & p : products_) {
        p.use(tiles_.data(), panels_.data());
    }
    for (few_products & p : fews_) {
        p.use(narrow_.data(), n_threads);
    }
    for (attention & a : attentions_) {
        a.use(parts_.data());
    }
    for (prompt_attention & a : prompt_attentions_) {
        a.use(parts_.data());
    }
    return std::all_of(attended_.begin(), attended_.end(), [](attended_cells & cells) { return cells.reserve(); }) &&
           std::all_of(runs_.begin(), runs_.end(), [](row_runs & runs) { return runs.reserve(); });
}

// What ggml_custom_4d makes, without a ggml_context to make it in.
void product_graph::add(ggml_custom_op_t run, void * of) {
    const ggml_custom_op_params params = { run, GGML_N_TASKS_MAX, of };
    ggml_tensor                 node   = {};
    node.type  = GGML_TYPE_F32;
    node.op    = GGML_OP_CUSTOM;
    node.flags = GGML_TENSOR_FLAG_COMPUTE;
    for (int i = 0; i < GGML_MAX_DIMS; i++) {
        node.ne[i] = 1;
        node.nb[i] = sizeof(float);
    }
    static_assert(sizeof(params) <= sizeof(node.op_params), "");
    std::memcpy(node.op_params, &params, sizeof(params));
    operations_.push_back(node);
    nodes_.push_back(&operations_.back());
}

void product_graph::add_product(const ggml_tensor * op, int n_threads) {
    product & p = products_.emplace_back(kernels_, op, n_threads);
    if (!before_ || !p.same_activations(*before_)) {
        add(on_tile, &p);
    }
    add(on_multiply, &p);
    before_ = &p;
}

few_products & product_graph::add_few(const ggml_tensor * op) {
    few_products & p = fews_.emplace_back(kernels_, op);
    add(on_few, &p);
    return p;
}

// What the layers share: the one of that mask, and of what else there is of it.
template <class T, class... OF> const T & product_graph::shared(std::deque<T> & all, ggml_custom_op_t run, OF... of) {
    for (const T & one : all) {
        if (one.is_of(of...)) {
            return one;
        }
    }
    T & one = all.emplace_back(of...);
    add(run, &one);
    return one;
}

const attended_cells & product_graph::cells_of(const ggml_tensor * op) {
    return shared(attended_, on_list, op->src[3], static_cast<size_t>(op->src[0]->ne[1]));
}

const row_runs & product_graph::runs_of(const ggml_tensor * op) {
    return shared(runs_, on_find, op->src[3], static_cast<size_t>(op->src[0]->ne[1]), most_rows_of_run(op));
}

// The products behind node `at` that have its activations, and could as well be computed with it: Q, K
// and V of a layer, or gate and up. Each that joins is one operation less that all threads wait for.
void product_graph::gather(const ggml_cgraph & graph, int at, few_products & into) {
    for (int i = at + 1; i < graph.n_nodes && i <= at + NEAR; i++) {
        const ggml_tensor * op = graph.nodes[i];
        if (!computes(op) || !few_products::takes(kernels_, op) || !into.shares_activations(op) || into.writes_over(op)) {
            continue;
        }
        const auto passes = [&](const ggml_tensor * node) { return !computes(node) || can_pass(op, node); };
        if (std::all_of(graph.nodes + at + 1, graph.nodes + i, passes)) {
            into.add(op);
            gathered_[static_cast<size_t>(i)] = true;
        }
    }
}

} // namespace kollama
