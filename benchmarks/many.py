"""Many requests at once beside llama.cpp's own `llama-batched-bench`, and what must cost nothing.

- batch: so many requests of `LLM.complete`, and as many sequences of llama-batched-bench, in turns:
  tokens/s of all together, for generation alone (the prompts are in memory) and with the prompts.
- prefix: 32 requests with one long beginning, against one prompt of that length and 32 requests
  without it.
- turn: time to the first token of a chat's next turn, against that of its new tokens alone,
  appended by hand to the same history.
- gap: the longest that a stream waits for a token while another request's long prompt is read.
- history: a token after a long history beside llama-bench at that depth, on a model so small that
  what is not the model's would show.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import generate
import llama_bench
from outcome import Outcome, heading, spread, tell

import kollama

N_PARALLEL = (1, 8, 32)
CASES = ("batch", "prefix", "turn", "gap", "history")
GREEDY: dict[str, Any] = {"temperature": 0, "ignore_eos": True}

_random = random.Random(0)

Speeds = dict[int, tuple[float, float]]  # by requests: tokens/s generated, and of all


def main() -> None:
    args = arguments()
    model = args.model or generate.installed_model()
    subject = "a tiny model" if list(args.cases) == ["history"] else model.name
    print(heading(f"{subject}, {args.threads} threads, {args.pairs} pairs") + "\n")
    outcomes: list[Outcome] = []
    cases = dict(zip(CASES, (batch, prefix, turn, gap, history), strict=True))
    for name in args.cases:
        print("\n".join(cases[name](model, args, outcomes)) + "\n", flush=True)
    print(tell(outcomes))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, metavar="GGUF",
                        help="default: an installed one")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=CASES[:-1], metavar="CASE",
                        help=f"{', '.join(CASES)}; default: all but the last")
    for name, default, what in (("pairs", 10, "measurements, in turns"),
                                ("prompt", 128, "tokens of each prompt of a batch"),
                                ("generate", 64, "tokens of each answer"),
                                ("long", 2000, "tokens of a long prompt, or of a chat's history"),
                                ("depth", 100_000, "tokens of history")):
        parser.add_argument(f"--{name}", type=generate.at_least(1), default=default,
                            help=f"{what}; default: %(default)s")
    parser.add_argument("--threads", type=generate.at_least(1), default=kollama.default_threads())
    return parser.parse_args()


def unseen(n: int) -> list[int]:
    """Ids that every vocabulary has, other ones each time."""
    return [_random.randrange(300, 20000) for _ in range(n)]


def seconds(call: Callable[..., object], *args: Any, **options: Any) -> float:
    start = time.perf_counter()
    call(*args, **options)
    return time.perf_counter() - start


# ---- llama-batched-bench -------------------------------------------------------------------------


def batch(model: Path, args: argparse.Namespace, outcomes: list[Outcome]) -> Iterable[str]:
    binary = llama_bench.build(tool="llama-batched-bench")
    theirs: list[Speeds] = []
    ours: list[Speeds] = []
    for index in range(args.pairs):
        if index % 2:
            theirs.append(batched_bench(binary, model, args))
        ours.append(together(model, args))
        if not index % 2:
            theirs.append(batched_bench(binary, model, args))
        generate.progress(f"batch {index + 1}/{args.pairs}")
    generate.progress("")
    yield (f"| {args.prompt} tokens of prompt, {args.generate} of answer | llama-batched-bench "
           "| kollama | ratio, median (range) | over one stream |")
    yield "|---|--:|--:|--:|--:|"
    for what, title in enumerate(("generation", "with prompts")):
        for n in N_PARALLEL:
            pairs = [(us[n][what], them[n][what]) for us, them in zip(ours, theirs, strict=True)]
            us, them = (statistics.median(side) for side in zip(*pairs, strict=True))
            if n > 1:
                outcomes.append(Outcome(f"{n} requests, {title}, over llama-batched-bench", 1,
                                        tuple(a / b for a, b in pairs)))
            if n == 8 and title == "generation":
                outcomes.append(Outcome("8 requests, generation, over one", 3,
                                        tuple(each[n][what] / each[1][what] for each in ours)))
            yield (f"| {title}, {n} | {them:.0f} | {us:.0f} | {spread(a / b for a, b in pairs)} "
                   f"| {spread(each[n][what] / each[1][what] for each in ours)} |")


def batched_bench(binary: Path, model: Path, args: argparse.Namespace) -> Speeds:
    n_ctx = max(N_PARALLEL) * (args.prompt + args.generate)
    command = [str(binary), "-m", str(model), "-c", str(n_ctx), "-npp", str(args.prompt),
               "-ntg", str(args.generate), "-npl", ",".join(map(str, N_PARALLEL)),
               "-t", str(args.threads), "-ngl", "0", "-fa", "auto", "--output-format", "jsonl"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {row["pl"]: (row["speed_tg"], row["speed"]) for row in rows}


def together(model: Path, args: argparse.Namespace) -> Speeds:
    found = {}
    n_ctx = args.prompt + args.generate
    with kollama.Model(model) as weights:
        for n in N_PARALLEL:
            with kollama.LLM(weights, n_ctx=n_ctx, n_parallel=n, n_threads=args.threads) as llm:
                llm.complete([5, 6, 7], max_tokens=8, **GREEDY)
                prompts = [unseen(args.prompt) for _ in range(n)]
                whole = seconds(llm.complete, prompts, max_tokens=args.generate, **GREEDY)
                again = seconds(llm.complete, prompts, max_tokens=args.generate, **GREEDY)
            found[n] = (n * args.generate / again, n * n_ctx / whole)
    return found


# ---- a beginning that all share ------------------------------------------------------------------


def prefix(model: Path, args: argparse.Namespace, outcomes: list[Outcome]) -> Iterable[str]:
    n, n_own, n_shared = 32, 20, args.long // 2
    lines = []
    with kollama.Model(model) as weights:
        for n_parallel in (8, 32):
            found = []
            for index in range(args.pairs):
                with kollama.LLM(weights, n_ctx=n_shared + 128, n_parallel=n_parallel,
                                 n_threads=args.threads) as llm:
                    found.append(share(llm, n, n_own, n_shared, args.generate // 2))
                generate.progress(f"prefix, {n_parallel}: {index + 1}/{args.pairs}")
            once = n_shared + n * n_own
            outcomes.append(Outcome(f"tokens read for {n} requests with one beginning, {n_parallel} "
                                    "places, over what they are without it", 1,
                                    tuple(read / once for _, read in found), at_most=True))
            lines.append(f"| {n_parallel} | {max(read for _, read in found)} "
                         f"| {n * (n_shared + n_own)} | {spread(ratio for ratio, _ in found)} |")
    generate.progress("")
    yield (f"| {n} requests that begin with the same {n_shared} tokens, n_parallel | tokens read "
           f"| of | time over one such prompt and {n} requests without |")
    yield "|---|--:|--:|--:|"
    yield from lines


def share(llm: kollama.LLM, n: int, n_own: int, n_shared: int, max_tokens: int,
          ) -> tuple[float, int]:
    """Time over that of the parts, and tokens read."""
    shared = unseen(n_shared)
    llm.complete([5, 6, 7], max_tokens=8)
    parts = seconds(llm.complete, unseen(n_shared), max_tokens=1)
    parts += seconds(llm.complete, [unseen(n_own) for _ in range(n)], max_tokens=max_tokens,
                     **GREEDY)
    prompts = [shared + unseen(n_own) for _ in range(n)]
    start = time.perf_counter()
    done = llm.complete(prompts, max_tokens=max_tokens, **GREEDY)
    whole = time.perf_counter() - start
    return whole / parts, sum(one.usage.prompt_tokens - one.usage.reused_tokens for one in done)


# ---- the next turn of a chat ---------------------------------------------------------------------


def turn(model: Path, args: argparse.Namespace, outcomes: list[Outcome]) -> Iterable[str]:
    ratios, firsts, new, n_prompt = [], [], [], 0
    with kollama.Model(model) as weights, kollama.LLM(
            weights, n_ctx=2 * args.long, n_threads=args.threads) as llm:
        words = weights.tokenizer.decode
        for index in range(args.pairs):
            messages = [{"role": "user", "content": "What do these words mean? "
                         + words(unseen(args.long // 2))}]
            with llm.chat(messages, max_tokens=48, temperature=0) as stream:
                answer = "".join(token.text for token in stream)
            messages += [{"role": "assistant", "content": answer},
                         {"role": "user", "content": "And these? " + words(unseen(64))}]
            start = time.perf_counter()
            with llm.chat(messages, max_tokens=48, temperature=0) as stream:
                next(stream)
                firsts.append(time.perf_counter() - start)
                usage, ids = stream.result.usage, stream._prompt
            n_prompt = usage.prompt_tokens
            new.append(n_prompt - usage.reused_tokens)
            ratios.append(firsts[-1] / by_hand(weights, ids.tolist(), new[-1], args))
            generate.progress(f"turn {index + 1}/{args.pairs}")
    generate.progress("")
    yield ("| the next turn of a chat | tokens of its prompt | tokens read | to the first token, s "
           "| over the new tokens alone |")
    yield "|---|--:|--:|--:|--:|"
    yield (f"| {len(ratios)} chats | {n_prompt} | {spread(new, 0)} | {spread(firsts, 3)} "
           f"| {spread(ratios)} |")
    outcomes.append(Outcome("a chat's next turn, to its first token, over the new tokens alone",
                            1.1, tuple(ratios), at_most=True))


def by_hand(weights: kollama.Model, ids: list[int], n_new: int, args: argparse.Namespace) -> float:
    """Seconds to read the last n_new tokens after the others, and to choose one."""
    sampler = kollama.Sampler(temperature=0)
    with weights.context(n_ctx=2 * args.long, n_threads=args.threads) as context:
        sequence = context.sequence()
        sequence.append(ids[:-n_new])
        start = time.perf_counter()
        sequence.append(ids[-n_new:])
        sampler.sample(sequence)
        return time.perf_counter() - start


# ---- a stream beside a long prompt ---------------------------------------------------------------


def gap(model: Path, args: argparse.Namespace, _: list[Outcome]) -> Iterable[str]:
    gaps, usual, over_parts = [], [], []
    with kollama.LLM(model, n_ctx=2 * args.long + 512, n_parallel=2,
                     n_threads=args.threads) as llm:
        for index in range(args.pairs):
            alone = seconds(llm.complete, unseen(args.long), max_tokens=1)
            stream = Stream(llm)
            start = time.perf_counter()
            llm.complete(unseen(args.long), max_tokens=1)
            end = time.perf_counter()
            times = stream.end()
            steps = list(pairwise(times))
            usual.append(statistics.median(b - a for a, b in steps if b < start))
            beside = [b - a for a, b in steps if b >= start and a < end]
            gaps.append(max(beside))
            over_parts.append((end - start) / (alone + len(beside) * usual[-1]))
            generate.progress(f"gap {index + 1}/{args.pairs}")
    generate.progress("")
    yield (f"| a stream while another request's {args.long} tokens are read | between two tokens "
           "before, ms | the longest beside, ms | time over prompt and tokens one after another |")
    yield "|---|--:|--:|--:|"
    yield (f"| {len(gaps)} times | {spread((1000 * each for each in usual), 1)} "
           f"| {spread((1000 * each for each in gaps), 0)} | {spread(over_parts)} |")


class Stream:
    """A stream that another thread reads; it has begun, and runs evenly."""

    def __init__(self, llm: kollama.LLM) -> None:
        self._llm = llm
        self._times: list[float] = []
        self._even, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        self._even.wait()

    def _read(self) -> None:
        with self._llm.generate([5, 6, 7], max_tokens=None, **GREEDY) as tokens:
            for _ in tokens:
                self._times.append(time.perf_counter())
                if len(self._times) == 40:
                    self._even.set()
                if self._over.is_set():
                    return

    def end(self) -> list[float]:
        """When each token came."""
        self._over.set()
        self._thread.join()
        return self._times


# ---- a long history ------------------------------------------------------------------------------


def history(_: Path, args: argparse.Namespace, _outcomes: list[Outcome]) -> Iterable[str]:
    binary = llama_bench.build()
    path = small_model(llama_bench.ROOT / "build" / "small.gguf")
    n = 64
    yield "| tokens of history | llama-bench, us/token | kollama | beyond it |"
    yield "|---|--:|--:|--:|"
    with kollama.Model(path) as weights, kollama.LLM(
            weights, n_ctx=args.depth + 256, n_threads=args.threads) as llm:
        for depth in (1000, args.depth):
            ids = [5 + i % 200 for i in range(depth)]
            options = GREEDY | {"stop": "never to be seen", "repeat_penalty": 1.1}
            llm.complete(ids, max_tokens=1, **options)
            ours = []
            for _pair in range(args.pairs):
                with llm.generate(ids, max_tokens=n, **options) as stream:
                    next(stream)
                    ours.append(seconds(list, stream) / (n - 1))
            command = [str(binary), "-o", "json", "-r", str(args.pairs), "-p", "0", "-n", str(n),
                       "-d", str(depth), "-t", str(args.threads), "-ngl", "0", "-fa", "auto",
                       "-m", str(path)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            theirs = [1 / each for each in json.loads(done.stdout)[0]["samples_ts"]]
            us, them = (1e6 * statistics.median(side) for side in (ours, theirs))
            yield f"| {depth} | {them:.0f} | {us:.0f} | {us - them:.0f} |"


def small_model(path: Path) -> Path:
    sys.path.insert(0, str(llama_bench.ROOT / "tests"))
    import tiny

    path.parent.mkdir(parents=True, exist_ok=True)
    return tiny.write_llama(path)


if __name__ == "__main__":
    main()
