"""GGML files of 2023 as GGUF files."""

from kollama._core.capi cimport *
from kollama._core.runtime cimport Progress, check, on_progress

import os

from kollama import params


def convert_legacy(src, out, *, rms_norm_eps=None, tokenizer=None, progress=None):
    """Writes the legacy file src as a GGUF to out, which is overwritten; not yet under a safe name.

    The arguments are those of `kollama.convert`.
    """
    cdef bytes src_name = os.fsencode(src)
    cdef bytes out_name = os.fsencode(out)
    cdef bytes tokenizer_name = None if tokenizer is None else os.fsencode(tokenizer)
    cdef const char * src_path = src_name
    cdef const char * out_path = out_name
    cdef Progress state = Progress(progress, os.path.basename(os.fsdecode(src)))
    cdef kollama_convert_params options
    options.rms_norm_eps = 0
    if rms_norm_eps is not None:
        options.rms_norm_eps = params.number("rms_norm_eps", rms_norm_eps, 1e-12, 1)
    options.tokenizer = NULL if tokenizer_name is None else <const char *> tokenizer_name
    options.progress = on_progress
    options.progress_user = <void *> state
    cdef kollama_status status
    with nogil:
        status = kollama_convert_legacy(src_path, out_path, &options)
    if state.error is not None:
        raise state.error
    check(status)
