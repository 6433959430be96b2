"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .errors import ArgumentError, WriteError

__all__ = ["cache_folder", "new_file"]

_numbers = itertools.count()  # threads may write the same file


@contextlib.contextmanager
def new_file(
    path: str | os.PathLike[str], *, source: str | os.PathLike[str] | None = None
) -> Iterator[Path]:
    """A temporary path beside `path` to write to; it gets that name when the block ends.

    Whatever is raised in the block removes the temporary file; a process that is killed leaves at
    most that one, which ends in ".part" and goes when the same file is written again. A file of
    this name from before stays until the rename.

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
    scratch = target.with_name(f"{target.name}.{os.getpid()}.{next(_numbers)}.part")
    try:
        with scratch.open("wb") as held:  # says at once what is wrong with the folder
            _lock(held)
            _remove_abandoned(target)
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


def _remove_abandoned(target: Path) -> None:
    """What processes that were killed have left of the same file."""
    for path in target.parent.glob(f"{glob.escape(target.name)}.*.part"):
        number = path.name.removeprefix(f"{target.name}.").removesuffix(".part")
        if number.replace(".", "").isdigit():
            with contextlib.suppress(OSError):
                _remove_unless_locked(path)


if sys.platform == "win32":
    def _lock(file: IO[bytes]) -> None:
        """Nothing to do: a file that is open cannot be removed."""

    def _remove_unless_locked(path: Path) -> None:
        path.unlink()
else:
    import fcntl

    def _lock(file: IO[bytes]) -> None:
        """Says that this process writes the file; it goes with the process, however that ends."""
        with contextlib.suppress(OSError):  # some file systems know no locks
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)

    def _remove_unless_locked(path: Path) -> None:
        with path.open("rb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()


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
