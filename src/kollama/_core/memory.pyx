"""Native memory as NumPy arrays, without a copy, and token ids on their way in."""

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.long cimport PyLong_AsLongLongAndOverflow
from libc.stdint cimport INT32_MAX, INT32_MIN, int32_t
from kollama._core.capi cimport *

import numpy as np

from kollama.errors import TokenError


@cython.final
@cython.no_gc_clear
cdef class Buffer:
    """Owns a piece of native memory for as long as an array over it lives.

    The memory of a logits row is shared with its sequence, that of token ids is this object's own.
    """

    def __cinit__(self):
        self._data = NULL
        self._row = NULL

    def __getbuffer__(self, Py_buffer * buffer, int flags):
        # Bytes: what they mean is said by np.frombuffer.
        PyBuffer_FillInfo(buffer, self, self._data, self._count * 4, 0, flags)

    def __releasebuffer__(self, Py_buffer * buffer):
        pass

    def __dealloc__(self):
        if self._row != NULL:
            kollama_row_release(self._row)
        else:
            kollama_free(self._data)


cdef object take_tokens(int32_t * tokens, size_t count):
    """An int32 array over ids that csrc handed over."""
    cdef Buffer buffer = Buffer.__new__(Buffer)
    buffer._data = tokens
    buffer._count = count
    if count == 0:
        return np.empty(0, np.int32)
    return np.frombuffer(buffer, np.int32)


cdef object take_row(kollama_row * row):
    """A writable float32 array over a row that csrc retained for the caller."""
    cdef Buffer buffer = Buffer.__new__(Buffer)
    buffer._row = row
    buffer._data = kollama_row_data(row)
    buffer._count = kollama_row_size(row)
    return np.frombuffer(buffer, np.float32)


@cython.final
@cython.no_gc_clear
cdef class RowArray:
    """The array over a row that is asked for again and again: for each token of a loop.

    Between two tokens the weights went through the CPU's caches. What an array costs there is how
    much code and data it takes to make one, and a view of one that is there takes half of it.
    """

    cdef object of(self, kollama_row * row):
        """As take_row."""
        if self._array is None or row != self._row:
            self._array = take_row(row)
            self._row = row
        else:
            kollama_row_release(row)
        return self._array.view()

    cdef int drop(self) except -1:
        self._array = None
        return 0


def token_ids(ids):
    """ids as a contiguous int32 array of one dimension; an int32 array is not copied."""
    return as_tokens(ids)


cdef bint is_token(object ids, int32_t * token) except -1:
    """Whether ids is a list of one int, as a loop over tokens has it: that one, without array."""
    cdef int overflow = 0
    cdef long long value
    if type(ids) is not list or len(<list> ids) != 1:
        return False
    one = (<list> ids)[0]
    if type(one) is not int:
        return False
    value = PyLong_AsLongLongAndOverflow(one, &overflow)
    if overflow or value < INT32_MIN or value > INT32_MAX:
        return False  # as_tokens says what is wrong
    token[0] = <int32_t> value
    return True


cdef object as_tokens(object ids):
    """ids as a contiguous int32 array of one dimension; an int32 array is not copied."""
    if isinstance(ids, (str, bytes)):
        raise TypeError("token ids must be integers, not text: encode it first")
    if not hasattr(ids, "__iter__"):
        raise TypeError(f"token ids must be a sequence of integers, not {type(ids).__name__}")
    array = np.asarray(ids if hasattr(ids, "__len__") else list(ids))
    if array.ndim != 1:
        raise ValueError(f"token ids must have one dimension, not {array.ndim}")
    if array.size == 0:
        return np.empty(0, np.int32)
    if array.dtype == np.int32:
        return np.ascontiguousarray(array)
    if array.dtype.kind not in "iu":
        raise TypeError(f"token ids must be integers, not {array.dtype}")
    if array.min() < -2**31 or array.max() >= 2**31:
        raise TokenError("a token id does not fit 32 bits")
    return array.astype(np.int32)
