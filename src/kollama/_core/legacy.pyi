from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Literal, TypeAlias

_Path: TypeAlias = str | bytes | PathLike[str] | PathLike[bytes]

def convert_legacy(
    src: _Path,
    out: _Path,
    *,
    rms_norm_eps: float | None = None,
    tokenizer: _Path | None = None,
    progress: Callable[[float], bool | None] | Literal[True] | None = None,
) -> None: ...
def needs_cache() -> bool: ...
def is_legacy(path: _Path) -> bool: ...
def cached_gguf(
    path: _Path,
    *,
    rms_norm_eps: float | None = None,
    progress: Callable[[float], bool | None] | Literal[True] | None = None,
) -> Path: ...
