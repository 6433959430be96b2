"""Memory and compute."""

cimport cython
from libc.stdlib cimport free, malloc
from kollama._core.capi cimport *
from kollama._core.lora cimport Lora
from kollama._core.memory cimport as_tokens
from kollama._core.model cimport Model
from kollama._core.runtime cimport check, finish

import numpy as np

from kollama import params
from kollama._core import runtime
from kollama.deadline import deadline_of
from kollama.errors import ArgumentError, ClosedError
from kollama.turn import Turn, waits_when_busy

_POOLING = {
    "none": KOLLAMA_POOLING_NONE,
    "mean": KOLLAMA_POOLING_MEAN,
    "cls": KOLLAMA_POOLING_CLS,
    "last": KOLLAMA_POOLING_LAST,
    "rank": KOLLAMA_POOLING_RANK,
}
_POOLING_OF_FILES = {"1": "mean", "2": "cls", "3": "last"}  # llama.cpp's numbers; "0": not said


@cython.final
@cython.no_gc_clear
cdef class Context:
    """K/V memory for sequences of tokens, and the threads that compute: ``model.context()``.

    One engine thread per context runs every computation, and one caller at a time has it: see busy.

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
        embeddings: for `embed` alone: such a context has no sequences. n_seq_max texts are computed
            side by side; n_batch is 512 at most unless it is given.
        pooling: what becomes of a text's hidden states: "mean", "last", "cls" (the first), "none";
            None: what the model's file says, else "mean". "rank": the scores of the classification
            head of a reranking model.
        busy: what becomes of a call, of the context or of its sequences, while another thread is in
            one: "wait" until it is done, or "error": BusyError at once.
        draft: where streams get guesses of their next tokens from, which are computed together:
            "prompt-lookup", the text itself, or a smaller Model of the same vocabulary. It stays
            open, too. None: nothing is guessed.

    Raises:
        ArgumentError: a number out of range, an unknown type name; a draft with another vocabulary
            or without weights, or a memory that cannot go back behind a wrong guess.
        ModelLoadError: llama.cpp cannot make such a context, e.g. for lack of memory.
    """

    def __cinit__(self, Model model not None, *, n_ctx=4096, n_seq_max=1, n_batch=None,
                  n_threads=None, type_k="f16", type_v="f16", flash_attn="auto", swa_full=True,
                  embeddings=False, pooling=None, busy="wait", draft=None):
        self._handle = NULL
        self.model = model
        self.turn = Turn("this context", waits_when_busy(busy))
        self.busy = busy
        self.lora = ()
        cdef bint embeds = params.boolean("embeddings", embeddings)
        cdef bint causal = _says(model, "attention.causal", "true") == "true"
        if pooling is not None and not embeds:
            raise ArgumentError("pooling is for contexts with embeddings=True")
        if embeds:
            self.pooling = _pooling(model, pooling)
        cdef bint ranks = self.pooling == "rank"
        self.n_ctx = params.integer("n_ctx", n_ctx, 1)
        self.n_seq_max = params.integer("n_seq_max", n_seq_max, 1)
        if n_batch is None:
            # For embeddings llama.cpp keeps the logits of every token of a batch, too.
            n_batch = min(self.n_ctx, 512 if embeds else 2048)
            if embeds and (not causal or ranks):
                n_batch = self.n_ctx  # a text is computed in one piece
        if n_threads is None:
            n_threads = runtime.default_threads()
        self.n_batch = params.integer("n_batch", n_batch, 1)
        self.n_threads = params.integer("n_threads", n_threads, 1, 512)
        cdef bytes name_k = _type_name("type_k", type_k)
        cdef bytes name_v = _type_name("type_v", type_v)
        cdef kollama_context_params options
        options.n_ctx = self.n_ctx
        options.n_batch = self.n_batch
        whole = embeds and (not causal or ranks)
        options.n_ubatch = self.n_batch if whole else min(self.n_batch, 512)
        options.embeddings = embeds
        options.ranks = ranks
        options.file_pools = _says(model, "pooling_type", "0") != "0"
        options.n_seq_max = self.n_seq_max
        options.n_threads = self.n_threads
        options.swa_full = params.boolean("swa_full", swa_full)
        options.flash_attn = params.choice(
            "flash_attn", flash_attn, {"auto": -1, False: 0, True: 1})
        options.type_k = name_k
        options.type_v = name_v
        cdef kollama_model * handle = model.handle()
        cdef kollama_model * guesser = handle
        cdef kollama_status status
        options.draft = _draft_kind(draft)
        if draft is not None and embeds:
            raise ArgumentError("draft is for contexts that generate, not for embeddings=True")
        if options.draft == KOLLAMA_DRAFT_MODEL:
            guesser = (<Model> draft).handle()
        options.draft_model = guesser
        self.draft = draft
        kollama_model_pin(handle)
        kollama_model_pin(guesser)
        with nogil:
            status = kollama_context_init(handle, &options, &self._handle)
        kollama_model_unpin(guesser)
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

    def embed(self, texts, *, timeout=None):
        """The pooled hidden states of texts, given as token ids. Any number of them.

        Args:
            texts: a list of int32 arrays or sequences of ints, none of them empty.
            timeout: seconds, the wait for the turn included; None: for as long as it takes.

        Returns:
            float32 array of shape (len(texts), n_embd), not normalised; with pooling="none" a list
            of arrays of shape (len(text), n_embd); with "rank" of shape (len(texts), n_scores).

        Raises:
            ArgumentError: this context was not made for embeddings, or a text has no tokens.
            ContextFullError: a text has more tokens than n_ctx.
            TokenError: an id is outside the vocabulary.
            BusyError: another thread is in a call of this context, and busy is "error".
            DeadlineError: it took longer than timeout.
        """
        deadline = deadline_of(timeout)
        if self.pooling is None:
            raise ArgumentError("this context was not made for embeddings: "
                                "model.context(embeddings=True)")
        arrays = [as_tokens(ids) for ids in texts]
        cdef Py_ssize_t n_texts = len(arrays)
        cdef int n_embd = kollama_model_n_embd_out(self.model.handle())
        if self.pooling == "rank":
            n_embd = self.model.rank_head()["n_scores"]
        lengths = np.array([len(ids) for ids in arrays], np.uintp)
        per_token = self.pooling == "none"
        rows = np.zeros((int(lengths.sum()) if per_token else n_texts, n_embd), np.float32)
        cdef const int32_t[::1] tokens
        cdef size_t[::1] ends
        cdef float[:, ::1] out
        cdef kollama_pooling kind = <kollama_pooling> <int> _POOLING[self.pooling]
        cdef kollama_job * job = NULL
        if lengths.sum() > 0:
            tokens, ends, out = np.concatenate(arrays), np.cumsum(lengths), rows
            self.turn.take(deadline)
            try:
                check(kollama_context_embed(self.handle(), &tokens[0], &ends[0], n_texts, kind,
                                            &out[0, 0], &job))
                finish(job, deadline)
            finally:
                self.turn.give_back()
        elif n_texts > 0:
            raise ArgumentError("text 0 has no tokens")
        return np.split(rows, np.cumsum(lengths)[:-1].tolist()) if per_token else rows

    def set_lora(self, adapters):
        """Takes these LoRA adapters, in place of those that it has.

        Args:
            adapters: a list of Lora, or of (Lora, scale); [] for none. `lora` gives them back.

        Raises:
            StateError: sequences hold tokens: what is in memory was computed without the change.
            BusyError: another thread is in a call of this context, and its busy is "error"; or a
                stream has a sequence of it.
            ArgumentError: an adapter of another model, one twice, a scale that is not finite.
        """
        pairs = tuple(_scaled(each) for each in adapters)
        cdef size_t i, count = len(pairs)
        cdef kollama_job * job = NULL
        cdef size_t room = count + 1
        cdef kollama_lora ** handles = <kollama_lora **> malloc(room * sizeof(kollama_lora *))
        cdef float * scales = <float *> malloc(room * sizeof(float))
        try:
            if handles == NULL or scales == NULL:
                raise MemoryError()
            for i in range(count):
                handles[i] = (<Lora> pairs[i][0]).handle()
                scales[i] = pairs[i][1]
            with self.turn:
                check(kollama_context_set_loras(self.handle(), handles, scales, count, &job))
                finish(job)
        finally:
            free(handles)
            free(scales)
        self.lora = pairs

    def set_control_vector(self, vector, *, scale=1.0, layers=None):
        """Adds a vector to what layers give: steers the model without other weights.

        Args:
            vector: float32 array of shape (n_layer, n_embd), a row for each layer; None for none.
                Layer 0 has no place for one in llama.cpp: its row must be zeros. A sum of vectors
                is a vector; `load_control_vector` reads llama.cpp's files.
            scale: what it is multiplied with.
            layers: (first, last), both included; None: (1, n_layer - 1).

        Raises:
            ArgumentError: another shape, a number that is not finite, layers that are not there.
            StateError, BusyError: as set_lora. Architectures whose graph in llama.cpp has no
                place for control vectors (BERT, Mamba and some others) ignore them.
        """
        cdef const float[::1] data
        cdef kollama_job * job = NULL
        cdef int n_layer = kollama_model_n_layer(self.model.handle())
        cdef int first = 1, last = n_layer - 1
        if layers is not None:
            low, high = layers
            first = params.integer("layers", low, 1, n_layer - 1)
            last = params.integer("layers", high, first, n_layer - 1)
        if vector is None:
            data = None
        else:
            data = _control_rows(vector, params.number("scale", scale, -1e9, 1e9), n_layer,
                                 kollama_model_n_embd(self.model.handle()))
        with self.turn:
            if data is None:
                check(kollama_context_set_control_vector(self.handle(), NULL, 0, 0, 0, &job))
            else:
                check(kollama_context_set_control_vector(
                    self.handle(), &data[0], data.shape[0], first, last, &job))
            finish(job)

    def check_shift(self):
        """Raises where the sequences of this context cannot be shifted (see Sequence.shift).

        Raises:
            ArgumentError: the model has no rotary positions, or its memory is of another kind.
        """
        check(kollama_context_check_shift(self.handle()))

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


cdef tuple _scaled(item):
    adapter, scale = item if isinstance(item, (tuple, list)) and len(item) == 2 else (item, 1.0)
    if not isinstance(adapter, Lora):
        raise TypeError(f"adapters must be Lora or (Lora, scale), not {type(adapter).__name__}")
    return adapter, params.number("scale", scale, -1e9, 1e9)


cdef object _control_rows(vector, double scale, int n_layer, int n_embd):
    rows = np.asarray(vector, np.float32) * np.float32(scale)
    if rows.shape != (n_layer, n_embd) or n_layer < 2:
        raise ArgumentError(f"the control vector has shape {rows.shape}; for this model it is "
                            f"({n_layer}, {n_embd}), of at least 2 layers")
    if not np.isfinite(rows).all():
        raise ArgumentError("the control vector holds a number that is not finite")
    if rows[0].any():
        raise ArgumentError("the control vector's row of layer 0 must be zeros: llama.cpp has no "
                            "place for one there")
    return np.ascontiguousarray(rows[1:]).reshape(-1)


cdef kollama_draft _draft_kind(draft):
    if draft is None:
        return KOLLAMA_DRAFT_NONE
    if isinstance(draft, Model):
        return KOLLAMA_DRAFT_MODEL
    if not isinstance(draft, str):
        raise TypeError("draft must be 'prompt-lookup', a Model or None, "
                        f"not {type(draft).__name__}")
    if draft != "prompt-lookup":
        raise ArgumentError(f"draft is {draft!r}; it can be 'prompt-lookup', a Model or None")
    return KOLLAMA_DRAFT_LOOKUP


cdef bytes _type_name(name, value):
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a type's name such as 'f16', not {type(value).__name__}")
    return value.encode()


cdef str _says(Model model, key, default):
    """What the file says of its architecture."""
    arch = model.metadata.get("general.architecture", "")
    return model.metadata.get(f"{arch}.{key}", default)


cdef str _pooling(Model model, given):
    if given is None:
        return _POOLING_OF_FILES.get(_says(model, "pooling_type", "0"), "mean")
    params.choice("pooling", given, _POOLING)
    if given == "rank":
        model.rank_head()
    return given
