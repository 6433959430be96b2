"""How long a call may take."""

from __future__ import annotations

import math
from time import monotonic
from typing import Any

from .errors import DeadlineError
from .params import number

__all__ = ["Deadline", "deadline_of"]


class Deadline:
    """The end of a timeout in seconds that begins now."""

    __slots__ = ("_at", "timeout")

    def __init__(self, timeout: float) -> None:
        self.timeout = timeout
        self._at = monotonic() + timeout

    def left(self) -> float:
        """Seconds until it is over; at least 0."""
        return max(0.0, self._at - monotonic())

    def slice_ms(self, longest: int) -> int:
        """Milliseconds to wait before the next look; at least 1."""
        return max(1, math.ceil(min(longest, self.left() * 1000)))

    def check(self) -> None:
        """Raises once it is over."""
        if monotonic() >= self._at:
            raise self.error()

    def cancel(self) -> None:
        """It is over now."""
        self._at = -math.inf

    def error(self) -> DeadlineError:
        return DeadlineError(f"not done within timeout={self.timeout:g} seconds")


def deadline_of(timeout: Any) -> Deadline | None:
    """None: for as long as it takes. A Deadline stays as it is."""
    if timeout is None or isinstance(timeout, Deadline):
        return timeout
    return Deadline(number("timeout", timeout, 0))
