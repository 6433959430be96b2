from kollama._core.capi cimport kollama_lora
from kollama._core.model cimport Model


cdef class Lora:
    cdef kollama_lora * _handle
    cdef readonly Model model
    cdef readonly str path
    cdef readonly float alpha
    cdef object _metadata
    cdef object __weakref__

    cdef kollama_lora * handle(self) except NULL
