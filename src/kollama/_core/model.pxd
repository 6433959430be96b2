from kollama._core.capi cimport kollama_model, kollama_model_params
from kollama._core.runtime cimport Progress


cdef class Model:
    cdef kollama_model * _handle
    cdef readonly str path
    cdef readonly str format
    cdef object _metadata
    cdef object _tokenizer  # a weak reference: the tokenizer holds the model
    cdef object __weakref__

    cdef kollama_model * handle(self) except NULL
    cdef _load(self, list paths, kollama_model_params * options, Progress state)
    cdef dict _read_metadata(self)
