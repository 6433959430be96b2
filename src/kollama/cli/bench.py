"""``kollama bench [MODEL]``: how fast a model is on this machine."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path

import numpy as np

from .._core.model import Model
from .._core.runtime import default_threads, llama_version
from ..demo import demo_model
from ..errors import ArgumentError
from ..params import integer

__all__ = ["add_parser"]


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second of one kind of work: the median of its repeats, the least and the most."""

    work: str
    tokens: int
    median: float
    least: float
    most: float


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("bench", help="measure how fast a model is on this machine")
    parser.add_argument("model", nargs="?", metavar="MODEL", help="default: the demo model")
    parser.add_argument("--prompt", type=int, nargs="+", default=[512], metavar="N",
                        help="tokens of a prompt; several are measured one by one (default: 512)")
    parser.add_argument("--generate", type=int, default=128, metavar="N",
                        help="tokens to generate (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, metavar="N",
                        help="(default: %(default)s, after one that does not count)")
    parser.add_argument("--n-threads", type=int, metavar="N",
                        help="default: what cores, affinity and quota allow")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--plot", type=Path, metavar="FILE",
                        help="draw it there, in the kind that its name ends in; needs matplotlib")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    sizes = [integer("--prompt", n, 2) for n in options.prompt]
    n_generate = integer("--generate", options.generate, 2)
    repeats = integer("--repeats", options.repeats, 1)
    plot = _plotter() if options.plot else None
    path = Path(options.model or demo_model())
    with Model(path, progress=True) as model:
        speeds = measure(model, sizes, n_generate, repeats, options.n_threads)
    facts = {"model": path.name, "format": model.format, "llama.cpp": llama_version(),
             "threads": options.n_threads or default_threads(), "file_bytes": path.stat().st_size}
    if options.json:
        print(json.dumps(facts | {"speeds": [asdict(speed) for speed in speeds]},
                         ensure_ascii=False))
    else:
        _print(facts, speeds)
    if plot:
        plot(options.plot, path.name, speeds)
    return 0


def measure(model: Model, sizes: list[int], n_generate: int, repeats: int,
            n_threads: int | None) -> list[Speed]:
    """Prompts of random ids, and tokens one by one, each chosen by the largest logit."""
    speeds = []
    ids = np.random.default_rng(0).integers(0, model.n_vocab, max(sizes), dtype=np.int32)
    with model.context(n_ctx=max(*sizes, n_generate + 1), n_threads=n_threads) as context:
        sequence = context.sequence()

        def read(n: int) -> None:
            sequence.append(ids[:n])

        def write(n: int) -> None:
            for _ in range(n):
                sequence.append([int(sequence.logits.argmax())])

        for n in sizes:
            speeds.append(_repeat("prompt", n, repeats, partial(read, n), sequence.clear))

        def begin() -> None:
            sequence.clear()
            sequence.append(ids[:1])

        speeds.append(_repeat("generation", n_generate, repeats, partial(write, n_generate), begin))
    return speeds


def _repeat(work: str, tokens: int, repeats: int, step: Callable[[], None],
            before: Callable[[], None]) -> Speed:
    rates = []
    for index in range(repeats + 1):
        if sys.stderr.isatty():
            print(f"\r\033[K{work}, {tokens} tokens: {index}/{repeats}", end="", file=sys.stderr)
        before()
        start = time.perf_counter()
        step()
        rates.append(tokens / (time.perf_counter() - start))
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    rates = rates[1:]
    return Speed(work, tokens, statistics.median(rates), min(rates), max(rates))


def _print(facts: dict[str, object], speeds: list[Speed]) -> None:
    print(f"{facts['model']}, {facts['format']}, {facts['threads']} threads, "
          f"llama.cpp {facts['llama.cpp']}")
    for speed in speeds:
        print(f"{speed.work:<12}{speed.tokens:>7} tokens{speed.median:>12.1f} tokens/s   "
              f"{speed.least:.1f} to {speed.most:.1f}")
    # Each token reads all weights once; of a model larger than the caches that is what bounds it.
    rate = speeds[-1].median * float(str(facts["file_bytes"])) / 1e9
    print(f"generation reads about {rate:.1f} GB/s of weights")


def _plotter() -> Callable[[Path, str, list[Speed]], None]:
    """Found before anything is measured."""
    try:
        pyplot = import_module("matplotlib.pyplot")
    except ImportError:
        raise ArgumentError("--plot needs matplotlib: pip install matplotlib") from None

    def draw(path: Path, title: str, speeds: list[Speed]) -> None:
        figure, axis = pyplot.subplots()
        spread = [[speed.median - speed.least for speed in speeds],
                  [speed.most - speed.median for speed in speeds]]
        axis.bar([f"{speed.work}\n{speed.tokens}" for speed in speeds],
                 [speed.median for speed in speeds], yerr=spread)
        axis.set_ylabel("tokens/s")
        axis.set_title(title)
        figure.savefig(path)
        pyplot.close(figure)

    return draw
