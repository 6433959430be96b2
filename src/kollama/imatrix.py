"""Importance matrices: how much each column of a weight matters, as llama-imatrix measures it."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._core.gguf import read_header, tensor_places
from .errors import ArgumentError, FormatError, KollamaError
from .params import check_file

__all__ = ["Importance", "read_importance"]

Entries = dict[str, NDArray[np.float32]]

SUMS, COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True, slots=True)
class Importance:
    """By the name of a tensor, the mean square of what each of its columns was multiplied with
    (float32, shape (n,)); for the experts of a mixture one row after another. `chunks` of text
    were measured; -1: unknown.
    """

    values: Entries
    file: str | None = None
    dataset: str | None = None
    chunks: int = -1


def read_importance(source: str | os.PathLike[str] | Mapping[str, ArrayLike]) -> Importance:
    """Reads an importance matrix.

    Args:
        source: a file of llama-imatrix, GGUF or the older .dat; an .npz with an array for each
            tensor; or a mapping of such arrays.

    Raises:
        ModelNotFoundError: there is no such file.
        FormatError: the file is none of these, truncated or damaged.
        ArgumentError: a mapping's values are not finite numbers of at least 0.
    """
    if isinstance(source, Mapping):
        return Importance(_checked(dict(source), "imatrix", ArgumentError))
    path = Path(os.fsdecode(source))
    check_file(str(path), "importance matrix")
    with path.open("rb") as file:
        magic = file.read(4)
    if magic == b"GGUF":
        found = _read_gguf(path)
    elif magic == b"PK\x03\x04":
        found = Importance(_read_npz(path))
    else:
        found = _read_dat(path)
    if not found.values:
        raise FormatError(f"{path}: holds no importance matrix")
    values = _checked(found.values, str(path), FormatError)
    return Importance(values, path.name, found.dataset, found.chunks)


def _checked(entries: Mapping[str, Any], where: str, error: type[KollamaError]) -> Entries:
    values: Entries = {}
    for name, entry in entries.items():
        try:
            array = np.ascontiguousarray(entry, dtype=np.float32).reshape(-1)
        except (TypeError, ValueError):
            raise error(f"{where}: the values of {name!r} are no numbers") from None
        if array.size == 0 or not np.isfinite(array).all() or array.min() < 0:
            raise error(f"{where}: {name!r} needs values that are finite and at least 0")
        values[str(name)] = array
    return values


def _read_gguf(path: Path) -> Importance:
    _, _, metadata, _ = read_header(path)
    if metadata.get("general.type") != "imatrix":
        raise FormatError(f"{path}: is a GGUF, but no importance matrix")
    tensors = {name: _load(path, name, *place) for name, place in tensor_places(path).items()}
    values: Entries = {}
    for name, sums in tensors.items():
        if not name.endswith(SUMS):
            continue
        base = name.removesuffix(SUMS)
        counts = tensors.get(base + COUNTS)
        if counts is None or counts.size == 0 or sums.size % counts.size:
            raise FormatError(f"{path}: the sums and counts of {base!r} do not fit each other")
        rows = sums.reshape(counts.size, -1)
        counts = np.rint(counts.reshape(-1, 1))
        # An expert that no token came to counts as any other.
        values[base] = np.where(counts > 0, rows / np.maximum(counts, 1), np.float32(1)).reshape(-1)
    chunks = metadata.get("imatrix.chunk_count", "-1")
    return Importance(values, chunks=int(chunks) if chunks.isdecimal() else -1)


def _load(
    path: Path, name: str, kind: str, shape: tuple[int, ...], offset: int
) -> NDArray[np.float32]:
    if kind != "f32":
        raise FormatError(f"{path}: {name!r} is {kind}, not f32")
    return np.fromfile(path, np.float32, int(np.prod(shape)), offset=offset)


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        # Opened here: np.load leaves a file open that is no zip after all.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise FormatError(f"{path}: cannot be read: {error}") from None


class _Reader:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._data = path.read_bytes()
        self.at = 0

    def take(self, n_bytes: int) -> bytes:
        if not 0 <= n_bytes <= len(self._data) - self.at:
            raise FormatError(f"{self._path}: no importance matrix, or truncated at byte {self.at}")
        self.at += n_bytes
        return self._data[self.at - n_bytes : self.at]

    def number(self) -> int:
        value: int = struct.unpack("<i", self.take(4))[0]
        return value

    def text(self) -> str:
        return self.take(self.number()).decode("utf-8", "surrogateescape")

    @property
    def left(self) -> int:
        return len(self._data) - self.at


def _read_dat(path: Path) -> Importance:
    reader = _Reader(path)
    values: Entries = {}
    for _ in range(reader.number()):
        name = reader.text()
        n_calls = reader.number()
        sums = np.frombuffer(reader.take(4 * reader.number()), np.float32)
        values[name] = sums / np.float32(n_calls) if n_calls > 0 else sums
    if not reader.left:
        return Importance(values)
    chunks = reader.number()
    return Importance(values, dataset=reader.text() if reader.left else None, chunks=chunks)
