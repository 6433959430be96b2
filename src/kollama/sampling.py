"""The keywords of a Sampler, for type checkers: making this class takes 3 ms."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

__all__ = ["Sampling"]


class Sampling(TypedDict, total=False):
    """Keywords of a Sampler, as generate, complete and chat take them."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float
    seed: int | None
    min_keep: int
    typical_p: float
    top_n_sigma: float
    repeat_penalty: float
    penalty_last_n: int
    presence_penalty: float
    frequency_penalty: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    dry_sequence_breakers: Iterable[str]
    xtc_probability: float
    xtc_threshold: float
    infill: bool
    dynatemp_range: float
    dynatemp_exponent: float
    mirostat: int
    mirostat_tau: float
    mirostat_eta: float
    adaptive_target: float
    adaptive_decay: float
    logit_bias: Mapping[int | str, float] | None
    grammar: str | None
    grammar_root: str
    json_schema: Any
    regex: str | None
    lark: str | None
