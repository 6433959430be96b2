"""Weights and vocabulary."""

cimport cython
from libc.stdlib cimport free, malloc
from kollama._core.capi cimport *
from kollama._core.runtime cimport Progress, check, on_progress

import os
import types
import weakref

from kollama import params
from kollama._core import runtime
from kollama.errors import ArgumentError, ClosedError, ModelLoadError


cdef enum:
    MAX_SERVERS = 16  # GGML_RPC_MAX_SERVERS


def _endpoints(value):
    """The servers of rpc as bytes, each of which answers."""
    from kollama import servers

    names = servers.parse(value, MAX_SERVERS)
    if names and not runtime.backend_loaded("RPC"):
        from kollama.backends import no_rpc
        raise ModelLoadError(f"rpc={names}, but {no_rpc(runtime.plugins())}")
    for name in names:
        if not runtime.rpc_in_use(name):
            servers.check(name)
    return [name.encode() for name in names]


def _gpu_layers(value, has_servers):
    """The number that stands for n_gpu_layers in the C face."""
    if isinstance(value, str):
        return params.choice("n_gpu_layers", value, {"auto": KOLLAMA_LAYERS_AUTO})
    layers = params.integer("n_gpu_layers", value, -1)
    if has_servers:
        return layers or KOLLAMA_LAYERS_AUTO
    if layers != 0 and not runtime.supports_gpu():
        from kollama.backends import no_gpu
        raise ModelLoadError(f"n_gpu_layers={layers}, but {no_gpu(runtime.plugins())}")
    return layers


@cython.final
@cython.no_gc_clear
cdef class Model:
    """Weights and vocabulary of a model file. Immutable, and shareable between threads.

    Args:
        path: a GGUF file, the first part of a split one, a list of all its parts in order, or a
            GGML file of 2023 ("ggjt" and its forerunners), which is read where it lies.
        n_gpu_layers: layers to hold on GPUs, -1 for all; the output layer is one. "auto": as many
            as fit into what is free there, with the cache of 4,096 tokens; it is logged (INFO).
        mmap: True maps the file, False reads it. "auto" reads where the CPU keeps most weights in
            an order of its own (Q4_0, Q4_K, IQ4_NL, MXFP4), since a mapping would hold them twice.
        mlock: keep the weights from being swapped out.
        vocab_only: load no weights; for tokenizing and metadata.
        rms_norm_eps: of a GGML file of 2023, which does not have it. None: 1e-5, Llama-2's; the
            first LLaMA's is 1e-6.
        tokenizer: path of a tokenizer.json with the rules that the pieces of this model were made
            by, in place of those of the file: where a piece can be formed in several ways, only
            these tell which.
        progress: called with 0.0 to 1.0 while loading, False stops; True shows a progress bar.
        rpc: "host:port" of servers (``kollama rpc-server``) that hold layers; needs kollama[rpc].
            n_gpu_layers counts theirs with those of GPUs here, and 0 is "auto". The protocol is
            neither authenticated nor encrypted: only for networks where everybody is trusted.

    Raises:
        ModelNotFoundError: there is no such file.
        FormatError: the file is of another kind, truncated or damaged, the text says where; or the
            tokenizer has other pieces than the model.
        ArgumentError: rms_norm_eps for a GGUF, or mmap=True for a GGML file of 2023.
        ModelLoadError: llama.cpp cannot load it, or the GPU asked for is not there.
        AbortedError: progress returned False.
        RemoteError: a server of rpc does not answer, has another version, serves somebody else, or
            went away.
    """

    def __cinit__(self, path, *, n_gpu_layers=0, mmap="auto", mlock=False, vocab_only=False,
                  rms_norm_eps=None, tokenizer=None, progress=None, rpc=None):
        self._handle = NULL
        cdef list paths = params.paths_of(path)
        cdef kollama_model_params options
        cdef Progress state
        for name in paths:
            params.check_file(name, "model")
        runtime.ensure_initialised()
        cdef list endpoints = [] if vocab_only else _endpoints(rpc)
        options.n_gpu_layers = 0 if vocab_only else _gpu_layers(n_gpu_layers, bool(endpoints))
        cdef const char * servers[MAX_SERVERS]
        for i in range(len(endpoints)):
            servers[i] = endpoints[i]
        options.servers = servers
        options.n_servers = len(endpoints)
        options.load_mode = <kollama_load_mode> <int> params.choice("mmap", mmap, {
            "auto": KOLLAMA_LOAD_AUTO, True: KOLLAMA_LOAD_MMAP, False: KOLLAMA_LOAD_READ})
        options.mlock = params.boolean("mlock", mlock)
        options.vocab_only = params.boolean("vocab_only", vocab_only)
        cdef bytes tokenizer_path = None
        if tokenizer is not None:
            params.check_file(os.fsdecode(tokenizer), "tokenizer")
            tokenizer_path = os.fsencode(tokenizer)
        options.tokenizer = NULL if tokenizer_path is None else <const char *> tokenizer_path
        state = Progress(progress, os.path.basename(paths[0]))
        options.progress = on_progress
        options.progress_user = <void *> state
        options.rms_norm_eps = 0
        if rms_norm_eps is not None:
            options.rms_norm_eps = params.number("rms_norm_eps", rms_norm_eps, 1e-12, 1)
        from kollama import legacy_cache

        files = paths
        if legacy_cache.needs_cache() and len(paths) == 1 and legacy_cache.is_legacy(paths[0]):
            files = [legacy_cache.cached_gguf(paths[0], rms_norm_eps=rms_norm_eps,
                                              progress=progress)]
            options.rms_norm_eps = 0
        self._load([os.fsencode(name) for name in files], &options, state)
        self.path = paths[0]
        self._metadata = types.MappingProxyType(self._read_metadata())
        self.format = kollama_model_format(self._handle).decode()
        if files is not paths:
            self.format = self._metadata["kollama.source_format"]

    cdef _load(self, list paths, kollama_model_params * options, Progress state):
        cdef size_t n_paths = len(paths)
        cdef const char ** pointers = <const char **> malloc(n_paths * sizeof(char *))
        cdef kollama_status status
        if pointers == NULL:
            raise MemoryError()
        try:
            for i in range(n_paths):
                pointers[i] = paths[i]
            with nogil:
                status = kollama_model_load(pointers, n_paths, options, &self._handle)
        finally:
            free(pointers)
        if state.error is not None:
            self.close()
            raise state.error
        check(status)
        runtime.drain_logs()

    def __dealloc__(self):
        if self._handle != NULL:
            with nogil:
                kollama_model_free(self._handle)

    cdef kollama_model * handle(self) except NULL:
        if self._handle == NULL:
            raise ClosedError("the model is closed")
        return self._handle

    cdef dict _read_metadata(self):
        cdef int32_t count = kollama_model_meta_count(self._handle)
        metadata = {}
        for i in range(count):
            key = _meta_text(self._handle, i, True)
            if key == "tokenizer.huggingface.json":  # megabytes, and only the tokenizer's business
                length = kollama_model_meta_value(self._handle, i, NULL, 0)
                metadata[key] = f"[json, {length} bytes]"
            else:
                metadata[key] = _meta_text(self._handle, i, False)
        return metadata

    @property
    def tokenizer(self):
        """The Tokenizer of this model's vocabulary."""
        self.handle()
        tokenizer = self._tokenizer() if self._tokenizer is not None else None
        if tokenizer is None:
            from kollama._core.tokenizer import Tokenizer
            tokenizer = Tokenizer._of(self)
            self._tokenizer = weakref.ref(tokenizer)
        return tokenizer

    @property
    def metadata(self):
        """The file's scalar keys and their values as text, read-only."""
        return self._metadata

    @property
    def n_vocab(self):
        """Token ids run from 0 to n_vocab - 1."""
        return kollama_model_n_vocab(self.handle())

    @property
    def n_ctx_train(self):
        """Tokens of context that the model was trained with."""
        return kollama_model_n_ctx_train(self.handle())

    @property
    def n_embd(self):
        """Width of the hidden state."""
        return kollama_model_n_embd(self.handle())

    @property
    def n_layer(self):
        """Transformer layers."""
        return kollama_model_n_layer(self.handle())

    @property
    def n_gpu_layers(self):
        """Layers that GPUs and RPC servers hold; the output layer is one."""
        return kollama_model_n_gpu_layers(self.handle())

    @property
    def n_params(self):
        """Weights, counted."""
        return kollama_model_n_params(self.handle())

    @property
    def size(self):
        """Bytes of all weights as stored in the file."""
        return kollama_model_size(self.handle())

    @property
    def uses_mmap(self):
        """Whether the file is mapped; what mmap="auto" chose."""
        return kollama_model_uses_mmap(self.handle())

    @property
    def description(self):
        """Architecture, size and type as llama.cpp names them, e.g. "llama 7B Q4_0"."""
        cdef char text[256]
        kollama_model_desc(self.handle(), text, sizeof(text))
        return text.decode("utf-8", "replace")

    @property
    def chat_template(self):
        """The file's own chat template (Jinja), or None."""
        cdef const char * text = kollama_model_chat_template(self.handle())
        return None if text == NULL else text.decode("utf-8", "replace")

    def rank_head(self):
        """What reranking needs to know of the model: see `LLM.rerank`.

        Returns:
            dict: n_scores of the classification head; bos, eos, sep ids, or None where pairs have
            none at that place; prompt with {query} and {document}, or None.

        Raises:
            ArgumentError: the model has no such head.
        """
        cdef kollama_rank_info info
        kollama_model_get_rank_info(self.handle(), &info)
        if info.n_scores == 0:
            raise ArgumentError(f"{self.path} has no classification head (cls.output.weight): "
                                "reranking needs a model that was made for it")
        return {
            "n_scores": info.n_scores,
            "bos": info.bos if info.add_bos else None,
            "eos": info.eos if info.add_eos else None,
            "sep": info.sep if info.add_sep else None,
            "prompt": None if info.prompt == NULL else info.prompt.decode("utf-8", "replace"),
        }

    def context(self, **options):
        """Memory and compute for sequences of tokens: ``Context(self, **options)``."""
        from kollama._core.context import Context
        return Context(self, **options)

    def lora(self, path):
        """A LoRA adapter of this model, from a GGUF file: ``Lora(self, path)``."""
        from kollama._core.lora import Lora
        return Lora(self, path)

    def close(self):
        """Frees the weights. Idempotent.

        Raises:
            BusyError: contexts or adapters of this model are open, or another thread uses its
                tokenizer.
        """
        cdef kollama_model * handle = self._handle
        cdef kollama_status status
        self._handle = NULL  # first: another thread may come while the lock is released
        with nogil:
            status = kollama_model_free(handle)
        if status != KOLLAMA_OK:
            self._handle = handle
            check(status)

    @property
    def closed(self):
        """Whether close() was called."""
        return self._handle == NULL

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.close()

    def __repr__(self):
        if self._handle == NULL:
            return f"<kollama.Model {self.path!r}, closed>"
        return f"<kollama.Model {self.path!r}, {self.description}>"


cdef str _meta_text(kollama_model * model, int32_t index, bint key):
    cdef size_t size = 256
    cdef char * buf
    cdef int32_t length
    while True:
        buf = <char *> malloc(size)
        if buf == NULL:
            raise MemoryError()
        try:
            if key:
                length = kollama_model_meta_key(model, index, buf, size)
            else:
                length = kollama_model_meta_value(model, index, buf, size)
            if length < 0:
                return ""
            if <size_t> length < size:
                return buf[:length].decode("utf-8", "replace")
            size = <size_t> length + 1
        finally:
            free(buf)
