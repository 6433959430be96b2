"""A folder of Hugging Face with a Llama -> GGUF."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from .._core.quants import quantize_rows, row_bytes
from .._core.runtime import default_threads
from ..errors import AbortedError, ArgumentError, FormatError, KollamaError
from ..files import new_file
from .config import LlamaConfig, read_config
from .safetensors import read_tensors
from .tensors import FILE_TYPES, Target, plan, type_of
from .vocabulary import Vocabulary, read_vocabulary

if TYPE_CHECKING:
    import gguf

__all__ = ["convert_folder"]

SLICE = 1 << 22  # values that are in memory at a time
SOURCE_TYPES = {"F32": "f32", "F16": "f16", "BF16": "bf16"}


def convert_folder(
    folder: Path,
    dst: Path,
    *,
    type: str | None,  # noqa: A002
    tokenizer: str | os.PathLike[str] | None,
    progress: Callable[[float], bool | None] | None,
) -> None:
    """See `kollama.convert`."""
    if type is not None and type not in FILE_TYPES:
        raise ArgumentError(f"type is {type!r}; it can be {', '.join(sorted(FILE_TYPES))}")
    config = read_config(folder / "config.json")
    targets = plan(folder, config, read_tensors(folder))
    given = None if tokenizer is None else Path(tokenizer)
    vocabulary = read_vocabulary(folder, config.n_vocab, config.data, given)
    wanted = type or SOURCE_TYPES[targets[0].source.dtype]
    tensors = [(target, type_of(target, wanted, config.tied)) for target in targets]
    gguf = _gguf()
    with new_file(dst) as scratch:
        writer = gguf.GGUFWriter(scratch, "llama")
        with contextlib.closing(writer):
            writer.add_type("model")
            writer.add_name(os.fsencode(folder.resolve().name).decode("utf-8", "replace"))
            writer.add_file_type(FILE_TYPES[wanted])
            writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
            _add_parameters(writer, gguf, config)
            _add_vocabulary(writer, vocabulary)
            _write_header(writer, gguf, config, tensors)
        _write_data(scratch, config, tensors, progress)


def _gguf() -> Any:
    try:
        import gguf
    except ImportError:
        raise KollamaError("converting a folder needs the package gguf: "
                           "pip install 'kollama[convert]'") from None
    return gguf


def _add_parameters(writer: gguf.GGUFWriter, gguf: Any, config: LlamaConfig) -> None:
    writer.add_vocab_size(config.n_vocab)
    writer.add_context_length(config.n_ctx)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(config.n_ff)
    writer.add_head_count(config.n_head)
    writer.add_head_count_kv(config.n_head_kv)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    if config.rope_linear is not None:
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_linear)


def _add_vocabulary(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    merges = vocabulary.merges
    writer.add_tokenizer_model("llama" if merges is None else "gpt2")
    writer.add_tokenizer_pre("default" if merges is None else "llama-bpe")
    writer.add_token_list(vocabulary.pieces)
    if merges is None:
        writer.add_token_scores(vocabulary.scores)
    else:
        writer.add_token_merges(merges)
    writer.add_token_types(vocabulary.types)
    for key, i in vocabulary.ids.items():
        writer.add_uint32(f"tokenizer.ggml.{key}", i)
    for key, flag in vocabulary.flags.items():
        writer.add_bool(f"tokenizer.ggml.{key}", flag)
    if vocabulary.chat_template is not None:
        writer.add_chat_template(vocabulary.chat_template)
    if vocabulary.first_added is not None:
        writer.add_uint32("kollama.tokenizer.first_added", vocabulary.first_added)
    if vocabulary.json is not None:
        writer.add_string("tokenizer.huggingface.json", vocabulary.json)


def _write_header(writer: gguf.GGUFWriter, gguf: Any, config: LlamaConfig,
                  tensors: list[tuple[Target, str]]) -> None:
    """Everything before the data, which the writer would want one whole tensor at a time."""
    float32, kinds = np.dtype(np.float32), gguf.GGMLQuantizationType
    if config.rope_factors is not None:
        n = len(config.rope_factors)
        writer.add_tensor_info("rope_freqs.weight", (n,), float32, 4 * n, kinds.F32)
    for target, kind in tensors:
        shape = target.source.shape
        n_bytes = math.prod(shape[:-1]) * row_bytes(kind, shape[-1])
        writer.add_tensor_info(target.name, shape, float32, n_bytes, kinds[kind.upper()])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


def _write_data(path: Path, config: LlamaConfig, tensors: list[tuple[Target, str]],
                progress: Callable[[float], bool | None] | None) -> None:
    total = sum(math.prod(target.source.shape) for target, _ in tensors)
    done = 0
    with path.open("ab") as file, ThreadPoolExecutor(default_threads()) as pool:
        if config.rope_factors is not None:
            _pad(file)
            file.write(np.array(config.rope_factors, "<f4").tobytes())
        for target, kind in tensors:
            _pad(file)
            for values in _slices(target):
                file.write(_in_type(pool, target, values, kind))
                done += values.size
                if progress is not None and progress(done / total) is False:
                    raise AbortedError("the conversion was stopped")
        _pad(file)


def _pad(file: BinaryIO) -> None:
    file.write(bytes(-file.tell() % 32))


def _slices(target: Target) -> Iterator[NDArray[Any]]:
    """The rows of a tensor, some at a time, in the order that llama.cpp wants."""
    shape = target.source.shape
    step = max(1, SLICE // math.prod(shape[1:]))
    if target.n_heads:
        head_dim = shape[0] // target.n_heads
        step = max(1, step // head_dim) * head_dim
    for first in range(0, shape[0], step):
        rows = target.source.read(first, min(first + step, shape[0]))
        yield _interleave(rows, head_dim) if target.n_heads else rows


def _interleave(rows: NDArray[Any], head_dim: int) -> NDArray[Any]:
    """Rotary embedding turns pairs of values: i and i + head_dim / 2 there, 2i and 2i + 1 here."""
    parts = rows.reshape(-1, 2, head_dim // 2, *rows.shape[1:])
    return parts.swapaxes(1, 2).reshape(rows.shape)


def _in_type(pool: ThreadPoolExecutor, target: Target, rows: NDArray[Any], kind: str) -> bytes:
    if kind == SOURCE_TYPES[target.source.dtype]:
        return rows.tobytes()
    if target.source.dtype == "BF16":
        rows = (rows.astype(np.uint32) << 16).view(np.float32)
    values = rows.astype(np.float32).reshape(-1, rows.shape[-1])
    if rows.ndim == 1:
        values = values.reshape(1, -1)
    parts = np.array_split(values, max(1, min(len(values), default_threads())))
    try:
        return b"".join(part.tobytes() for part in pool.map(
            lambda part: quantize_rows(part, kind), parts))
    except FormatError as error:
        raise FormatError(f"{target.source.path}: tensor {target.source.name!r} {error}") from None
