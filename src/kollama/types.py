"""Plain values that generations return; those of the machine are in machine.py."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Completion", "FinishReason", "Timings", "Token", "Usage"]

# A union of two: stubtest takes an alias of one Literal for an error.
FinishReason = Literal["stop", "eos"] | Literal["length", "cancelled"]  # noqa: PYI030


@dataclass(slots=True)
class Token:
    """One sampled token of a stream.

    `text` holds complete characters only: a syllable whose bytes come with several tokens is in
    the last of them, and what may still become a stop string is held back. It may be empty.
    `logprob` is the natural logarithm of the token's probability in the model's own distribution,
    before any sampler. `finish_reason` is set on the last token. `top_logprobs` are the k most
    likely tokens of that distribution, (id, logprob), the likeliest first, where logprobs=k was
    asked for.
    """

    id: int
    text: str
    logprob: float
    finish_reason: FinishReason | None = None
    top_logprobs: list[tuple[int, float]] | None = None


@dataclass(frozen=True)
class Usage:
    """Token counts. `reused_tokens` of the prompt were in memory already and cost nothing.

    `drafted_tokens` were guessed and computed along, `accepted_tokens` of them were what was
    sampled: see draft of LLM.
    """

    prompt_tokens: int
    completion_tokens: int
    reused_tokens: int
    drafted_tokens: int = 0
    accepted_tokens: int = 0

    @property
    def total_tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True)
class Timings:
    """Seconds from the start to the first token, and from there to the last."""

    prompt_seconds: float
    generate_seconds: float


@dataclass(frozen=True)
class Completion:
    """A finished generation.

    `tokens` are the generated ids alone, an end token included (int32, shape (n,)). `incomplete`
    holds the bytes of a character that the last token left unfinished; they are not in `text`.
    `seed` makes the same text again. `logprobs` are those of the tokens (float32, shape (n,)),
    `top_logprobs` those of each Token, where they were asked for.
    """

    text: str
    tokens: NDArray[np.int32]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    seed: int
    incomplete: bytes = b""
    logprobs: NDArray[np.float32] | None = None
    top_logprobs: list[list[tuple[int, float]]] | None = None
