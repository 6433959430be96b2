"""Quantization of a GGUF file: a plan for every tensor, and the new file."""

cimport cython
from libc.stdlib cimport calloc, free
from kollama._core.capi cimport *
from kollama._core.runtime cimport check, check_signals

import os

from kollama._core import runtime


@cython.final
cdef class _Progress:
    """What the native progress callback needs: the caller's callable, and what it raised."""
    cdef object call
    cdef object error
    cdef float shown


cdef int _on_progress(float done, void * user) noexcept with gil:
    # Comes every 20 ms for the signals; the caller hears of every thousandth.
    cdef _Progress progress = <_Progress> user
    try:
        check_signals()
        due = progress.shown < done and (done >= 1 or done >= progress.shown + 0.001)
        if progress.call is None or not due:
            return True
        progress.shown = done
        return progress.call(done) is not False
    except BaseException as error:
        progress.error = error
        return False


def file_types():
    """What a file can be quantized to: llama-quantize's names, in lower case."""
    names, i = [], 0
    while kollama_quantize_file_type(i) != NULL:
        names.append(kollama_quantize_file_type(i).decode())
        i += 1
    return names


def tensor_types():
    """What a single tensor can be quantized to: ggml's names, in lower case."""
    names, i = [], 0
    while kollama_quantize_tensor_type(i) != NULL:
        names.append(kollama_quantize_tensor_type(i).decode().lower())
        i += 1
    return names


cdef const char * _or_null(bytes text) noexcept:
    return NULL if text is None else <const char *> text


@cython.final
@cython.no_gc_clear
cdef class Quantizer:
    """A model file that is about to be quantized.

    Args:
        path: a GGUF file, or the first part of a split one.

    Raises:
        FormatError: it is not a GGUF, truncated or damaged.
    """
    cdef kollama_quantization * _handle

    def __cinit__(self, path):
        self._handle = NULL
        runtime.ensure_initialised()
        cdef bytes name = os.fsencode(path)
        cdef const char * data = name
        cdef kollama_status status
        with nogil:
            status = kollama_quantization_open(data, &self._handle)
        check(status)

    def __dealloc__(self):
        kollama_quantization_free(self._handle)

    @property
    def parts(self):
        """The files it is read from."""
        paths, i = [], 0
        while kollama_quantization_part(self._handle, i) != NULL:
            paths.append(os.fsdecode(<bytes> kollama_quantization_part(self._handle, i)))
            i += 1
        return paths

    @property
    def tensors(self):
        """Of each tensor: name, type now, type then, bytes now, bytes then, and whether it lacks
        the importance matrix without which it cannot be quantized so.
        """
        cdef kollama_quantized_tensor tensor
        found = []
        for i in range(kollama_quantization_n_tensors(self._handle)):
            kollama_quantization_tensor(self._handle, i, &tensor)
            found.append((
                tensor.name.decode("utf-8", "surrogateescape"), tensor.from_.decode().lower(),
                tensor.to.decode().lower(), tensor.n_bytes_from, tensor.n_bytes_to,
                tensor.needs_importance))
        return found

    @property
    def sizes(self):
        """Bytes of the file, or of all parts, and of the new one once it is planned."""
        return (kollama_quantization_size_before(self._handle),
                kollama_quantization_size_after(self._handle))

    def plan(self, type, *, overrides, importance, output_type=None, embedding_type=None,
             importance_file=None, importance_dataset=None, importance_chunks=-1,
             allow_requantize=False, leave_output=False, pure=False):
        """Decides what becomes of each tensor.

        Args:
            overrides: tensor name -> type.
            importance: tensor name -> float32 array of one dimension.

        Raises:
            ArgumentError: a type does not fit a tensor, or the importance matrix the model.
            ModelLoadError: llama.cpp does not know the model.
        """
        # What options points into lives until the call is over.
        cdef list texts = [None if text is None else _bytes(text) for text in (
            type, output_type, embedding_type, importance_file, importance_dataset)]
        cdef list names = [_bytes(name) for name in overrides]
        cdef list types = [_bytes(name) for name in overrides.values()]
        cdef list entries = [_bytes(name) for name in importance]
        cdef list arrays = list(importance.values())
        cdef kollama_quantize_params options
        options.type = texts[0]
        options.output_type = _or_null(texts[1])
        options.embedding_type = _or_null(texts[2])
        options.importance_file = _or_null(texts[3])
        options.importance_dataset = _or_null(texts[4])
        options.importance_chunks = importance_chunks
        options.allow_requantize = allow_requantize
        options.leave_output = leave_output
        options.pure = pure
        cdef kollama_tensor_type * wanted = <kollama_tensor_type *> calloc(
            len(names) + 1, sizeof(kollama_tensor_type))
        cdef kollama_importance * given = <kollama_importance *> calloc(
            len(arrays) + 1, sizeof(kollama_importance))
        cdef kollama_status status
        cdef const float[::1] values
        try:
            if wanted == NULL or given == NULL:
                raise MemoryError()
            for i in range(len(names)):
                wanted[i].name = names[i]
                wanted[i].type = types[i]
            for i in range(len(arrays)):
                values = arrays[i]
                given[i].name = entries[i]
                given[i].values = &values[0] if values.shape[0] else NULL
                given[i].n_values = values.shape[0]
            options.overrides = wanted
            options.n_overrides = len(names)
            options.importance = given
            options.n_importance = len(arrays)
            with nogil:
                status = kollama_quantization_plan(self._handle, &options)
            check(status)
            runtime.drain_logs()
        finally:
            free(wanted)
            free(given)

    def run(self, path, *, n_threads, progress=None):
        """Writes the new file to path, over what is there.

        Args:
            progress: called with 0.0 to 1.0; False stops.

        Raises:
            AbortedError: progress returned False.
            WriteError: the file cannot be written.
            FormatError: a weight of the source is no finite number.
            ArgumentError: a tensor needs an importance matrix that has it.
        """
        cdef bytes name = os.fsencode(path)
        cdef const char * data = name
        cdef int32_t threads = n_threads
        cdef _Progress state = _Progress.__new__(_Progress)
        cdef void * user = <void *> state
        cdef kollama_status status
        state.call = progress
        state.shown = -1
        with nogil:
            status = kollama_quantization_run(self._handle, data, threads, _on_progress, user)
        if state.error is not None:
            raise state.error
        check(status)
        runtime.drain_logs()


def _bytes(text):
    return text.encode("utf-8", "surrogateescape")
