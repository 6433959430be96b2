from kollama._core.capi cimport kollama_row, kollama_sequence
from kollama._core.context cimport Context
from kollama._core.memory cimport RowArray


cdef class Sequence:
    cdef kollama_sequence * _handle
    cdef kollama_sequence * _closed
    cdef int _n_holds
    cdef RowArray _logits
    cdef readonly Context context
    cdef object __weakref__

    cdef kollama_sequence * handle(self) except NULL
    cdef kollama_sequence * hold(self) except NULL
    cdef int release(self) except -1
    cdef kollama_row * row(self) except NULL
