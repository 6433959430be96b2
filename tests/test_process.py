"""What a process sees: silence at exit, prompt Ctrl-C, any order of collection. In subprocesses."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

TIMEOUT_S = 120


def run(code: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code), *map(str, arguments)]
    for attempts_left in (2, 1, 0):
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False, **options)  # type: ignore[call-overload, no-any-return]
        except OSError as error:  # nothing has run: on some virtual machines one exec in hundreds fails so
            if error.errno != errno.EFAULT or not attempts_left:
                raise
    raise AssertionError


def silent(done: subprocess.CompletedProcess[str]) -> bool:
    return (done.returncode, done.stdout, done.stderr) == (0, "", "")


SETUP = """
import sys, kollama
model = kollama.Model(sys.argv[1])
ctx = model.context(n_ctx=64, n_threads=1)
seq = ctx.sequence()
seq.append([1, 300])
row = seq.logits
"""


@pytest.mark.parametrize(
    "end",
    [
        "",
        "del model, ctx",
        "sys.exit()",
        "llm = kollama.LLM(model, n_ctx=64, n_threads=1); stream = llm.generate('a'); next(stream)",
        "llm = kollama.LLM(model, n_ctx=8000, n_threads=1); stream = llm.generate([5] * 7900); stream.start()",
        "import threading; threading.Thread(target=seq.append, args=([5],)).start()",
        "import builtins; builtins.kept = (model, ctx, seq, row)",
    ],
    ids=["nothing", "parents first", "sys.exit", "stream", "prompt under way", "thread", "kept for ever"],
)
def test_exit_without_closing_is_silent(tiny_path: Path, end: str) -> None:
    done = run(SETUP + end, tiny_path)
    assert silent(done), done


def test_reference_cycles_free_in_order(tiny_path: Path) -> None:
    code = """
    import gc, itertools, sys, kollama
    from kollama._core.runtime import live_handles

    class Node:
        pass

    def cycle(order):
        model = kollama.Model(sys.argv[1])
        ctx = model.context(n_ctx=64, n_threads=1)
        seq = ctx.sequence()
        seq.append([1, 300])
        stream = kollama.LLM(model, n_ctx=64, n_threads=1).generate("a")
        next(stream)
        things = [model, ctx, seq, model.tokenizer, model.tokenizer.decoder(), seq.logits, stream]
        nodes = [Node() for _ in things]
        for i, node in enumerate(nodes):
            node.thing, node.next = things[order[i]], nodes[i - 1]

    for order in itertools.islice(itertools.permutations(range(7)), 0, None, 300):
        cycle(order)
        gc.collect()
        assert not any(live_handles().values()), (order, live_handles())
    """
    done = run(code, tiny_path)
    assert silent(done), done


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
@pytest.mark.parametrize("how", ["append", "generate", "complete"])
def test_interrupt_leaves_the_sequence_as_it_was(tiny_path: Path, how: str) -> None:
    code = """
    import os, signal, sys, threading, time, kollama
    import numpy as np
    model = kollama.Model(sys.argv[1])
    long = [5] * 15000
    ctx = model.context(n_ctx=16000, n_threads=1)
    seq = ctx.sequence()
    seq.append([1, 300])
    before = seq.logits.copy()
    llm = kollama.LLM(model, n_ctx=16000, n_threads=1)

    def interrupt():
        global sent
        time.sleep(0.3)
        sent = time.monotonic()
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    try:
        {"append": lambda: seq.append(long),
         "generate": lambda: next(llm.generate(long)),
         "complete": lambda: llm.complete(long, max_tokens=3)}[sys.argv[2]]()
        print("was done before the interrupt")
    except KeyboardInterrupt:
        took = time.monotonic() - sent
        assert took < 1, took
    assert seq.tokens.tolist() == [1, 300]
    assert (seq.logits == before).all()
    seq.append([7])
    twin = model.context(n_ctx=64, n_threads=1).sequence()
    twin.append([1, 300, 7])
    assert np.abs(twin.logits - seq.logits).max() < 0.05
    assert len(llm.complete("a", max_tokens=3, ignore_eos=True).tokens) == 3
    """
    done = run(code, tiny_path, how)
    assert silent(done), done


def test_threads_on_one_context(tiny_path: Path) -> None:
    code = """
    import sys, threading, kollama
    import numpy as np
    model = kollama.Model(sys.argv[1])
    ctx = model.context(n_ctx=4096, n_seq_max=8, n_threads=1)
    rows = [None] * 8

    def work(i):
        seq = ctx.sequence()
        for token in range(40):
            seq.append([token + 1])
        rows[i] = seq.logits.copy()

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert all(np.abs(row - rows[0]).max() < 0.05 for row in rows)

    # One sequence, many threads: BusyError or a turn, never a crash; nothing is counted twice.
    done = []
    shared = ctx.sequence()
    def fight():
        for _ in range(50):
            try:
                shared.append([5])
                done.append(1)
            except kollama.BusyError:
                pass
    threads = [threading.Thread(target=fight) for i in range(8)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert len(shared) == len(done) > 0
    """
    done = run(code, tiny_path)
    assert silent(done), done


def test_close_under_a_working_thread(tiny_path: Path) -> None:
    code = """
    import sys, threading, time, kollama
    model = kollama.Model(sys.argv[1])
    for delay in (0, 0.01, 0.1, 0.3):
        ctx = model.context(n_ctx=16000, n_threads=1)
        seq = ctx.sequence()
        errors = []
        def work():
            try:
                seq.append([5] * 15000)
            except kollama.KollamaError as error:
                errors.append(error)
        thread = threading.Thread(target=work)
        thread.start()
        time.sleep(delay)
        ctx.close()
        thread.join(30)
        assert not thread.is_alive()
        assert all(isinstance(e, kollama.ClosedError) for e in errors), errors
    model.close()
    """
    done = run(code, tiny_path)
    assert silent(done), done


def test_logs_go_to_logging_alone(tiny_path: Path) -> None:
    code = """
    import logging, sys, kollama
    lines = []
    class Keep(logging.Handler):
        def emit(self, record):
            lines.append((record.levelname, record.getMessage()))
    logger = logging.getLogger("kollama")
    logger.addHandler(Keep())
    logger.setLevel(logging.INFO)
    kollama.Model(sys.argv[1]).close()
    assert any("llama" in text for level, text in lines if level == "INFO"), lines
    """
    done = run(code, tiny_path)
    assert silent(done), done


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs CPU affinity")
def test_default_threads_follow_affinity() -> None:
    code = """
    import os
    before = os.sched_getaffinity(0)
    import kollama
    assert 1 <= kollama.default_threads() <= len(before)
    os.sched_setaffinity(0, {min(before)})
    assert kollama.default_threads() == 1
    """
    done = run(code)
    assert silent(done), done


def test_import_touches_no_backend() -> None:
    done = run("import kollama; kollama.Sampler(); kollama.default_threads()", cwd="/")
    assert silent(done), done


def test_a_foreign_backend_in_the_working_folder_is_not_loaded(tiny_path: Path, tmp_path: Path) -> None:
    (tmp_path / "libggml-cpu.so").write_bytes(b"not a library")
    (tmp_path / "libggml-cuda.so").write_bytes(b"not a library")
    code = "import sys, kollama; kollama.Model(sys.argv[1]); print([d.name for d in kollama.devices()])"
    done = run(code, tiny_path, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "CPU" in done.stdout


def test_a_signal_during_the_load(tiny_path: Path) -> None:
    code = """
    import signal, sys, kollama
    def stop(number, frame):
        raise TimeoutError("enough")
    signal.signal(signal.SIGTERM, stop)
    try:
        kollama.Model(sys.argv[1], progress=lambda done: signal.raise_signal(signal.SIGTERM))
    except TimeoutError as error:
        assert str(error) == "enough"
    else:
        raise SystemExit("not interrupted")
    kollama.Model(sys.argv[1]).close()
    """
    done = run(code, tiny_path)
    assert silent(done), done
