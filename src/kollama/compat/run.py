"""One request's tokens, from the native loop or from the one in Python."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from .._core.generation import STREAM_AHEAD, TokenStream
from .._core.sampler import Sampler
from ..errors import DecodeError
from ..params import INT32_MAX
from .loop import Loop
from .processors import LogitsProcessor, StoppingCriteria
from .tokenizer import LlamaTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Request", "Step", "TokenScore", "score", "steps"]


@dataclass(slots=True)
class TokenScore:
    """A token's log-probability, and the most likely tokens with theirs, best first."""

    token: int
    logprob: float
    top: list[tuple[int, float]]


@dataclass(slots=True)
class Step:
    """A token, and the text that is complete with it. `finish` is set on the last step."""

    token: int | None  # None: a step that only ends
    text: str
    score: TokenScore | None = None
    finish: str | None = None


@dataclass(slots=True)
class Request:
    prompt: list[int]
    sampler: Sampler
    max_tokens: int
    stop: list[bytes]
    logprobs: int | None = None
    processors: list[LogitsProcessor] = field(default_factory=list)
    criteria: list[StoppingCriteria] = field(default_factory=list)
    stream: bool = False


def score(row: NDArray[np.float32], token: int, n_top: int) -> TokenScore:
    """The natural logarithms of a softmax over logits."""
    logprobs = row.astype(np.float64)
    logprobs -= logprobs.max()
    logprobs -= np.log(np.exp(logprobs).sum())
    n_top = min(n_top, len(row) - 1)
    best = np.argpartition(logprobs, len(row) - n_top - 1)[len(row) - n_top :]
    top = sorted(((int(i), float(logprobs[i])) for i in best), key=lambda item: -item[1])
    return TokenScore(token, float(logprobs[token]), top)


def steps(llama: Loop, request: Request) -> Generator[Step, None, None]:
    """The request's tokens. End tokens are no steps of their own: they only finish."""
    if request.logprobs is None and not request.processors and not request.criteria:
        return _native(llama, request)
    return _by_hand(llama, request)


def _native(llama: Loop, request: Request) -> Generator[Step, None, None]:
    sequence = llama._open
    stream = TokenStream(sequence, request.sampler, request.prompt, max_tokens=request.max_tokens,
                         stop=request.stop, ahead=STREAM_AHEAD if request.stream else INT32_MAX)
    n = 0
    try:
        for token in stream:
            n += 1
            ended = token.finish_reason == "eos"
            yield Step(None if ended else token.id, token.text,
                       finish="stop" if ended else token.finish_reason)
    finally:
        stream.close()
        if not sequence.closed:
            _drop_what_nobody_saw(llama, len(request.prompt) + n)


def _drop_what_nobody_saw(llama: Loop, n_seen: int) -> None:
    """A stream that was left early has computed tokens ahead."""
    if len(llama._open) > n_seen:
        with suppress(DecodeError):  # a recurrent model: it is empty now
            llama._open.rewind(n_seen)


def _by_hand(llama: Loop, request: Request) -> Generator[Step, None, None]:
    tokenizer = llama._model.tokenizer
    text = Text(LlamaTokenizer(llama), request.stop)
    n = 0
    tokens = llama._tokens(request.prompt, request.sampler, True, request.processors,
                           request.criteria)
    with closing(tokens):
        for token in tokens:
            if tokenizer.is_eog(token):
                break
            n += 1
            scored = None
            if request.logprobs is not None:
                scored = score(llama._open.logits, token, request.logprobs)
            piece = text.push(token)
            if text.stopped:
                yield Step(token, piece, scored, "stop")
                return
            if n == request.max_tokens:
                yield Step(token, piece + text.flush(), scored, "length")
                return
            yield Step(token, piece, scored)
    yield Step(None, text.flush(), finish="stop")


class Text:
    """Tokens to text: whole characters, and nothing of a stop text."""

    def __init__(self, tokenizer: LlamaTokenizer, stop: Sequence[bytes]) -> None:
        self._decoder = tokenizer.stream()
        self._stop = [text.decode() for text in stop]
        self._held = ""
        self.stopped = False

    def push(self, token: int) -> str:
        """The text that is certain now."""
        text = self._held + self._decoder.push(token)
        found = [at for at in (text.find(stop) for stop in self._stop) if at >= 0]
        if found:
            self.stopped = True
            return text[: min(found)]
        keep = max(self._hold(text), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def _hold(self, text: str) -> Iterator[int]:
        """Lengths of what ends the text and begins a stop text."""
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(text)), 0, -1):
                if text.endswith(stop[:length]):
                    yield length
                    break

    def flush(self) -> str:
        """What was held back. A character that is not complete is dropped."""
        held, self._held = self._held, ""
        return held
