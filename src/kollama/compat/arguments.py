"""The arguments of Llama(...): what each becomes, and an error for what cannot be had."""

from __future__ import annotations

from typing import Any

from .._core.model import Model
from ..errors import ArgumentError
from ..params import integer
from .constants import (
    KV_TYPES,
    LLAMA_ATTENTION_TYPE_UNSPECIFIED,
    LLAMA_POOLING_TYPE_UNSPECIFIED,
    LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED,
    LLAMA_SPLIT_MODE_LAYER,
)

__all__ = ["context_options", "open_model", "refuse"]

# What can have no other value than llama-cpp-python's default, or one that says the same.
FIXED: dict[str, tuple[Any, ...]] = {
    "split_mode": (LLAMA_SPLIT_MODE_LAYER,),
    "main_gpu": (0,),
    "tensor_split": (None,),
    "kv_overrides": (None, {}),
    "rope_scaling_type": (None, LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED),
    "attention_type": (LLAMA_ATTENTION_TYPE_UNSPECIFIED,),
    "rope_freq_base": (0.0,),
    "rope_freq_scale": (0.0,),
    "yarn_ext_factor": (-1.0,),
    "yarn_attn_factor": (1.0,),
    "yarn_beta_fast": (32.0,),
    "yarn_beta_slow": (1.0,),
    "yarn_orig_ctx": (0,),
    "offload_kqv": (True,),
    "op_offload": (None,),
    "lora_base": (None,),
    "numa": (False, 0),
    "draft_model": (None,),
    "spm_infill": (False,),
}


def refuse(given: dict[str, Any]) -> None:
    """Raises where an argument asks for what kollama does not do."""
    for name, allowed in FIXED.items():
        if not any(given[name] == value for value in allowed):
            raise ArgumentError(f"{name}={given[name]!r} cannot be honoured by kollama.compat; it "
                                f"can be {allowed[0]!r} alone")
    n_threads, for_batches = given["n_threads"] or None, given["n_threads_batch"] or None
    if for_batches is not None and for_batches != n_threads:
        raise ArgumentError(f"n_threads_batch={for_batches} must be equal to n_threads={n_threads}:"
                            " a context has one number of threads")
    if given["n_ubatch"] not in (512, given["n_batch"]):
        raise ArgumentError(f"n_ubatch={given['n_ubatch']} cannot be honoured by kollama.compat; "
                            "leave it out, and set n_batch")
    if given["lora_scale"] != 1.0 and given["lora_path"] is None:
        raise ArgumentError("lora_scale says something only with lora_path")
    if given["lora_path"] is not None and given["vocab_only"]:
        raise ArgumentError("lora_path: a model opened with vocab_only=True has no weights")
    tokenizer = given["tokenizer"]
    if tokenizer is not None and hasattr(tokenizer, "tokenize"):
        raise ArgumentError("tokenizer: give the path of a tokenizer.json, or nothing; an object "
                            "that tokenizes in Python cannot stand in for the model's vocabulary")


def open_model(given: dict[str, Any]) -> Model:
    return Model(
        given["model_path"],
        n_gpu_layers=given["n_gpu_layers"],
        mmap="auto" if given["use_mmap"] else False,
        mlock=given["use_mlock"],
        vocab_only=given["vocab_only"],
        rms_norm_eps=given["rms_norm_eps"],
        tokenizer=given["tokenizer"],
    )


def context_options(model: Model, given: dict[str, Any]) -> dict[str, Any]:
    """What the arguments say about a Context."""
    n_ctx = integer("n_ctx", given["n_ctx"], 0) or model.n_ctx_train
    options: dict[str, Any] = {
        "n_ctx": n_ctx,
        "n_batch": min(integer("n_batch", given["n_batch"], 1), n_ctx),
        "n_threads": given["n_threads"] or None,
        "flash_attn": "auto" if given["flash_attn"] is None else given["flash_attn"],
    }
    for name in ("type_k", "type_v"):
        if given[name] is not None:
            options[name] = _kv_type(name, given[name])
    if given["swa_full"] is not None:
        options["swa_full"] = given["swa_full"]
    if given["pooling_type"] != LLAMA_POOLING_TYPE_UNSPECIFIED and not given["embedding"]:
        raise ArgumentError("pooling_type says something only with embedding=True")
    return options


def _kv_type(name: str, value: Any) -> str:
    if isinstance(value, str):
        return value
    if value not in KV_TYPES:
        known = ", ".join(f"{number} ({text})" for number, text in KV_TYPES.items())
        raise ArgumentError(f"{name} is {value!r}; it can be {known}")
    return KV_TYPES[value]
