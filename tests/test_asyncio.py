"""Streams for asyncio: the same text as without, a loop that is never kept waiting, nothing left over."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_process import run as run_code
from test_process import silent

import kollama
from kollama import watcher
from kollama._core.runtime import live_handles

PROMPT = "대한민국의 수도는"
ENDLESS: dict[str, Any] = {"max_tokens": None, "ignore_eos": True}
LONG = [5] * 15000  # some seconds on the tiny model
WAIT_S = 60


@pytest.fixture
def wide(model: kollama.Model) -> Iterator[kollama.LLM]:
    """Room for two long requests."""
    with kollama.LLM(model, n_ctx=16000, n_parallel=2, n_threads=1) as llm:
        yield llm


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), WAIT_S), debug=False)


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def all_given_back(llm: kollama.LLM) -> None:
    """No request, no place and no native stream is left."""
    gc.collect()
    await until(lambda: all(slot.holder is None for slot in llm._slots._slots))
    assert not llm._slots._queue
    assert llm._watcher is not None
    await until(lambda: not llm._watcher._watched)  # type: ignore[union-attr]
    await until(lambda: live_handles()["generation"] == 0)


async def text_of(stream: kollama.AsyncGeneration) -> str:
    return "".join([token.text async for token in stream])


async def first(stream: kollama.AsyncGeneration) -> kollama.Token:
    return await anext(stream)


# ---- what comes out ------------------------------------------------------------------------------


def test_the_same_as_without(llm: kollama.LLM) -> None:
    options: dict[str, Any] = {"max_tokens": 20, "seed": 3, "logprobs": 2}
    messages = [{"role": "user", "content": "안녕"}]
    expected = llm.complete(PROMPT, **options)
    answer = "".join(token.text for token in llm.chat(messages, max_tokens=9, seed=4))
    texts = [done.text for done in llm.complete(["a", "b", "c", "한국어"], max_tokens=9, temperature=0)]

    async def main() -> None:
        stream = llm.agenerate(PROMPT, **options)
        assert await text_of(stream) == expected.text
        result = stream.result
        for done in (result, await llm.acomplete(PROMPT, **options)):
            assert (done.text, done.finish_reason, done.incomplete) == (expected.text, expected.finish_reason, expected.incomplete)
            assert done.tokens.tolist() == expected.tokens.tolist()
            assert done.logprobs is not None and expected.logprobs is not None
            assert np.allclose(done.logprobs, expected.logprobs, atol=1e-3)  # in another place of the memory
            assert done.top_logprobs is not None and len(done.top_logprobs) == len(done.tokens)
        assert await text_of(llm.achat(messages, max_tokens=9, seed=4)) == answer
        several = await llm.acomplete(["a", "b", "c", "한국어"], max_tokens=9, temperature=0)
        assert [done.text for done in several] == texts
        by_id = llm.tokenizer.encode(PROMPT, add_bos=True).tolist()
        assert (await llm.acomplete(by_id, max_tokens=20, seed=3)).text == expected.text
        assert await anext(stream, None) is None  # ended once is ended for ever

    run(main)


def test_embeddings(llm: kollama.LLM) -> None:
    texts = [PROMPT, "a b c"]
    expected = llm.embed(texts)

    async def main() -> None:
        both = await asyncio.gather(llm.aembed(texts), llm.aembed(texts, normalize=True))
        assert [np.allclose(rows, expected, atol=1e-5) for rows in both] == [True, True]

    run(main)


def test_many_streams_one_loop(model: kollama.Model) -> None:
    prompts = [f"{'abc'[i % 3] * (i + 1)}" for i in range(24)]
    with kollama.LLM(model, n_ctx=128, n_parallel=4, n_threads=1) as llm:
        expected = [llm.complete(prompt, max_tokens=10, temperature=0).tokens.tolist() for prompt in prompts]

        async def one(prompt: str) -> list[int]:
            return [token.id async for token in llm.agenerate(prompt, max_tokens=10, temperature=0)]

        async def main() -> None:
            assert await asyncio.gather(*map(one, prompts)) == expected
            await all_given_back(llm)

        run(main)


def test_loops_in_several_threads(wide: kollama.LLM) -> None:
    expected = wide.complete(PROMPT, max_tokens=15, temperature=0).text
    texts: list[str] = []

    async def main() -> None:
        for _ in range(4):
            texts.append(await text_of(wide.agenerate(PROMPT, max_tokens=15, temperature=0)))
            texts.append((await wide.acomplete(PROMPT, max_tokens=15, temperature=0)).text)

    threads = [threading.Thread(target=run, args=(main,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    texts += [wide.complete(PROMPT, max_tokens=15, temperature=0).text for _ in range(4)]
    for thread in threads:
        thread.join(WAIT_S)
    assert texts == [expected] * 36


def test_a_callable_in_the_sampler_runs_beside_the_loop(llm: kollama.LLM) -> None:
    seen: list[int] = []

    def pick(tokens: np.ndarray, logits: np.ndarray) -> None:
        seen.append(threading.get_ident())
        logits[:] = -np.inf
        logits[262] = 0

    def refuse(tokens: np.ndarray, logits: np.ndarray) -> None:
        raise LookupError("아니요")

    async def main() -> None:
        chain = kollama.Sampler.chain([pick])
        tokens = [token.id async for token in llm.agenerate("a", max_tokens=5, sampler=chain)]
        assert tokens == [262] * 5
        assert (await llm.acomplete("a", max_tokens=5, sampler=chain)).tokens.tolist() == tokens
        assert len(seen) == 10 and threading.get_ident() not in seen
        with pytest.raises(LookupError, match="아니요"):
            await llm.acomplete("a", sampler=kollama.Sampler.chain([refuse]))
        with pytest.raises(LookupError, match="아니요"):
            await first(llm.agenerate("a", sampler=kollama.Sampler.chain([refuse])))
        await all_given_back(llm)

    run(main)


def test_signatures_are_those_of_the_others() -> None:
    for name in ("generate", "chat"):
        there = inspect.signature(getattr(kollama.LLM, name)).parameters
        assert list(inspect.signature(getattr(kollama.LLM, f"a{name}")).parameters) == list(there)


# ---- the loop is not kept waiting ----------------------------------------------------------------


def test_the_loop_goes_on_while_a_long_prompt_is_read(wide: kollama.LLM) -> None:
    async def main() -> None:
        turns = 0
        text = asyncio.ensure_future(wide.acomplete("가" * 5000, max_tokens=1))
        while not text.done():
            turns += 1
            await asyncio.sleep(0.001)
        assert text.result().usage.prompt_tokens > 5000
        assert turns > 20

    run(main)


def test_a_fast_stream_leaves_others_their_turn(llm: kollama.LLM) -> None:
    async def main() -> None:
        turns = [0]

        async def other() -> None:
            while True:
                turns[0] += 1
                await asyncio.sleep(0)

        task = asyncio.ensure_future(other())
        stream = llm.agenerate("a", max_tokens=40, ignore_eos=True)
        await first(stream)
        await asyncio.sleep(0.1)  # tokens wait: the loop has no need to wait for any
        for _ in range(10):
            before = turns[0]
            await first(stream)
            assert turns[0] > before
        task.cancel()
        await stream.aclose()

    run(main)


# ---- the end of it -------------------------------------------------------------------------------


def test_read_ahead_is_bounded(wide: kollama.LLM) -> None:
    async def main() -> None:
        async with wide.agenerate("a", **ENDLESS) as stream:
            await first(stream)
            await asyncio.sleep(0.3)
            request = stream._request
            assert request is not None and request.generation is not None
            assert request.generation._slots is wide._slots
        await all_given_back(wide)
        n_read = max(len(slot.sequence) for slot in wide._slots._slots)
        assert n_read < 40, "the engine ran on for a reader that did not read"

    run(main)


@pytest.mark.parametrize("way", ["break", "aclose", "async with", "close", "close in a thread", "task", "del"])
def test_ways_to_end_a_stream(wide: kollama.LLM, way: str) -> None:
    async def main() -> None:
        for i in range(10):
            prompt: Any = LONG if i % 2 else "a"  # in the prompt, and in the text
            if way == "break":
                async for _ in wide.agenerate("a", **ENDLESS):
                    break
            elif way == "async with":
                async with wide.agenerate("a", **ENDLESS) as stream:
                    await first(stream)
            else:
                stream = wide.agenerate(prompt, **ENDLESS)
                task = asyncio.ensure_future(first(stream))
                await asyncio.sleep(i / 200)
                if way == "task":
                    task.cancel()
                    await asyncio.wait([task])
                elif way == "aclose":
                    await stream.aclose()
                    assert stream.result.finish_reason == "cancelled"
                elif way == "close":
                    stream.close()
                    stream.close()
                elif way == "close in a thread":
                    await asyncio.to_thread(stream.close)
                else:
                    task.cancel()
                    del stream, task
                if way in ("aclose", "close", "close in a thread"):
                    await asyncio.wait([task])
                    error = task.exception()  # the token was there, or never came
                    assert error is None or isinstance(error, StopAsyncIteration | RuntimeError), error
        await all_given_back(wide)
        assert len((await wide.acomplete("a", max_tokens=3, ignore_eos=True)).tokens) == 3

    run(main)


def test_cancelled_at_any_moment(model: kollama.Model) -> None:
    """Hundreds of requests for two places, each cancelled somewhere on its way."""
    with kollama.LLM(model, n_ctx=512, n_parallel=2, n_threads=1) as llm:

        async def one(i: int) -> int:
            if i % 3 == 0:
                return len((await llm.acomplete("a" * (i % 40 + 1), max_tokens=8, ignore_eos=True)).tokens)
            if i % 3 == 1:
                return len(await llm.acomplete(["a", "b", "c"], max_tokens=2, ignore_eos=True))
            return len([token async for token in llm.agenerate("b" * (i % 40 + 1), max_tokens=8, ignore_eos=True)])

        async def main() -> None:
            for start in range(0, 240, 12):
                tasks = [asyncio.ensure_future(one(i)) for i in range(start, start + 12)]
                for i, task in enumerate(tasks):
                    await asyncio.sleep((start + i) % 7 / 2000)
                    if i % 4:
                        task.cancel()
                done = await asyncio.gather(*tasks, return_exceptions=True)
                assert {type(one) for one in done} <= {int, asyncio.CancelledError}, done
                assert any(isinstance(one, int) for one in done)
            await all_given_back(llm)

        run(main)


def test_a_cancelled_wait_for_a_place(llm: kollama.LLM) -> None:
    async def main() -> None:
        held = [llm.agenerate("a", **(ENDLESS | {"max_tokens": 100})) for _ in range(2)]
        for stream in held:
            await first(stream)
        waiting = [asyncio.ensure_future(llm.acomplete("b", max_tokens=2)) for _ in range(3)]
        await until(lambda: len(llm._slots._queue) == 3)
        waiting[0].cancel()
        waiting[1].cancel()
        await asyncio.wait(waiting[:2])
        assert len(llm._slots._queue) == 1
        await held[0].aclose()
        assert (await waiting[2]).tokens.size
        await held[1].aclose()
        await all_given_back(llm)

    run(main)


def test_cancelled_embeddings_end(model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=16000, n_threads=1) as llm:

        async def main() -> None:
            task = asyncio.ensure_future(llm.aembed([LONG] * 50))
            await asyncio.sleep(0.1)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            began = time.monotonic()
            assert (await llm.aembed(["a"])).shape[0] == 1
            assert time.monotonic() - began < WAIT_S / 3  # 50 texts take minutes

        run(main)


def test_timeouts(wide: kollama.LLM) -> None:
    async def main() -> None:
        texts: list[str] = []
        stream = wide.agenerate("a", timeout=0.2, **ENDLESS)
        with pytest.raises(kollama.DeadlineError, match=r"timeout=0\.2"):
            texts.extend([token.text async for token in stream])
        assert len(stream.result.tokens) > 0
        with pytest.raises(TimeoutError):
            await wide.acomplete(LONG, timeout=0.2)
        with pytest.raises(kollama.DeadlineError) as caught:
            await wide.acomplete("a", timeout=0.2, **ENDLESS)
        part = caught.value.completion
        assert isinstance(part, kollama.Completion) and len(part.tokens) > 0
        assert part.finish_reason == "cancelled"
        with pytest.raises(kollama.DeadlineError) as caught:
            await wide.acomplete(["a", "b", "c"], timeout=0.2, **ENDLESS)
        parts = caught.value.completion
        assert isinstance(parts, list)
        assert len(parts) == 3 and len(parts[0].tokens) > 0 and len(parts[1].tokens) > 0
        with pytest.raises(kollama.DeadlineError):
            await wide.aembed([LONG] * 20, timeout=0.2)
        await all_given_back(wide)
        done = await wide.acomplete("a", max_tokens=3, timeout=WAIT_S, ignore_eos=True)
        assert len(done.tokens) == 3
        for wrong in (-1, "1"):
            with pytest.raises((ValueError, TypeError), match="timeout"):
                wide.agenerate("a", timeout=wrong)  # type: ignore[arg-type]

    run(main)


def test_an_outer_timeout(wide: kollama.LLM) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(text_of(wide.agenerate("a", **ENDLESS)), 0.1)
        await all_given_back(wide)

    run(main)


# ---- errors --------------------------------------------------------------------------------------


def test_errors_come_with_the_first_token(llm: kollama.LLM) -> None:
    async def main() -> None:
        with pytest.raises(kollama.ContextFullError):
            await first(llm.agenerate([5] * 1000))
        with pytest.raises(kollama.ContextFullError):
            await llm.acomplete(["a", [5] * 1000])  # type: ignore[list-item]
        with pytest.raises(TypeError, match="temprature"):
            await llm.acomplete("a", temprature=1)
        with pytest.raises(kollama.TokenError):
            await first(llm.agenerate([10**6]))
        stream = llm.agenerate("a")
        with pytest.raises(kollama.StateError, match="has not begun"):
            _ = stream.result
        await stream.aclose()
        assert await anext(stream, None) is None
        await all_given_back(llm)

    run(main)


def test_a_full_llm_says_so(model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=64, n_threads=1, busy="error") as llm:

        async def main() -> None:
            async with llm.agenerate("a", max_tokens=40, ignore_eos=True) as stream:
                await first(stream)
                with pytest.raises(kollama.BusyError, match="n_parallel"):
                    await llm.acomplete("b")
            assert len(await llm.acomplete(["a", "b"], max_tokens=2)) == 2

        run(main)


def test_a_blocking_call_in_the_loop_does_not_hang(model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=64, n_threads=1) as llm:

        async def main() -> None:
            async with llm.agenerate("a", max_tokens=40, ignore_eos=True) as stream:
                await first(stream)
                with pytest.raises(kollama.BusyError, match="nobody is left"):
                    llm.complete("b")

        run(main)


def test_two_tasks_on_one_stream(wide: kollama.LLM) -> None:
    async def main() -> None:
        async with wide.agenerate(LONG, max_tokens=2) as stream:
            task = asyncio.ensure_future(first(stream))
            await asyncio.sleep(0.05)
            with pytest.raises(kollama.BusyError, match="another task"):
                await first(stream)
            task.cancel()
            await asyncio.wait([task])

    run(main)


def test_closing_the_llm_under_its_streams(model: kollama.Model) -> None:
    async def main() -> None:
        for delay in (0, 0.01, 0.1):
            async with kollama.LLM(model, n_ctx=16000, n_parallel=2, n_threads=1) as llm:
                calls: list[Awaitable[Any]] = [
                    text_of(llm.agenerate("a", **ENDLESS)), llm.acomplete(LONG), llm.acomplete("b", **ENDLESS),
                ]
                tasks = [asyncio.ensure_future(call) for call in calls]
                await asyncio.sleep(delay)
            done = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(one) for one in done] == [kollama.ClosedError] * 3
            await llm.aclose()
            with pytest.raises(kollama.ClosedError):
                await llm.acomplete("a")
            with pytest.raises(kollama.ClosedError):
                await first(llm.agenerate("a"))

    run(main)


@pytest.mark.parametrize("prompt", ["a", LONG], ids=["short", "long"])
def test_a_loop_that_is_closed_under_its_streams(
    wide: kollama.LLM, prompt: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watcher, "SWEEP_S", 0.02)
    for i in range(20):  # at moments of all kinds, those between two news among them
        loop = asyncio.new_event_loop()
        task = loop.create_task(text_of(wide.agenerate(prompt, **ENDLESS)))  # type: ignore[arg-type]
        loop.run_until_complete(asyncio.sleep(0.002 + 0.001 * i))
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.close()
        del task
        run(lambda: all_given_back(wide))

    async def main() -> None:
        assert (await wide.acomplete("a", max_tokens=2, ignore_eos=True)).tokens.size == 2

    run(main)


# ---- the process ---------------------------------------------------------------------------------


@pytest.mark.parametrize("end", ["pass", "await stream.aclose()", "llm.close()", "sys.exit()", "kept.append(stream)", "raise SystemExit"])
def test_exit_is_silent(tiny_path: Path, end: str) -> None:
    code = f"""
    import asyncio, sys, kollama
    kept = []
    async def main():
        llm = kollama.LLM(sys.argv[1], n_ctx=8000, n_parallel=2, n_threads=1)
        stream = llm.agenerate("a", max_tokens=None, ignore_eos=True)
        await anext(stream)
        task = asyncio.ensure_future(llm.acomplete([5] * 7900))
        await asyncio.sleep(0.05)
        {end}
    asyncio.run(main())
    """
    done = run_code(code, tiny_path)
    assert silent(done), done


def test_an_llm_that_is_dropped_ends_its_threads(tiny_path: Path) -> None:
    code = """
    import asyncio, gc, sys, threading, time, kollama
    from kollama._core.runtime import live_handles
    async def main():
        llm = kollama.LLM(sys.argv[1], n_ctx=64, n_threads=1)
        await llm.acomplete("a", max_tokens=3)
    asyncio.run(main())
    end = time.monotonic() + 30
    while threading.active_count() > 1 or any(live_handles().values()):
        assert time.monotonic() < end, (threading.enumerate(), live_handles())
        time.sleep(0.01)
        gc.collect()
    """
    done = run_code(code, tiny_path)
    assert silent(done), done


def test_interrupt(tiny_path: Path) -> None:
    code = """
    import asyncio, os, signal, sys, threading, time, kollama
    llm = kollama.LLM(sys.argv[1], n_ctx=16000, n_threads=1)
    async def main():
        await llm.acomplete([5] * 15000)
    def interrupt():
        global sent
        time.sleep(0.3)
        sent = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)
    threading.Thread(target=interrupt).start()
    try:
        asyncio.run(main())
        print("was done before the interrupt")
    except KeyboardInterrupt:
        assert time.monotonic() - sent < 1
    assert len(llm.complete("a", max_tokens=3, ignore_eos=True).tokens) == 3
    """
    done = run_code(code, tiny_path)
    assert silent(done), done
