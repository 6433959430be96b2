"""Memory and compute."""

cimport cython
from kollama._core.capi cimport *
from kollama._core.model cimport Model
from kollama._core.runtime cimport check

from kollama import params
from kollama._core import runtime
from kollama.errors import ClosedError


@cython.final
@cython.no_gc_clear
cdef class Context:
    """K/V memory for sequences of tokens, and the threads that compute: ``model.context()``.

    One engine thread per context runs every computation; calls from other threads queue up.

    Args:
        model: the weights. It stays alive, and cannot be closed, while this is open.
        n_ctx: tokens that fit, shared by all sequences.
        n_seq_max: sequences that can exist at a time.
        n_batch: tokens given to the model in one piece; default: n_ctx, at most 2048.
        n_threads: default: the least of physical cores, CPU affinity and cgroup quota.
        type_k, type_v: types of the K/V memory: "f16", "q8_0" and others of ggml's names.
        flash_attn: True, False or "auto".
        swa_full: keep all of a sliding-window model's past, so that any rewind is exact. False
            takes less memory; a rewind behind the window then empties the sequence.

    Raises:
        ArgumentError: a number out of range, an unknown type name.
        ModelLoadError: llama.cpp cannot make such a context, e.g. for lack of memory.
    """

    def __cinit__(self, Model model not None, *, n_ctx=4096, n_seq_max=1, n_batch=None,
                  n_threads=None, type_k="f16", type_v="f16", flash_attn="auto", swa_full=True):
        self._handle = NULL
        self.model = model
        self.n_ctx = params.integer("n_ctx", n_ctx, 1)
        self.n_seq_max = params.integer("n_seq_max", n_seq_max, 1)
        if n_batch is None:
            n_batch = min(self.n_ctx, 2048)
        if n_threads is None:
            n_threads = runtime.default_threads()
        self.n_batch = params.integer("n_batch", n_batch, 1)
        self.n_threads = params.integer("n_threads", n_threads, 1, 512)
        cdef bytes name_k = _type_name("type_k", type_k)
        cdef bytes name_v = _type_name("type_v", type_v)
        cdef kollama_context_params options
        options.n_ctx = self.n_ctx
        options.n_batch = self.n_batch
        options.n_ubatch = min(self.n_batch, 512)
        options.n_seq_max = self.n_seq_max
        options.n_threads = self.n_threads
        options.swa_full = params.boolean("swa_full", swa_full)
        options.flash_attn = params.choice(
            "flash_attn", flash_attn, {"auto": -1, False: 0, True: 1})
        options.type_k = name_k
        options.type_v = name_v
        cdef kollama_model * handle = model.handle()
        cdef kollama_status status
        kollama_model_pin(handle)
        with nogil:
            status = kollama_context_init(handle, &options, &self._handle)
        kollama_model_unpin(handle)
        check(status)
        runtime.drain_logs()

    def __dealloc__(self):
        if self._handle != NULL:
            with nogil:
                kollama_context_free(self._handle)

    cdef kollama_context * handle(self) except NULL:
        if self._handle == NULL:
            raise ClosedError("the context is closed")
        return self._handle

    def sequence(self):
        """A new, empty Sequence.

        Raises:
            ArgumentError: n_seq_max sequences are in use.
        """
        from kollama._core.sequence import Sequence
        return Sequence(self)

    def close(self):
        """Ends what runs and frees the memory. Idempotent.

        Sequences of it answer ClosedError from then on; arrays of their logits stay valid.
        """
        cdef kollama_context * handle = self._handle
        self._handle = NULL  # first: another thread may come while the lock is released
        with nogil:
            kollama_context_free(handle)
        runtime.drain_logs()

    @property
    def closed(self):
        """Whether close() was called."""
        return self._handle == NULL

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.close()

    def __repr__(self):
        state = ", closed" if self._handle == NULL else ""
        return f"<kollama.Context n_ctx={self.n_ctx}, n_seq_max={self.n_seq_max}{state}>"


cdef bytes _type_name(name, value):
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a type's name such as 'f16', not {type(value).__name__}")
    return value.encode()
