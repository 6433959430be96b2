"""The keywords of a Sampler, and their defaults.

What they stand for is made in chain.py, which is not imported before there is a Sampler.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypedDict

__all__ = ["BREAKERS", "DEFAULTS", "Sampling"]

BREAKERS = ("\n", ":", '"', "*")


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


DEFAULTS: dict[str, Any] = {
    "temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "min_keep": 0, "typical_p": 1.0,
    "top_n_sigma": -1.0, "repeat_penalty": 1.0, "penalty_last_n": 64, "presence_penalty": 0.0,
    "frequency_penalty": 0.0, "dry_multiplier": 0.0, "dry_base": 1.75, "dry_allowed_length": 2,
    "dry_penalty_last_n": 64, "dry_sequence_breakers": BREAKERS, "xtc_probability": 0.0,
    "xtc_threshold": 0.1, "infill": False,
    "dynatemp_range": 0.0, "dynatemp_exponent": 1.0, "mirostat": 0,
    "mirostat_tau": 5.0, "mirostat_eta": 0.1, "adaptive_target": -1.0, "adaptive_decay": 0.9,
    "logit_bias": None, "grammar": None, "grammar_root": "root",
    "json_schema": None, "regex": None, "lark": None,
}  # fmt: skip
