"""From nothing to the first token: a process that opens a model, beside llama.cpp's `llama-bench`.

Both are whole processes, Python and its imports included, with their own default way of loading,
and compute one token; kollama has a context of 512 tokens, llama-bench one for that token. The file
is in the page cache, as far as memory goes.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import generate
import llama_bench
from outcome import Outcome, heading, spread, tell

import kollama

CODE = """
import sys, kollama
with kollama.LLM(sys.argv[1], n_ctx=512, n_threads=int(sys.argv[2])) as llm:
    next(llm.generate([1], temperature=0, ignore_eos=True))
"""


def main() -> None:
    args = arguments()
    binary = str(llama_bench.build())
    print(heading(f"{args.threads} threads, {args.pairs} pairs"))
    print("\n| model | llama-bench, s | kollama, s | kollama over llama-bench |\n|---|--:|--:|--:|")
    outcomes = []
    for path in args.models:
        threads = str(args.threads)
        ours = [sys.executable, "-c", CODE, str(path), threads]
        theirs = [binary, "-m", str(path), "-t", threads, "-ngl", "0", "-p", "0", "-n", "1",
                  "-r", "1", "--no-warmup"]
        seconds(ours)  # fills the page cache
        pairs = []
        for index in range(args.pairs):
            first = seconds(ours if index % 2 else theirs)
            second = seconds(theirs if index % 2 else ours)
            pairs.append((first, second) if index % 2 else (second, first))
            generate.progress(f"{path.name} {index + 1}/{args.pairs}")
        generate.progress("")
        outcomes.append(Outcome(f"{path.name}, a process to its first token, time over "
                                "llama-bench's", 1, tuple(a / b for a, b in pairs), at_most=True))
        mine, other = map(spread, zip(*pairs, strict=True))
        print(f"| {path.name} | {other} | {mine} | {outcomes[-1].spread()} |", flush=True)
    print(f"\n{tell(outcomes)}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="GGUF")
    parser.add_argument("--pairs", type=generate.at_least(1), default=10, help="default: 10")
    parser.add_argument("--threads", type=generate.at_least(1), default=kollama.default_threads())
    return parser.parse_args()


def seconds(command: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
