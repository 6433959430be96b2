"""Streams of tokens and what they add up to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from ._core.generation import NEWS_END, NEWS_NONE, STREAM_AHEAD, TokenStream
from ._core.sampler import Sampler
from .deadline import Deadline, deadline_of
from .errors import ArgumentError, BusyError, DeadlineError, TokenError
from .params import INT32_MAX, integer

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._core.watch import Watch
    from .slots import Slots, Ticket
    from .types import Completion, FinishReason, Token

__all__ = ["Generation"]

_T = TypeVar("_T")


class Generation(Iterator["Token"]):
    """The tokens of one request, as they come: what `LLM.generate` and `LLM.chat` return.

    The request starts with the first token asked for. Closing it, by `close`, ``with`` or
    collection, ends it within one graph of the model. `result` is what there is so far.
    """

    def __init__(
        self,
        slots: Slots,
        prompt: NDArray[np.int32],
        sampler: Sampler,
        *,
        max_tokens: int | None,
        stop: list[bytes],
        ignore_eos: bool,
        logprobs: int = 0,
        timeout: float | None = None,
        shift_at: int | None = None,
        n_keep: int = 0,
    ) -> None:
        self._slots = slots
        self._ticket: Ticket | None = None
        self._stream: TokenStream | None = None
        self._closed = False
        self._is_whole = False  # nobody sees its tokens before its end
        self._turn = threading.Lock()  # of the thread that asks for a token
        self._prompt = prompt
        self._sampler = sampler
        self._max_tokens = max_tokens
        self._stop = stop
        self._ignore_eos = ignore_eos
        self._n_top = logprobs
        self._timeout = timeout
        self._shift_at = shift_at
        self._n_keep = n_keep
        self._tokens: list[Token] = []

    def start(self, ahead: int = STREAM_AHEAD, deadline: Deadline | None = None) -> None:
        """Starts the request now rather than with the first token, and its timeout with it."""
        if self._closed or self._stream is not None:
            return
        if deadline is None:
            deadline = deadline_of(self._timeout)
        woken = threading.Event()
        ticket = self._slots.ask(self._prompt, threading.get_ident(), woken.set)
        self._ticket = ticket
        try:
            if self._closed:  # by another thread, just now
                self._leave()
            self._slots.wait(ticket, woken, deadline)
            self._accept(ahead, deadline=deadline)
        except BaseException:
            self.close()
            raise

    # ---- the steps of a request: start takes them at once, an event loop one by one -------------

    def _queue_up(self, holder: int, wake: Callable[[], object]) -> None:
        """For a place: `_settled` once there is nothing left to wait for, and wake is called."""
        self._ticket = self._slots.ask(self._prompt, holder, wake)

    @property
    def _settled(self) -> bool:
        return self._ticket is not None and self._ticket.settled

    def _leave(self) -> None:
        """Gives the place up, unless the request has begun."""
        if self._ticket is not None:
            self._slots.leave(self._ticket)

    def _accept(self, ahead: int, *, watch: Watch | None = None, key: int = 0,
                deadline: Deadline | None = None) -> bool:
        """Begins in the place that was asked for; or not, where it was given up."""
        ticket = self._ticket
        if ticket is None or not self._slots.accept(ticket):
            return False
        assert ticket.slot is not None
        try:
            self._stream = TokenStream(
                ticket.slot.sequence,
                self._sampler,
                self._prompt,
                max_tokens=self._max_tokens,
                stop=self._stop,
                ignore_eos=self._ignore_eos,
                ahead=ahead,
                top=self._n_top,
                shift_at=self._shift_at,
                n_keep=self._n_keep,
                deadline=deadline,
                watch=watch,
                key=key,
            )
        except BaseException:
            self._slots.give_back(ticket)
            raise
        if self._closed:  # by another thread, which found no stream to close
            self._end()
        return True

    @property
    def _is_beginning(self) -> bool:
        ticket = self._ticket
        return ticket is not None and ticket.taken and not ticket.over and self._stream is None

    @property
    def _begun(self) -> bool:
        return self._stream is not None

    def _look(self, for_end: bool) -> int:
        """See TokenStream.look."""
        return NEWS_END if self._stream is None else self._stream.look(for_end)

    def _read(self) -> Token | None:
        """The next token; None at the end."""
        token = None if self._stream is None else next(self._stream, None)
        if token is not None:
            self._tokens.append(token)
        return token

    def _go_on(self) -> bool:
        """For a thread that drives several requests, whole: takes what there is, runs the sampler's
        callables, and says whether that was all. Waits for nothing.
        """
        self._is_whole = True
        while (news := self._look(for_end=True)) != NEWS_NONE:
            if next(self, None) is None and news == NEWS_END:
                return True
        return False

    def _request_cancel(self) -> None:
        if self._stream is not None:
            self._stream.request_cancel()

    def _end(self) -> bool:
        """Gives memory and place back. False: another thread waits for a token; that call ends now,
        and comes here itself.
        """
        if self._stream is None:
            return True
        if not self._stream.close():
            return False
        if self._ticket is not None:
            self._slots.give_back(self._ticket)
        return True

    # ---- its tokens ------------------------------------------------------------------------------

    def __iter__(self) -> Generation:
        return self

    def __next__(self) -> Token:
        token = self._ask(next)
        self._tokens.append(token)
        return token

    def send(self, token: int | None) -> Token:
        """Puts a token in the place of the last one, and returns the one that follows it.

        As with a generator, ``send(None)`` is ``next``. What followed the replaced token is undone:
        memory, text, stop strings and sampler are as if it had never been. It may be an end token,
        or end the text with a stop string: then StopIteration, as after any last token. `tokens`
        and `result` have the new token. From the first call on no token is computed before it is
        asked for.

        Raises:
            TypeError: no token was given out yet.
            TokenError: the id is outside the vocabulary; the generation is as it was.
            ArgumentError: the grammar does not allow it here; the generation is closed.
        """
        if token is None:
            return next(self)
        number = integer("token", token, -INT32_MAX)
        if not self._tokens and not self._closed:
            raise TypeError("cannot send a token to a generation that has not given one out yet")
        n_vocab = self._slots.n_vocab
        if not 0 <= number < n_vocab:
            raise TokenError(f"token id {number} is outside the vocabulary, 0 to {n_vocab - 1}")
        replaced, following = self._ask(lambda stream: stream.send(number))
        self._tokens[-1] = replaced
        if following is None:
            self.close()
            raise StopIteration
        self._tokens.append(following)
        return following

    @property
    def tokens(self) -> list[Token]:
        """The tokens so far, those sent in place of others among them."""
        return list(self._tokens)

    def _ask(self, what: Callable[[TokenStream], _T]) -> _T:
        if not self._turn.acquire(blocking=False):
            raise BusyError("another thread waits for this generation's next token")
        try:
            self.start()
            if self._stream is None or self._ticket is None:
                raise StopIteration
            if self._ticket.holder != (thread := threading.get_ident()):
                self._slots.hold(self._ticket, thread)
            return what(self._stream)
        except BaseException as error:
            if not (self._is_whole and isinstance(error, DeadlineError)):
                self.close()
            raise
        finally:
            self._turn.release()

    def finish(self) -> Completion:
        """Runs to the end: the stream without its tokens' handshakes."""
        self._is_whole = True
        try:
            self.start(ahead=INT32_MAX)
            for _ in self:
                pass
        except DeadlineError as error:
            error.completion = self.cut()
            raise
        return self.result

    def cut(self) -> Completion:
        """Ends the request, and gives all that was computed by then."""
        if self._stream is not None:
            self._stream.request_cancel()
            for token in self._stream:
                self._tokens.append(token)
        self.close()
        return self.result

    @property
    def result(self) -> Completion:
        """The completion so far. finish_reason is "cancelled" where it did not run to its end."""
        from .types import Completion, Timings, Usage  # not before a request: see generation.pyx

        usage, timings = Usage(len(self._prompt), 0, 0), Timings(0.0, 0.0)
        reason: FinishReason | None = None
        incomplete = b""
        if self._stream is not None:
            usage, timings, reason, incomplete = self._stream.stats
        return Completion(
            text="".join(token.text for token in self._tokens),
            tokens=np.array([token.id for token in self._tokens], np.int32),
            finish_reason=reason or "cancelled",
            usage=usage,
            timings=timings,
            seed=self._sampler.seed,
            incomplete=incomplete,
            logprobs=np.array([token.logprob for token in self._tokens], np.float32),
            top_logprobs=[token.top_logprobs or [] for token in self._tokens]
            if self._n_top else None,
        )

    def close(self) -> None:
        """Ends the request. Idempotent; from another thread it ends a waiting call, too."""
        self._closed = True
        self._leave()
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        # Half made, where __init__ failed.
        if getattr(self, "_ticket", None) is not None:
            self.close()


def stop_strings(stop: str | bytes | Iterable[str | bytes] | None) -> list[bytes]:
    """stop as a list of bytes."""
    if stop is None:
        return []
    given = [stop] if isinstance(stop, (str, bytes)) else list(stop)
    texts = []
    for item in given:
        if not isinstance(item, (str, bytes)):
            raise TypeError(f"stop must hold str or bytes, not {type(item).__name__}")
        if not item:
            raise ArgumentError("stop holds an empty string: it would end every generation at once")
        texts.append(item.encode() if isinstance(item, str) else bytes(item))
    return texts
