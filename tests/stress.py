"""24 threads over one Model with a Context each, then 24 that fight for one: for a sanitizer.

    python tests/stress.py SECONDS [MODEL]

Half of the time each. Every text must be the one that a single thread got before, and it must end.
"""

from __future__ import annotations

import gc
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import tiny

import kollama
from kollama._core.runtime import live_handles

N_THREADS = 24
N_TOKENS = 12
PROMPTS = [first + rest for first in ("대한민국의 ", "안녕하세요 ", "오늘 날씨가 ", "the a b c ", "서울이다. ") for rest in "가나다라마바사아"]
MARGIN = 0.03  # of the chosen token's logit: batches of other sizes add up otherwise, in the last digits

counts: Counter[str] = Counter()
failed: list[BaseException] = []


def greedy(sequence: kollama.Sequence, ids: list[int], margins: list[float] | None = None) -> list[int]:
    """The low level: append, look at the logits, choose."""
    sequence.append(ids)
    out = []
    for _ in range(N_TOKENS):
        logits = sequence.logits
        logits[tiny.EOS] = -np.inf  # as ignore_eos does
        out.append(int(logits.argmax()))
        if margins is not None:
            second, first = np.partition(logits, -2)[-2:]
            margins.append(float(first - second))
        sequence.append(out[-1:])
    return out


def expected_of(model: kollama.Model) -> dict[str, list[int]]:
    """What follows each prompt, of those where no two tokens come close."""
    found = {}
    with model.context(n_ctx=256, n_threads=1) as ctx:
        for text in PROMPTS:
            margins: list[float] = []
            sequence = ctx.sequence()
            ids = greedy(sequence, model.tokenizer.encode(text, add_bos=True).tolist(), margins)
            if min(margins) > MARGIN:
                found[text] = ids
            sequence.close()
    assert len(found) > 3, found
    return found


def run_threads(seconds: float, work: Callable[[random.Random], None]) -> None:
    end = time.monotonic() + seconds

    def loop(number: int) -> None:
        chance = random.Random(number)
        try:
            while time.monotonic() < end and not failed:
                work(chance)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=loop, args=(i,), daemon=True) for i in range(N_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds + 120)
    assert not any(thread.is_alive() for thread in threads), "a thread does not end"
    if failed:
        raise failed[0]


def a_context_each(model: kollama.Model, expected: dict[str, list[int]], seconds: float) -> None:
    def work(chance: random.Random) -> None:
        text = chance.choice(sorted(expected))
        ids = model.tokenizer.encode(text, add_bos=True).tolist()
        with model.context(n_ctx=128, n_seq_max=2, n_threads=chance.choice([1] * 15 + [2])) as ctx:
            sequence = ctx.sequence()
            assert greedy(sequence, ids) == expected[text]
            other = sequence.fork()
            other.rewind(len(ids) - 1)
            assert greedy(other, ids[-1:]) == expected[text]
            blob = sequence.state()
            sequence.restore(blob)
            counts["contexts"] += 1

    run_threads(seconds, work)


def one_for_all(model: kollama.Model, expected: dict[str, list[int]], seconds: float) -> None:
    with (kollama.LLM(model, n_ctx=128, n_parallel=4, n_threads=1) as llm,
          model.context(n_ctx=2048, n_seq_max=N_THREADS, n_threads=1) as ctx):
        run_threads(seconds, fight(model, expected, llm, ctx))


def fight(model: kollama.Model, expected: dict[str, list[int]], llm: kollama.LLM, ctx: kollama.Context,
          ) -> Callable[[random.Random], None]:
    shared = ctx.sequence()

    def complete(chance: random.Random) -> None:
        text = chance.choice(sorted(expected))
        done = llm.complete(text, max_tokens=N_TOKENS, temperature=0, ignore_eos=True)
        assert done.tokens.tolist() == expected[text], (text, done.tokens, expected[text])

    def leave_early(chance: random.Random) -> None:
        with llm.generate(chance.choice(sorted(expected)), ignore_eos=True) as stream:
            for _ in range(chance.randrange(4)):
                next(stream)

    def own_sequence(chance: random.Random) -> None:
        text = chance.choice(sorted(expected))
        try:
            sequence = ctx.sequence()
        except kollama.ArgumentError:
            return
        assert greedy(sequence, model.tokenizer.encode(text, add_bos=True).tolist()) == expected[text]
        sequence.close()

    def same_sequence(chance: random.Random) -> None:
        try:
            if len(shared) > 60:
                shared.clear()
            shared.append([chance.randrange(model.n_vocab)])
            kollama.Sampler(seed=1).sample(shared)
        except (kollama.BusyError, kollama.StateError):
            counts["busy"] += 1

    def call_back(chance: random.Random) -> None:
        text = chance.choice(sorted(expected))
        sampler = kollama.Sampler.chain([lambda tokens, logits: None])
        done = llm.complete(text, max_tokens=3, sampler=sampler, ignore_eos=True)
        assert done.tokens.tolist() == expected[text][:3]

    def work(chance: random.Random) -> None:
        chosen = chance.choice([complete, complete, leave_early, own_sequence, same_sequence, same_sequence, call_back])
        chosen(chance)
        counts[chosen.__name__] += 1

    return work


def main(seconds: float, path: Path) -> None:
    with kollama.Model(path) as model:
        expected = expected_of(model)
        a_context_each(model, expected, seconds / 2)
        one_for_all(model, expected, seconds / 2)
    gc.collect()
    assert not any(live_handles().values()), live_handles()
    print(dict(counts))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        main(float(sys.argv[1]), Path(sys.argv[2]))
    else:
        with tempfile.TemporaryDirectory() as folder:
            main(float(sys.argv[1]), tiny.write_llama(Path(folder) / "tiny.gguf"))
