"""The default generation loop: it runs on the engine thread, and this hands out its tokens."""

cimport cython
from libc.stdlib cimport free, malloc
from libc.string cimport memset
from kollama._core.capi cimport *
from kollama._core.matchers cimport know
from kollama._core.memory cimport as_tokens
from kollama._core.runtime cimport SLICE_MS, check, check_signals
from kollama._core.sampler cimport Sampler
from kollama._core.sequence cimport Sequence
from kollama._core.watch cimport Watch

from kollama import params
from kollama.errors import BusyError, DeadlineError

_Token = _Usage = _Timings = None  # the first stream gets them, see _import_types

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

NEWS_NONE = KOLLAMA_NEWS_NONE      # next would wait
NEWS_TOKEN = KOLLAMA_NEWS_TOKEN    # next gives one at once
NEWS_CHOICE = KOLLAMA_NEWS_CHOICE  # next runs a callable of the sampler
NEWS_END = KOLLAMA_NEWS_END        # next gives what is left, or raises


@cython.final
@cython.no_gc_clear
cdef class TokenStream:
    """An iterator over the tokens that follow a prompt. It takes the sequence over until closed.

    What the sequence has in common with the prompt is kept; the rest of the prompt is read.

    Args:
        stop: byte strings, none of them empty.
        ahead: how many tokens to compute before they are asked for.
        top: how many of the most likely tokens to give with each.
        shift_at: tokens in memory at which the older half of those behind the first n_keep is
            dropped (see Sequence.shift); None: never.
        n_keep: at most the tokens of the prompt.
        deadline: a Deadline; once it is over the stream is asked to end and `next` raises
            DeadlineError, once. What was computed by then can still be read, until it is closed.
        watch: a Watch of the context that tells of this stream, by its key.
    """

    def __cinit__(self, Sequence sequence not None, Sampler sampler not None, prompt, *,
                  max_tokens=None, list stop not None, ignore_eos=False, ahead=STREAM_AHEAD, top=0,
                  shift_at=None, n_keep=0, deadline=None, Watch watch=None, key=0):
        _import_types()
        self._handle = NULL
        self._deadline = deadline
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
        options.n_keep = params.integer("n_keep", n_keep, 0)
        if shift_at is not None:
            options.shift_at = params.integer("shift_at", shift_at, 1)
        options.watch = NULL if watch is None else watch._handle
        options.key = key
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
            count = view.shape[0]
            know(sequence.context.model)
            handle = sequence.hold()
            with nogil:  # a sampler that is new to the model may look at all its tokens
                status = kollama_generation_init(handle, sampler._handle, tokens, count, &options,
                                                 &self._handle)
            sequence.release()
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
        cdef int32_t slice_ms = SLICE_MS
        if self._handle == NULL:
            raise StopIteration
        if self._waiting:
            raise BusyError("another thread waits for this stream's next token")
        self._waiting = True
        try:
            while True:
                if self._deadline is not None:
                    self._deadline.check()
                    slice_ms = self._deadline.slice_ms(SLICE_MS)
                with nogil:
                    status = kollama_generation_next(self._handle, slice_ms, &event)
                if status != KOLLAMA_PENDING:
                    break
                check_signals()
            if status != KOLLAMA_END:
                self._sampler.check_own(status)
        except DeadlineError:
            self._waiting = False
            self.request_cancel()
            raise
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
        return _Token(event.token, event.text[:event.length].decode("utf-8"), event.logprob,
                      _FINISH[<int> event.finish], top)

    def look(self, for_end=False):
        """What there is, without waiting: one of the NEWS_ constants.

        After NEWS_NONE the stream's Watch tells, once, when there is something.

        Args:
            for_end: there is no news in a token, only in a choice and the end.
        """
        return NEWS_END if self._handle == NULL else kollama_generation_look(self._handle, for_end)

    def request_cancel(self):
        """Asks it to end within one graph, and returns at once."""
        self._deadline = None
        if self._handle != NULL:
            kollama_generation_request_cancel(self._handle)

    def send(self, token):
        """Puts a token in the place of the last one that was handed out, and goes on from it.

        Returns:
            (the Token in its place, the one that follows or None where it was the last). From the
            first call on no token is computed before it is asked for.

        Raises:
            TokenError: the id is outside the vocabulary; the stream is as it was.
            StateError, BusyError: there is no token yet; or the stream had ended, and its sampler
                or sequence has served others since.
            ArgumentError: a grammar does not allow the token; the stream is closed then.
        """
        if self._handle == NULL:
            raise StopIteration
        if self._waiting:
            raise BusyError("another thread waits for this stream's next token")
        cdef int32_t number = params.integer("token", token, -2**31)
        cdef kollama_status status
        with nogil:
            status = kollama_generation_send(self._handle, self._sampler._handle, number)
        check(status)
        replaced = self.__next__()
        return replaced, next(self, None) if replaced.finish_reason is None else None

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
        stats = _stats(handle)
        if self._handle == NULL:  # a collection in there may have let another thread come here
            return True
        self._stats = stats
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


cdef void _import_types() except *:
    # Data classes take as long as a quarter of `import kollama`.
    global _Token, _Usage, _Timings
    if _Token is None:
        from kollama import types

        _Usage, _Timings, _Token = types.Usage, types.Timings, types.Token


cdef tuple _stats(kollama_generation * handle):
    cdef kollama_generation_stats stats
    kollama_generation_get_stats(handle, &stats)
    usage = _Usage(prompt_tokens=stats.n_prompt, completion_tokens=stats.n_generated,
                   reused_tokens=stats.n_reused, drafted_tokens=stats.n_drafted,
                   accepted_tokens=stats.n_accepted)
    timings = _Timings(stats.prompt_seconds, stats.generate_seconds)
    incomplete = stats.incomplete[:stats.incomplete_length]
    return usage, timings, _FINISH[<int> stats.finish], incomplete
