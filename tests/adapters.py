"""GGUF files of LoRA adapters and control vectors, and models with the same change in their weights."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np

Pairs = Mapping[str, tuple[np.ndarray, np.ndarray]]  # A (rank, columns), B (rows, rank)


def read_tensors(path: Path) -> dict[str, np.ndarray]:
    return {tensor.name: np.array(tensor.data) for tensor in gguf.GGUFReader(path).tensors}


def random_pairs(path: Path, names: Iterable[str], *, rank: int = 4, seed: int = 0) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    random = np.random.default_rng(seed)
    weights = read_tensors(path)
    pairs = {}
    for name in names:
        rows, columns = weights[name].shape
        pairs[name] = (random.normal(0, 1 / np.sqrt(columns), (rank, columns)).astype(np.float32),
                       random.normal(0, 0.5, (rows, rank)).astype(np.float32))
    return pairs


def write_lora(path: Path, pairs: Pairs, *, alpha: float | None = 8.0, architecture: str = "llama", general_type: str = "adapter",
               adapter_type: str = "lora", tensors: Mapping[str, np.ndarray] | None = None, **extra: Any) -> Path:
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_string("general.type", general_type)
    writer.add_string("adapter.type", adapter_type)
    if alpha is not None:
        writer.add_float32("adapter.lora.alpha", alpha)
    if "invocation" in extra:
        writer.add_array("adapter.alora.invocation_tokens", extra["invocation"])
    for name, (a, b) in pairs.items():
        if name == "token_embd.weight":  # llama.cpp has these two the other way round
            a, b = np.ascontiguousarray(b), np.ascontiguousarray(a.T)
        writer.add_tensor(f"{name}.lora_a", a)
        writer.add_tensor(f"{name}.lora_b", b)
    for name, tensor in (tensors or {}).items():
        writer.add_tensor(name, tensor)
    return _write(writer, path)


def write_control_vector(path: Path, rows: Mapping[int | str, np.ndarray]) -> Path:
    writer = gguf.GGUFWriter(str(path), "controlvector")
    for layer, row in rows.items():
        writer.add_tensor(f"direction.{layer}" if isinstance(layer, int) else layer, row)
    return _write(writer, path)


def merged(src: Path, dst: Path, changes: Iterable[tuple[Pairs, float]], leave_out: str = "") -> Path:
    """A model with scale * B @ A added to its weights."""
    reader = gguf.GGUFReader(src)
    writer = gguf.GGUFWriter(str(dst), str(reader.fields["general.architecture"].contents()))
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        if field.types[0] == gguf.GGUFValueType.ARRAY:
            writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=field.types[1])
        else:
            writer.add_key_value(field.name, field.contents(), field.types[0])
    weights = read_tensors(src)
    for pairs, scale in changes:
        for name, (a, b) in pairs.items():
            weights[name] = (weights[name] + scale * (b @ a)).astype(np.float32)
    for name, weight in weights.items():
        if name != leave_out:
            writer.add_tensor(name, weight)
    return _write(writer, dst)


def _write(writer: gguf.GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
