"""Streams of tokens and what they add up to."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

import numpy as np

from ._core.generation import STREAM_AHEAD, TokenStream
from ._core.sampler import Sampler
from .errors import ArgumentError, BusyError, TokenError
from .params import INT32_MAX, integer
from .sampling import Sampling
from .types import Completion, FinishReason, Timings, Token, Usage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .slots import Slot, Slots

__all__ = ["Generation", "Sampling"]

_T = TypeVar("_T")


class Generation(Iterator[Token]):
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
        shift_at: int | None = None,
        n_keep: int = 0,
    ) -> None:
        self._slots = slots
        self._slot: Slot | None = None
        self._stream: TokenStream | None = None
        self._closed = False
        self._turn = threading.Lock()  # of the thread that asks for a token
        self._prompt = prompt
        self._sampler = sampler
        self._max_tokens = max_tokens
        self._stop = stop
        self._ignore_eos = ignore_eos
        self._n_top = logprobs
        self._shift_at = shift_at
        self._n_keep = n_keep
        self._tokens: list[Token] = []

    def start(self, ahead: int = STREAM_AHEAD) -> None:
        """Starts the request now rather than with the first token."""
        if self._closed or self._stream is not None:
            return
        self._slot = self._slots.take(self._prompt)
        if self._closed:  # while it waited
            self.close()
            return
        try:
            self._stream = TokenStream(
                self._slot.sequence,
                self._sampler,
                self._prompt,
                max_tokens=self._max_tokens,
                stop=self._stop,
                ignore_eos=self._ignore_eos,
                ahead=ahead,
                top=self._n_top,
                shift_at=self._shift_at,
                n_keep=self._n_keep,
            )
        except BaseException:
            self.close()
            raise

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
            if self._stream is None or self._slot is None:
                raise StopIteration
            self._slot.holder = threading.get_ident()
            return what(self._stream)
        except BaseException:
            self.close()
            raise
        finally:
            self._turn.release()

    def finish(self) -> Completion:
        """Runs to the end: the stream without its tokens' handshakes."""
        self.start(ahead=INT32_MAX)
        for _ in self:
            pass
        return self.result

    @property
    def result(self) -> Completion:
        """The completion so far. finish_reason is "cancelled" where it did not run to its end."""
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
        if self._stream is not None and not self._stream.close():
            return  # the call that waits for a token ends now, and gives the slot back
        slot, self._slot = self._slot, None
        if slot is not None:
            self._slots.give_back(slot)

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
        if getattr(self, "_slot", None) is not None:
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
