"""Python that takes part in the choice of every token."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "LogitsProcessor",
    "LogitsProcessorList",
    "MinTokensLogitsProcessor",
    "StoppingCriteria",
    "StoppingCriteriaList",
    "listed",
]

# Each takes the ids so far (int32) and the logits of the next token (float32, shape (n_vocab,)).
LogitsProcessor: TypeAlias = Callable[[NDArray[np.intc], NDArray[np.single]], NDArray[np.single]]
StoppingCriteria: TypeAlias = Callable[[NDArray[np.intc], NDArray[np.single]], bool]


class LogitsProcessorList(list[LogitsProcessor]):
    """Processors in a row: each gets what the one before it returned."""

    def __call__(
        self, input_ids: NDArray[np.intc], scores: NDArray[np.single]
    ) -> NDArray[np.single]:
        for processor in self:
            scores = processor(input_ids, scores)
        return scores


class StoppingCriteriaList(list[StoppingCriteria]):
    """True where one of them is. All of them are asked."""

    def __call__(self, input_ids: NDArray[np.intc], logits: NDArray[np.single]) -> bool:
        return any([criterion(input_ids, logits) for criterion in self])  # noqa: C419


_Callable = TypeVar("_Callable", bound=Callable[..., object])


def listed(name: str, given: Iterable[_Callable] | _Callable | None) -> list[_Callable]:
    """A list of callables, or a single one, as a list."""
    if given is None:
        return []
    items = list(given) if isinstance(given, Iterable) else [given]
    for item in items:
        if not callable(item):
            raise TypeError(f"{name} must hold callables, not {type(item).__name__}")
    return items


class MinTokensLogitsProcessor:
    """Forbids the end token until min_tokens were generated."""

    def __init__(self, min_tokens: int, token_eos: int) -> None:
        self.min_tokens = min_tokens
        self.token_eos = token_eos
        self.prompt_tokens: int | None = None

    def __call__(
        self, input_ids: NDArray[np.intc], scores: NDArray[np.single]
    ) -> NDArray[np.single]:
        if self.prompt_tokens is None:
            self.prompt_tokens = len(input_ids)
        if len(input_ids) - self.prompt_tokens < self.min_tokens:
            scores[self.token_eos] = -np.inf
        return scores
