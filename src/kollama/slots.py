"""The sequences of an LLM's context, lent to one request each."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ._core.context import Context
from ._core.sequence import Sequence
from .errors import BusyError, ClosedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Slot", "Slots", "n_common", "n_reusable"]

WAIT_SLICE_S = 0.1


class Slot:
    """A sequence, and the thread that its request was started in."""

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.holder: int | None = None


class Slots:
    """Lends sequences. A request gets the free one that shares most of its prompt."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._slots: list[Slot] = []
        self._changed = threading.Condition()
        self._waiting: set[int] = set()  # threads that want a slot
        self.n_vocab = context.model.n_vocab

    def take(self, prompt: NDArray[np.int32]) -> Slot:
        """A slot for this prompt; where all are lent, waits until one is given back.

        Raises:
            BusyError: waiting would never end: all are held by this thread, or by others that wait.
            ClosedError: the context is closed.
        """
        me = threading.get_ident()
        with self._changed:
            while (slot := self._free_slot(prompt)) is None:
                if all(slot.holder in self._waiting | {me} for slot in self._slots):
                    raise BusyError(
                        f"all {len(self._slots)} requests that n_parallel allows are unfinished, "
                        "and nobody is left to finish one: read them to their end, close them, or "
                        "make the LLM with a larger n_parallel"
                    )
                self._wait(me)
            slot.holder = me
            return slot

    def give_back(self, slot: Slot) -> None:
        with self._changed:
            slot.holder = None
            self._changed.notify()

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """No request runs or begins meanwhile, and nothing is in memory.

        Raises:
            BusyError: a request is not finished.
        """
        with self._changed:
            if any(slot.holder is not None for slot in self._slots):
                raise BusyError("a request is unfinished: read it to its end, or close it")
            for slot in self._slots:
                slot.sequence.clear()
            yield

    def _wait(self, me: int) -> None:
        # In slices: a collection in this very thread may give a slot back between the look and the
        # wait, and nobody would be there to hear of it.
        self._waiting.add(me)
        try:
            self._changed.wait(WAIT_SLICE_S)
        finally:
            self._waiting.discard(me)

    def close(self) -> None:
        """Frees the sequences, and lets waiting requests see that the context was closed."""
        with self._changed:
            for slot in self._slots:
                slot.sequence.close()
            self._changed.notify_all()

    def _free_slot(self, prompt: NDArray[np.int32]) -> Slot | None:
        if self._context.closed:
            raise ClosedError("the LLM is closed")
        free = [slot for slot in self._slots if slot.holder is None]
        best = max(free, key=lambda slot: n_reusable(slot.sequence, prompt), default=None)
        unused = len(self._slots) < self._context.n_seq_max
        if unused and (best is None or n_reusable(best.sequence, prompt) == 0):
            best = Slot(self._context.sequence())
            self._slots.append(best)
        return best


def n_reusable(sequence: Sequence, prompt: NDArray[np.int32]) -> int:
    """Tokens of the prompt that are in memory just as reading them anew would give them."""
    return min(sequence.n_exact, n_common(sequence.tokens, prompt))


def n_common(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    """Length of the common prefix of two arrays of ids."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n
