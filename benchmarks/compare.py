"""Prompts and generation of kollama, llama.cpp and its other bindings, in six types of weights.

The types, those of the model card, are made from one model (`kollama.quantize`). The sides take
turns, each time in a process of its own, in an order that moves on by one each round; a ratio is
that of two sides of one round. llama.cpp is its own `llama-bench`, built here with the options of
kollama's libraries; the others come from PyPI, into an environment below build/.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import shlex
import statistics
import subprocess
import sys
import venv
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from pathlib import Path

import generate
import llama_bench
from outcome import Outcome, heading, spread, tell

import kollama

ROOT = Path(__file__).resolve().parent.parent
PEERS = {"llama_cpp": "llama-cpp-python", "ik_llama_cpp": "ik-llama-cpp-python",
         "xllamacpp": "xllamacpp"}
TYPES = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16")
MEASURES = {"prompt": "prompt, {} tokens", "generate": "generation, {} tokens"}
KOLLAMA, LLAMA = "kollama", "llama.cpp"

Speeds = dict[str, float]  # tokens/s by measure
Rounds = list[dict[str, Speeds]]  # by side
Side = Callable[[Path], Speeds]  # of the model there


def main() -> None:
    args = arguments()
    base = args.model or generate.installed_model()
    sides = make_sides(args)
    results: dict[str, Rounds] = {}
    for name, path in models(base, args):
        results[name] = measure(name, path, sides, args)
    print("\n".join([*header(args, base), "", *table(results, sides, args), "",
                     tell(outcomes(results, args))]))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n", "utf-8")
    if args.plot:
        plot(results, list(sides), args)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, metavar="GGUF",
                        help="what the types are made from; default: an installed one")
    parser.add_argument("--types", nargs="+", default=TYPES, metavar="TYPE",
                        help="default: those of the model card; 'as-is': the file itself")
    for name, default, what in (("pairs", 10, "rounds"), ("prompt", 512, "tokens"),
                                ("generate", 64, "tokens")):
        parser.add_argument(f"--{name}", type=generate.at_least(2), default=default,
                            help=f"{what}; default: %(default)s")
    parser.add_argument("--threads", type=generate.at_least(1), default=kollama.default_threads())
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS),
                        help="besides llama.cpp; default: all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers there")
    parser.add_argument("--plot", type=Path, metavar="FILE",
                        help="draw them there; needs matplotlib")
    return parser.parse_args()


# ---- what is measured ----------------------------------------------------------------------------


def make_sides(args: argparse.Namespace) -> dict[str, Side]:
    binary = llama_bench.build()
    sides: dict[str, Side] = {KOLLAMA: partial(child, sys.executable, KOLLAMA, args),
                              LLAMA: partial(bench, binary, args)}
    if args.peers:
        python = install([PEERS[peer] for peer in args.peers])
        for peer in args.peers:
            sides[PEERS[peer]] = partial(child, python, peer, args)
    return sides


def install(packages: Iterable[str]) -> str:
    """The interpreter of an environment that has them."""
    folder = ROOT / "build" / "peers"
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)
    return str(python)


def child(python: str, side: str, args: argparse.Namespace, path: Path) -> Speeds:
    command = [python, str(Path(__file__).with_name("peers.py")), side, str(path),
               *map(str, (args.prompt, args.generate, args.threads))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"{shlex.join(command)}\n{done.stderr}")
    speeds: Speeds = json.loads(done.stdout.splitlines()[-1])
    return speeds


def bench(binary: Path, args: argparse.Namespace, path: Path) -> Speeds:
    command = [str(binary), "-o", "json", "-r", "3", "-p", str(args.prompt),
               "-n", str(args.generate), "-t", str(args.threads), "-ngl", "0", "-fa", "auto",
               "-m", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    reading, writing = (max(report["samples_ts"]) for report in json.loads(done.stdout))
    return {"prompt": reading, "generate": writing}


def models(base: Path, args: argparse.Namespace) -> Iterable[tuple[str, Path]]:
    folder = ROOT / "build" / "compare"
    folder.mkdir(parents=True, exist_ok=True)
    for name in args.types:
        path = base if name == "as-is" else folder / f"{base.stem}-{name}.gguf"
        if not path.exists():
            kollama.quantize(base, path, name, allow_requantize=True)
        yield name, path


def measure(
    name: str, path: Path, sides: dict[str, Side], args: argparse.Namespace
) -> Rounds:
    rounds: Rounds = []
    for index in range(args.pairs):
        order = list(sides)
        order = order[index % len(order):] + order[:index % len(order)]
        rounds.append({side: sides[side](path) for side in order})
        generate.progress(f"{name} {index + 1}/{args.pairs}: " + ", ".join(
            f"{side} {speeds['prompt']:.0f}" for side, speeds in rounds[-1].items()))
    generate.progress("")
    return rounds


# ---- what is told --------------------------------------------------------------------------------


def header(args: argparse.Namespace, base: Path) -> list[str]:
    return [
        heading(*(f"{PEERS[peer]} {version(PEERS[peer])}" for peer in args.peers)),
        f"- {platform.system()} {platform.machine()}, {args.threads} threads, "
        f"Python {platform.python_version()}",
        f"- {base.name}, {args.pairs} rounds; tokens/s, medians",
    ]


def version(package: str) -> str:
    found = next((ROOT / "build" / "peers").rglob(f"{package.replace('-', '_')}-*.dist-info"), None)
    return importlib.metadata.Distribution.at(found).version if found else "?"


def size_of(measure: str, args: argparse.Namespace) -> int:
    size: int = args.prompt if measure == "prompt" else args.generate
    return size


def ratios(rounds: Rounds, measure: str, side: str) -> list[float]:
    """kollama's speed over a side's, by round."""
    return [one[KOLLAMA][measure] / one[side][measure] for one in rounds]


def median(rounds: Rounds, measure: str, side: str) -> float:
    return statistics.median(one[side][measure] for one in rounds)


def best_of(rounds: Rounds, measure: str) -> str:
    """The fastest of the others."""
    return max((side for side in rounds[0] if side != KOLLAMA),
               key=partial(median, rounds, measure))


def table(results: dict[str, Rounds], sides: Iterable[str], args: argparse.Namespace) -> list[str]:
    others = [side for side in sides if side != KOLLAMA]
    lines = []
    for measure, title in MEASURES.items():
        title = title.format(size_of(measure, args))
        lines += [f"| {title} | {' | '.join([KOLLAMA, *others])} | over the best, median (range) |",
                  "|---|" + "--:|" * (len(others) + 2)]
        for name, rounds in results.items():
            speed = {side: median(rounds, measure, side) for side in (KOLLAMA, *others)}
            best = best_of(rounds, measure)
            lines.append(f"| {name} | " + " | ".join(f"{value:.0f}" for value in speed.values())
                         + f" | {spread(ratios(rounds, measure, best))}, {best} |")
        lines.append("")
    return lines[:-1]


def outcomes(results: dict[str, Rounds], args: argparse.Namespace) -> Iterable[Outcome]:
    for measure, title in MEASURES.items():
        for name, rounds in results.items():
            best = best_of(rounds, measure)
            yield Outcome(f"{name}, {title.format(size_of(measure, args))}, over {best}", 1,
                          tuple(ratios(rounds, measure, best)))


def plot(results: dict[str, Rounds], sides: list[str], args: argparse.Namespace) -> None:
    pyplot = import_module("matplotlib.pyplot")
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4))
    width = 0.8 / len(sides)
    for axis, (measure, title) in zip(axes, MEASURES.items(), strict=True):
        for i, side in enumerate(sides):
            speeds = [[one[side][measure] for one in rounds] for rounds in results.values()]
            middle = [statistics.median(speed) for speed in speeds]
            spread = [[m - min(s) for m, s in zip(middle, speeds, strict=True)],
                      [max(s) - m for m, s in zip(middle, speeds, strict=True)]]
            places = [x + i * width for x in range(len(results))]
            axis.bar(places, middle, width, yerr=spread, label=side)
        axis.set_xticks([x + 0.4 - width / 2 for x in range(len(results))], list(results))
        axis.set_title(title.format(size_of(measure, args)))
        axis.set_ylabel("tokens/s")
    axes[0].legend()
    figure.tight_layout()
    figure.savefig(args.plot)


if __name__ == "__main__":
    main()
