"""Many requests at once: beginnings that they share, who is served when, and what a long history costs."""

from __future__ import annotations

import asyncio
import itertools
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tiny
from numpy.typing import NDArray

import kollama
from kollama._core.generation import NEWS_END, TokenStream

SYSTEM = [5 + i % 200 for i in range(200)]
WAIT_S = 60


def own(i: int, n: int = 5) -> list[int]:
    return [7 + i, *range(30, 29 + n)]


def n_read(done: list[kollama.Completion]) -> int:
    return sum(one.usage.prompt_tokens - one.usage.reused_tokens for one in done)


def stream(seq: kollama.Sequence, prompt: list[int], max_tokens: int = 3) -> TokenStream:
    return TokenStream(seq, kollama.Sampler(temperature=0), prompt, max_tokens=max_tokens, stop=[],
                       ignore_eos=True, ahead=2**31 - 1)


# ---- a beginning that many share -----------------------------------------------------------------


@pytest.mark.parametrize("n_parallel", [1, 3, 8, 32])
def test_what_all_prompts_begin_with_is_read_once(model: kollama.Model, n_parallel: int) -> None:
    prompts = [SYSTEM + own(i) for i in range(32)]
    options = {"max_tokens": 4, "temperature": 0, "ignore_eos": True}
    with kollama.LLM(model, n_ctx=256, n_parallel=1, n_threads=1) as llm:
        expected = [llm.complete(prompt, **options).tokens.tolist() for prompt in prompts]
    with kollama.LLM(model, n_ctx=256, n_parallel=n_parallel, n_threads=1, n_batch=64) as llm:
        done = llm.complete(prompts, **options)
        assert n_read(done) == len(SYSTEM) + 32 * 5
        assert [one.tokens.tolist() for one in done] == expected

        async def all_at_once() -> list[kollama.Completion]:
            return await asyncio.gather(*(llm.acomplete([9, *prompt], **options) for prompt in prompts))

        assert n_read(asyncio.run(all_at_once())) == 1 + len(SYSTEM) + 32 * 5


def test_it_is_in_memory_once(context: Callable[..., kollama.Context]) -> None:
    ctx = context(n_ctx=300, n_seq_max=8, n_batch=32)
    streams = [stream(ctx.sequence(), SYSTEM + own(i)) for i in range(8)]  # 200 + 8 * 8 tokens
    for one in streams:
        assert [token.finish_reason for token in one] == [None, None, "length"]


def test_each_shares_what_it_can(context: Callable[..., kollama.Context]) -> None:
    ctx = context(n_ctx=2000, n_seq_max=5, n_batch=32)
    prompts = [SYSTEM, [*SYSTEM[:120], *own(1, 100)], [*SYSTEM[:120], *own(1, 50), *own(2, 40)], [9, 9, 9], SYSTEM]
    streams = [stream(ctx.sequence(), prompt) for prompt in prompts]
    for one, prompt in zip(streams, prompts, strict=True):
        alone = context(n_ctx=2000).sequence()
        assert [token.id for token in one] == [token.id for token in stream(alone, prompt)]
    assert [one.stats[0].reused_tokens for one in streams] == [0, 120, 170, 0, 199]


def test_who_reads_it_may_be_cancelled(context: Callable[..., kollama.Context]) -> None:
    ctx = context(n_ctx=4000, n_seq_max=3, n_batch=32)
    prompt = SYSTEM * 5
    first, second, third = (stream(ctx.sequence(), prompt + own(i)) for i in range(3))
    second.close()
    first.close()
    assert len(list(third)) == 3
    assert third.stats[0].reused_tokens <= len(prompt)


def test_a_sequence_that_was_closed_lends_nothing(context: Callable[..., kollama.Context]) -> None:
    ctx = context(n_ctx=1000, n_seq_max=2)
    seq = ctx.sequence()
    seq.append(SYSTEM)
    other = stream(ctx.sequence(), SYSTEM + own(1))
    assert len(list(other)) == 3
    assert other.stats[0].reused_tokens == len(SYSTEM)
    other.close()
    seq.close()
    again = ctx.sequence()
    assert again.tokens.tolist() == []
    assert len(list(stream(again, SYSTEM + own(2)))) == 3


def test_what_was_shifted_is_not_shared(context: Callable[..., kollama.Context]) -> None:
    ctx = context(n_ctx=1000, n_seq_max=2)
    seq = ctx.sequence()
    seq.append(SYSTEM)
    seq.shift(20, 50)
    other = stream(ctx.sequence(), [*seq.tokens.tolist(), 8])
    assert len(list(other)) == 3
    assert other.stats[0].reused_tokens == 20


def test_a_recurrent_model_reads_each(mamba_path: Path) -> None:
    with kollama.LLM(mamba_path, n_ctx=64, n_parallel=2, n_threads=1) as llm:
        options = {"max_tokens": 4, "temperature": 0, "ignore_eos": True}
        done = llm.complete([[5, 6, 7, 8, 9], [5, 6, 7, 8, 9]], **options)
        assert done[0].tokens.tolist() == done[1].tokens.tolist()
        assert [one.usage.reused_tokens for one in done] == [0, 0]


def test_a_shift_of_what_is_shared(context: Callable[..., kollama.Context]) -> None:
    prompt = [*SYSTEM[:50], 9]

    def shifting(seq: kollama.Sequence) -> TokenStream:
        return TokenStream(seq, kollama.Sampler(temperature=0), prompt, max_tokens=90, stop=[], ignore_eos=True, ahead=1, shift_at=64)

    expected = [token.id for token in shifting(context(n_ctx=64).sequence())]
    ctx = context(n_ctx=3 * 64, n_seq_max=3)
    streams = [shifting(ctx.sequence()) for _ in range(3)]
    firsts = [next(one).id for one in streams]  # all have begun, and none goes on before it is read
    assert [one.stats[0].reused_tokens for one in streams] == [0, 50, 50]
    assert firsts == [expected[0]] * 3
    assert [[token.id for token in one] for one in streams] == [expected[1:]] * 3


def test_chats_that_take_turns_keep_their_history(model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=256, n_parallel=2, n_threads=1) as llm:
        chats = [[*SYSTEM[:20], *own(i, 60)] for i in range(2)]
        for turn in range(3):
            for chat in chats:
                done = llm.complete(chat, max_tokens=5, temperature=0, ignore_eos=True)
                new = done.usage.prompt_tokens - done.usage.reused_tokens
                assert new == (4 if turn else 60 + (chat is chats[0]) * 20)  # its last token was not read
                chat += [*done.tokens.tolist(), 40, 41, 42]


# ---- who is served when --------------------------------------------------------------------------


def test_a_long_append_lets_streams_go_on(context: Callable[..., kollama.Context]) -> None:
    ctx = context(n_ctx=3000, n_seq_max=2, n_batch=32)
    running = stream(ctx.sequence(), [5, 6, 7], max_tokens=30)
    next(running)
    seq = ctx.sequence()
    seq.append(SYSTEM * 10)  # in 63 parts, with a token of the stream after each
    assert running.look(True) == NEWS_END
    whole = context(n_ctx=3000, n_batch=32).sequence()
    whole.append(SYSTEM * 10)
    np.testing.assert_allclose(seq.logits, whole.logits, atol=5e-2)
    assert len(list(running)) == 29


def test_an_append_that_is_cut_between_its_parts_leaves_nothing(context: Callable[..., kollama.Context]) -> None:
    ctx = context(n_ctx=60000, n_seq_max=2, n_batch=16)
    seq = ctx.sequence()
    seq.append([5, 6, 7])
    before = seq.logits.copy()
    running = stream(ctx.sequence(), [8], max_tokens=10**6)
    next(running)
    with pytest.raises(kollama.DeadlineError):
        seq.append([5] * 40000, timeout=0.2)
    assert seq.tokens.tolist() == [5, 6, 7]
    np.testing.assert_array_equal(seq.logits, before)
    running.close()


def test_a_short_prompt_does_not_wait_behind_a_long_one(context: Callable[..., kollama.Context]) -> None:
    ctx = context(n_ctx=5000, n_seq_max=3, n_batch=32)
    long = stream(ctx.sequence(), SYSTEM * 20)
    longer = stream(ctx.sequence(), [9, *SYSTEM * 3])
    short = stream(ctx.sequence(), [8, 6, 7])
    for one in (long, longer, short):
        list(one)
    long_s, longer_s, short_s = (one.stats[1].prompt_seconds for one in (long, longer, short))
    assert short_s < longer_s < long_s


def test_the_first_prompt_is_read_on_while_shorter_ones_come(context: Callable[..., kollama.Context]) -> None:
    ctx = context(n_ctx=20000, n_seq_max=2, n_batch=32)
    long = stream(ctx.sequence(), SYSTEM * 10)
    seq = ctx.sequence()
    for i in itertools.count():
        if long.look(True) == NEWS_END:
            break
        assert i < 2000
        seq.clear()
        list(stream(seq, [8 + i % 50, *SYSTEM[:40]], max_tokens=1))
    assert len(list(long)) == 3


@pytest.mark.parametrize("n_batch", [1, 2, 5])
def test_more_streams_than_a_batch_has_tokens(model: kollama.Model, n_batch: int) -> None:
    prompts = [[20 + i, 30, 31] for i in range(6)]
    options = {"max_tokens": 6, "temperature": 0, "ignore_eos": True}
    with kollama.LLM(model, n_ctx=64, n_threads=1) as llm:
        expected = [llm.complete(prompt, **options).tokens.tolist() for prompt in prompts]
    with kollama.LLM(model, n_ctx=64, n_parallel=6, n_batch=n_batch, n_threads=1) as llm:
        done = llm.complete([*prompts, [5] * 40], **options)
        assert [one.tokens.tolist() for one in done[:6]] == expected


def test_who_does_not_read_stops_nobody_else(llm: kollama.LLM) -> None:
    options = {"max_tokens": 200, "temperature": 0, "ignore_eos": True}
    with llm.generate([5, 6, 7], **options) as slow:
        next(slow)
        assert len(list(llm.generate([8, 9], **options))) == 200
        assert len(list(slow)) == 199


def mask_some(tokens: NDArray[np.int32], logits: NDArray[np.float32]) -> None:
    logits[100:] = -np.inf


DRAWN: list[dict[str, Any]] = [
    {"temperature": 0},
    {},
    {"top_k": 0, "top_p": 0.5, "logprobs": 3},
    {"temperature": 2.0, "top_k": 0, "top_p": 1.0, "min_p": 0.01},
    {"repeat_penalty": 1.3},
    {"grammar": "root ::= [a-z ]+"},
    {"sampler": True},
    {"ignore_eos": True},
]


def drawn(llm: kollama.LLM, requests: list[int]) -> list[list[tuple[int, float | None]]]:
    streams = []
    for i in requests:
        options = {"sampler": kollama.Sampler.chain([mask_some])} if "sampler" in DRAWN[i] else {"seed": i, **DRAWN[i]}
        streams.append(llm.generate([20 + i, *SYSTEM], max_tokens=20, **options))
    begun = [next(stream) for stream in streams]
    return [[(token.id, token.logprob) for token in (first, *stream)] for first, stream in zip(begun, streams, strict=True)]


@pytest.mark.parametrize("n_threads", [1, 2])
def test_each_draws_what_it_draws_alone(model: kollama.Model, n_threads: int) -> None:
    """The rows of several streams are scanned by all threads, before each draws by its own rules.

    Their logits are those that one alone has but for the order of sums: many prompts are read together.
    """
    with kollama.LLM(model, n_ctx=256, n_parallel=8, n_threads=n_threads) as llm:
        together = drawn(llm, list(range(len(DRAWN))))
        for i, one in enumerate(together):
            (alone,) = drawn(llm, [i])
            assert [token for token, _ in one] == [token for token, _ in alone]
            assert [logprob for _, logprob in one] == pytest.approx([logprob for _, logprob in alone], abs=5e-5)


@pytest.mark.parametrize("n_times", [0, 2])
def test_a_row_of_nan_ends_its_own_stream_alone(tiny_path: Path, tmp_path: Path, n_times: int) -> None:
    """Also where a batch has so many rows that attention takes several at a time."""
    if n_times > 0 and kollama.devices()[0].name != "kollama":
        pytest.skip("ggml's attention adds NaN times 0 to the other rows")
    path = Path(shutil.copy(tiny_path, tmp_path))
    (embedding,) = (t for t in gguf.GGUFReader(path, "r+").tensors if t.name == "token_embd.weight")
    embedding.data[77] = np.nan
    embedding.data.base.flush()
    with kollama.LLM(path, n_ctx=128, n_parallel=4, n_threads=2) as llm:
        streams = [llm.generate([5, second, *SYSTEM[:50] * n_times], max_tokens=6, ignore_eos=False, temperature=0)
                   for second in (8, 77, 9, 10)]
        for stream in streams:
            stream.start()
        for stream, is_nan in zip(streams, (False, True, False, False), strict=True):
            if is_nan:
                with pytest.raises(kollama.ArgumentError, match="NaN"):
                    list(stream)
            else:
                assert len(list(stream)) > 0


# ---- lists of prompts ----------------------------------------------------------------------------


def test_a_place_that_is_free_is_taken_at_once(llm: kollama.LLM) -> None:
    """The first request goes on until all the others have been at work, in the one place that is left."""
    from kollama.together import Together

    seen: set[int] = set()

    def first(tokens: NDArray[np.int32], logits: NDArray[np.float32]) -> None:
        logits[:] = -np.inf
        logits[tiny.EOS if seen == {1, 2, 3, 4} else 9] = 0

    def other(i: int) -> Callable[..., None]:
        return lambda tokens, logits: seen.add(i)

    def request(link: Callable[..., None], n: int | None) -> kollama.Generation:
        return llm.generate([5, 6], sampler=kollama.Sampler.chain([link]), max_tokens=n)

    requests = [request(first, None), *(request(other(i), 3) for i in range(1, 5))]
    done = Together(llm._context, llm._slots, requests, 2, None).run()
    assert done[0].finish_reason == "eos"
    assert len(done) == 5


def test_lists_in_several_threads(llm: kollama.LLM) -> None:
    prompts = [[20 + i, 30, 31] for i in range(5)]
    options = {"max_tokens": 8, "temperature": 0, "ignore_eos": True}
    expected = [llm.complete(prompt, **options).tokens.tolist() for prompt in prompts]
    results: list[object] = []

    def work() -> None:
        try:
            results.append([one.tokens.tolist() for one in llm.complete(prompts, **options)])
        except Exception as error:
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert results == [expected] * 4


def test_a_list_that_finds_no_place(llm: kollama.LLM) -> None:
    with llm.generate([5, 6]) as a, llm.generate([7, 8]) as b:
        next(a)
        next(b)
        with pytest.raises(kollama.BusyError, match="n_parallel"):
            llm.complete([[5], [6], [7]])
    assert len(llm.complete([[5], [6], [7]], max_tokens=2)) == 3


def test_a_list_that_one_request_fails(llm: kollama.LLM) -> None:
    def fail(tokens: object, logits: object) -> None:
        raise RuntimeError("아니요")

    from kollama.together import Together

    requests = [llm.generate([5, 6], max_tokens=50), llm.generate([5, 7], sampler=kollama.Sampler.chain([fail])), llm.generate([5, 8])]
    with pytest.raises(RuntimeError, match="아니요"):
        Together(llm._context, llm._slots, requests, 2, None).run()
    assert all(slot.holder is None for slot in llm._slots._slots)
    assert not llm._slots._queue


# ---- a long history ------------------------------------------------------------------------------


def calls_per_token(llm: kollama.LLM, n_history: int) -> int:
    """Python and C functions that are called for 20 tokens of a stream, after so many."""
    n = 0

    def count(frame: object, event: str, argument: object) -> None:
        nonlocal n
        n += event in ("call", "c_call")

    with llm.generate([5 + i % 200 for i in range(n_history)], ignore_eos=True, max_tokens=60, stop="결코 아님",
                      repeat_penalty=1.1) as tokens:
        next(tokens)
        sys.setprofile(count)
        try:
            for _ in range(20):
                next(tokens)
        finally:
            sys.setprofile(None)
    return n


def test_a_long_history_costs_no_python_work(model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=4200, n_threads=1) as llm:
        few, many = calls_per_token(llm, 10), calls_per_token(llm, 4000)
    assert few == many > 0
