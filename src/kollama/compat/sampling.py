"""llama-cpp-python's sampling arguments as a kollama Sampler."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .._core.sampler import Sampler
from ..errors import ArgumentError
from ..params import integer, number
from .grammar import LlamaGrammar

__all__ = ["Sampling"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """The arguments as llama-cpp-python has them, with its defaults."""

    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    typical_p: float = 1.0
    temp: float = 0.8
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    tfs_z: float = 1.0
    mirostat_mode: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    penalize_nl: bool = True
    grammar: LlamaGrammar | None = None
    logit_bias: Mapping[int, float] | None = None
    penalty_last_n: int = 64

    def __post_init__(self) -> None:
        if self.tfs_z != 1.0:
            raise ArgumentError("tfs_z: tail-free sampling is no more in llama.cpp; leave it 1.0")
        if not self.penalize_nl:
            raise ArgumentError("penalize_nl=False was removed from llama.cpp; leave it True")
        if not isinstance(self.grammar, (LlamaGrammar, type(None))):
            raise TypeError("grammar must be a LlamaGrammar, not "
                            f"{type(self.grammar).__name__}: LlamaGrammar.from_string(...)")
        integer("mirostat_mode", self.mirostat_mode, 0, 2)

    def sampler(self, seed: int) -> Sampler:
        """A Sampler of these arguments.

        Raises:
            ArgumentError: a value out of range, or a grammar that is malformed.
        """
        temperature = number("temperature", self.temp, -1e9)
        filters: dict[str, Any] = {
            "temperature": temperature,
            "top_k": max(integer("top_k", self.top_k, -(2**31)), 0),
            "top_p": min(number("top_p", self.top_p, 0), 1.0),
            "min_p": self.min_p,
            "typical_p": self.typical_p,
            "mirostat": self.mirostat_mode if temperature > 0 else 0,
        }
        if temperature < 0:  # a draw from the model's own distribution
            filters |= {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0,
                        "typical_p": 1.0}
        bias: dict[int | str, float] = {
            int(token): number("logit_bias", value, -math.inf)
            for token, value in (self.logit_bias or {}).items()
        }
        return Sampler(
            seed=seed,
            mirostat_tau=self.mirostat_tau,
            mirostat_eta=self.mirostat_eta,
            repeat_penalty=self.repeat_penalty,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            penalty_last_n=self.penalty_last_n,
            grammar=None if self.grammar is None else self.grammar.text,
            logit_bias=bias,
            **filters,
        )
