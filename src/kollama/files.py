"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from .errors import ArgumentError, WriteError

__all__ = ["cache_folder", "new_file"]


@contextlib.contextmanager
def new_file(
    path: str | os.PathLike[str], *, source: str | os.PathLike[str] | None = None
) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it gets that name when the block ends.

    Whatever is raised in the block removes the temporary file; a process that is killed leaves at
    most that one, which ends in ".part". A file of this name from before stays until the rename.

    Args:
        source: what is read meanwhile; it must be another file.

    Raises:
        ArgumentError: path is the source.
        WriteError: the folder is not there, or the file cannot be made, written or renamed.
    """
    target = Path(path)
    if source is not None and target.exists() and target.samefile(source):
        raise ArgumentError(f"{target}: is the source itself; choose another name")
    if target.is_dir():
        raise WriteError(f"{target}: is a folder, not a file to write")
    scratch = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        scratch.open("wb").close()  # says at once what is wrong with the folder
        yield scratch
        with scratch.open("rb+") as file:
            os.fsync(file.fileno())  # a rename can reach the disk before the data does
        scratch.replace(target)
    except OSError as error:
        if not _is_about(error, scratch):
            raise
        raise WriteError(f"{target}: cannot be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


def _is_about(error: OSError, path: Path) -> bool:
    # A failing write() names no file, nor does a WriteError of csrc.
    return error.filename is None or Path(os.fsdecode(error.filename)) == path


def cache_folder() -> Path:
    """Where the platform wants caches of kollama."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "kollama"
