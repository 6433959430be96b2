"""Libraries, devices, logs, and the one place where a status becomes an exception."""

import atexit
import os
import sys
import threading

cimport cython
from cpython.exc cimport PyErr_CheckSignals
from kollama._core.capi cimport *

from kollama import errors
from kollama.progress import progress_bar

cdef int SLICE_MS = 20

cdef object _logger = None
cdef bint _initialised = False
_init_lock = threading.RLock()
_plugins = []

_ERRORS = {
    KOLLAMA_ERROR_ARGUMENT: errors.ArgumentError,
    KOLLAMA_ERROR_MEMORY: errors.OutOfMemoryError,
    KOLLAMA_ERROR_IO: errors.ModelLoadError,
    KOLLAMA_ERROR_WRITE: errors.WriteError,
    KOLLAMA_ERROR_FORMAT: errors.FormatError,
    KOLLAMA_ERROR_LOAD: errors.ModelLoadError,
    KOLLAMA_ERROR_TOKEN: errors.TokenError,
    KOLLAMA_ERROR_CONTEXT_FULL: errors.ContextFullError,
    KOLLAMA_ERROR_DECODE: errors.DecodeError,
    KOLLAMA_ERROR_CLOSED: errors.ClosedError,
    KOLLAMA_ERROR_BUSY: errors.BusyError,
    KOLLAMA_ERROR_ABORTED: errors.AbortedError,
    KOLLAMA_ERROR_STATE: errors.StateError,
    KOLLAMA_ERROR_ENGINE: errors.EngineError,
    KOLLAMA_ERROR_REMOTE: errors.RemoteError,
    KOLLAMA_ERROR_CALLBACK: errors.EngineError,  # where nobody kept what was raised
}


cdef int check(kollama_status status) except -1:
    """Raises what a failed status stands for; OK, PENDING and END are not failures."""
    if status <= KOLLAMA_END:
        return 0
    reason = kollama_last_error().decode("utf-8", "replace")
    drain_logs()
    raise _ERRORS[<int> status](reason)


cdef int check_signals() except -1:
    # The generic handler of SIGINT raises KeyboardInterrupt here, in the main thread only.
    return PyErr_CheckSignals()


@cython.final
cdef class Progress:
    """What the native progress callback needs: the caller's callable, and what it raised.

    Args:
        progress: a callable that takes 0.0 to 1.0 and stops with False; True for a bar; or None.
        title: of the bar.
    """

    def __cinit__(self, progress, str title not None):
        if progress is True:
            progress = progress_bar(title)
        elif progress is not None and not callable(progress):
            raise TypeError("progress must be a callable, True or None")
        self.call = progress


cdef int on_progress(float done, void * user) noexcept with gil:
    cdef Progress progress = <Progress> user
    try:
        check_signals()
        return progress.call is None or progress.call(done) is not False
    except BaseException as error:
        progress.error = error
        return False


cdef int finish(kollama_job * job, deadline=None) except -1:
    """Waits for a job and frees it. A signal's exception or the deadline's cancels it and waits for
    its end.
    """
    cdef kollama_status status = KOLLAMA_PENDING
    cdef int32_t slice_ms = SLICE_MS
    try:
        while True:
            if deadline is not None:
                slice_ms = deadline.slice_ms(SLICE_MS)
            with nogil:
                status = kollama_job_wait(job, slice_ms)
            if status != KOLLAMA_PENDING:
                break
            check_signals()
            if deadline is not None:
                deadline.check()
        check(status)
    except BaseException:
        kollama_job_cancel(job)
        with nogil:
            while kollama_job_wait(job, 1000) == KOLLAMA_PENDING:
                pass
        raise
    finally:
        kollama_job_free(job)
    return 0


def _libraries():
    """The backend libraries of this installation: (CPU variants, others), absolute paths."""
    folder = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "lib")
    suffixes = {"win32": ".dll", "darwin": (".so", ".dylib")}.get(sys.platform, ".so")
    cpu, others = [], []
    for name in sorted(os.listdir(folder)):
        stem = name.split(".")[0].removeprefix("lib")
        if not name.endswith(suffixes) or not stem.startswith("kollama-ggml-"):
            continue
        if stem.startswith("kollama-ggml-cpu"):
            cpu.append(os.path.join(folder, name))
        elif stem != "kollama-ggml-base":
            others.append(os.path.join(folder, name))
    return cpu, others


cdef object _log():
    """``logging.getLogger("kollama")``, silent until a user asks for it.

    A fifth of `import kollama` was the import of logging, which many programs do without.
    """
    global _logger
    if _logger is None:
        import logging

        _logger = logging.getLogger("kollama")
        _logger.addHandler(logging.NullHandler())
    return _logger


def ensure_initialised():
    """Loads the backends once. Called by whatever needs one, not by the import."""
    kollama_log_set_level(_log().getEffectiveLevel())
    if not _initialised:
        with _init_lock:
            if not _initialised:
                _initialise()


def _initialise():
    global _initialised
    cpu, others = _libraries()
    if not cpu:
        raise errors.ModelLoadError("this installation of kollama has no CPU library: reinstall it")
    # llama.cpp takes the bytes of a path as Windows's own functions do, not as UTF-8.
    cdef list paths = [path.encode("mbcs") if sys.platform == "win32" else os.fsencode(path)
                       for path in cpu + others]
    cdef const char * pointers[64]
    if len(paths) > 64:
        raise errors.ModelLoadError(f"{len(paths)} backend libraries are more than can be loaded")
    for i in range(len(paths)):
        pointers[i] = paths[i]
    cdef size_t n_cpu = len(cpu), n_others = len(others)
    cdef kollama_status status
    with nogil:
        status = kollama_runtime_init(pointers, n_cpu, pointers + n_cpu, n_others)
    check(status)
    _load_plugins()
    drain_logs()
    _initialised = True
    atexit.register(_shutdown)
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=_after_fork)


def _load_plugins():
    # Reading what packages are installed takes milliseconds: not at import.
    from kollama.backends import explain, find_plugins

    cdef bytes path
    cdef const char * pointer
    cdef size_t n_devices
    cdef kollama_status status
    _plugins[:] = find_plugins(kollama_llama_commit().decode())
    for plugin in _plugins:
        if plugin.library is not None:
            path = os.fsencode(plugin.library)
            pointer = path
            n_devices = 0
            with nogil:
                status = kollama_backend_load(pointer, &n_devices)
            plugin.n_devices = n_devices
            if status != KOLLAMA_OK:
                plugin.library = None
                plugin.problem = explain(kollama_last_error().decode("utf-8", "replace"))
        if plugin.problem is not None:
            _log().warning("backend plugin %s is not loaded: %s", plugin, plugin.problem)


def _after_fork():
    kollama_runtime_after_fork()


def _shutdown():
    # An engine thread that computes while the process's static objects are destroyed crashes it.
    with nogil:
        kollama_runtime_shutdown()


def drain_logs():
    """Hands the lines that llama.cpp logged to ``logging.getLogger("kollama")``."""
    cdef char line[4096]
    cdef int level = 0
    cdef int32_t length
    while True:
        length = kollama_log_pop(line, sizeof(line), &level)
        if length < 0:
            return
        _log().log(level, "%s", line[:length].decode("utf-8", "replace"))


def devices():
    """What this machine can compute with, the CPU always among it.

    Returns:
        list of Device
    """
    from kollama.machine import Device

    ensure_initialised()
    cdef kollama_device device
    cdef size_t i
    found = []
    for i in range(kollama_device_count()):
        kollama_device_get(i, &device)
        found.append(Device(
            name=device.name.decode("utf-8", "replace"),
            description=device.description.decode("utf-8", "replace").strip(),
            backend=device.backend.decode("utf-8", "replace"),
            type=device.type.decode(),
            memory_free=device.memory_free,
            memory_total=device.memory_total,
        ))
    return found


def plugins():
    """The backend plugins that are installed, loaded or not, and why not.

    Returns:
        list of Plugin
    """
    ensure_initialised()
    return list(_plugins)


def backend_loaded(str name not None):
    """Whether a backend is there, of a plugin or built in: by ggml's name, e.g. "RPC"."""
    ensure_initialised()
    return kollama_backend_loaded(name.encode())


def rpc_in_use(str endpoint not None):
    """Whether a model of this process is connected to the server."""
    return kollama_rpc_in_use(endpoint.encode())


def rpc_serve(str endpoint not None, *, cache_dir=None, n_threads=1, devices=()):
    """Serves this machine's devices. Returns only with an error; signal handlers never run.

    Args:
        endpoint: "IPv4:port".
        cache_dir: folder that keeps large tensors, so that they need not be sent again; or None.
        n_threads: for the CPU.
        devices: names; empty: every GPU, or else the CPU.
    """
    ensure_initialised()
    cdef bytes where = endpoint.encode()
    cdef bytes folder = None if cache_dir is None else os.fsencode(cache_dir)
    cdef const char * folder_pointer = NULL if folder is None else <const char *> folder
    cdef const char * where_pointer = where
    cdef list names = [name.encode() for name in devices]
    cdef const char * pointers[16]
    if len(names) > 16:
        raise errors.ArgumentError(f"{len(names)} devices are more than can be served")
    for i in range(len(names)):
        pointers[i] = names[i]
    cdef size_t n_names = len(names)
    cdef int32_t threads = n_threads
    cdef kollama_status status
    with nogil:
        status = kollama_rpc_serve(where_pointer, folder_pointer, threads, pointers, n_names)
    check(status)


def supports_gpu():
    """Whether a device other than the CPU can hold layers."""
    ensure_initialised()
    return kollama_supports_gpu()


def default_threads():
    """The least of physical cores, CPU affinity and cgroup quota; at least 1."""
    return kollama_default_threads()


def llama_version():
    """Version and commit of the llama.cpp inside, e.g. "0.5.0-dev (0c1e57098bba)"."""
    commit = kollama_llama_commit().decode()
    return f"{kollama_llama_version().decode()} ({commit[:12]})"


def live_handles():
    """Native objects by kind that are alive in this process: all 0 when everything is closed."""
    names = ("model", "context", "sequence", "row", "sampler", "generation", "job",
             "tokenizer", "decoder", "blob", "lora")
    return {names[i]: kollama_live_handles(<kollama_handle_kind> i) for i in range(len(names))}
