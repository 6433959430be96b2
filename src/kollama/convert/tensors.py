"""Which tensors a Llama has, by their names on both sides, and the type of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import FormatError
from .config import LlamaConfig
from .safetensors import Tensor

__all__ = ["FILE_TYPES", "Target", "plan", "type_of"]

# general.file_type: llama.h's llama_ftype.
FILE_TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "bf16": 32}
# Values that one block holds.
BLOCKS = dict.fromkeys(FILE_TYPES, 32) | {"f32": 1, "f16": 1, "bf16": 1, "q6_K": 256}
# Buffers that old versions of transformers saved; they are computed.
COMPUTED = ".rotary_emb.inv_freq"


@dataclass(frozen=True)
class Target:
    """A tensor of the GGUF. `n_heads`: Q and K, whose rows llama.cpp wants in another order."""

    name: str
    source: Tensor
    n_heads: int = 0


def plan(folder: Path, config: LlamaConfig, sources: dict[str, Tensor]) -> list[Target]:
    """The tensors to write, in order.

    Raises:
        FormatError: one is missing, has another shape than config.json says, or is of no Llama.
    """
    left = dict(sources)
    targets = []
    for name, source_name, shape, n_heads in _expected(config):
        source = left.pop(source_name, None)
        if source is None:
            raise FormatError(f"{folder}: the tensor {source_name!r} is missing")
        if source.shape != shape:
            raise FormatError(f"{source.path}: tensor {source_name!r} has the shape "
                              f"{source.shape}; by config.json it is {shape}")
        targets.append(Target(name, source, n_heads))
    if config.tied:
        left.pop("lm_head.weight", None)  # transformers does not look at it either
    for name, source in left.items():
        if not name.endswith(COMPUTED):
            raise FormatError(f"{source.path}: tensor {name!r} is not part of a Llama "
                              "as config.json describes it")
    return targets


def _expected(config: LlamaConfig) -> Iterator[tuple[str, str, tuple[int, ...], int]]:
    """(name, name in the folder, shape, heads of Q and K)."""
    n_embd, n_ff = config.n_embd, config.n_ff
    yield "token_embd.weight", "model.embed_tokens.weight", (config.n_vocab, n_embd), 0
    yield "output_norm.weight", "model.norm.weight", (n_embd,), 0
    if not config.tied:
        yield "output.weight", "lm_head.weight", (config.n_vocab, n_embd), 0
    q, kv = config.n_head * config.head_dim, config.n_head_kv * config.head_dim
    linear = (
        ("attn_q", "self_attn.q_proj", q, n_embd, config.n_head, config.attention_bias),
        ("attn_k", "self_attn.k_proj", kv, n_embd, config.n_head_kv, config.attention_bias),
        ("attn_v", "self_attn.v_proj", kv, n_embd, 0, config.attention_bias),
        ("attn_output", "self_attn.o_proj", n_embd, q, 0, config.attention_bias),
        ("ffn_gate", "mlp.gate_proj", n_ff, n_embd, 0, config.mlp_bias),
        ("ffn_up", "mlp.up_proj", n_ff, n_embd, 0, config.mlp_bias),
        ("ffn_down", "mlp.down_proj", n_embd, n_ff, 0, config.mlp_bias),
    )
    for i in range(config.n_layer):
        block, layer = f"blk.{i}", f"model.layers.{i}"
        yield f"{block}.attn_norm.weight", f"{layer}.input_layernorm.weight", (n_embd,), 0
        yield f"{block}.ffn_norm.weight", f"{layer}.post_attention_layernorm.weight", (n_embd,), 0
        for name, source, rows, columns, n_heads, has_bias in linear:
            yield f"{block}.{name}.weight", f"{layer}.{source}.weight", (rows, columns), n_heads
            if has_bias:
                yield f"{block}.{name}.bias", f"{layer}.{source}.bias", (rows,), n_heads


def type_of(target: Target, wanted: str, tied: bool) -> str:
    """The type a tensor gets: llama_model_quantize's choice for a file of the wanted type.

    Vectors are f32. What makes the logits is q6_K in a file of smaller types, q8_0 where its rows
    are no whole number of q6_K's blocks. What fits no blocks is f16.
    """
    shape = target.source.shape
    if len(shape) == 1:
        return "f32"
    is_output = target.name == ("token_embd.weight" if tied else "output.weight")
    is_small = BLOCKS[wanted] > 1 and wanted != "q8_0"
    kinds = ("q6_K", "q8_0") if is_output and is_small else (wanted,)
    return next((kind for kind in kinds if shape[-1] % BLOCKS[kind] == 0), "f16")
