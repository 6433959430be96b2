"""A Llama in NumPy's float64, written from the paper, for logits to be compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np


def _norm(x: np.ndarray, weight: np.ndarray, eps: float) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps) * weight


def _rope(x: np.ndarray, base: float) -> np.ndarray:
    """Rotates neighbouring pairs, the order in which GGML and GGUF files hold Q and K. x: (n, heads, width)."""
    n, _, width = x.shape
    angles = np.arange(n)[:, None] * base ** (-np.arange(0, width, 2) / width)
    cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
    even, odd = x[..., 0::2], x[..., 1::2]
    return np.stack([even * cos - odd * sin, even * sin + odd * cos], axis=-1).reshape(x.shape)


def last_logits(weights: Mapping[str, np.ndarray], ids: Sequence[int], *, n_head: int, n_head_kv: int, n_layer: int,
                eps: float = 1e-5, rope_base: float = 10000.0, added: Mapping[int, np.ndarray] | None = None) -> np.ndarray:
    """Logits (float64[n_vocab]) after ids, of weights by GGUF's names, rows first. added: to what a layer gives."""
    w = {name: value.astype(np.float64) for name, value in weights.items()}
    x = w["token_embd.weight"][np.asarray(ids)]
    n, n_embd = x.shape
    width = n_embd // n_head
    mask = np.triu(np.full((n, n), -np.inf), 1)
    for i in range(n_layer):
        part = {name.split(".")[2]: value for name, value in w.items() if name.startswith(f"blk.{i}.")}
        h = _norm(x, part["attn_norm"], eps)
        q = _rope((h @ part["attn_q"].T).reshape(n, n_head, width), rope_base)
        k = _rope((h @ part["attn_k"].T).reshape(n, n_head_kv, width), rope_base)
        v = (h @ part["attn_v"].T).reshape(n, n_head_kv, width)
        k, v = (np.repeat(each, n_head // n_head_kv, axis=1) for each in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(width) + mask
        scores = np.exp(scores - scores.max(axis=-1, keepdims=True))
        scores /= scores.sum(axis=-1, keepdims=True)
        x = x + np.einsum("hij,jhd->ihd", scores, v).reshape(n, n_embd) @ part["attn_output"].T
        h = _norm(x, part["ffn_norm"], eps)
        gate = h @ part["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (h @ part["ffn_up"].T)) @ part["ffn_down"].T
        x = x + (added or {}).get(i, 0)
    logits: np.ndarray = _norm(x[-1], w["output_norm.weight"], eps) @ w["output.weight"].T
    return logits
