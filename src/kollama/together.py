"""Several requests that one thread drives."""

from __future__ import annotations

import itertools
import threading
from collections import deque
from typing import TYPE_CHECKING

from ._core.watch import Watch
from .errors import DeadlineError
from .params import INT32_MAX

if TYPE_CHECKING:
    from ._core.context import Context
    from .deadline import Deadline
    from .generate import Generation
    from .slots import Slots
    from .types import Completion

__all__ = ["Together"]

PLACE = 0  # key of the news that a place may be free; those of requests begin at 1


class Together:
    """Runs requests whole, n_parallel at a time: each begins as soon as there is a place for it.

    A request that waits for a place keeps no other waiting: what runs goes on, and ends.
    """

    def __init__(self, context: Context, slots: Slots, requests: list[Generation],
                 n_parallel: int, deadline: Deadline | None) -> None:
        self._slots = slots
        self._requests = requests
        self._n_parallel = n_parallel
        self._deadline = deadline
        self._watch = Watch(context)
        self._waiting = deque(requests)
        self._running: dict[int, Generation] = {}
        self._keys = itertools.count(PLACE + 1)
        self._woken = threading.Event()

    def run(self) -> list[Completion]:
        """What came of each, in their order.

        Raises:
            DeadlineError: with what there is by then.
        """
        try:
            self._begin()
            while self._running:
                keys = self._watch.wait_here(self._deadline)
                # None: the context was closed, which each of them says.
                for key in list(self._running) if keys is None else keys:
                    self._go_on(key)
                self._begin()
        except DeadlineError as error:
            error.completion = [request.cut() for request in self._requests]
            raise
        finally:
            for request in self._requests:
                request.close()
        return [request.result for request in self._requests]

    def _begin(self) -> None:
        while self._waiting and len(self._running) < self._n_parallel:
            request = self._waiting[0]
            if request._ticket is None:
                request._queue_up(threading.get_ident(), self._wake)
            ticket = request._ticket
            assert ticket is not None
            if not ticket.settled:
                if self._running:
                    return  # there is something to do meanwhile
                self._slots.wait(ticket, self._woken, self._deadline)
                self._woken.clear()
            self._waiting.popleft()
            key = next(self._keys)
            request._accept(INT32_MAX, watch=self._watch, key=key)
            self._running[key] = request
            self._go_on(key)

    def _go_on(self, key: int) -> None:
        request = self._running.get(key)
        if request is not None and request._go_on():
            del self._running[key]

    def _wake(self) -> None:
        self._watch.tell(PLACE)
        self._woken.set()
