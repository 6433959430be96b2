"""Prompts and generation with kollama's own kernels and without them (`KOLLAMA_PRODUCTS=0`).

Without them ggml's CPU backend computes all, in the same program: what differs is the kernels. The
two take turns in processes of their own; a ratio is that of one pair.

With --other the kollama of another environment, such as a wheel's, stands beside this one.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
from pathlib import Path

import compare
import generate
from outcome import heading

import kollama


def main() -> None:
    args = arguments()
    base = args.model or generate.installed_model()
    print(heading(f"{args.threads} threads, {args.pairs} pairs, {platform.machine()}") + "\n")
    # Of each: its Python, and KOLLAMA_PRODUCTS.
    sides = {"ggml": (sys.executable, "0"), "kollama": (sys.executable, "")}
    if args.other:
        sides = {"kollama": (sys.executable, ""), "the other": (args.other, "")}
    titles = " | ".join(sides)
    print(f"| type | prompt of {args.prompt}: {titles} | ratio, median (range) "
          f"| generation of {args.generate}: {titles} | ratio, median (range) |\n"
          "|---|--:|--:|--:|--:|--:|--:|")
    for name, path in compare.models(base, args):
        pairs = [pair(index, path, sides, args) for index in range(args.pairs)]
        cells = [cell for what in ("prompt", "generate")
                 for cell in columns(pairs, list(sides), what)]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, metavar="GGUF",
                        help="what the types are made from; default: an installed one")
    parser.add_argument("--types", nargs="+", default=compare.TYPES, metavar="TYPE")
    for name, default in (("pairs", 10), ("prompt", 512), ("generate", 64)):
        parser.add_argument(f"--{name}", type=generate.at_least(2), default=default)
    parser.add_argument("--threads", type=generate.at_least(1), default=kollama.default_threads())
    parser.add_argument("--other", metavar="PYTHON", help="of another environment with kollama")
    return parser.parse_args()


def pair(index: int, path: Path, sides: dict[str, tuple[str, str]],
         args: argparse.Namespace) -> dict[str, compare.Speeds]:
    found: dict[str, compare.Speeds] = {}
    for side in sorted(sides, reverse=index % 2 == 1):
        python, os.environ["KOLLAMA_PRODUCTS"] = sides[side]
        found[side] = compare.child(python, "kollama", args, path)
    return found


def columns(pairs: list[dict[str, compare.Speeds]], sides: list[str], what: str) -> list[str]:
    speeds = [statistics.median(each[side][what] for each in pairs) for side in sides]
    ratios = [each[sides[1]][what] / each[sides[0]][what] for each in pairs]
    return [*(f"{speed:.0f}" for speed in speeds),
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f})"]


if __name__ == "__main__":
    main()
