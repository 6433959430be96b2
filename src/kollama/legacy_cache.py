"""GGUF files of the user's cache, where GGML files of 2023 cannot be read as they lie."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from ._core.legacy import convert_legacy
from .files import cache_folder, new_file

__all__ = ["cached_gguf", "is_legacy", "needs_cache"]

Path_ = str | bytes | os.PathLike[str] | os.PathLike[bytes]


def needs_cache() -> bool:
    """Whether legacy files cannot be read where they lie.

    On Windows llama.cpp asks a stream for its descriptor, and there are no streams of one's own.
    """
    return sys.platform == "win32"


def is_legacy(path: Path_) -> bool:
    """Whether a file begins as a GGML file of 2023 does."""
    with Path(os.fsdecode(path)).open("rb") as file:
        return file.read(4) in (b"lmgg", b"fmgg", b"tjgg")


def cached_gguf(
    path: Path_,
    *,
    rms_norm_eps: float | None = None,
    progress: Callable[[float], bool | None] | Literal[True] | None = None,
) -> Path:
    """Path of a GGUF of a legacy file, made at the first call: where needs_cache().

    One for each file; a file that has changed replaces what was made of it before.
    """
    file = Path(os.path.abspath(os.fsdecode(path)))  # noqa: PTH100 - a link keeps its name
    state = file.stat()
    source = hashlib.sha256(os.fsencode(file)).hexdigest()[:16]
    content = hashlib.sha256(repr((state.st_size, state.st_mtime_ns, rms_norm_eps)).encode())
    folder = cache_folder() / "legacy"
    target = folder / f"{file.stem}-{source}-{content.hexdigest()[:16]}.gguf"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"*-{source}-*.gguf"):
            old.unlink(missing_ok=True)
        with new_file(target) as scratch:
            convert_legacy(file, scratch, rms_norm_eps=rms_norm_eps, progress=progress)
    return target
