"""The header of a model file, checked against the file's size."""

from kollama._core.capi cimport *
from kollama._core.runtime cimport check

import os


def read_header(path):
    """(format, version, metadata, tensors) of a model file, without its weights.

    format is "gguf", or e.g. "ggjt v3" for a GGML file of 2023, which is described as the GGUF that
    it would be; version is GGUF's. metadata maps keys to text, an array to "[type x count]", and a
    whole tokenizer.json to "[json, n bytes]"; a tensor is a tuple of name, type, shape (NumPy's
    order: rows first) and bytes.

    Raises:
        FormatError: of another kind, truncated or damaged; the text says where.
    """
    cdef bytes name = os.fsencode(path)
    cdef const char * data = name
    cdef kollama_gguf * gguf = NULL
    cdef kollama_status status
    with nogil:
        status = kollama_gguf_open(data, &gguf)
    check(status)
    try:
        return (kollama_gguf_format(gguf).decode(), kollama_gguf_version(gguf), _metadata(gguf),
                _tensors(gguf))
    finally:
        kollama_gguf_free(gguf)


def tensor_places(path):
    """name -> (type, shape with rows first, file offset) of the tensors of a GGUF file.

    Raises:
        FormatError: not a GGUF, truncated or damaged; the text says where.
    """
    cdef bytes name = os.fsencode(path)
    cdef kollama_gguf * gguf = NULL
    cdef kollama_tensor_info info
    check(kollama_gguf_open(name, &gguf))
    places = {}
    try:
        for i in range(kollama_gguf_n_tensors(gguf)):
            kollama_gguf_tensor(gguf, i, &info)
            shape = tuple(info.ne[d] for d in reversed(range(info.n_dims)))
            text = info.name[:info.name_length].decode("utf-8", "surrogateescape")
            places[text] = (info.type.decode(), shape, info.offset)
    finally:
        kollama_gguf_free(gguf)
    return places


cdef dict _metadata(kollama_gguf * gguf):
    cdef size_t length = 0
    cdef const char * text
    metadata = {}
    for i in range(kollama_gguf_n_kv(gguf)):
        text = kollama_gguf_key(gguf, i, &length)
        key = text[:length].decode("utf-8", "replace")
        text = kollama_gguf_value(gguf, i, &length)
        if key == "tokenizer.huggingface.json":
            metadata[key] = f"[json, {length} bytes]"
        else:
            metadata[key] = text[:length].decode("utf-8", "replace")
    return metadata


cdef list _tensors(kollama_gguf * gguf):
    cdef kollama_tensor_info info
    tensors = []
    for i in range(kollama_gguf_n_tensors(gguf)):
        kollama_gguf_tensor(gguf, i, &info)
        shape = tuple(info.ne[d] for d in reversed(range(info.n_dims)))
        name = info.name[:info.name_length].decode("utf-8", "replace")
        tensors.append((name, info.type.decode(), shape, info.n_bytes))
    return tensors
