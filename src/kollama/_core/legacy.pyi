from collections.abc import Callable
from os import PathLike
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
