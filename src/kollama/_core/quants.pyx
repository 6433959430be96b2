"""Rows of floats as blocks of ggml's types."""

from kollama._core.capi cimport *
from kollama._core.runtime cimport check

import numpy as np


def row_bytes(kind, size_t n_per_row):
    """Bytes of a row of n_per_row values.

    Args:
        kind: a tensor type by ggml's name, e.g. "q4_0".

    Raises:
        ArgumentError: there is no such type, or the row is no whole number of its blocks.
    """
    cdef bytes name = kind.encode()
    cdef size_t n_bytes = 0
    check(kollama_row_bytes(name, n_per_row, &n_bytes))
    return n_bytes


def quantize_rows(rows, kind):
    """Rows as blocks of a type: what llama.cpp's quantisation gives without an importance matrix.

    Releases the GIL, and threads may call it at a time.

    Args:
        rows: float32, shape (n, m).
        kind: a tensor type by ggml's name: "f16", "bf16", "q4_0", "q6_K" ...

    Returns:
        uint8, shape (n, bytes of a row).

    Raises:
        ArgumentError: no such type, m is no whole number of its blocks, or it needs more than
            floats.
        FormatError: a value is infinite, not a number, or too large for the type.
    """
    cdef const float[:, ::1] source = np.ascontiguousarray(rows, np.float32)
    cdef size_t n_rows = source.shape[0], n_per_row = source.shape[1]
    cdef bytes name = kind.encode()
    cdef const char * type_name = name
    cdef kollama_status status
    out = np.empty((n_rows, row_bytes(kind, n_per_row)), np.uint8)
    cdef unsigned char[:, ::1] target = out
    if n_rows == 0:
        return out
    with nogil:
        status = kollama_quantize_rows(type_name, &source[0, 0], n_rows, n_per_row, &target[0, 0])
    check(status)
    return out
