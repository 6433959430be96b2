"""What a model file is, from its header alone."""

from __future__ import annotations

import math
import os
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ._core.gguf import read_header
from .errors import ModelLoadError, ModelNotFoundError

__all__ = ["FileInfo", "TensorInfo", "inspect"]


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A weight: its type by ggml's name, its shape with rows first, its bytes in the file."""

    name: str
    type: str
    shape: tuple[int, ...]
    n_bytes: int


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A model file. `metadata` holds its keys as text, an array as "[type x count]"."""

    path: str
    format: str
    file_size: int
    metadata: dict[str, str]
    tensors: list[TensorInfo]

    @property
    def architecture(self) -> str | None:
        return self.metadata.get("general.architecture")

    @property
    def n_params(self) -> int:
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def types(self) -> dict[str, int]:
        """Bytes by tensor type, the largest first."""
        sizes: Counter[str] = Counter()
        for tensor in self.tensors:
            sizes[tensor.type] += tensor.n_bytes
        return dict(sizes.most_common())

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return asdict(self) | {"n_params": self.n_params, "types": self.types}


def inspect(path: str | os.PathLike[str]) -> FileInfo:
    """Reads the header of a model file; its weights are not touched.

    Raises:
        ModelNotFoundError: there is no such file.
        FormatError: it is not a GGUF, truncated or damaged; the text says where.
    """
    file = Path(path)
    if not file.exists():
        raise ModelNotFoundError(f"{file}: there is no such file")
    if file.is_dir():
        raise ModelLoadError(f"{file}: is a directory, not a model file")
    version, metadata, tensors = read_header(file)
    return FileInfo(
        path=str(file),
        format=f"gguf v{version}",
        file_size=file.stat().st_size,
        metadata=metadata,
        tensors=[TensorInfo(*tensor) for tensor in tensors],
    )
