from kollama._core.capi cimport *
from kollama._core.model cimport Model


cdef class Tokenizer:
    cdef kollama_tokenizer * _handle
    cdef kollama_tokenizer_info _info
    cdef Model _model          # of which it is; None where it was read from a file of its own
    cdef readonly object path  # of that file, or None
    cdef object __weakref__

    cdef kollama_tokenizer * handle(self) except NULL
    cdef int _run(self, object owner, kollama_encoded_text * text, kollama_encode_params * params,
                  int32_t ** tokens, size_t * count, int32_t ** offsets) except -1
    cdef _pin(self)
    cdef _unpin(self)
    cdef object _decode(self, object ids, bint skip_special, kollama_text_encoding encoding)


cdef class Decoder:
    cdef Tokenizer _tokenizer
    cdef kollama_decoder * _handle
