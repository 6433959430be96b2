"""News of the streams of a context, for one thread that waits for all of them."""

cimport cython
from libc.stdint cimport int32_t, uint64_t
from kollama._core.capi cimport *
from kollama._core.context cimport Context
from kollama._core.runtime cimport check

cdef int32_t FOREVER_MS = 3600 * 1000


@cython.final
@cython.no_gc_clear
cdef class Watch:
    """Tells which streams of a context have news. One at a time; it does not keep the context open.
    """

    def __cinit__(self, Context context not None):
        self._handle = NULL
        check(kollama_watch_init(context.handle(), &self._handle))

    def __dealloc__(self):
        if self._handle != NULL:
            with nogil:
                kollama_watch_free(self._handle)

    def wait(self):
        """The keys of streams with news, once there are some. Signals are not served meanwhile.

        Returns:
            list of int; None: the context was closed, and all was told; or `end` was called.
        """
        cdef const uint64_t * keys = NULL
        cdef size_t i, count = 0
        cdef kollama_status status = KOLLAMA_PENDING
        while status == KOLLAMA_PENDING:
            with nogil:
                status = kollama_watch_wait(self._handle, FOREVER_MS, &keys, &count)
        if status == KOLLAMA_END:
            return None
        return [keys[i] for i in range(count)]

    def end(self):
        """Makes wait return None from now on. From any thread."""
        kollama_watch_end(self._handle)
