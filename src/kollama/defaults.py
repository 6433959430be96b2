"""The keywords of a Sampler where nothing is said.

What they stand for is made in chain.py, which is not imported before there is a Sampler.
"""

from __future__ import annotations

from typing import Any

__all__ = ["BREAKERS", "DEFAULTS"]

BREAKERS = ("\n", ":", '"', "*")

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
