"""LoRA adapters."""

cimport cython
from kollama._core.capi cimport *
from kollama._core.model cimport Model
from kollama._core.runtime cimport check

import os
import types

from kollama import params
from kollama._core import runtime
from kollama.errors import ClosedError


@cython.final
@cython.no_gc_clear
cdef class Lora:
    """Low-rank changes to a model's weights, from a GGUF: ``model.lora(path)``.

    Contexts take any number of them, each with a scale, and may change them at any time:
    `Context.set_lora`, `LLM.set_lora`. A model cannot be closed while adapters of it are open.

    Raises:
        ModelNotFoundError: there is no such file.
        FormatError: it is damaged, no LoRA adapter, an activated one (aLoRA), or one of another
            model; the text says what does not fit.
    """

    def __cinit__(self, Model model not None, path):
        self._handle = NULL
        self.model = model
        self.path = os.fsdecode(path)
        params.check_file(self.path, "adapter")
        cdef bytes name = os.fsencode(path)
        cdef const char * data = name
        cdef kollama_model * handle = model.handle()
        cdef kollama_status status
        kollama_model_pin(handle)
        with nogil:
            status = kollama_lora_load(handle, data, &self._handle)
        kollama_model_unpin(handle)
        check(status)
        runtime.drain_logs()
        self.alpha = kollama_lora_alpha(self._handle)
        self._metadata = types.MappingProxyType(_read_metadata(self._handle))

    def __dealloc__(self):
        if self._handle != NULL:
            with nogil:
                kollama_lora_free(self._handle)

    cdef kollama_lora * handle(self) except NULL:
        if self._handle == NULL:
            raise ClosedError("the LoRA adapter is closed")
        return self._handle

    @property
    def metadata(self):
        """The file's keys and their values as text, read-only."""
        return self._metadata

    def close(self):
        """Frees it, or where contexts use it lets them free it with its last use. Idempotent."""
        cdef kollama_lora * handle = self._handle
        self._handle = NULL
        with nogil:
            kollama_lora_free(handle)

    @property
    def closed(self):
        """Whether close() was called."""
        return self._handle == NULL

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.close()

    def __repr__(self):
        return f"<kollama.Lora {self.path!r}{', closed' if self._handle == NULL else ''}>"


cdef dict _read_metadata(kollama_lora * lora):
    cdef size_t length = 0
    cdef const char * text
    metadata = {}
    for i in range(kollama_lora_n_kv(lora)):
        text = kollama_lora_key(lora, i, &length)
        key = text[:length].decode("utf-8", "replace")
        text = kollama_lora_value(lora, i, &length)
        metadata[key] = text[:length].decode("utf-8", "replace")
    return metadata
