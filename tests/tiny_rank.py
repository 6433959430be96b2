"""Tiny reranking models: a Qwen3, which scores by its last token, and a BERT, by its first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import tiny

Weights = dict[str, np.ndarray]


def write(path: Path, architecture: str, *, labels: list[str] | None = None, with_head: bool = True, prompt: str | None = None,
          n_positions: int = 64, seed: int = 0) -> Weights:
    """Writes the file; gives its weights by GGUF's names."""
    random = np.random.default_rng(seed)
    n_embd, n_head, n_layer, n_ff = 64, 2, 2, 96
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_context_length(n_positions)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(n_head)
    writer.add_head_count_kv(n_head)
    n_vocab = tiny.add_vocabulary(writer)
    if labels is not None:
        writer.add_array(f"{architecture}.classifier.output_labels", labels)
    if prompt is not None:
        writer.add_string("tokenizer.chat_template.rerank", prompt)

    def weight(*shape: int) -> np.ndarray:
        return random.normal(0, 1.5 / np.sqrt(shape[-1]), shape).astype(np.float32)

    make = {"qwen3": _qwen3, "bert": _bert}[architecture]
    weights = {"token_embd.weight": weight(n_vocab, n_embd)} | make(writer, weight, n_embd, n_head, n_layer, n_ff, n_positions)
    if with_head:
        weights["cls.output.weight"] = weight(len(labels or ["score"]), n_embd)
    for name, value in weights.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def _qwen3(writer: gguf.GGUFWriter, weight: Callable[..., np.ndarray], n_embd: int, n_head: int, n_layer: int, n_ff: int,
           n_positions: int) -> Weights:
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_key_length(n_embd // n_head)
    writer.add_value_length(n_embd // n_head)
    ones = np.ones(n_embd, np.float32)
    weights: Weights = {"output_norm.weight": ones}
    for i in range(n_layer):
        weights |= {f"blk.{i}.{name}.weight": value for name, value in {
            "attn_norm": ones, "attn_q": weight(n_embd, n_embd), "attn_k": weight(n_embd, n_embd), "attn_v": weight(n_embd, n_embd),
            "attn_output": weight(n_embd, n_embd), "attn_q_norm": ones[: n_embd // n_head], "attn_k_norm": ones[: n_embd // n_head],
            "ffn_norm": ones, "ffn_gate": weight(n_ff, n_embd), "ffn_up": weight(n_ff, n_embd), "ffn_down": weight(n_embd, n_ff)}.items()}
    return weights


def _bert(writer: gguf.GGUFWriter, weight: Callable[..., np.ndarray], n_embd: int, n_head: int, n_layer: int, n_ff: int,
          n_positions: int) -> Weights:
    writer.add_layer_norm_eps(1e-5)
    writer.add_causal_attention(False)
    writer.add_token_type_count(2)
    ones, zeros = np.ones(n_embd, np.float32), np.zeros(n_embd, np.float32)
    weights: Weights = {"position_embd.weight": weight(n_positions, n_embd), "token_types.weight": weight(2, n_embd),
                        "token_embd_norm.weight": ones, "token_embd_norm.bias": zeros, "cls.weight": weight(n_embd, n_embd),
                        "cls.bias": weight(n_embd), "cls.output.bias": np.full(1, 0.25, np.float32)}
    for i in range(n_layer):
        weights |= {f"blk.{i}.{name}": value for name, value in {
            "attn_q.weight": weight(n_embd, n_embd), "attn_k.weight": weight(n_embd, n_embd), "attn_v.weight": weight(n_embd, n_embd),
            "attn_output.weight": weight(n_embd, n_embd), "attn_output_norm.weight": ones, "attn_output_norm.bias": zeros,
            "ffn_up.weight": weight(n_ff, n_embd), "ffn_down.weight": weight(n_embd, n_ff), "layer_output_norm.weight": ones,
            "layer_output_norm.bias": zeros}.items()}
    return weights
