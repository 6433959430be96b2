"""One stream of tokens in a context."""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from kollama._core.capi cimport *
from kollama._core.context cimport Context
from kollama._core.memory cimport RowArray, as_tokens, is_token
from kollama._core.runtime cimport check, finish

import os

import numpy as np

from kollama import params
from kollama.deadline import deadline_of
from kollama.errors import ClosedError


@cython.final
@cython.no_gc_clear
cdef class Sequence:
    """One stream of tokens in a context: ``ctx.sequence()``. ``len(seq)`` counts its tokens.

    A call that fails, is interrupted or takes too long leaves the sequence as it was. While another
    thread is in a call of the context, a call does what the context's `busy` says.
    """

    def __cinit__(self, Context context not None):
        self._handle = NULL
        self._closed = NULL
        self._n_holds = 0
        self._logits = RowArray()
        self.context = context
        check(kollama_sequence_init(context.handle(), &self._handle))

    def __dealloc__(self):
        if self._handle != NULL:
            with nogil:
                kollama_sequence_free(self._handle)

    cdef kollama_sequence * handle(self) except NULL:
        if self._handle == NULL:
            raise ClosedError("the sequence is closed")
        self.context.handle()
        return self._handle

    cdef kollama_sequence * hold(self) except NULL:
        """The handle, for a call that runs without Python's lock: a close waits for release."""
        cdef kollama_sequence * handle = self.handle()
        self._n_holds += 1
        return handle

    cdef int release(self) except -1:
        cdef kollama_sequence * handle = NULL
        self._n_holds -= 1
        if self._n_holds == 0:
            handle = self._closed
            self._closed = NULL
        with nogil:
            kollama_sequence_free(handle)
        return 0

    cdef kollama_row * row(self) except NULL:
        """The row of the last token's logits, retained: release it."""
        cdef kollama_row * row = NULL
        cdef kollama_status status = kollama_sequence_logits(self.handle(), &row)
        if status == KOLLAMA_ERROR_BUSY:
            with self.context.turn:
                status = kollama_sequence_logits(self.handle(), &row)
        check(status)
        return row

    def append(self, ids, *, timeout=None):
        """Runs the model over these tokens, after those that are there.

        Args:
            ids: any sequence of ints, or an int32 array. It is split by n_batch.
            timeout: seconds, the wait for the turn included; None: for as long as it takes.

        Raises:
            TokenError: an id is outside the vocabulary.
            ContextFullError: they do not fit into n_ctx.
            ArgumentError: there is no token.
            BusyError: another thread is in a call of the context, and its busy is "error"; or a
                stream has this sequence.
            DeadlineError: it took longer than timeout, and was ended within one graph.
        """
        deadline = deadline_of(timeout)
        cdef const int32_t[::1] view
        cdef int32_t token = 0
        cdef const int32_t * tokens = &token
        cdef size_t n_tokens = 1
        cdef kollama_job * job = NULL
        if not is_token(ids, &token):
            view = as_tokens(ids)
            tokens = &view[0] if view.shape[0] else NULL
            n_tokens = view.shape[0]
        self.context.turn.take(deadline)
        try:
            check(kollama_sequence_append(self.handle(), tokens, n_tokens, &job))
            finish(job, deadline)
        finally:
            self.context.turn.give_back()

    @property
    def tokens(self):
        """The token ids in memory: a copy, int32, shape (len(seq),)."""
        cdef size_t count = len(self)
        array = np.empty(count, np.int32)
        cdef int32_t[::1] view = array
        cdef kollama_status status = kollama_sequence_tokens(
            self.handle(), &view[0] if count else NULL, count)
        if status == KOLLAMA_ERROR_BUSY:  # since it was counted
            with self.context.turn:
                count = len(self)
                array = np.empty(count, np.int32)
                view = array
                status = kollama_sequence_tokens(
                    self.handle(), &view[0] if count else NULL, count)
        check(status)
        return array

    @property
    def logits(self):
        """Logits of the token after the last: float32, shape (n_vocab,), writable, not a copy.

        The array shows this sequence's own row. It stays valid for as long as it lives, whatever is
        decoded or closed meanwhile, and the sequence's next append writes into it.

        Raises:
            StateError: there are none: nothing was appended, or not since rewind or clear.
        """
        return self._logits.of(self.row())

    def fork(self):
        """A new sequence with the same tokens and logits; the memory of the prefix is shared.

        Raises:
            ArgumentError: n_seq_max sequences are in use.
        """
        cdef Sequence other = Sequence(self.context)
        cdef kollama_job * job = NULL
        with self.context.turn:
            check(kollama_sequence_fork(self.handle(), other._handle, &job))
            finish(job)
        return other

    def rewind(self, n):
        """Keeps the first n tokens.

        Raises:
            ArgumentError: n is not between 0 and len(seq).
            DecodeError: this model's memory cannot drop its last tokens (recurrent models); the
                sequence is empty then.
        """
        cdef size_t keep = params.integer("n", n, 0)
        cdef kollama_job * job = NULL
        with self.context.turn:
            check(kollama_sequence_rewind(self.handle(), keep, &job))
            finish(job)

    def shift(self, n_keep, n_discard):
        """Makes room: drops n_discard tokens behind the first n_keep, and moves the others up.

        What the others hold was computed with the dropped ones in view, and is not computed again:
        `n_exact` says so. `logits` are those of the last token in its new place.

        Raises:
            ArgumentError: no token would be dropped, or none left behind the first n_keep; or the
                model has no rotary positions, or memory of another kind.
            StateError: a fork of this sequence is open and shares tokens that would be moved.
        """
        cdef size_t keep = params.integer("n_keep", n_keep, 0)
        cdef size_t discard = params.integer("n_discard", n_discard, 1)
        cdef kollama_job * job = NULL
        with self.context.turn:
            check(kollama_sequence_shift(self.handle(), keep, discard, &job))
            finish(job)

    @property
    def n_exact(self):
        """Of the first tokens, those whose memory is what reading them anew would give.

        All of them, or after a shift those that it kept.
        """
        cdef size_t count = 0
        cdef kollama_status status = kollama_sequence_n_exact(self.handle(), &count)
        if status == KOLLAMA_ERROR_BUSY:
            with self.context.turn:
                status = kollama_sequence_n_exact(self.handle(), &count)
        check(status)
        return count

    def clear(self):
        """Drops all tokens."""
        self.rewind(0)

    def state(self):
        """The sequence as bytes: its tokens and their memory in the model, for `restore`.

        They fit this model, with K/V memory of the same types, in this build of kollama.
        """
        cdef kollama_blob * blob = NULL
        cdef kollama_job * job = NULL
        cdef size_t size = 0
        cdef const char * data
        try:
            with self.context.turn:
                check(kollama_sequence_save(self.handle(), &blob, &job))
                finish(job)
            data = <const char *> kollama_blob_data(blob, &size)
            return PyBytes_FromStringAndSize(data, size)
        finally:
            kollama_blob_free(blob)

    def restore(self, blob):
        """Makes this sequence what another was when its `state` was taken; what it held is gone.

        Its logits are there again after the next append.

        Args:
            blob: bytes, or what shows its memory as bytes.

        Raises:
            FormatError: it is damaged, or of another model, build or type of K/V memory.
            ContextFullError: it has more tokens than n_ctx.
            DecodeError: there is no room beside the context's other sequences; this one is empty
                then. After any other error it is as it was.
        """
        cdef const unsigned char[::1] view = memoryview(blob).cast("B")
        cdef const void * data = &view[0] if view.shape[0] else NULL
        cdef size_t size = view.shape[0]
        cdef kollama_sequence * handle
        cdef kollama_job * job = NULL
        cdef kollama_status status
        with self.context.turn:
            handle = self.hold()
            with nogil:  # the checksum of much memory takes a while
                status = kollama_sequence_load(handle, data, size, &job)
            self.release()
            check(status)
            finish(job)

    def save(self, path):
        """Writes `state` to a file, which is there whole or not at all.

        Raises:
            WriteError: the file cannot be written.
        """
        from kollama.files import new_file

        state = self.state()
        with new_file(os.fsdecode(path)) as scratch:
            scratch.write_bytes(state)

    def load(self, path):
        """Makes this sequence what `save` wrote: see restore.

        Raises:
            ModelNotFoundError: there is no file at path.
            Those of restore.
        """
        name = os.fsdecode(path)
        params.check_file(name, "sequence")
        with open(name, "rb") as file:
            self.restore(file.read())

    def close(self):
        """Frees the slot and its memory. Idempotent; collection does the same."""
        cdef kollama_sequence * handle = self._handle
        self._handle = NULL
        self._logits.drop()
        if self._n_holds:  # another thread's call frees it
            self._closed = handle
            return
        with nogil:
            kollama_sequence_free(handle)

    @property
    def closed(self):
        """Whether close() was called, on this or on the context."""
        return self._handle == NULL or self.context._handle == NULL

    def __len__(self):
        cdef size_t count = 0
        cdef kollama_status status = kollama_sequence_length(self.handle(), &count)
        if status == KOLLAMA_ERROR_BUSY:
            with self.context.turn:
                status = kollama_sequence_length(self.handle(), &count)
        check(status)
        return count

    def __enter__(self):
        return self

    def __exit__(self, kind, value, traceback):
        self.close()

    def __repr__(self):
        return f"<kollama.Sequence, {'closed' if self.closed else 'open'}>"
