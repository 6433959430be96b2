"""The default generation loop: it runs on the engine thread, and this hands out its tokens."""

cimport cython
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from kollama._core.capi cimport *
from kollama._core.matchers cimport know
from kollama._core.memory cimport as_tokens
from kollama._core.runtime cimport SLICE_MS, check_signals
from kollama._core.sampler cimport Sampler
from kollama._core.sequence cimport Sequence

from kollama import params
from kollama.errors import BusyError
from kollama.types import Timings, Token, Usage

_FINISH = {
    KOLLAMA_FINISH_NONE: None,
    KOLLAMA_FINISH_STOP: "stop",
    KOLLAMA_FINISH_LENGTH: "length",
    KOLLAMA_FINISH_EOS: "eos",
    KOLLAMA_FINISH_CANCELLED: "cancelled",
}

# Tokens computed before they are asked for. Where every core computes, Python's thread may get
# its turn only some tokens later; an engine that waits for it loses 5 % with 2, 4 % with 4, and
# nothing with 16 (SmolLM2-135M, 2 threads on 2 cores). A stream that is closed early has computed
# that much for nothing.
STREAM_AHEAD = 16


@cython.final
@cython.no_gc_clear
cdef class TokenStream:
    """An iterator over the tokens that follow a prompt. It takes the sequence over until closed.

    What the sequence has in common with the prompt is kept; the rest of the prompt is read.

    Args:
        stop: byte strings, none of them empty.
        ahead: how many tokens to compute before they are asked for.
        top: how many of the most likely tokens to give with each.
    """

    def __cinit__(self, Sequence sequence not None, Sampler sampler not None, prompt, *,
                  max_tokens=None, list stop not None, ignore_eos=False, ahead=STREAM_AHEAD, top=0):
        self._handle = NULL
        self._sequence = sequence
        self._sampler = sampler
        cdef const int32_t[::1] view = as_tokens(prompt)
        cdef const int32_t * tokens = &view[0] if view.shape[0] else NULL
        cdef kollama_generation_params options
        memset(&options, 0, sizeof(options))
        options.max_tokens = -1
        if max_tokens is not None:
            options.max_tokens = params.integer("max_tokens", max_tokens, 1)
        options.ignore_eos = params.boolean("ignore_eos", ignore_eos)
        options.ahead = params.integer("ahead", ahead, 1)
        options.n_top = params.integer("top", top, 0)
        cdef kollama_sequence * handle
        cdef kollama_status status
        cdef size_t count
        cdef size_t n_stops = len(stop)
        cdef bytes text
        cdef const char ** texts = <const char **> malloc((n_stops + 1) * sizeof(char *))
        cdef size_t * lengths = <size_t *> malloc((n_stops + 1) * sizeof(size_t))
        try:
            if texts == NULL or lengths == NULL:
                raise MemoryError()
            for i in range(n_stops):
                text = stop[i]
                texts[i] = text
                lengths[i] = len(text)
            options.stops = texts
            options.stop_lengths = lengths
            options.n_stops = n_stops
            handle = sequence.handle()
            count = view.shape[0]
            know(sequence.context.model)
            with nogil:  # a sampler that is new to the model may look at all its tokens
                status = kollama_generation_init(handle, sampler._handle, tokens, count, &options,
                                                 &self._handle)
            sampler.check_own(status)
        finally:
            free(texts)
            free(lengths)

    def __dealloc__(self):
        if self._handle != NULL:
            with nogil:
                kollama_generation_free(self._handle)

    def __iter__(self):
        return self

    def __next__(self):
        cdef kollama_event event
        cdef kollama_status status = KOLLAMA_PENDING
        if self._handle == NULL:
            raise StopIteration
        if self._waiting:
            raise BusyError("another thread waits for this stream's next token")
        self._waiting = True
        try:
            while True:
                with nogil:
                    status = kollama_generation_next(self._handle, SLICE_MS, &event)
                if status != KOLLAMA_PENDING:
                    break
                check_signals()
            if status != KOLLAMA_END:
                self._sampler.check_own(status)
        except BaseException:
            self._waiting = False
            self.close()
            raise
        self._waiting = False
        if status == KOLLAMA_END:
            self.close()
            raise StopIteration
        top = None
        if event.n_top:
            top = [(event.top[i].token, event.top[i].logprob) for i in range(event.n_top)]
        return Token(event.token, event.text[:event.length].decode("utf-8"), event.logprob,
                     _FINISH[<int> event.finish], top)

    def close(self):
        """Ends the generation within one graph and gives the sequence back. Idempotent.

        Returns:
            True, or False where another thread waits for a token: that call ends with StopIteration
            and closes then.
        """
        cdef kollama_generation * handle = self._handle
        if handle == NULL:
            return True
        if self._waiting:
            kollama_generation_request_cancel(handle)
            return False
        self._stats = _stats(handle)
        self._handle = NULL  # first: another thread may come while the lock is released
        with nogil:
            kollama_generation_cancel(handle)
        self._stats = _stats(handle)
        with nogil:
            kollama_generation_free(handle)
        return True

    @property
    def stats(self):
        """(Usage, Timings, finish_reason, incomplete bytes), so far or at the end."""
        return self._stats if self._handle == NULL else _stats(self._handle)


cdef tuple _stats(kollama_generation * handle):
    cdef kollama_generation_stats stats
    kollama_generation_get_stats(handle, &stats)
    usage = Usage(prompt_tokens=stats.n_prompt, completion_tokens=stats.n_generated,
                  reused_tokens=stats.n_reused)
    timings = Timings(stats.prompt_seconds, stats.generate_seconds)
    incomplete = stats.incomplete[:stats.incomplete_length]
    return usage, timings, _FINISH[<int> stats.finish], incomplete
