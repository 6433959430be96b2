"""Flags that several commands share. Each is a keyword of the API: --max-tokens is max_tokens."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ..defaults import DEFAULTS
from ..demo import demo_model
from ..llm import LLM

__all__ = ["add_model_flags", "add_sampling_flags", "generation_options", "open_llm"]

MORE = (
    "repeat_penalty", "penalty_last_n", "presence_penalty", "frequency_penalty", "typical_p",
    "top_n_sigma", "min_keep", "dry_multiplier", "dry_base", "dry_allowed_length",
    "dry_penalty_last_n", "xtc_probability", "xtc_threshold", "dynatemp_range",
    "dynatemp_exponent", "mirostat", "mirostat_tau", "mirostat_eta", "adaptive_target",
    "adaptive_decay",
)  # fmt: skip


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--n-ctx", type=int, default=4096, metavar="N",
                       help="tokens of prompt and answer together (default: %(default)s)")
    group.add_argument("--n-threads", type=int, metavar="N",
                       help="default: what cores, affinity and quota allow")
    group.add_argument("--n-gpu-layers", type=_layers, default=0, metavar="N",
                       help='layers on a GPU, -1 for all, or "auto" (default: 0)')
    group.add_argument("--draft", metavar="FILE|prompt-lookup",
                       help="guess tokens: by a smaller model of the same vocabulary, or from "
                            "the text itself")


def add_sampling_flags(parser: argparse.ArgumentParser, max_tokens: int) -> None:
    group = parser.add_argument_group("generation")
    group.add_argument("--max-tokens", type=int, default=max_tokens, metavar="N",
                       help="(default: %(default)s)")
    group.add_argument("--stop", action="append", metavar="TEXT",
                       help="end before this text; may be given several times")
    group.add_argument("--ignore-eos", action="store_true", help="never end by an end token")
    group.add_argument("--temperature", type=float, default=0.8, metavar="T",
                       help="0 is greedy (default: %(default)s)")
    group.add_argument("--top-k", type=int, default=40, metavar="K", help="(default: %(default)s)")
    group.add_argument("--top-p", type=float, default=0.95, metavar="P",
                       help="(default: %(default)s)")
    group.add_argument("--min-p", type=float, default=0.05, metavar="P",
                       help="(default: %(default)s)")
    group.add_argument("--seed", type=int, metavar="N", help="default: random")
    group.add_argument("--grammar", metavar="FILE", help="generate only what this GBNF file allows")
    group.add_argument("--json-schema", metavar="FILE|JSON", type=_json_schema,
                       help="generate JSON of this schema, {} for any; needs kollama[structured]")
    group.add_argument("--regex", help="generate only what this regular expression matches")
    group.add_argument("--lark", metavar="FILE", help="generate only what this Lark file allows")
    group.add_argument("--logit-bias", action="append", metavar="TOKEN=BIAS", type=_bias,
                       help="add to the logit of a token id, or of a text's tokens; -inf forbids")
    more = parser.add_argument_group("more samplers", "as in kollama.samplers; off by default")
    for name in MORE:
        default = DEFAULTS[name]
        more.add_argument(f"--{name.replace('_', '-')}", type=type(default), metavar="N",
                          default=default, help="(default: %(default)s)")


def _bias(text: str) -> tuple[int | str, float]:
    key, _, bias = text.rpartition("=")
    return (int(key) if key.isdecimal() else key), float(bias)


def _json_schema(text: str) -> str:
    """JSON as it is; anything else is the path of a file with it."""
    if text.lstrip().startswith(("{", "true", "false")):
        return text
    try:
        return Path(text).read_text("utf-8")
    except (OSError, ValueError) as error:
        reason = f"neither JSON nor a file that can be read: {error}"
        raise argparse.ArgumentTypeError(reason) from None


def _layers(text: str) -> int | str:
    return text if text == "auto" else int(text)


def open_llm(options: argparse.Namespace, **more: Any) -> LLM:
    """The model that was named, else that of the demo extra."""
    return LLM(
        options.model or demo_model(),
        n_ctx=options.n_ctx,
        n_threads=options.n_threads,
        n_gpu_layers=options.n_gpu_layers,
        draft=options.draft,
        progress=True,
        **more,
    )


def generation_options(options: argparse.Namespace) -> dict[str, Any]:
    names = ("max_tokens", "stop", "ignore_eos", "temperature", "top_k", "top_p", "min_p", "seed")
    given = {name: getattr(options, name) for name in (*names, *MORE)}
    if options.logit_bias:
        given["logit_bias"] = dict(options.logit_bias)
    if options.grammar is not None:
        given["grammar"] = Path(options.grammar).read_text("utf-8")
    if options.lark is not None:
        given["lark"] = Path(options.lark).read_text("utf-8")
    given |= {name: value for name in ("json_schema", "regex")
              if (value := getattr(options, name)) is not None}
    return given
