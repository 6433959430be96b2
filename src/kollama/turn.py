"""One caller at a time."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import TYPE_CHECKING, Any

from .errors import BusyError
from .params import choice

if TYPE_CHECKING:
    from .deadline import Deadline

__all__ = ["Turn", "waits_when_busy"]


def waits_when_busy(busy: Any) -> bool:
    """What the argument busy says."""
    return bool(choice("busy", busy, {"wait": 1, "error": 0}))


class Turn:
    """The turn of a caller among threads: a context manager, or `take` and `give_back`."""

    def __init__(self, what: str, waits: bool) -> None:
        self._what = what
        self._waits = waits
        self._lock = threading.Lock()
        self._holder: int | None = None

    def take(self, deadline: Deadline | None = None) -> None:
        """Waits for the turn, or not, as this was made.

        Raises:
            BusyError: another thread has the turn, and callers do not wait; or this thread has it,
                and was called back from its own call.
            DeadlineError: it did not come in time.
        """
        me = threading.get_ident()
        if not self._lock.acquire(blocking=False):
            if self._holder == me:  # a signal handler or a finaliser, which nobody could wait for
                raise BusyError(f"this thread is in a call of {self._what} already")
            if not self._waits:
                raise BusyError(f"another thread is in a call of {self._what}: wait for it, or "
                                "make it with busy='wait'")
            left = -1 if deadline is None else min(deadline.left(), threading.TIMEOUT_MAX)
            if not self._lock.acquire(timeout=left):
                assert deadline is not None
                raise deadline.error()
        self._holder = me

    def give_back(self) -> None:
        self._holder = None
        self._lock.release()

    def __enter__(self) -> None:
        self.take()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.give_back()
