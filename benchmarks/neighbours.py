"""What is left of generation while other processes keep every core busy.

A stream of greedy tokens runs alone, then beside a process for each core that only counts, then
alone again. Its fair share is quiet speed x cores / (cores + neighbours).
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from generate import at_least, installed_models
from outcome import Outcome, heading, tell

import kollama

SETTLE_S = 0.3
REACH = 0.5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, metavar="GGUF")
    parser.add_argument("--rounds", type=at_least(1), default=10, help="default: %(default)s")
    parser.add_argument("--tokens", type=at_least(2), default=256, help="default: %(default)s")
    parser.add_argument("--neighbours", type=at_least(1), default=kollama.default_threads())
    args = parser.parse_args()
    path = args.model or list(installed_models())[-1]
    cores = kollama.default_threads()
    share = cores / (cores + args.neighbours)
    print(heading(f"{path.name}, {cores} threads on {cores} cores, {args.neighbours} neighbours, "
                  f"{args.tokens} tokens; tokens/s"))
    print("\n| | quiet | busy | quiet again | busy / fair share | again / quiet |\n"
          "|---|--:|--:|--:|--:|--:|")
    rows = []
    with kollama.LLM(path, n_ctx=args.tokens + 1) as llm:
        speed(llm, args.tokens)
        for index in range(args.rounds):
            before = speed(llm, args.tokens)
            with neighbours(args.neighbours):
                busy = speed(llm, args.tokens)
            after = speed(llm, args.tokens)
            rows.append((before, busy, after, busy / (before * share), after / before))
            print(line(str(index + 1), rows[-1]), flush=True)
    columns = tuple(zip(*rows, strict=True))
    print(line("median", tuple(map(statistics.median, columns))))
    outcome = Outcome(f"beside {args.neighbours} busy processes, of the fair share", REACH,
                      columns[3])
    print(f"\n{tell([outcome])}")


def speed(llm: kollama.LLM, n: int) -> float:
    """Tokens/s from the first token to the last."""
    stream = llm.generate([1], max_tokens=n, temperature=0, ignore_eos=True)
    next(stream)
    start = time.perf_counter()
    count = sum(1 for _ in stream)
    return count / (time.perf_counter() - start)


@contextmanager
def neighbours(n: int) -> Iterator[None]:
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        time.sleep(SETTLE_S)
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()
        time.sleep(SETTLE_S)


def line(name: str, row: tuple[float, ...]) -> str:
    speeds = " | ".join(f"{value:.0f}" for value in row[:3])
    return f"| {name} | {speeds} | {row[3]:.2f} | {row[4]:.2f} |"


if __name__ == "__main__":
    main()
