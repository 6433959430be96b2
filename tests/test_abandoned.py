"""Assertions that fail in ggml, on every kind of thread: EngineError, and the process goes on.

The libraries are those that ship: a preloaded one (fault.c, compiled here) makes the assertion fail. And
a model file that no check refuses brings real ones about. In subprocesses that must end by themselves.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_process import run, silent

NEEDS_COMPILER = pytest.mark.skipif(sys.platform != "linux" or shutil.which("cc") is None, reason="preloads a library that cc makes")

SETUP = """
import ctypes, gc, logging, os, sys, threading, time, kollama
from kollama._core.runtime import live_handles
logging.getLogger("kollama").addHandler(logging.NullHandler())
logging.getLogger("kollama").propagate = False
WORKER, IN_GRAPH, OUTSIDE = 1, 2, 3
arm = getattr(ctypes.CDLL(None), "fault_arm", None)
model = kollama.Model(sys.argv[1])

def raises(error, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except error as caught:
        return caught
    raise AssertionError(f"no {error.__name__}")

def cpu_seconds(for_seconds):
    start = time.process_time()
    time.sleep(for_seconds)
    return time.process_time() - start
"""

GOES_ON = """
ctx = model.context(n_ctx=512, n_seq_max=4, n_threads=int(sys.argv[3]))
twin = model.context(n_ctx=64, n_threads=1)
before = twin.sequence()
before.append([1, 300, 270])
seq, other = ctx.sequence(), ctx.sequence()
seq.append([1, 300])
row = seq.logits
arm(int(sys.argv[2]))
error = raises(kollama.EngineError, seq.append, [5] * 40)
assert "the test wants it" in str(error), error
for call in (lambda: seq.append([5]), lambda: other.append([5]), ctx.sequence, seq.fork, seq.clear, seq.state):
    assert "assertion failed" in str(raises(kollama.EngineError, call))
row[:] = 1
after = model.context(n_ctx=64, n_threads=1).sequence()
after.append([1, 300, 270])
assert (after.logits == before.logits).all()
before.append([7])
assert len(kollama.LLM(model, n_ctx=64, n_threads=2).complete("a", max_tokens=3, ignore_eos=True).tokens) == 3
ctx.close()
raises(kollama.ClosedError, seq.append, [5])
del after, before, twin, other, seq, ctx, call, error, row
gc.collect()
"""

ABANDONED = GOES_ON + """
assert live_handles()["context"] == 1
model.close()
assert model.closed
raises(kollama.ClosedError, model.context)
time.sleep(2.5)  # the threads that waited in the barrier are stopped by now
assert cpu_seconds(1) < 0.3
again = kollama.Model(sys.argv[1])
again.context(n_ctx=64).sequence().append([1])
"""

CLOSED = GOES_ON + """
model.close()
assert not any(live_handles().values()), live_handles()
"""


@pytest.fixture(scope="module")
def fault(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment with fault.c preloaded."""
    library = tmp_path_factory.mktemp("fault") / "fault.so"
    source = Path(__file__).with_name("fault.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl"], check=True)
    return os.environ | {"LD_PRELOAD": f"{os.environ.get('LD_PRELOAD', '')} {library}".strip()}


@NEEDS_COMPILER
@pytest.mark.parametrize(("place", "n_threads"), [(1, 2), (1, 4), (2, 2), (2, 4)], ids=str)
def test_inside_a_graph_it_is_abandoned(tiny_path: Path, fault: dict[str, str], place: int, n_threads: int) -> None:
    done = run(SETUP + ABANDONED, tiny_path, place, n_threads, env=fault)
    assert silent(done), done


@NEEDS_COMPILER
@pytest.mark.parametrize(("place", "n_threads"), [(3, 1), (3, 2), (2, 1)], ids=str)
def test_where_no_thread_waits_it_closes(tiny_path: Path, fault: dict[str, str], place: int, n_threads: int) -> None:
    done = run(SETUP + CLOSED, tiny_path, place, n_threads, env=fault)
    assert silent(done), done


STREAMS = """
# So long that a busy machine, where the worker was sent to sleep, sees it again before the end.
llm = kollama.LLM(model, n_ctx=16000, n_parallel=3, n_threads=2)
streams = [llm.generate([1, 300 + i], ignore_eos=True, max_tokens=None) for i in range(3)]
for stream in streams: next(stream)
for stream in streams[1:]: stream.close()
arm(WORKER)
ended = []
def read(stream):
    ended.append(raises(kollama.EngineError, list, stream))
thread = threading.Thread(target=read, args=(streams[0],))
thread.start()
thread.join(30)
assert len(ended) == 1
raises(kollama.EngineError, llm.complete, "a")
sampler = kollama.Sampler()
llm.close()
raises(kollama.ClosedError, llm.complete, "a")
model.close()
"""

EMBED = """
llm = kollama.LLM(model, n_ctx=128, n_threads=2)
llm.embed(["a"])
arm(int(sys.argv[2]))
raises(kollama.EngineError, llm.embed, ["국" * 30])
llm.close()
model.close()
"""

CLOSE_MEETS_IT = """
ctx = model.context(n_ctx=8000, n_threads=2)
seq = ctx.sequence()
ended = []
def work():
    try:
        seq.append([5] * 7000)
    except kollama.KollamaError as error:
        ended.append(error)
thread = threading.Thread(target=work)
thread.start()
time.sleep(0.05)
arm(WORKER)
ctx.close()
thread.join(30)
assert len(ended) == 1 and not thread.is_alive()
"""

EXITS = """
ctx = model.context(n_ctx=512, n_threads=4)
seq = ctx.sequence()
arm(WORKER)
raises(kollama.EngineError, seq.append, [5] * 40)
"""

FORKS = """
ctx = model.context(n_ctx=512, n_threads=2)
seq = ctx.sequence()
arm(WORKER)
raises(kollama.EngineError, seq.append, [5] * 40)
child = os.fork()
if child == 0:
    raises(kollama.StateError, seq.append, [5])
    del seq, ctx
    gc.collect()
    sys.exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
"""


@NEEDS_COMPILER
@pytest.mark.parametrize("code", [STREAMS, EMBED, CLOSE_MEETS_IT, EXITS, FORKS], ids=["streams", "embed", "close", "exit", "fork"])
def test_whoever_waits_hears_of_it(tiny_path: Path, fault: dict[str, str], code: str) -> None:
    done = run(SETUP + code, tiny_path, 1, env=fault)
    assert silent(done), done
