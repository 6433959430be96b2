from kollama._core.capi cimport kollama_decoder, kollama_model, kollama_vocab_info
from kollama._core.model cimport Model


cdef class Tokenizer:
    cdef Model _model
    cdef kollama_vocab_info _info
    cdef object __weakref__

    cdef kollama_model * handle(self) except NULL
    cdef bytes _decode_bytes(self, object ids, bint skip_special)


cdef class Decoder:
    cdef Model _model
    cdef kollama_decoder * _handle
