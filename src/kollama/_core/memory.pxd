from libc.stdint cimport int32_t
from kollama._core.capi cimport kollama_row


cdef class Buffer:
    cdef void * _data
    cdef kollama_row * _row
    cdef Py_ssize_t _count


cdef class RowArray:
    cdef kollama_row * _row
    cdef object _array

    cdef object of(self, kollama_row * row)
    cdef int drop(self) except -1


cdef object take_tokens(int32_t * tokens, size_t count)
cdef object take_row(kollama_row * row)
cdef bint is_token(object ids, int32_t * token) except -1
cdef object as_tokens(object ids)
