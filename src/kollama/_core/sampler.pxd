from kollama._core.capi cimport kollama_sampler


cdef class Sampler:
    cdef kollama_sampler * _handle
    cdef readonly double temperature
    cdef readonly int top_k
    cdef readonly double top_p
    cdef readonly double min_p
    cdef readonly object seed
