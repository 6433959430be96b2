"""Perplexity of Korean text with kollama's own kernels and with ggml's (`KOLLAMA_PRODUCTS=0`).

What differs is the order of sums, and so now and then the rounding of an activation, which a deep
model makes grow: RESULTS.md sets it beside ggml with and without its flash attention. Tokens are
read so many at a time (16: the kernels of prompts; 1: those of generation), and after each step the
next one is judged by its logits.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import shlex
import subprocess
import sys
from pathlib import Path

import compare
import generate
import numpy as np
from outcome import heading

import kollama

ROOT = Path(__file__).resolve().parent.parent
SIDES = {"ggml": "0", "kollama": ""}  # KOLLAMA_PRODUCTS


def main() -> None:
    args = arguments()
    if args.child:
        print(json.dumps(nats_of(args.model, args)))
        return
    base = args.model or generate.installed_model()
    print(heading(f"{args.text.name}, {args.n_ctx} tokens of context, {args.step} at a time"))
    print("\n| type | tokens judged | perplexity, ggml | kollama | difference "
          "| nats of a token apart, mean and most |\n|---|--:|--:|--:|--:|--:|")
    for name, path in compare.models(base, args):
        theirs, ours = (np.array(child(products, path, args)) for products in SIDES.values())
        a, b = (math.exp(nats.mean()) for nats in (theirs, ours))
        apart = np.abs(ours - theirs)
        print(f"| {name} | {len(ours)} | {a:.4f} | {b:.4f} | {b - a:+.4f} "
              f"| {apart.mean():.1e}, {apart.max():.1e} |", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, metavar="GGUF",
                        help="what the types are made from; default: an installed one")
    parser.add_argument("--text", type=Path, default=ROOT / "README.ko.md", metavar="FILE",
                        help="UTF-8; default: README.ko.md")
    parser.add_argument("--types", nargs="+", default=compare.TYPES, metavar="TYPE")
    parser.add_argument("--n-ctx", type=generate.at_least(64), default=512)
    parser.add_argument("--step", type=generate.at_least(1), default=16, help="tokens at a time")
    parser.add_argument("--limit", type=generate.at_least(2), default=20_000, help="tokens of text")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


def child(products: str, path: Path, args: argparse.Namespace) -> list[float]:
    command = [sys.executable, __file__, "--child", str(path), "--text", str(args.text), "--step",
               str(args.step), "--n-ctx", str(args.n_ctx), "--limit", str(args.limit)]
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          env=os.environ | {"KOLLAMA_PRODUCTS": products})
    if done.returncode != 0:
        raise SystemExit(f"{shlex.join(command)}\n{done.stderr}")
    nats: list[float] = json.loads(done.stdout)
    return nats


def nats_of(path: Path, args: argparse.Namespace) -> list[float]:
    """-log p of the token after each step."""
    found = []
    with kollama.Model(path) as model, model.context(n_ctx=args.n_ctx) as context:
        ids = model.tokenizer.encode(args.text.read_text("utf-8"))[:args.limit]
        for first in range(0, len(ids), args.n_ctx):
            window = ids[first:first + args.n_ctx]
            with context.sequence() as sequence:
                for at in range(0, len(window) - args.step, args.step):
                    sequence.append(window[at:at + args.step])
                    logits = sequence.logits.astype(np.float64)
                    logits -= logits.max()
                    target = window[at + args.step]
                    found.append(float(np.log(np.exp(logits).sum()) - logits[target]))
    return found


if __name__ == "__main__":
    main()
