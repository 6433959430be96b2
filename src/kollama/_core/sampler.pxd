from libc.stdint cimport int32_t
from kollama._core.capi cimport kollama_sampler, kollama_status
from kollama._core.matchers cimport Matchers
from kollama._core.sequence cimport Sequence


cdef class Sampler:
    cdef kollama_sampler * _handle
    cdef readonly tuple links
    cdef readonly object seed
    cdef dict _keywords
    cdef list _callables
    cdef list _rows  # a RowArray for each of them
    cdef Matchers _matchers
    cdef object _error  # what one of them raised

    cdef int check_own(self, kollama_status status) except -1
    cdef kollama_status _sample(self, Sequence sequence, int32_t * token) except *
    cdef _build(self, links)
    cdef int _add(self, link) except -1
    cdef int _add_dry(self, link) except -1
    cdef int _add_bias(self, link) except -1
    cdef int _add_grammar(self, link) except -1
    cdef int _add_form(self, link) except -1
