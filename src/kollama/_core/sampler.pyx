"""Choosing the next token."""

cimport cython
from kollama._core.capi cimport *
from kollama._core.runtime cimport check
from kollama._core.sequence cimport Sequence

from kollama import params


@cython.final
cdef class Sampler:
    """Chooses tokens from logits: top-k, top-p, min-p, then temperature and a draw.

    Order, meaning and defaults are llama.cpp's. One sampler serves one stream at a time.

    Args:
        temperature: 0 takes the most likely token, and the other options do nothing.
        top_k: keep the k most likely tokens; 0: all.
        top_p: keep the most likely tokens that together reach this probability; 1: all.
        min_p: keep tokens at least this likely, relative to the most likely; 0: all.
        seed: 0 to 2**32 - 1; None: a random one, to be read from `seed`.

    Raises:
        ArgumentError: a value out of range.
    """

    def __cinit__(self, *, temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, seed=None):
        cdef kollama_sampler_params options
        self.temperature = params.number("temperature", temperature, 0)
        self.top_k = params.integer("top_k", top_k, 0)
        self.top_p = params.number("top_p", top_p, 0, 1)
        self.min_p = params.number("min_p", min_p, 0, 1)
        self.seed = params.seed_of(seed)
        options.temperature = self.temperature
        options.top_k = self.top_k
        options.top_p = self.top_p
        options.min_p = self.min_p
        options.seed = self.seed
        self._handle = kollama_sampler_init(&options)
        if self._handle == NULL:
            raise MemoryError()

    def __dealloc__(self):
        kollama_sampler_free(self._handle)

    def sample(self, Sequence sequence not None):
        """Chooses the next token of a sequence from its logits, the caller's changes included.

        Raises:
            StateError: the sequence has no logits.
            ArgumentError: a logit is NaN, or all are -inf.
            BusyError: the sampler or the sequence is in use.
        """
        cdef kollama_row * row = sequence.row()
        cdef int32_t token = -1
        cdef kollama_status status
        with nogil:
            status = kollama_sampler_sample(self._handle, row, &token)
        kollama_row_release(row)
        check(status)
        return token

    def __repr__(self):
        return (f"kollama.Sampler(temperature={self.temperature:g}, top_k={self.top_k}, "
                f"top_p={self.top_p:g}, min_p={self.min_p:g}, seed={self.seed})")
