from kollama._core.capi cimport kollama_generation
from kollama._core.sampler cimport Sampler
from kollama._core.sequence cimport Sequence


cdef class TokenStream:
    cdef kollama_generation * _handle
    cdef Sequence _sequence
    cdef Sampler _sampler
    cdef bint _waiting
    cdef object _deadline
    cdef object _stats
