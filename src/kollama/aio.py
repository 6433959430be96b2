"""Streams for asyncio: the engine computes, and the event loop only hears of what is there.

No call here waits for the engine in the loop's thread. What takes long (reading the prompt,
compiling a grammar, taking the sequence) is done by a few helper threads, once for a request. News
come from one watching thread for all streams of an LLM: the engine tells it once for all tokens of
a step, and it wakes each loop once for all streams that have some.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from ._core.generation import NEWS_CHOICE, NEWS_END, NEWS_NONE, STREAM_AHEAD
from .deadline import Deadline, deadline_of
from .errors import BusyError, ClosedError, DeadlineError, StateError
from .generate import Generation
from .params import INT32_MAX
from .slots import NOBODY
from .types import Completion, Token

if TYPE_CHECKING:
    from .watcher import Watcher

__all__ = ["AsyncGeneration", "complete", "complete_all", "run"]

T = TypeVar("T")


class AsyncRequest:
    """A Generation that an event loop drives. All is for the loop's thread but `close` and `tell`.

    The steps that begin it in a helper thread, and `close`, may meet in any order, without a lock:
    each sets what it has done before it looks at what the other has.
    """

    def __init__(self, watcher: Watcher, make: Callable[[], Generation],
                 deadline: Deadline | None, whole: bool = False) -> None:
        self._watcher = watcher
        self._make = make
        self._whole = whole  # nobody sees its tokens before its end
        self._deadline = deadline
        self._timer: asyncio.TimerHandle | None = None
        self._thread = threading.get_ident()
        self._waiters: set[asyncio.Future[None]] = set()
        self.generation: Generation | None = None
        self.loop = asyncio.get_running_loop()
        self.key = watcher.new_key()
        self.closed = False
        self.expired = False
        self.ended = False  # nothing of it is left in the engine, and its place is free

    # ---- the beginning ---------------------------------------------------------------------------

    async def begin(self) -> None:
        """Until the prompt is the engine's. Returns early where it was closed."""
        if self._deadline is not None:
            self._timer = self.loop.call_later(self._deadline.left(), self._expire)
        await self.hop(self._prepare)
        while not self.closed and self.generation is not None and not self.generation._begun:
            if self.generation._settled:
                await self.hop(self._start)
            else:
                await self.changed()
        self._check_expired()

    def _prepare(self) -> None:
        self._watcher.add(self)
        try:
            generation = self._make()
        except BaseException:
            self.finish()
            raise
        self.generation = generation
        generation._queue_up(NOBODY if self._whole else self._thread, self.tell)
        if self.closed:
            generation._leave()
            self.finish()
        elif generation._settled:
            self._start()

    def _start(self) -> None:
        assert self.generation is not None
        begun = False
        try:
            begun = self.generation._accept(INT32_MAX if self._whole else STREAM_AHEAD,
                                            watch=self._watcher.watch, key=self.key)
        finally:
            if self.closed or not begun:
                self.finish()

    # ---- news ------------------------------------------------------------------------------------

    async def news(self) -> int:
        """What there is to be read: one of the NEWS_ constants, but NEWS_NONE.

        The loop has its turn in here even where there is something already.
        """
        assert self.generation is not None
        found = self.generation._look(self._whole)
        if found != NEWS_NONE:
            await asyncio.sleep(0)
        while found == NEWS_NONE and not self.closed:
            await self.changed()
            found = self.generation._look(self._whole)
        self._check_expired()
        return found

    async def changed(self) -> None:
        """Until something may have changed."""
        waiter = self.loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def wake(self) -> None:
        if self.ended and self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    def tell(self) -> None:
        """wake, from any thread."""
        try:
            self.loop.call_soon_threadsafe(self.wake)
        except RuntimeError:  # the loop is closed: nobody is left to read
            if not self.closed:
                self.close()

    async def hop(self, call: Callable[[], T]) -> T:
        """Runs it in a helper thread, to its end even where this task is cancelled."""
        job = submit(self._watcher.helpers, call)
        job.add_done_callback(lambda _: self.tell())
        while not job.done():
            await self.changed()
        return job.result()

    def _expire(self) -> None:
        if self.ended or self.closed:
            return
        self.expired = True
        if self._whole and self.generation is not None and self.generation._begun:
            self.generation._request_cancel()  # what there is by then is still wanted
        else:
            self.close()
        self.wake()

    def _check_expired(self) -> None:
        if self.expired and (self.closed or not self._whole):
            raise self.error()

    def error(self) -> DeadlineError:
        assert self._deadline is not None
        return self._deadline.error()

    # ---- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends it within one graph. From any thread; waits for nothing. Idempotent."""
        self.closed = True
        generation = self.generation
        if generation is None:
            return  # it is being made: who makes it will see
        generation._leave()
        if generation._is_beginning:
            return  # in a helper thread, which will see, too
        generation._request_cancel()
        if generation._look(for_end=True) == NEWS_END:
            self.finish()
        # Else the watching thread hears of the end, and comes here.

    def finish(self) -> None:
        """Gives memory and place back: the stream has ended, or none was begun."""
        if self.generation is not None and not self.generation._end():
            return  # a helper thread reads a token, and will come here
        self._watcher.discard(self)
        if not self.ended:
            self.ended = True
            self.tell()


class AsyncGeneration(AsyncIterator[Token]):
    """The tokens of one request, for ``async for``: what `LLM.agenerate` and `LLM.achat` return.

    The request starts with the first token asked for. `aclose`, ``async with``, a cancelled task
    and collection end it within one graph of the model. `result` is what there is so far. One
    event loop drives it; `close` may come from any thread.
    """

    def __init__(self, watcher: Callable[[], Watcher], make: Callable[[], Generation],
                 timeout: float | None) -> None:
        deadline_of(timeout)  # is wrong here and now, or not at all
        self._watcher = watcher
        self._make = make
        self._timeout = timeout
        self._request: AsyncRequest | None = None
        self._reading = False
        self._closed = False

    def __aiter__(self) -> AsyncGeneration:
        return self

    async def __anext__(self) -> Token:
        if self._reading:
            raise BusyError("another task waits for this generation's next token")
        self._reading = True
        try:
            if self._closed:
                raise StopAsyncIteration
            if self._request is None:
                self._request = AsyncRequest(self._watcher(), self._make,
                                             deadline_of(self._timeout))
                await self._request.begin()
            token = await _next(self._request)
            if token is None:
                raise StopAsyncIteration
            return token
        except BaseException:
            self.close()
            raise
        finally:
            self._reading = False

    @property
    def result(self) -> Completion:
        """The completion so far. finish_reason is "cancelled" where it did not run to its end.

        Raises:
            StateError: no token was asked for yet.
        """
        if self._request is None or self._request.generation is None:
            raise StateError("this generation has not begun: ask for its first token")
        return self._request.generation.result

    def close(self) -> None:
        """Ends the request, and returns at once. From any thread. Idempotent."""
        self._closed = True
        if self._request is not None:
            self._request.close()

    async def aclose(self) -> None:
        """Ends the request, and returns once its place is free. Idempotent."""
        self.close()
        while self._request is not None and not self._request.ended:
            await self._request.changed()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if getattr(self, "_request", None) is not None:  # half made, where __init__ failed
            self.close()


async def _next(request: AsyncRequest) -> Token | None:
    generation = request.generation
    if generation is None or request.closed:
        return None
    if await request.news() == NEWS_CHOICE:
        return await request.hop(lambda: _choose(request, generation))
    return None if request.closed else generation._read()


def _choose(request: AsyncRequest, generation: Generation) -> Token | None:
    """A token that a callable of the sampler has its say in, in a helper thread."""
    try:
        return generation._read()
    finally:
        if request.closed:
            request.close()


async def complete(watcher: Watcher, make: Callable[[], Generation], deadline: Deadline | None,
                   ) -> Completion:
    """The request, whole.

    Raises:
        DeadlineError: with the part that there is.
    """
    request = AsyncRequest(watcher, make, deadline, whole=True)
    try:
        await request.begin()
        while await _next(request) is not None:
            pass
        generation = request.generation
        assert generation is not None
        if request.expired and generation.result.finish_reason == "cancelled":
            raise request.error()
        return generation.result
    except DeadlineError as error:
        if request.generation is not None:
            error.completion = request.generation.result
        raise
    finally:
        request.close()


async def complete_all(watcher: Watcher, make: Callable[[], list[Generation]],
                       deadline: Deadline | None, n_parallel: int) -> list[Completion]:
    """Several requests, n_parallel at a time."""
    errors: list[DeadlineError] = []
    places = asyncio.Semaphore(n_parallel)

    async def one(generation: Generation) -> Completion:
        async with places:
            try:
                return await complete(watcher, lambda: generation, deadline)
            except DeadlineError as error:
                errors.append(error)
                return generation.result

    generations = await run(watcher.helpers, make)
    tasks = [asyncio.ensure_future(one(generation)) for generation in generations]
    try:
        done = list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
    if errors:
        errors[0].completion = done
        raise errors[0]
    return done


def submit(executor: Executor, call: Callable[[], T]) -> Future[T]:
    try:
        return executor.submit(call)
    except RuntimeError:
        raise ClosedError("the LLM is closed") from None


async def run(executor: Executor, call: Callable[[], T]) -> T:
    """Runs it in a thread of the executor."""
    return await asyncio.wrap_future(submit(executor, call))
