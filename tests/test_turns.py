"""One caller at a time, and no longer than it may: busy= and timeout=, between threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_process import run, silent

import kollama

LONG = [5] * 15000  # some seconds on the tiny model
SHORT = 0.2
WAIT_S = 60


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """The thread that runs call, and what came of it: a value or an error."""
    results: list[object] = []

    def work() -> None:
        try:
            results.append(call())
        except Exception as error:
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    return thread, results


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)


# ---- a context -----------------------------------------------------------------------------------


def test_a_busy_context_says_so(context: Callable[..., kollama.Context]) -> None:
    ctx = context(n_ctx=16000, n_seq_max=2, busy="error")
    assert ctx.busy == "error"
    seq, other = ctx.sequence(), ctx.sequence()

    def append() -> None:
        while True:
            try:
                return seq.append(LONG, timeout=1)
            except kollama.BusyError:  # the other thread was there first
                pass

    thread, results = in_thread(append)
    errors: set[str] = set()

    def refused() -> bool:
        try:
            other.append([5])
        except kollama.BusyError as error:
            errors.add(str(error))
        return bool(errors)

    until(refused)
    with pytest.raises(kollama.BusyError):  # a sequence that is worked on cannot be read either
        len(seq)
    thread.join(WAIT_S)
    assert isinstance(results[0], kollama.DeadlineError) or results == [None]
    other.append([5])
    assert "busy='wait'" in errors.pop()


def test_a_busy_context_is_waited_for(context: Callable[..., kollama.Context]) -> None:
    ctx = context(n_ctx=4096, n_threads=1)
    seq = ctx.sequence()
    threads = [in_thread(lambda: [seq.append([i % 9 + 3, 5]) for i in range(50)]) for _ in range(6)]
    lengths = [len(seq) for _ in range(20)]
    for thread, results in threads:
        thread.join(WAIT_S)
        assert results == [[None] * 50]
    assert len(seq) == 600
    assert lengths == sorted(lengths)
    assert set(seq.tokens[1::2].tolist()) == {5}  # no call came between the tokens of another


def test_busy_is_checked(model: kollama.Model) -> None:
    with pytest.raises(kollama.ArgumentError, match="busy is 'maybe'; it can be 'wait', 'error'"):
        model.context(busy="maybe")
    with pytest.raises(kollama.ArgumentError, match="busy"):
        kollama.LLM(model, busy=True)  # type: ignore[arg-type]


def test_a_call_from_its_own_signal_handler_does_not_wait_for_itself(tiny_path: Path) -> None:
    code = """
    import os, signal, sys, threading, time, kollama
    ctx = kollama.Model(sys.argv[1]).context(n_ctx=16000, n_seq_max=2, n_threads=1)
    seq, other = ctx.sequence(), ctx.sequence()
    errors = []
    def handler(number, frame):
        try:
            other.append([5])
        except kollama.BusyError as error:
            errors.append(str(error))
    signal.signal(signal.SIGTERM, handler)
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
    seq.append([5] * 15000)
    assert errors == ["this thread is in a call of this context already"], errors
    assert len(seq) == 15000
    """
    done = run(code, tiny_path)
    assert silent(done), done


# ---- timeouts ------------------------------------------------------------------------------------


def test_append_that_takes_too_long_leaves_the_sequence(
    context: Callable[..., kollama.Context], caplog: pytest.LogCaptureFixture,
) -> None:
    seq = context(n_ctx=16000).sequence()
    seq.append([1, 300])
    before = seq.logits.copy()
    with pytest.raises(kollama.DeadlineError, match=r"not done within timeout=0\.2 seconds") as caught:
        seq.append(LONG, timeout=SHORT)
    assert isinstance(caught.value, TimeoutError)
    assert seq.tokens.tolist() == [1, 300]
    assert (seq.logits == before).all()
    seq.append([7], timeout=WAIT_S)
    seq.context.close()  # hands the log over
    assert not caplog.records  # it was asked for: llama.cpp's complaints are nobody's errors


def test_the_wait_for_a_turn_counts(context: Callable[..., kollama.Context]) -> None:
    ctx = context(n_ctx=16000, n_seq_max=2)
    seq, other = ctx.sequence(), ctx.sequence()
    thread, _ = in_thread(lambda: seq.append(LONG, timeout=2))

    def in_time() -> bool:
        try:
            other.append([5], timeout=0.01)
        except kollama.DeadlineError:
            return False
        return True

    until(lambda: not in_time())
    thread.join(WAIT_S)


@pytest.mark.parametrize(("timeout", "error"), [(-1, ValueError), (float("nan"), ValueError), ("1", TypeError), (True, TypeError)])
def test_wrong_timeouts(llm: kollama.LLM, context: Callable[..., kollama.Context], timeout: object, error: type[Exception]) -> None:
    for call in (llm.generate, llm.complete, context().sequence().append):
        with pytest.raises(error, match="timeout"):
            call([5], timeout=timeout)  # type: ignore[operator]


def test_a_stream_ends_at_its_deadline(model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=16000, n_threads=1) as llm:
        texts: list[str] = []
        stream = llm.generate("a", max_tokens=None, ignore_eos=True, timeout=SHORT)
        with pytest.raises(kollama.DeadlineError):
            texts.extend(token.text for token in stream)
        assert 0 < len(texts) == len(stream.result.tokens)
        assert stream.result.finish_reason == "cancelled"
        assert next(stream, None) is None
        assert llm.complete("a", max_tokens=3, timeout=WAIT_S).usage.completion_tokens <= 3  # the place is free


def test_complete_hands_over_what_it_has(model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=8000, n_parallel=2, n_threads=1) as llm:
        with pytest.raises(kollama.DeadlineError) as caught:
            llm.complete("a", max_tokens=None, ignore_eos=True, temperature=0, timeout=SHORT)
        part = caught.value.completion
        assert isinstance(part, kollama.Completion)
        assert part.finish_reason == "cancelled"
        n = len(part.tokens)
        assert n > 0
        whole = llm.complete("a", max_tokens=n, ignore_eos=True, temperature=0)
        assert whole.tokens.tolist() == part.tokens.tolist()

        with pytest.raises(kollama.DeadlineError) as caught:
            llm.complete(["a", "b", "c"], max_tokens=None, ignore_eos=True, timeout=SHORT)
        parts = caught.value.completion
        assert isinstance(parts, list)
        assert [len(one.tokens) > 0 for one in parts] == [True, True, False]  # the third had no place yet
        assert {one.finish_reason for one in parts} == {"cancelled"}


def test_a_long_prompt_ends_at_its_deadline(model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=16000, n_threads=1) as llm:
        with pytest.raises(kollama.DeadlineError):
            llm.complete(LONG, timeout=SHORT)
        with pytest.raises(kollama.DeadlineError):
            next(llm.chat([{"role": "user", "content": "가" * 5000}], timeout=0.05))


def test_embeddings_end_at_their_deadline(context: Callable[..., kollama.Context]) -> None:
    ctx = context(n_ctx=16000, embeddings=True)
    with pytest.raises(kollama.DeadlineError):
        ctx.embed([LONG], timeout=SHORT)
    assert np.isfinite(ctx.embed([[5, 6]], timeout=WAIT_S)).all()


# ---- places of an LLM ----------------------------------------------------------------------------


def test_a_full_llm_says_so(model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=64, n_threads=1, busy="error") as llm:
        with llm.generate("a", ignore_eos=True) as stream:
            next(stream)
            thread, results = in_thread(lambda: llm.complete("b", max_tokens=2))
            thread.join(WAIT_S)
            assert isinstance(results[0], kollama.BusyError)
            assert "all 1 requests" in str(results[0])
        assert llm.complete("b", max_tokens=2).tokens.size
        assert len(llm.complete(["a", "b", "c"], max_tokens=2)) == 3  # its own do not count


def test_the_wait_for_a_place_counts(model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=64, n_threads=1) as llm, llm.generate("a", ignore_eos=True) as stream:
        next(stream)
        thread, results = in_thread(lambda: llm.complete("b", max_tokens=2, timeout=SHORT))
        thread.join(WAIT_S)
        assert isinstance(results[0], kollama.DeadlineError)
        assert len(results[0].completion.tokens) == 0  # type: ignore[union-attr, arg-type]


def test_places_go_first_come_first_served(model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=64, n_threads=1) as llm:
        stream = llm.generate("a", ignore_eos=True)
        next(stream)
        order: list[int] = []
        threads = []
        for i in range(6):
            threads.append(in_thread(lambda i=i: (llm.complete("b", max_tokens=1), order.append(i)))[0])
            until(lambda i=i: len(llm._slots._queue) == i + 1)
        stream.close()
        for thread in threads:
            thread.join(WAIT_S)
        assert order == list(range(6))


def test_closing_ends_the_wait_for_a_place(model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=64, n_threads=1) as llm:
        first = llm.generate("a", ignore_eos=True)
        next(first)
        second = llm.generate("b")
        thread, results = in_thread(lambda: list(second))
        until(lambda: len(llm._slots._queue) == 1)
        second.close()
        thread.join(WAIT_S)
        assert results == [[]]
        assert not llm._slots._queue
        third, results = in_thread(lambda: llm.complete("c"))
        until(lambda: len(llm._slots._queue) == 1)
    third.join(WAIT_S)
    assert isinstance(results[0], kollama.ClosedError)


def test_closing_from_another_thread_at_any_moment(model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=256, n_parallel=2, n_threads=1) as llm:
        for i in range(100):
            stream = llm.generate("a" * (i % 50 + 1), max_tokens=20, ignore_eos=True)
            thread, results = in_thread(lambda stream=stream: sum(1 for _ in stream))
            time.sleep(i % 10 / 5000)
            stream.close()
            thread.join(WAIT_S)
            assert results[0] in range(21)
        assert all(slot.holder is None for slot in llm._slots._slots)
        assert len(llm.complete(["a", "b"], max_tokens=3, ignore_eos=True)) == 2
