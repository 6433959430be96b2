from kollama._core.capi cimport kollama_context
from kollama._core.model cimport Model


cdef class Context:
    cdef kollama_context * _handle
    cdef readonly Model model
    cdef readonly int n_ctx
    cdef readonly int n_seq_max
    cdef readonly int n_batch
    cdef readonly int n_threads
    cdef readonly str pooling
    cdef readonly str busy
    cdef object turn  # of those who call
    cdef readonly tuple lora
    cdef readonly object draft  # None, "prompt-lookup" or a Model, which stays alive with it
    cdef object __weakref__

    cdef kollama_context * handle(self) except NULL
