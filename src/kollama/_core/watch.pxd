from kollama._core.capi cimport kollama_watch


cdef class Watch:
    cdef kollama_watch * _handle
