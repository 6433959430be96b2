"""Flags that several commands share. Each is a keyword of the API: --max-tokens is max_tokens."""

from __future__ import annotations

import argparse
from typing import Any

from ..demo import demo_model
from ..llm import LLM

__all__ = ["add_model_flags", "add_sampling_flags", "generation_options", "open_llm"]


def add_model_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--n-ctx", type=int, default=4096, metavar="N",
                       help="tokens of prompt and answer together (default: %(default)s)")
    group.add_argument("--n-threads", type=int, metavar="N",
                       help="default: what cores, affinity and quota allow")
    group.add_argument("--n-gpu-layers", type=_layers, default=0, metavar="N",
                       help='layers on a GPU, -1 for all, or "auto" (default: 0)')


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


def _layers(text: str) -> int | str:
    return text if text == "auto" else int(text)


def open_llm(options: argparse.Namespace, **more: Any) -> LLM:
    """The model that was named, else that of the demo extra."""
    return LLM(
        options.model or demo_model(),
        n_ctx=options.n_ctx,
        n_threads=options.n_threads,
        n_gpu_layers=options.n_gpu_layers,
        progress=True,
        **more,
    )


def generation_options(options: argparse.Namespace) -> dict[str, Any]:
    names = ("max_tokens", "stop", "ignore_eos", "temperature", "top_k", "top_p", "min_p", "seed")
    return {name: getattr(options, name) for name in names}
