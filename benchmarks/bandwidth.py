"""How much of the memory's read bandwidth generation uses.

As many threads as generation has each read a share of 2 GB of floats (a dot product of NumPy's,
whose sums are faster than the memory), before and behind each generation, for as long as that
took: a machine that others use too is as fast for one as for the other. What a token reads is
taken to be all weights but the embeddings, where these are not the output's too.
"""

from __future__ import annotations

import argparse
import os
import statistics
import threading
import time
from pathlib import Path

os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the threads here are enough

import generate
import numpy as np
from outcome import Outcome, heading, tell

import kollama

REACH = 0.9
N_BYTES = 2**31  # far beyond any cache


def main() -> None:
    args = arguments()
    print(heading(f"{args.threads} threads, {args.pairs} pairs"))
    print("\n| model | GB read for a token | tokens/s | GB/s | memory's GB/s "
          "| ratio, median (range) |\n|---|--:|--:|--:|--:|--:|")
    memory = np.ones(N_BYTES // 4, np.float32)
    outcomes = []
    for path in args.models:
        size = n_bytes_of_token(path)
        speeds, rates = [], []
        with kollama.LLM(path, n_ctx=args.tokens + 1, n_threads=args.threads) as llm:
            start = time.perf_counter()
            generate.tokens_per_second(llm, args.tokens, "greedy")
            duration = (time.perf_counter() - start) / 2
            for index in range(args.pairs):
                before = read_rate(memory, args.threads, duration)
                speeds.append(generate.tokens_per_second(llm, args.tokens, "greedy"))
                behind = read_rate(memory, args.threads, duration)
                rates.append((before + behind) / 2)
                generate.progress(f"{path.name} {index + 1}/{args.pairs}")
        generate.progress("")
        ratios = [speed * size / rate for speed, rate in zip(speeds, rates, strict=True)]
        outcomes.append(Outcome(f"{path.name}, generation over the memory's bandwidth", REACH,
                                tuple(ratios)))
        speed, gb, rate = statistics.median(speeds), size / 1e9, statistics.median(rates) / 1e9
        print(f"| {path.name} | {gb:.2f} | {speed:.2f} | {speed * gb:.1f} | {rate:.1f} | "
              f"{outcomes[-1].spread()} |", flush=True)
    print(f"\n{tell(outcomes)}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="+", type=Path, metavar="GGUF",
                        help="larger than the caches, such as those that legacy_7b.py writes")
    parser.add_argument("--pairs", type=generate.at_least(1), default=10)
    parser.add_argument("--tokens", type=generate.at_least(2), default=32)
    parser.add_argument("--threads", type=generate.at_least(1), default=kollama.default_threads())
    return parser.parse_args()


def n_bytes_of_token(path: Path) -> int:
    tensors = {tensor.name: tensor.n_bytes for tensor in kollama.inspect(path).tensors}
    if "output.weight" in tensors:
        tensors.pop("token_embd.weight")
    return sum(tensors.values())


def read_rate(memory: np.ndarray, n_threads: int, duration: float) -> float:
    """Bytes/s over at least that many seconds."""
    shares = np.array_split(memory, n_threads)
    n, total = 0, 0.0
    while total < duration:
        total += seconds(shares)
        n += 1
    return n * memory.nbytes / total


def seconds(shares: list[np.ndarray]) -> float:
    def read(share: np.ndarray) -> None:
        half = len(share) // 2
        np.dot(share[:half], share[half:2 * half])  # lets go of the GIL

    threads = [threading.Thread(target=read, args=(share,)) for share in shares]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
