"""The CUDA backend of kollama. Nothing here is called by users."""

import ctypes
from pathlib import Path

import nvidia

from ._build import LLAMA_COMMIT

__all__ = ["LLAMA_COMMIT", "library"]

NEEDED = ("libcudart.so.13", "libcublasLt.so.13", "libcublas.so.13")


def library() -> str:
    """The path of the backend library, with NVIDIA's loaded: they are found by their names then."""
    for name in NEEDED:
        places = [Path(folder) / "cu13" / "lib" / name for folder in nvidia.__path__]
        ctypes.CDLL(str(next((place for place in places if place.is_file()), name)))
    return str(Path(__file__).parent.resolve() / "libkollama-ggml-cuda.so")
