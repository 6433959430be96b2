"""The sequences of an LLM's context, lent to one request each."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from ._core.context import Context
from ._core.sequence import Sequence
from .errors import BusyError, ClosedError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .deadline import Deadline

__all__ = ["NOBODY", "Slot", "Slots", "Ticket", "n_common", "n_reusable"]

WAIT_SLICE_S = 0.1
NOBODY = 0  # holds a request that ends without anyone's help


class Slot:
    """A sequence, and the thread that has to read on for its request to end."""

    def __init__(self, sequence: Sequence) -> None:
        self.sequence = sequence
        self.holder: int | None = None  # None: free
        self.given_back = 0  # when: counts


class Ticket:
    """A request's place in the queue, and then its slot."""

    def __init__(self, prompt: NDArray[np.int32], holder: int, wake: Callable[[], object]) -> None:
        self.prompt = prompt
        self.holder = holder
        self.blocks = False  # the holder does nothing else while it waits
        self.wake = wake  # called from any thread once something has changed; waits for nobody
        self.slot: Slot | None = None
        self.error: Exception | None = None
        self.taken = False  # the request has begun, and gives its slot back at its end
        self.over = False

    @property
    def settled(self) -> bool:
        """Whether there is nothing left to wait for."""
        return self.slot is not None or self.error is not None or self.over


class Slots:
    """Lends sequences, first come first served. A request gets one that it goes on from, else an
    unused one, else the one that was given back first.
    """

    def __init__(self, context: Context, waits: bool = True) -> None:
        self._context = context
        self._waits = waits
        self._slots: list[Slot] = []
        # Held shortly, and never during compute. Taken again in the same thread where a collection
        # gives a slot back: hence _serve's loop.
        self._lock = threading.RLock()
        self._queue: deque[Ticket] = deque()
        self._serving = False
        self._changed = False
        self._paused = False
        self._clock = itertools.count(1)
        self.n_vocab = context.model.n_vocab

    def ask(self, prompt: NDArray[np.int32], holder: int, wake: Callable[[], object]) -> Ticket:
        """A ticket, which may have its slot already. Does not wait."""
        ticket = Ticket(prompt, holder, wake)
        with self._lock:
            self._queue.append(ticket)
            self._serve()
            if not ticket.settled and not self._waits:
                self._queue.remove(ticket)
                ticket.error = BusyError(
                    f"all {len(self._slots)} requests that n_parallel allows are running: wait for "
                    "one, or make the LLM with a larger n_parallel or with busy='wait'"
                )
        return ticket

    def wait(self, ticket: Ticket, woken: threading.Event, deadline: Deadline | None) -> None:
        """Until the ticket is settled. In slices: what the others wait for may change meanwhile.

        Raises:
            BusyError: it would never end: all slots are held by this thread, or by others that
                wait.
            DeadlineError: it took too long.
        """
        ticket.blocks = True
        while not ticket.settled:
            with self._lock:
                self._check_hope(ticket)
            woken.wait(WAIT_SLICE_S if deadline is None else min(WAIT_SLICE_S, deadline.left()))
            if deadline is not None and not ticket.settled:
                deadline.check()

    def accept(self, ticket: Ticket) -> bool:
        """Whether the request may begin on ticket.slot. It is its own to give back from here on.

        Raises:
            BusyError: all slots are lent, and requests do not wait.
            ClosedError: the context is closed.
        """
        with self._lock:
            if ticket.error is not None:
                raise ticket.error
            ticket.taken = not ticket.over
            ticket.wake = _nobody  # who waited holds this ticket, too: no cycle is left
            return ticket.taken

    def hold(self, ticket: Ticket, thread: int) -> None:
        """From now on this thread reads the request's tokens."""
        with self._lock:
            ticket.holder = thread
            if ticket.slot is not None and not ticket.over:
                ticket.slot.holder = thread

    def leave(self, ticket: Ticket) -> None:
        """Gives the place in the queue up, or the slot, unless the request has begun."""
        with self._lock:
            if not ticket.taken:
                self.give_back(ticket)

    def give_back(self, ticket: Ticket) -> None:
        """The request is over. Idempotent."""
        with self._lock:
            if ticket.over:
                return
            ticket.over = True
            if ticket in self._queue:
                self._queue.remove(ticket)
            if ticket.slot is not None:
                ticket.slot.holder = None
                ticket.slot.given_back = next(self._clock)
            self._serve()
            wake, ticket.wake = ticket.wake, _nobody
        wake()

    @contextmanager
    def emptied(self) -> Iterator[None]:
        """No request runs or begins meanwhile, and nothing is in memory.

        Raises:
            BusyError: a request is not finished.
        """
        with self._lock:
            if self._paused or any(slot.holder is not None for slot in self._slots):
                raise BusyError("a request is unfinished: read it to its end, or close it")
            self._paused = True
        try:
            for slot in self._slots:
                slot.sequence.clear()
            yield
        finally:
            with self._lock:
                self._paused = False
                self._serve()

    def close(self) -> None:
        """Frees the sequences, and lets waiting requests see that the context was closed."""
        with self._lock:
            for slot in self._slots:
                slot.sequence.close()
            self._serve()

    def _check_hope(self, ticket: Ticket) -> None:
        waiting = {ticket.holder} | {other.holder for other in self._queue if other.blocks}
        hopeless = not self._paused and all(slot.holder in waiting for slot in self._slots)
        if hopeless and not ticket.settled:
            raise BusyError(
                f"all {len(self._slots)} requests that n_parallel allows are unfinished, "
                "and nobody is left to finish one: read them to their end, close them, or "
                "make the LLM with a larger n_parallel"
            )

    def _serve(self) -> None:
        self._changed = True
        if self._serving:
            return
        self._serving = True
        try:
            while self._changed:
                self._changed = False
                while self._queue and not self._paused and self._serve_first():
                    pass
        finally:
            self._serving = False

    def _serve_first(self) -> bool:
        ticket = self._queue[0]
        slot = None
        try:
            slot = self._free_slot(ticket.prompt)
        except Exception as error:
            ticket.error = error
        else:
            if slot is None:
                return False
            slot.holder = ticket.holder
            ticket.slot = slot
        if ticket in self._queue:
            self._queue.remove(ticket)
        elif slot is not None:  # a collection has ended the request meanwhile
            slot.holder = None
        ticket.wake()
        return True

    def _free_slot(self, prompt: NDArray[np.int32]) -> Slot | None:
        if self._context.closed:
            raise ClosedError("the LLM is closed")
        free = [slot for slot in self._slots if slot.holder is None]
        shared, best = max(((n_reusable(slot.sequence, prompt), -i) for i, slot in enumerate(free)),
                           default=(0, 0))
        # The engine copies beginnings from wherever they are: what counts is what would be lost.
        if free and 2 * shared >= len(free[-best].sequence):
            return free[-best]
        if len(self._slots) < self._context.n_seq_max:
            self._slots.append(Slot(self._context.sequence()))
            return self._slots[-1]
        return min(free, key=lambda slot: slot.given_back, default=None)


def _nobody() -> None:
    pass


def n_reusable(sequence: Sequence, prompt: NDArray[np.int32]) -> int:
    """Tokens of the prompt that are in memory just as reading them anew would give them."""
    return min(sequence.n_exact, n_common(sequence.tokens, prompt))


def n_common(a: NDArray[np.int32], b: NDArray[np.int32]) -> int:
    """Length of the common prefix of two arrays of ids."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n
