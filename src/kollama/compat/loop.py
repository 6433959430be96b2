"""What Llama does step by step: the loop over tokens in Python."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from .._core.memory import token_ids
from .._core.sampler import Sampler
from ..errors import ArgumentError, DecodeError, StateError
from ..slots import n_common
from .base import Base
from .grammar import LlamaGrammar
from .processors import LogitsProcessor, StoppingCriteria, StoppingCriteriaList, listed
from .sampling import Sampling

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Loop"]


class Loop(Base):
    """eval, sample and generate."""

    def reset(self) -> None:
        """Drops all tokens."""
        self._open.clear()
        self._sampler = None

    def eval(self, tokens: Sequence[int]) -> None:
        """Runs the model over these tokens, after those in memory.

        Raises:
            ContextFullError: they do not fit.
            TokenError: an id is outside the vocabulary.
        """
        if len(tokens):
            self._open.append(tokens)

    def sample(
        self,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        temp: float = 0.80,
        repeat_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_eta: float = 0.1,
        mirostat_tau: float = 5.0,
        penalize_nl: bool = True,
        logits_processor: Iterable[LogitsProcessor] | LogitsProcessor | None = None,
        grammar: LlamaGrammar | None = None,
        idx: int | None = None,
    ) -> int:
        """A next token for those in memory. The same arguments go on with the same sampler.

        Args:
            idx: index of the token to follow: only the last has logits.

        Raises:
            StateError: nothing was evaluated.
        """
        if idx is not None and idx not in (-1, self.n_tokens - 1):
            raise ArgumentError(f"idx is {idx}; only the last token, {self.n_tokens - 1}, can be "
                                "sampled after")
        sampling = Sampling(top_k, top_p, min_p, typical_p, temp, repeat_penalty,
                            frequency_penalty, presence_penalty, tfs_z, mirostat_mode, mirostat_tau,
                            mirostat_eta, penalize_nl, grammar,
                            penalty_last_n=self.last_n_tokens_size)
        if self._sampler is None or self._sampler[0] != sampling:
            self._sampler = (sampling, sampling.sampler(self._seed))
        return self._choose(self._sampler[1], listed("logits_processor", logits_processor))

    def generate(
        self,
        tokens: Sequence[int],
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        temp: float = 0.80,
        repeat_penalty: float = 1.0,
        reset: bool = True,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        penalize_nl: bool = True,
        logits_processor: Iterable[LogitsProcessor] | LogitsProcessor | None = None,
        stopping_criteria: Iterable[StoppingCriteria] | StoppingCriteria | None = None,
        grammar: LlamaGrammar | None = None,
    ) -> Generator[int, Sequence[int] | None, None]:
        """The tokens that follow these, without end: an end token does not stop it.

        ``send(ids)`` puts tokens after the one that was given out last.

        Args:
            reset: False: these tokens come after those in memory; True: what memory shares with
                them is kept, and the rest is dropped.

        Raises:
            ContextFullError: n_ctx tokens are in memory.
        """
        sampling = Sampling(top_k, top_p, min_p, typical_p, temp, repeat_penalty,
                            frequency_penalty, presence_penalty, tfs_z, mirostat_mode, mirostat_tau,
                            mirostat_eta, penalize_nl, grammar,
                            penalty_last_n=self.last_n_tokens_size)
        return self._tokens(tokens, sampling.sampler(self._seed), reset,
                            listed("logits_processor", logits_processor),
                            listed("stopping_criteria", stopping_criteria))

    def _tokens(
        self, prompt: Sequence[int], sampler: Sampler, reset: bool,
        processors: list[LogitsProcessor], criteria: list[StoppingCriteria],
    ) -> Generator[int, Sequence[int] | None, None]:
        if reset:
            self._read(token_ids(prompt))
        else:
            self.eval(prompt)
        sequence = self._open
        while True:
            token = self._choose(sampler, processors)
            if criteria and StoppingCriteriaList(criteria)(sequence.tokens, sequence.logits):
                return
            sent = yield token
            sequence.append([token, *(sent or ())])

    def _read(self, prompt: NDArray[np.int32]) -> None:
        """Brings exactly these tokens, and their logits, into memory."""
        if len(prompt) == 0:
            raise ArgumentError("there is no token to begin with")
        sequence = self._open
        before = sequence.tokens
        if np.array_equal(before, prompt) and self._has_logits():
            return
        keep = min(n_common(before, prompt), len(prompt) - 1)
        try:
            sequence.rewind(keep)
        except DecodeError:  # a recurrent model: it is empty now
            keep = 0
        sequence.append(prompt[keep:])

    def _has_logits(self) -> bool:
        try:
            return len(self._open.logits) > 0
        except StateError:
            return False

    def _choose(self, sampler: Sampler, processors: list[LogitsProcessor]) -> int:
        sequence = self._open
        if not processors:
            return sampler.sample(sequence)
        row = sequence.logits
        raw = row.copy()
        try:
            ids = sequence.tokens
            for processor in processors:
                changed = processor(ids, row)
                if np.shape(changed) != row.shape:
                    raise ArgumentError("a logits processor must return an array of shape "
                                        f"{row.shape}, not {np.shape(changed)}")
                row[:] = changed
            return sampler.sample(sequence)
        finally:
            row[:] = raw  # what the model said: for its probabilities, and for the next choice
