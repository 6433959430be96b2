"""The threads behind an LLM's streams for asyncio: one that hears of news, and a few helpers."""

from __future__ import annotations

import asyncio
import atexit
import itertools
import logging
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from ._core.context import Context
from ._core.watch import Watch

__all__ = ["Watched", "Watcher"]

SWEEP_S = 1.0  # how often to look for loops that were closed under their streams
HELPERS = 4  # threads that prepare requests; each is started when the others are at work

_logger = logging.getLogger("kollama")
_open: weakref.WeakSet[Watcher] = weakref.WeakSet()


class Watched(Protocol):
    """What a Watcher tells of news."""

    key: int
    loop: asyncio.AbstractEventLoop
    closed: bool

    def wake(self) -> None: ...  # in the loop's thread
    def close(self) -> None: ...


class Watcher:
    """Wakes event loops when streams of theirs have news. It does not keep the LLM alive."""

    def __init__(self, context: Context) -> None:
        self._keys = itertools.count(1)
        # Those that the engine may still tell of: kept here until it is done with them.
        self._watched: dict[int, Watched] = {}
        self.watch = Watch(context)
        self.helpers = ThreadPoolExecutor(HELPERS, "kollama-helper")
        self.embedder = ThreadPoolExecutor(1, "kollama-embed")
        self._thread = threading.Thread(target=_run, args=(self.watch, self._watched),
                                        name="kollama-watch", daemon=True)
        self._thread.start()
        _open.add(self)

    def new_key(self) -> int:
        return next(self._keys)

    def add(self, watched: Watched) -> None:
        self._watched[watched.key] = watched

    def discard(self, watched: Watched) -> None:
        self._watched.pop(watched.key, None)

    def close(self) -> None:
        """Once the context is closed: hands over the last news, and ends the threads."""
        self.helpers.shutdown(wait=False)
        self.embedder.shutdown(wait=False)
        self.watch.end()
        if threading.current_thread() is not self._thread:
            self._thread.join()


def _run(watch: Watch, watched: dict[int, Watched]) -> None:
    swept = time.monotonic()
    while (keys := watch.wait(int(SWEEP_S * 1000))) is not None:
        _tell(keys, watched)  # a function of its own: nothing of it is kept alive by the wait
        if time.monotonic() - swept > SWEEP_S:
            _sweep(watched)
            swept = time.monotonic()


def _tell(keys: list[int], watched: dict[int, Watched]) -> None:
    ready: dict[asyncio.AbstractEventLoop, list[Watched]] = {}
    for key in keys:
        one = watched.get(key)
        if one is None:
            continue
        if one.closed:
            _close(one)
        else:
            ready.setdefault(one.loop, []).append(one)
    for loop, several in ready.items():
        try:
            loop.call_soon_threadsafe(_wake, several)
        except RuntimeError:  # the loop is closed: nobody is left to read
            for one in several:
                _close(one)


def _sweep(watched: dict[int, Watched]) -> None:
    """Ends what nobody reads: a loop may be closed between a call_soon_threadsafe and the call."""
    for one in list(watched.values()):
        if one.loop.is_closed():
            _close(one)


def _wake(several: list[Watched]) -> None:
    for one in several:
        one.wake()


def _close(one: Watched) -> None:
    try:
        one.close()
    except Exception:  # the others' news must go on
        _logger.exception("a request could not be closed")


@atexit.register
def _end_all() -> None:
    # A thread that comes back from its wait while the interpreter is taken down would crash it.
    for watcher in list(_open):
        watcher.close()
