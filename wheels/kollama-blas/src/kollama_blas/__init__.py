"""The BLAS backend of kollama. Nothing here is called by users."""

import ctypes
from pathlib import Path

import scipy_openblas32

from ._build import LLAMA_COMMIT

__all__ = ["LLAMA_COMMIT", "library"]


def library() -> str:
    """The path of the backend library, with OpenBLAS loaded: it is found by its name then."""
    openblas = scipy_openblas32.get_library(fullname=True)
    ctypes.CDLL(str(Path(scipy_openblas32.get_lib_dir()) / openblas))
    return str(Path(__file__).parent.resolve() / "libkollama-ggml-blas.so")
