from kollama._core.capi cimport kollama_row, kollama_sequence
from kollama._core.context cimport Context


cdef class Sequence:
    cdef kollama_sequence * _handle
    cdef readonly Context context
    cdef object __weakref__

    cdef kollama_sequence * handle(self) except NULL
    cdef kollama_row * row(self) except NULL
