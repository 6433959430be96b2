"""GGML files of 2023 as GGUF files."""

from kollama._core.capi cimport *
from kollama._core.runtime cimport Progress, check, on_progress

import hashlib
import os
import sys
from pathlib import Path

from kollama import params
from kollama.files import cache_folder, new_file


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


def needs_cache():
    """Whether legacy files cannot be read where they lie.

    On Windows llama.cpp asks a stream for its descriptor, and there are no streams of one's own.
    """
    return sys.platform == "win32"


def is_legacy(path):
    """Whether a file begins as a GGML file of 2023 does."""
    with open(path, "rb") as file:
        return file.read(4) in (b"lmgg", b"fmgg", b"tjgg")


def cached_gguf(path, *, rms_norm_eps=None, progress=None):
    """Path of a GGUF of a legacy file, made at the first call: where needs_cache().

    One for each file; a file that has changed replaces what was made of it before.
    """
    file = Path(os.path.abspath(os.fsdecode(path)))
    state = file.stat()
    source = hashlib.sha256(os.fsencode(file)).hexdigest()[:16]
    content = hashlib.sha256(repr((state.st_size, state.st_mtime_ns, rms_norm_eps)).encode())
    folder = cache_folder() / "legacy"
    target = folder / f"{file.stem}-{source}-{content.hexdigest()[:16]}.gguf"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.glob(f"*-{source}-*.gguf"):
            old.unlink(missing_ok=True)
        with new_file(target) as scratch:
            convert_legacy(file, scratch, rms_norm_eps=rms_norm_eps, progress=progress)
    return target
