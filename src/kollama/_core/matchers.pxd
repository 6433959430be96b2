from kollama._core.capi cimport kollama_sampler
from kollama._core.model cimport Model


cdef class Matchers:
    cdef list items
    cdef object error  # what one of them raised

    cdef Matchers clone(self)
    cdef int attach(self, kollama_sampler * sampler) except -1


cdef int know(Model model) except -1
