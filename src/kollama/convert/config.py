"""config.json of a Llama."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FormatError
from .json_files import integer_of, number_of, object_of, read_object

__all__ = ["LlamaConfig", "read_config"]

ARCHITECTURES = ("LlamaForCausalLM", "LLaMAForCausalLM", "MistralForCausalLM")
# What these models can be, and llama.cpp's "llama" is not.
MUST_BE: dict[str, tuple[object, ...]] = {
    "hidden_act": (None, "silu"),
    "quantization_config": (None,),
    "sliding_window": (None,),
    "partial_rotary_factor": (None, 1, 1.0),
}


@dataclass(frozen=True)
class LlamaConfig:
    """What llama.cpp needs to know of a Llama. `rope_factors` divide the frequencies one by one."""

    n_vocab: int
    n_embd: int
    n_layer: int
    n_head: int
    n_head_kv: int
    head_dim: int
    n_ff: int
    n_ctx: int
    rms_norm_eps: float
    rope_theta: float
    rope_linear: float | None
    rope_factors: tuple[float, ...] | None
    tied: bool
    attention_bias: bool
    mlp_bias: bool
    data: dict[str, Any]  # the file itself


def read_config(path: Path) -> LlamaConfig:
    """Reads config.json.

    Raises:
        ModelNotFoundError: there is no such file.
        FormatError: it describes no Llama that llama.cpp can run; the text says which part.
    """
    data = read_object(path)
    _check_kind(path, data)
    n_embd = integer_of(path, data, "hidden_size")
    n_head = integer_of(path, data, "num_attention_heads")
    if data.get("head_dim") is None and n_embd % n_head:
        raise FormatError(f"{path}: hidden_size {n_embd} is no multiple of {n_head} heads")
    n_head_kv = n_head
    if data.get("num_key_value_heads") is not None:
        n_head_kv = integer_of(path, data, "num_key_value_heads")
    if n_head % n_head_kv:
        raise FormatError(f"{path}: {n_head} heads cannot share {n_head_kv} of keys and values")
    head_dim = n_embd // n_head
    if data.get("head_dim") is not None:
        head_dim = integer_of(path, data, "head_dim")
    if head_dim % 2:
        raise FormatError(f"{path}: a head has {head_dim} dimensions, which is odd")
    theta, linear, factors = _rope(path, data, head_dim)
    return LlamaConfig(
        n_vocab=integer_of(path, data, "vocab_size"),
        n_embd=n_embd,
        n_layer=integer_of(path, data, "num_hidden_layers", high=4096),
        n_head=n_head,
        n_head_kv=n_head_kv,
        head_dim=head_dim,
        n_ff=integer_of(path, data, "intermediate_size"),
        n_ctx=integer_of(path, data, "max_position_embeddings"),
        rms_norm_eps=number_of(path, data, "rms_norm_eps"),
        rope_theta=theta,
        rope_linear=linear,
        rope_factors=factors,
        tied=_flag(path, data, "tie_word_embeddings"),
        attention_bias=_flag(path, data, "attention_bias"),
        mlp_bias=_flag(path, data, "mlp_bias"),
        data=data,
    )


def _check_kind(path: Path, data: dict[str, Any]) -> None:
    names = data.get("architectures")
    name = names[0] if isinstance(names, list) and names else data.get("model_type")
    if name not in (*ARCHITECTURES, "llama"):
        raise FormatError(
            f"{path}: the architecture is {name!r}; only LlamaForCausalLM, and MistralForCausalLM "
            "without a sliding window, are converted here. llama.cpp's convert_hf_to_gguf.py does "
            "many others")
    for key, allowed in MUST_BE.items():
        if data.get(key) not in allowed:
            what = "set" if isinstance(data[key], (dict, list)) else f"{data[key]!r}"
            raise FormatError(f"{path}: {key} is {what}; that is not done here")


def _flag(path: Path, data: dict[str, Any], key: str) -> bool:
    value = data.get(key, False)
    if not isinstance(value, bool):
        raise FormatError(f"{path}: {key} is {value!r}, not true or false")
    return value


def _rope(path: Path, data: dict[str, Any],
          head_dim: int) -> tuple[float, float | None, tuple[float, ...] | None]:
    """(theta, linear factor, factors of the frequencies). Newer files have all in one object."""
    newer = object_of(path, data, "rope_parameters")
    rules = object_of(path, data, "rope_scaling") or newer
    theta = 10000.0
    for place in (data, newer):
        if place.get("rope_theta") is not None:
            theta = number_of(path, place, "rope_theta")
    kind = rules.get("rope_type", rules.get("type", "default"))
    if kind == "default":
        return theta, None, None
    if kind == "linear":
        return theta, number_of(path, rules, "factor"), None
    if kind == "llama3":
        return theta, None, _llama3_factors(path, rules, theta, head_dim)
    raise FormatError(f"{path}: rope_scaling of the type {kind!r} is not done here; "
                      "'linear' and 'llama3' are")


def _llama3_factors(path: Path, rules: dict[str, Any], theta: float,
                    head_dim: int) -> tuple[float, ...]:
    """As transformers' ``_compute_llama3_parameters``; llama.cpp divides frequencies by these."""
    factor = number_of(path, rules, "factor")
    low = number_of(path, rules, "low_freq_factor")
    high = number_of(path, rules, "high_freq_factor")
    n_ctx = number_of(path, rules, "original_max_position_embeddings")
    if high <= low:
        raise FormatError(f"{path}: rope_scaling has high_freq_factor {high}, not above {low}")
    factors = []
    for i in range(0, head_dim, 2):
        turns = n_ctx / (2 * math.pi * theta ** (i / head_dim))
        if turns > high:
            factors.append(1.0)
        elif turns < low:
            factors.append(factor)
        else:
            smooth = (turns - low) / (high - low)
            factors.append(1 / ((1 - smooth) / factor + smooth))
    return tuple(factors)
