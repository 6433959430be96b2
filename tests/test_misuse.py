"""What once crashed, hung or lied: found by reading the native layer with a hostile eye.

Each in a subprocess that must end by itself, with its own exit status.
"""

from __future__ import annotations

import multiprocessing
from pathlib import Path

import pytest
import tiny
from test_process import run, silent

import kollama

SETUP = """
import gc, os, sys, threading, time, kollama
import numpy as np
from kollama._core.generation import TokenStream
model = kollama.Model(sys.argv[1])

def context(**options):
    return model.context(**({"n_ctx": 16000, "n_threads": 1, "n_seq_max": 3} | options))

def raises(error, call, *arguments, **options):
    try:
        call(*arguments, **options)
    except error:
        return
    raise AssertionError(f"no {error.__name__}")

LONG = [5] * 15000
"""

MISUSES = {
    "row written while it is sampled": """
seq = context().sequence()
seq.append([1, 5])
row, end = seq.logits, time.monotonic() + 1.5
def scribble():
    noise = np.random.default_rng(0)
    while time.monotonic() < end:
        row[:] = noise.normal(0, 9, len(row))
        row[3] = np.nan
        row[:] = -np.inf
        row[7] = 1
thread = threading.Thread(target=scribble)
thread.start()
sampler = kollama.Sampler(temperature=1, top_k=0, seed=1)
while time.monotonic() < end:
    try:
        assert 0 <= sampler.sample(seq) < model.n_vocab
    except kollama.ArgumentError:
        pass
thread.join()
""",
    "sampler reused right after its stream": """
ctx = context()
a, b = ctx.sequence(), ctx.sequence()
for i in range(50):
    sampler = kollama.Sampler(seed=1)
    other = TokenStream(b, kollama.Sampler(seed=1), [1, 5], stop=[], ignore_eos=True, ahead=1)
    list(TokenStream(a, sampler, [1, 5], max_tokens=2, stop=[]))
    stream = TokenStream(a, sampler, [1, 6], stop=[], ignore_eos=True)
    next(stream)
    stream.close()
    del sampler
    other.close()
""",
    "sampler of a running stream": """
ctx = context()
a, b = ctx.sequence(), ctx.sequence()
b.append([1, 5])
sampler = kollama.Sampler(seed=1)
stream = TokenStream(a, sampler, [1, 5], stop=[], ignore_eos=True)
next(stream)
raises(kollama.BusyError, TokenStream, a, sampler, [1, 5], stop=[])
raises(kollama.BusyError, TokenStream, b, sampler, [1, 5], stop=[])
raises(kollama.BusyError, sampler.sample, b)
raises(kollama.BusyError, a.append, [5])
raises(kollama.BusyError, len, a)
stream.close()
sampler.sample(b)
""",
    "slot taken again while another computes": """
ctx = context()
for _ in range(3):
    alone = list(TokenStream(ctx.sequence(), kollama.Sampler(temperature=0), [1, 300, 270], max_tokens=8, stop=[]))
    busy, old = ctx.sequence(), ctx.sequence()
    old.append([9, 8, 7])
    thread = threading.Thread(target=busy.append, args=([5] * 4000,))
    thread.start()
    time.sleep(0.02)
    old.close()
    again = ctx.sequence()
    stream = TokenStream(again, kollama.Sampler(temperature=0), [1, 300, 270], max_tokens=8, stop=[])
    assert [t.id for t in stream] == [t.id for t in alone]
    thread.join()
    del busy, old, again, stream
    gc.collect()
""",
    "sequence closed under its append": """
ctx = context(n_seq_max=1)
seq = ctx.sequence()
ended = []
def work():
    try:
        seq.append(LONG)
    except kollama.KollamaError as error:
        ended.append(error)
thread = threading.Thread(target=work)
thread.start()
time.sleep(0.1)
seq.close()
thread.join(20)
assert not thread.is_alive() and len(ended) == 1, ended
again = ctx.sequence()
again.append([1, 5])
assert len(again) == 2
""",
    "sequence closed under its stream": """
ctx = context(n_seq_max=1)
seq = ctx.sequence()
stream = TokenStream(seq, kollama.Sampler(seed=1), [1, 5], stop=[], ignore_eos=True)
next(stream)
seq.close()
list(stream)
again = ctx.sequence()
again.append([1, 5])
assert len(again) == 2
""",
    "callables that do what they should not": """
llm = kollama.LLM(model, n_ctx=64, n_threads=1)
seq = context().sequence()
seq.append([1, 5])
streams = []
def closes_its_stream(tokens, logits):
    streams[-1].close()
def uses_its_sequence(tokens, logits):
    raises(kollama.BusyError, kollama.Sampler().sample, streams[-1]._ticket.slot.sequence)
    raises(kollama.BusyError, streams[-1]._ticket.slot.sequence.append, [5])
def uses_its_sampler(tokens, logits):
    raises(kollama.BusyError, sampler.sample, seq)
    raises(kollama.BusyError, sampler.clone)
def asks_its_stream(tokens, logits):
    raises(kollama.BusyError, next, streams[-1])
def collects(tokens, logits):
    gc.collect()
def closes_the_llm(tokens, logits):
    llm.close()
for link in (closes_its_stream, uses_its_sequence, uses_its_sampler, asks_its_stream, collects, closes_the_llm):
    sampler = kollama.Sampler.chain([link])
    streams.append(llm.generate([1, 5], sampler=sampler, max_tokens=3, ignore_eos=True))
    try:
        got = list(streams[-1])
    except kollama.ClosedError:
        assert link is closes_the_llm
    else:
        assert len(got) == (0 if link is closes_its_stream else 3), (link, got)
    streams[-1].close()
del streams, sampler
""",
    "stream closed while its callable runs": """
llm = kollama.LLM(model, n_ctx=64, n_threads=1)
running, go = threading.Event(), threading.Event()
def waits(tokens, logits):
    running.set()
    go.wait(20)
for end in ("close", "llm"):
    running.clear(); go.clear()
    stream = llm.generate([1, 5], sampler=kollama.Sampler.chain([waits]), ignore_eos=True)
    got = []
    def work():
        try:
            got.extend(stream)
        except kollama.ClosedError:
            pass
    thread = threading.Thread(target=work)
    thread.start()
    assert running.wait(20)
    stream.close() if end == "close" else llm.close()
    go.set()
    thread.join(20)
    assert not thread.is_alive() and got == [], got
""",
    "model closed while its callable runs": """
running, go = threading.Event(), threading.Event()
own = kollama.Model(sys.argv[1])
ctx = own.context(n_ctx=64, n_threads=1)
seq = ctx.sequence()
seq.append([1, 5])
def waits(tokens, logits):
    running.set()
    go.wait(20)
thread = threading.Thread(target=lambda: kollama.Sampler.chain([waits, kollama.samplers.Grammar("root ::= .*")]).sample(seq))
thread.start()
assert running.wait(20)
ctx.close()
raises(kollama.BusyError, own.close)
go.set()
thread.join(20)
own.close()
""",
    "an array that a callable kept": """
kept = []
def keeps(tokens, logits):
    kept.append((tokens, logits))
seq = context().sequence()
seq.append([1, 5])
for _ in range(50):
    kollama.Sampler.chain([keeps]).sample(seq)
seq.close()
gc.collect()
for tokens, logits in kept:
    assert tokens.tolist() == [1, 5]
    logits[:] = 1
""",
    "a sampler of many threads": """
seqs = []
ctx = context()
for _ in range(3):
    seqs.append(ctx.sequence())
    seqs[-1].append([1, 5])
sampler = kollama.Sampler(repeat_penalty=1.1, grammar='root ::= "a"* "b"', seed=1)
counts = [0, 0]
def work(seq):
    for _ in range(300):
        try:
            sampler.sample(seq)
            counts[0] += 1
        except kollama.BusyError:
            counts[1] += 1
threads = [threading.Thread(target=work, args=(seq,)) for seq in seqs]
for t in threads: t.start()
for t in threads: t.join()
assert sum(counts) == 900 and counts[0] > 0
""",
    "Ctrl-C in a callable": """
import signal
llm = kollama.LLM(model, n_ctx=64, n_threads=1)
def interrupts(tokens, logits):
    if len(tokens) > 4:
        signal.raise_signal(signal.SIGINT)
raises(KeyboardInterrupt, llm.complete, [1, 5], sampler=kollama.Sampler.chain([interrupts]), ignore_eos=True)
assert len(llm.complete([1, 5], max_tokens=2, ignore_eos=True).tokens) == 2
""",
    "a sampler made by __new__": """
seq = context().sequence()
seq.append([1, 5])
assert kollama.Sampler.__new__(kollama.Sampler, temperature=0).sample(seq) == seq.logits.argmax()
for wrong in (None, 5, "x"):
    raises(TypeError, kollama.Sampler.chain, wrong) if wrong != "x" else raises(TypeError, kollama.Sampler.chain, "x")
    raises(TypeError, kollama.Sampler().sample, wrong)
""",
    "objects made by __new__": """
raises(TypeError, kollama.Tokenizer.__new__(kollama.Tokenizer).encode, "a")
raises(TypeError, kollama.Tokenizer.__new__(kollama.Tokenizer).decoder)
raises(TypeError, kollama.Tokenizer)
for kind in (kollama.Model, kollama.Context, kollama.Sequence, kollama.Decoder, TokenStream):
    raises(TypeError, kind)
    raises(TypeError, kind.__new__, kind)
raises(TypeError, kollama.Context, None)
raises(TypeError, kollama.Sequence, None)
raises(TypeError, kollama.Sequence, model)
""",
    "bytes that lie about their length": """
class Liar(bytes):
    def __len__(self):
        return 1 << 40
llm = kollama.LLM(model, n_ctx=64, n_threads=1)
assert llm.complete("a", stop=Liar(b"zz"), max_tokens=3, ignore_eos=True).finish_reason == "length"
seq = context().sequence()
raises(kollama.ArgumentError, TokenStream, seq, kollama.Sampler(), [1], stop=[b""])
raises(TypeError, TokenStream, seq, kollama.Sampler(), [1], stop=["가"])
raises(TypeError, TokenStream, seq, kollama.Sampler(), [1], stop=None)
""",
    "stream closed by another thread": """
llm = kollama.LLM(model, n_ctx=16000, n_threads=1)
for how in ("close", "next"):
    stream = llm.generate(LONG)
    got = []
    thread = threading.Thread(target=lambda: got.extend(stream))
    thread.start()
    time.sleep(0.1)
    if how == "next":
        raises(kollama.BusyError, next, stream)
    stream.close()
    thread.join(20)
    assert not thread.is_alive() and got == []
    assert stream.result.finish_reason == "cancelled"
    assert len(llm.complete("a", max_tokens=2, ignore_eos=True).tokens) == 2
""",
    "cancelled while it waits for its turn": """
ctx = context()
busy, other, third = ctx.sequence(), ctx.sequence(), ctx.sequence()
thread = threading.Thread(target=lambda: raises(kollama.ClosedError, busy.append, LONG))
thread.start()
time.sleep(0.05)
started = time.monotonic()
stream = TokenStream(third, kollama.Sampler(), [1, 5], stop=[])
stream.close()
other.close()
assert time.monotonic() - started < 1
ctx.close()
thread.join()
""",
    "closed by two threads": """
ctx = context()
ctx.sequence().append([1, 5])
seq = ctx.sequence()
def work():
    try:
        seq.append(LONG)
    except kollama.ClosedError:
        pass
threads = [threading.Thread(target=work)] + [threading.Thread(target=ctx.close) for _ in range(6)]
for t in threads: t.start()
for t in threads: t.join(20)
assert ctx.closed and not any(t.is_alive() for t in threads)
model.close()
""",
    "daemon thread closes at exit": """
ctx = context()
seq = ctx.sequence()
def work():
    try:
        seq.append(LONG)
    except kollama.KollamaError:
        pass
threading.Thread(target=work, daemon=True).start()
time.sleep(0.05)
threading.Thread(target=ctx.close, daemon=True).start()
""",
}


@pytest.mark.parametrize("name", MISUSES)
def test_misuse(tiny_path: Path, name: str) -> None:
    done = run(SETUP + MISUSES[name], tiny_path)
    assert silent(done), done


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork here")
def test_a_forked_child_is_told_to_spawn(tiny_path: Path) -> None:
    code = SETUP + """
ctx = context()
seq = ctx.sequence()
seq.append([1, 5])
child = os.fork()
if child == 0:
    raises(kollama.StateError, seq.append, [5])
    raises(kollama.StateError, ctx.sequence)
    ctx.close()
    sys.exit(7)
_, status = os.waitpid(child, 0)
assert os.waitstatus_to_exitcode(status) == 7, status
seq.append([5])
"""
    done = run(code, tiny_path)
    assert silent(done), done


def test_a_file_without_a_vocabulary(tiny_path: Path, tmp_path: Path) -> None:
    data = tiny_path.read_bytes()
    key = b"tokenizer.ggml.model\x08\x00\x00\x00"
    assert key in data
    path = tmp_path / "none.gguf"
    path.write_bytes(data.replace(key + b"\x05\x00\x00\x00\x00\x00\x00\x00llama", key + b"\x04\x00\x00\x00\x00\x00\x00\x00none"))
    code = """
import sys, kollama
try:
    tok = kollama.Model(sys.argv[1]).tokenizer
except kollama.KollamaError:
    raise SystemExit
for call in (lambda: tok.piece(0), lambda: tok.id("a"), lambda: tok.encode("a"), lambda: tok.decode([5])):
    try:
        call()
    except kollama.KollamaError:
        pass
"""
    done = run(code, path)
    assert silent(done), done


def test_learned_positions_end_a_sequence(tmp_path: Path) -> None:
    path = tiny.write_gpt2(tmp_path / "gpt2.gguf", n_ctx=16)
    with kollama.Model(path) as model, kollama.LLM(model, n_ctx=64, n_threads=2) as llm:
        with model.context(n_ctx=64, n_seq_max=3, n_threads=2) as ctx:
            for _ in range(3):  # 48 tokens in all
                seq = ctx.sequence()
                seq.append([5] * 16)
                with pytest.raises(kollama.ContextFullError):
                    seq.append([5])
        done = llm.complete([5] * 10, max_tokens=None, ignore_eos=True)
        assert (done.finish_reason, len(done.tokens)) == ("length", 7)
        with pytest.raises(kollama.ContextFullError):
            llm.complete([5] * 17)
        with pytest.raises(kollama.ContextFullError):
            llm.embed([[5] * 17])
