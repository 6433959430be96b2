"""News of streams of a context, for one thread that waits for all of them."""

cimport cython
from libc.stdint cimport int32_t, uint64_t
from kollama._core.capi cimport *
from kollama._core.context cimport Context
from kollama._core.runtime cimport SLICE_MS, check, check_signals


@cython.final
@cython.no_gc_clear
cdef class Watch:
    """Tells which of the streams that were made with it have news. For one thread at a time; does
    not keep the context open.
    """

    def __cinit__(self, Context context not None):
        self._handle = NULL
        check(kollama_watch_init(context.handle(), &self._handle))

    def __dealloc__(self):
        if self._handle != NULL:
            with nogil:
                kollama_watch_free(self._handle)

    def wait(self, int32_t timeout_ms):
        """The keys of streams with news, once there are some. Signals are not served meanwhile.

        Returns:
            list of int, empty after timeout_ms without news; None: the context was closed, and all
            was told; or `end` was called.
        """
        cdef const uint64_t * keys = NULL
        cdef size_t i, count = 0
        cdef kollama_status status
        with nogil:
            status = kollama_watch_wait(self._handle, timeout_ms, &keys, &count)
        if status == KOLLAMA_END:
            return None
        return [keys[i] for i in range(count)]

    def wait_here(self, deadline=None):
        """wait, for a thread that serves signals meanwhile.

        Raises:
            DeadlineError: nothing came until the Deadline.
        """
        cdef const uint64_t * keys = NULL
        cdef size_t i, count = 0
        cdef int32_t slice_ms = SLICE_MS
        cdef kollama_status status = KOLLAMA_PENDING
        while status == KOLLAMA_PENDING:
            check_signals()
            if deadline is not None:
                deadline.check()
                slice_ms = deadline.slice_ms(SLICE_MS)
            with nogil:
                status = kollama_watch_wait(self._handle, slice_ms, &keys, &count)
        if status == KOLLAMA_END:
            return None
        return [keys[i] for i in range(count)]

    def tell(self, key):
        """Gives the thread that waits this key, too. From any thread; does not wait."""
        check(kollama_watch_tell(self._handle, key))

    def end(self):
        """Makes wait return None from now on. From any thread."""
        kollama_watch_end(self._handle)
