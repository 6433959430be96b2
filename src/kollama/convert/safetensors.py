"""Tensors in *.safetensors, read in slices of rows.

The format is a length, a JSON header and the bytes. They are taken as they are, since NumPy has no
bfloat16, and nothing is mapped, since mapped pages count as this process's memory.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FormatError, ModelNotFoundError
from .json_files import read_object

__all__ = ["Tensor", "read_tensors"]

INDEX = "model.safetensors.index.json"
MAX_HEADER = 100_000_000  # bytes; the format's own limit
BYTES = {"F32": 4, "F16": 2, "BF16": 2}


@dataclass(frozen=True)
class Tensor:
    """Where the values of a tensor are. `dtype` is "F32", "F16" or "BF16"."""

    path: Path
    name: str
    dtype: str
    shape: tuple[int, ...]
    offset: int  # bytes from the start of the file

    def read(self, first: int, last: int) -> NDArray[Any]:
        """Rows first to last, as float32, float16, or for BF16 the uint16 of its bits."""
        columns = math.prod(self.shape[1:])
        kind = {"F32": "<f4", "F16": "<f2", "BF16": "<u2"}[self.dtype]
        start = self.offset + first * columns * BYTES[self.dtype]
        count = (last - first) * columns
        values = np.fromfile(self.path, np.dtype(kind), count, offset=start)
        if values.size != count:
            raise FormatError(f"{self.path}: ended within tensor {self.name!r}: was it changed?")
        return values.reshape(last - first, *self.shape[1:])


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """The tensors of a folder by their names: of the shards of its index, or of its only file.

    Raises:
        ModelNotFoundError: there are none, or a shard is missing.
        FormatError: a file is damaged or has a dtype that is not done here; or a tensor is not in
            the shard that the index says.
    """
    index = folder / INDEX
    if not index.exists():
        return _read_single(folder)
    places = read_object(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise FormatError(f"{index}: has no weight_map")
    if not all(isinstance(name, str) and Path(name).name == name for name in places.values()):
        raise FormatError(f"{index}: weight_map names a shard that is no file of this folder")
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(places.values())):
        if not (folder / name).is_file():
            raise ModelNotFoundError(f"{folder / name}: the shard is missing: {INDEX} names it")
        for tensor in _read_header(folder / name):
            if tensor.name in tensors:
                raise FormatError(
                    f"{folder / name}: tensor {tensor.name!r} is in another shard too")
            tensors[tensor.name] = tensor
    for name, shard in places.items():
        if name not in tensors or tensors[name].path.name != shard:
            raise FormatError(f"{folder / shard}: has no tensor {name!r}, but {INDEX} says so")
    return tensors


def _read_single(folder: Path) -> dict[str, Tensor]:
    files = sorted(folder.glob("*.safetensors"))
    if (folder / "model.safetensors").exists():
        files = [folder / "model.safetensors"]
    if len(files) > 1:
        raise ModelNotFoundError(
            f"{folder / INDEX}: there is no such file, but {len(files)} shards that need it")
    if not files:
        other = " It has pytorch_model*.bin: save the model with safe_serialization=True first." \
            if any(folder.glob("pytorch_model*.bin")) else ""
        raise ModelNotFoundError(f"{folder}: there is no *.safetensors in it.{other}")
    return {tensor.name: tensor for tensor in _read_header(files[0])}


def _read_header(path: Path) -> list[Tensor]:
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(MAX_HEADER, size - 8):
            raise FormatError(f"{path}: is no safetensors file, or truncated: its header would "
                              f"have {length} bytes, the file has {size}")
        text = file.read(length)
    header = _parse(path, text)
    return [_tensor(path, name, entry, 8 + length, size)
            for name, entry in header.items() if name != "__metadata__"]


def _parse(path: Path, text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path}: the header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise FormatError(f"{path}: the header is no JSON object")
    return header


def _tensor(path: Path, name: str, entry: Any, data: int, size: int) -> Tensor:
    try:
        dtype, shape = str(entry["dtype"]), tuple(entry["shape"])
        first, last = entry["data_offsets"]
        sound = all(type(n) is int and n >= 0 for n in (*shape, first, last))
    except (KeyError, TypeError, ValueError):
        sound = False
    if not sound:
        raise FormatError(f"{path}: the header's entry of {name!r} is damaged")
    if dtype not in BYTES:
        raise FormatError(f"{path}: tensor {name!r} has the dtype {dtype}; {', '.join(BYTES)} are "
                          "done here")
    if last - first != math.prod(shape) * BYTES[dtype]:
        raise FormatError(f"{path}: tensor {name!r} has {last - first} bytes for the shape {shape}")
    if data + last > size:
        raise FormatError(f"{path}: truncated: tensor {name!r} ends at byte {data + last}, "
                          f"the file has {size}")
    return Tensor(path, name, dtype, shape, data + first)
