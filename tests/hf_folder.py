"""Tiny folders as Hugging Face has them, with random weights, and what such a model computes.

`safetensors` writes the tensors. The forward pass is written out here in NumPy, in float64, from
transformers' description of Llama and not from the code that it checks.
"""

from __future__ import annotations

import copy
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tokenizer_json as tj
from numpy.typing import NDArray
from safetensors import TensorSpec, serialize_file

Array = NDArray[np.float64]

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 512,
    "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "tie_word_embeddings": False,
    "bos_token_id": 1, "eos_token_id": 2, "torch_dtype": "float32",
}


def bits_of_bf16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Rounded to the nearest, ties to even."""
    bits = values.view(np.uint32).astype(np.uint64)
    return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)


@dataclass
class Folder:
    """A model: change `config`, `tensors` or `files`, then write()."""

    config: dict[str, Any]
    tensors: dict[str, NDArray[np.float32]]
    dtype: str = "float32"
    files: dict[str, Any] = field(default_factory=dict)  # JSON, or bytes

    def raw(self, name: str) -> NDArray[Any]:
        """As in the file: for bfloat16 its bits."""
        values = self.tensors[name]
        if self.dtype == "bfloat16":
            return bits_of_bf16(values)
        return values.astype(self.dtype)

    def value(self, name: str) -> Array:
        """What the file says."""
        raw = self.raw(name)
        if self.dtype == "bfloat16":
            raw = (raw.astype(np.uint32) << 16).view(np.float32)
        return raw.astype(np.float64)

    def write(self, path: Path, *, shards: int = 1) -> Path:
        path.mkdir(parents=True, exist_ok=True)
        (path / "config.json").write_text(json.dumps(self.config))
        for name, content in self.files.items():
            (path / name).write_bytes(content if isinstance(content, bytes) else
                                      json.dumps(content, ensure_ascii=False).encode())
        names = list(self.tensors)
        weight_map = {}
        for i in range(shards):
            part = names[i::shards]
            file = "model.safetensors" if shards == 1 else f"model-{i + 1:05}-of-{shards:05}.safetensors"
            weight_map |= dict.fromkeys(part, file)
            arrays = {name: np.ascontiguousarray(self.raw(name)) for name in part}
            serialize_file({name: TensorSpec(dtype=self.dtype, shape=array.shape, data_ptr=array.ctypes.data,
                                             data_len=array.nbytes) for name, array in arrays.items()},
                           path / file, {"format": "pt"})
        if shards > 1:
            (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        return path


def llama(*, n_vocab: int | None = None, seed: int = 0, dtype: str = "float32", tokenizer: Any = None,
          **config: Any) -> Folder:
    """Random weights; n_vocab above the tokenizer's pads the embeddings, as is often done."""
    tokenizer = tj.llama() if tokenizer is None else tokenizer
    if n_vocab is None:
        n_vocab = len(tokenizer["model"]["vocab"]) if isinstance(tokenizer, dict) else 300
    values = copy.deepcopy(CONFIG) | {"vocab_size": n_vocab} | config
    random = np.random.default_rng(seed)
    n_embd, n_ff = values["hidden_size"], values["intermediate_size"]
    head_dim = values.get("head_dim") or n_embd // values["num_attention_heads"]
    q, kv = values["num_attention_heads"] * head_dim, values["num_key_value_heads"] * head_dim
    tensors: dict[str, NDArray[np.float32]] = {}

    def add(name: str, *shape: int) -> None:
        scale = 1.5 / math.sqrt(shape[-1]) if len(shape) == 2 else 0.1
        tensors[name] = (random.normal(0, scale, shape) + name.endswith("norm.weight")).astype(np.float32)

    def linear(name: str, rows: int, columns: int, bias: bool) -> None:
        add(f"{name}.weight", rows, columns)
        if bias:
            add(f"{name}.bias", rows)

    add("model.embed_tokens.weight", n_vocab, n_embd)
    tensors["model.embed_tokens.weight"] *= math.sqrt(n_embd)
    for i in range(values["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        add(f"{layer}.input_layernorm.weight", n_embd)
        add(f"{layer}.post_attention_layernorm.weight", n_embd)
        for part, rows, columns in (("q", q, n_embd), ("k", kv, n_embd), ("v", kv, n_embd), ("o", n_embd, q)):
            linear(f"{layer}.self_attn.{part}_proj", rows, columns, values.get("attention_bias", False))
        for part, rows, columns in (("gate", n_ff, n_embd), ("up", n_ff, n_embd), ("down", n_embd, n_ff)):
            linear(f"{layer}.mlp.{part}_proj", rows, columns, values.get("mlp_bias", False))
    add("model.norm.weight", n_embd)
    if not values["tie_word_embeddings"]:
        add("lm_head.weight", n_vocab, n_embd)
    folder = Folder(values, tensors, dtype)
    if isinstance(tokenizer, dict):
        folder.files["tokenizer.json"] = tokenizer
    return folder


# ---- what it computes ----------------------------------------------------------------------------


def frequencies(config: dict[str, Any], head_dim: int) -> Array:
    """Angles per position, of each pair."""
    inverse = 1.0 / config["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
    scaling = config.get("rope_scaling")
    if not scaling:
        return inverse
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind == "linear":
        return inverse / scaling["factor"]
    assert kind == "llama3"
    wavelength = 2 * np.pi / inverse
    low = scaling["original_max_position_embeddings"] / scaling["low_freq_factor"]
    high = scaling["original_max_position_embeddings"] / scaling["high_freq_factor"]
    smooth = (scaling["original_max_position_embeddings"] / wavelength - scaling["low_freq_factor"]) / (
        scaling["high_freq_factor"] - scaling["low_freq_factor"])
    between = (1 - smooth) * inverse / scaling["factor"] + smooth * inverse
    return np.where(wavelength < high, inverse, np.where(wavelength > low, inverse / scaling["factor"], between))


def logits(folder: Folder, ids: list[int]) -> Array:
    """Those after the last of ids: (n_vocab,)."""
    config, get = folder.config, folder.value
    n_head, n_kv = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // n_head
    angles = np.outer(np.arange(len(ids)), frequencies(config, head_dim))
    cos, sin = (np.concatenate([f(angles)] * 2, -1)[:, None] for f in (np.cos, np.sin))

    def norm(x: Array, name: str) -> Array:
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + config["rms_norm_eps"]) * get(name)

    def linear(x: Array, name: str) -> Array:
        y = x @ get(f"{name}.weight").T
        return y + get(f"{name}.bias") if f"{name}.bias" in folder.tensors else y

    def rotate(x: Array) -> Array:
        first, second = np.split(x, 2, -1)
        return x * cos + np.concatenate([-second, first], -1) * sin

    x = get("model.embed_tokens.weight")[ids]
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        h = norm(x, f"{layer}.input_layernorm.weight")
        q = rotate(linear(h, f"{layer}.self_attn.q_proj").reshape(len(ids), n_head, head_dim))
        k = rotate(linear(h, f"{layer}.self_attn.k_proj").reshape(len(ids), n_kv, head_dim))
        v = linear(h, f"{layer}.self_attn.v_proj").reshape(len(ids), n_kv, head_dim)
        k, v = (np.repeat(part, n_head // n_kv, 1) for part in (k, v))
        weights = np.einsum("ihd,jhd->hij", q, k) / math.sqrt(head_dim)
        weights = np.where(np.tri(len(ids), dtype=bool), weights, -np.inf)
        weights = np.exp(weights - weights.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        mixed = np.einsum("hij,jhd->ihd", weights, v).reshape(len(ids), -1)
        x = x + linear(mixed, f"{layer}.self_attn.o_proj")
        h = norm(x, f"{layer}.post_attention_layernorm.weight")
        gate = linear(h, f"{layer}.mlp.gate_proj")
        x = x + linear(gate / (1 + np.exp(-gate)) * linear(h, f"{layer}.mlp.up_proj"), f"{layer}.mlp.down_proj")
    last = norm(x[-1], "model.norm.weight")
    return last @ get("model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight").T
