from kollama._core.capi cimport kollama_job, kollama_status

cdef int SLICE_MS  # how long a wait leaves Python's signal handlers unserved

cdef int check(kollama_status status) except -1
cdef int finish(kollama_job * job, deadline=*) except -1
cdef int check_signals() except -1

cdef class Progress:
    cdef object call
    cdef object error

cdef int on_progress(float done, void * user) noexcept with gil
