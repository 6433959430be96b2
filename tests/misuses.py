"""What callers do wrong, and the exception that each gets: rows of test_misuse_table.py.

A row is (name, exception, code). "" for the exception: the code itself says what must happen.
"""

from __future__ import annotations

SETUP = """
import gc, os, pickle, copy, signal, sys, threading, time, weakref, kollama
import numpy as np
path = sys.argv[1]
model = kollama.Model(path)
tok = model.tokenizer

def context(**options):
    return model.context(**({"n_ctx": 64, "n_threads": 1, "n_seq_max": 2} | options))

def filled(ids=(1, 300)):
    seq = context().sequence()
    seq.append(list(ids))
    return seq

def llm(**options):
    return kollama.LLM(model, **({"n_ctx": 64, "n_threads": 1} | options))

def chain(link):
    return llm().complete([1, 5], sampler=kollama.Sampler.chain([link]), max_tokens=4, ignore_eos=True)
"""

# The process, the model and other contexts must go on after every row but those that end it.
STILL_WORKS = """
if not model.closed:
    seq = context().sequence()
    seq.append([1, 5])
    assert np.isfinite(seq.logits).all()
"""

ROWS: list[tuple[str, str, str]] = [
    # ---- arguments: models and contexts ----
    ("no such file", "ModelNotFoundError", "kollama.Model('/no/such.gguf')"),
    ("a folder as a model", "ModelLoadError", "kollama.Model('/')"),
    ("a device as a model", "ModelLoadError", "kollama.Model('/dev/zero')"),
    ("a text file as a model", "FormatError", "kollama.Model(__import__('kollama').__file__)"),
    ("a number as a path", "TypeError", "kollama.Model(5)"),
    ("a NUL in a path", "ModelNotFoundError", "kollama.Model('a\\0b')"),
    ("a surrogate in a path", "ModelNotFoundError", "kollama.Model('\\udc80.gguf')"),
    ("no parts of a split model", "ArgumentError", "kollama.Model([])"),
    ("an unknown keyword", "TypeError", "kollama.Model(path, layers=3)"),
    ("layers on a GPU that is not there", "ModelLoadError", "kollama.Model(path, n_gpu_layers=9)"),
    ("layers below -1", "ArgumentError", "kollama.Model(path, n_gpu_layers=-2)"),
    ("mmap of another type", "ArgumentError", "kollama.Model(path, mmap=1)"),
    ("eps for a GGUF", "ArgumentError", "kollama.Model(path, rms_norm_eps=1e-5)"),
    ("eps that is NaN", "ArgumentError", "kollama.Model(path, rms_norm_eps=float('nan'))"),
    ("a model as the tokenizer", "FormatError", "kollama.Model(path, tokenizer=__import__('kollama').__file__)"),
    ("progress that is no callable", "TypeError", "kollama.Model(path, progress=5)"),
    ("progress that raises", "ZeroDivisionError", "kollama.Model(path, progress=lambda done: 1 / 0)"),
    ("progress that exits", "SystemExit", "kollama.Model(path, progress=lambda done: sys.exit(3))"),
    ("progress that loads again", "", "kollama.Model(path, progress=lambda done: kollama.Model(path).close()).close()"),
    ("progress that closes another model", "ClosedError", "kollama.Model(path, progress=lambda done: model.close()); model.context()"),
    ("Model of nothing", "TypeError", "kollama.Model.__new__(kollama.Model)"),
    ("a subclass of Model", "TypeError", "type('Mine', (kollama.Model,), {})"),
    ("a pickled model", "TypeError", "pickle.dumps(model)"),
    ("a copied sequence", "TypeError", "copy.copy(filled())"),
    ("a pickled sampler", "TypeError", "pickle.dumps(kollama.Sampler())"),
    ("an attribute of our making", "AttributeError", "model.n_vocab = 5"),
    ("a deleted attribute", "AttributeError", "del filled().context.n_ctx"),
    ("the metadata written to", "TypeError", "model.metadata['a'] = 'b'"),
    ("weights of vocab_only", "StateError", "kollama.Model(path, vocab_only=True).context()"),
    ("a context of nothing", "TypeError", "kollama.Context(None)"),
    ("n_ctx=0", "ArgumentError", "context(n_ctx=0)"),
    ("n_ctx of a float", "TypeError", "context(n_ctx=64.0)"),
    ("n_ctx of 10**12", "ArgumentError", "context(n_ctx=10**12)"),
    ("n_ctx of NaN", "TypeError", "context(n_ctx=float('nan'))"),
    ("n_ctx beyond memory", "ModelLoadError", "context(n_ctx=2**31 - 1)"),
    ("n_seq_max=10**9", "ArgumentError", "context(n_seq_max=10**9)"),
    ("n_batch=0", "ArgumentError", "context(n_batch=0)"),
    ("n_batch of 2**31", "ArgumentError", "context(n_batch=2**31)"),
    ("n_threads=0", "ArgumentError", "context(n_threads=0)"),
    ("n_threads=100000", "ArgumentError", "context(n_threads=100000)"),
    ("an unknown type_k", "ArgumentError", "context(type_k='q9_9')"),
    ("type_k of PEERS' number", "TypeError", "context(type_k=9999)"),
    ("a type that K/V cannot have", "ArgumentError", "context(type_v='q4_K')"),
    ("quantized V without flash attention", "ModelLoadError", "context(type_v='q8_0', flash_attn=False)"),
    ("flash_attn of a word", "ArgumentError", "context(flash_attn='yes')"),
    ("pooling without embeddings", "ArgumentError", "context(pooling='mean')"),
    ("an unknown pooling", "ArgumentError", "context(embeddings=True, pooling='max')"),
    ("a draft of a word", "ArgumentError", "context(draft='guess')"),
    ("a draft of True", "TypeError", "context(draft=True)"),
    ("a draft for embeddings", "ArgumentError", "context(draft='prompt-lookup', embeddings=True)"),
    ("the draft model closed under a context", "BusyError", "draft = kollama.Model(path); ctx = context(draft=draft); draft.close()"),
    ("a closed draft model", "ClosedError", "draft = kollama.Model(path); draft.close(); context(draft=draft)"),
    ("a draft of a missing file", "ModelNotFoundError", "kollama.LLM(model, draft='/no/such/file.gguf')"),
    ("a sequence for embeddings", "ArgumentError", "context(embeddings=True).sequence()"),
    ("embed without embeddings", "ArgumentError", "context().embed([[1]])"),
    ("embed of an empty text", "ArgumentError", "context(embeddings=True).embed([[]])"),
    ("embed of a token that is none", "TokenError", "context(embeddings=True).embed([[10**6]])"),
    ("embed beyond n_ctx", "ContextFullError", "context(embeddings=True).embed([[5] * 65])"),
    # ---- sequences ----
    ("append of nothing", "ArgumentError", "filled().append([])"),
    ("append of -1", "TokenError", "filled().append([-1])"),
    ("append of n_vocab", "TokenError", "filled().append([model.n_vocab])"),
    ("append of 2**40", "TokenError", "filled().append([2**40])"),
    ("append of 2**70", "TypeError", "filled().append([2**70])"),
    ("append of floats", "TypeError", "filled().append([1.5])"),
    ("append of NaN", "TypeError", "filled().append(np.array([np.nan]))"),
    ("append of text", "TypeError", "filled().append('안녕')"),
    ("append of None", "TypeError", "filled().append(None)"),
    ("append of a matrix", "ValueError", "filled().append(np.ones((2, 2), np.int32))"),
    ("append beyond n_ctx", "ContextFullError", "filled().append([5] * 64)"),
    ("rewind beyond the end", "ArgumentError", "filled().rewind(3)"),
    ("rewind to -1", "ArgumentError", "filled().rewind(-1)"),
    ("one sequence too many", "ArgumentError", "ctx = context(); kept = [ctx.sequence() for _ in range(3)]"),
    ("one fork too many", "ArgumentError", "seq = filled(); kept = [seq.fork() for _ in range(2)]"),
    ("logits before an append", "StateError", "context().sequence().logits"),
    ("logits after a rewind", "StateError", "seq = filled(); seq.rewind(1); seq.logits"),
    ("sample without logits", "StateError", "kollama.Sampler().sample(context().sequence())"),
    ("sample of NaN", "ArgumentError", "seq = filled(); seq.logits[5] = np.nan; kollama.Sampler().sample(seq)"),
    ("sample of -inf alone", "ArgumentError", "seq = filled(); seq.logits[:] = -np.inf; kollama.Sampler().sample(seq)"),
    ("sample of the context", "TypeError", "kollama.Sampler().sample(context())"),
    ("the logits resized", "ValueError", "filled().logits.resize(3)"),
    ("logits kept after close", "", "seq = filled(); row = seq.logits; seq.context.close(); model.close(); gc.collect(); row[:] = 1"),
    ("append to a closed sequence", "ClosedError", "seq = filled(); seq.close(); seq.append([5])"),
    ("append after ctx.close", "ClosedError", "seq = filled(); seq.context.close(); seq.append([5])"),
    ("logits after ctx.close", "ClosedError", "seq = filled(); seq.context.close(); seq.logits"),
    ("the model closed under a context", "BusyError", "ctx = context(); model.close()"),
    ("a closed model's context", "ClosedError", "model.close(); model.context()"),
    ("a closed model's tokenizer", "ClosedError", "model.close(); tok.encode('a')"),
    ("restore of nothing", "FormatError", "filled().restore(b'')"),
    ("restore of text", "TypeError", "filled().restore('text')"),
    ("restore of noise", "FormatError", "filled().restore(os.urandom(5000))"),
    ("load of a folder", "ModelLoadError", "filled().load('/')"),
    ("save to a folder", "WriteError", "filled().save('/')"),
    ("save where there is no folder", "WriteError", "filled().save('/no/such/folder/x')"),
    ("every byte of a state changed", "", """
seq = filled()
blob = seq.state()
chance = np.random.default_rng(0)
for i in [*range(0, 240), *chance.integers(0, len(blob), 200)]:
    broken = bytearray(blob)
    broken[i] ^= int(chance.integers(1, 256))
    try:
        seq.restore(broken)
    except kollama.KollamaError:
        continue
    raise AssertionError(f'byte {i} is not looked at')
for n in range(0, len(blob), 37):
    try:
        seq.restore(blob[:n])
    except kollama.FormatError:
        continue
    raise AssertionError(n)
assert len(seq) == 2"""),
    ("the state of another model", "FormatError", """
other = kollama.Model(sys.argv[2])
filled().restore(other.context(n_ctx=64).sequence().state())"""),
    # ---- text ----
    ("encode of None", "TypeError", "tok.encode(None)"),
    ("encode of a lone surrogate", "TokenError", "tok.encode('\\ud800')"),
    ("decode of a token that is none", "TokenError", "tok.decode([10**6])"),
    ("decode of text", "TypeError", "tok.decode('abc')"),
    ("piece of -1", "TokenError", "tok.piece(-1)"),
    ("a tokenizer of nothing", "TypeError", "kollama.Tokenizer.__new__(kollama.Tokenizer).encode('a')"),
    ("a tokenizer of a folder", "ModelLoadError", "kollama.Tokenizer.from_file('/')"),
    # ---- samplers and generation ----
    ("temperature of NaN", "ArgumentError", "kollama.Sampler(temperature=float('nan'))"),
    ("temperature of text", "TypeError", "kollama.Sampler(temperature='hot')"),
    ("top_k of 1e300", "TypeError", "kollama.Sampler(top_k=1e300)"),
    ("top_p of inf", "ArgumentError", "kollama.Sampler(top_p=float('inf'))"),
    ("a negative seed", "ArgumentError", "kollama.Sampler(seed=-1)"),
    ("an unknown sampler", "TypeError", "kollama.Sampler(temprature=1)"),
    ("a malformed grammar", "ArgumentError", "kollama.Sampler(grammar='root ::= (')"),
    ("a grammar that begins with itself", "ArgumentError", "kollama.Sampler(grammar='root ::= root \"a\"')"),
    ("a grammar of a million brackets", "ArgumentError", "kollama.Sampler(grammar='root ::= ' + '(' * 10**6)"),
    ("a grammar's refused token", "", """
seq = filled()
sampler = kollama.Sampler(grammar='root ::= "a"', temperature=0)
for _ in range(2):
    try:
        seq.append([sampler.sample(seq)])
    except kollama.ArgumentError:
        pass"""),
    ("logit_bias for a token that is none", "TokenError", "llm().complete('a', logit_bias={10**6: 1.0})"),
    ("logit_bias of NaN", "ArgumentError", "kollama.Sampler(logit_bias={5: float('nan')})"),
    ("logit_bias against all", "", """
done = llm().complete('a', logit_bias={i: -100.0 for i in range(model.n_vocab)}, max_tokens=2, ignore_eos=True)
assert len(done.tokens) == 2"""),
    ("a chain of numbers", "TypeError", "kollama.Sampler.chain([5])"),
    ("max_tokens=0", "ArgumentError", "llm().complete('a', max_tokens=0)"),
    ("max_tokens of a float", "TypeError", "llm().complete('a', max_tokens=3.0)"),
    ("an empty stop", "ArgumentError", "llm().complete('a', stop='')"),
    ("a stop of megabytes", "", "llm().complete('a', stop=['x' * (8 << 20)], max_tokens=3)"),
    ("ten thousand stops", "", "llm().complete('a', stop=[f'{i}국' for i in range(10000)], max_tokens=3)"),
    ("logprobs=-1", "ArgumentError", "llm().complete('a', logprobs=-1)"),
    ("logprobs=10**9", "", "assert len(llm().complete('a', logprobs=10**9, max_tokens=1, ignore_eos=True).top_logprobs[0]) <= model.n_vocab"),
    ("a prompt beyond n_ctx", "ContextFullError", "llm().complete([5] * 65)"),
    ("an empty prompt of ids", "ArgumentError", "llm().complete([])"),
    ("a prompt of None", "TypeError", "llm().complete(None)"),
    ("n_parallel times n_ctx beyond 2**31", "ArgumentError", "llm(n_ctx=2**20, n_parallel=2**20)"),
    ("generate on a closed LLM", "ClosedError", "x = llm(); x.close(); x.complete('a')"),
    ("a stream of a closed LLM", "ClosedError", "x = llm(); s = x.generate('a', ignore_eos=True, max_tokens=None); next(s); x.close(); list(s)"),
    ("a dead generator", "StopIteration", "s = llm().generate('a'); s.close(); next(s)"),
    ("one request too many", "BusyError", "x = llm(); kept = [x.generate('a') for _ in range(2)]; [next(s) for s in kept]"),
    ("a stream read by itself", "BusyError", "x = llm(); s = x.generate([1, 5], sampler=kollama.Sampler.chain([lambda t, l: next(s)])); next(s)"),
    ("chat without a role", "ArgumentError", "list(llm().chat([{'content': 'a'}], format='kullm'))"),
    ("chat in an unknown format", "ArgumentError", "llm().chat([], format='nothing')"),
    # ---- callbacks ----
    ("a callable that raises", "KeyError", "chain(lambda tokens, logits: {}['a'])"),
    ("a callable that exits", "SystemExit", "chain(lambda tokens, logits: sys.exit(3))"),
    ("a callable that returns", "TypeError", "chain(lambda tokens, logits: 5)"),
    ("a callable that interrupts", "KeyboardInterrupt", "chain(lambda tokens, logits: signal.raise_signal(signal.SIGINT))"),
    ("a callable that writes NaN", "ArgumentError", "chain(lambda tokens, logits: logits.fill(np.nan))"),
    ("a callable that resizes", "ValueError", "chain(lambda tokens, logits: logits.resize(5))"),
    ("a callable without end", "RecursionError", "f = lambda tokens, logits: f(tokens, logits); chain(f)"),
    ("a callable that closes its model", "BusyError", "chain(lambda tokens, logits: model.close())"),
    ("a callable that closes its sequence", "ClosedError", """
seq = filled()
assert 0 <= kollama.Sampler.chain([lambda tokens, logits: seq.close()]).sample(seq) < model.n_vocab
seq.append([5])"""),
    ("a callable that appends", "BusyError", """
from kollama._core.generation import TokenStream
seq = filled()
list(TokenStream(seq, kollama.Sampler.chain([lambda tokens, logits: seq.append([5])]), [1, 5], stop=[]))"""),
    # ---- collection, threads, signals, the end of the process ----
    ("parents collected first", "", "seq = filled(); row = seq.logits; ref = weakref.ref(kollama.Sampler) and 0; del seq; gc.collect(); row[:] = 1"),
    ("closed in __del__ of a cycle", "", """
class Owner:
    def __init__(self): self.me, self.seq = self, filled()
    def __del__(self): self.seq.close(); self.seq.context.close()
for _ in range(20): Owner()
gc.collect()"""),
    ("closed by a weak reference's end", "", """
class Thing: pass
seq, thing = filled(), Thing()
ref = weakref.ref(thing, lambda _: seq.context.close())
del thing
assert seq.closed"""),
    ("an append by two threads", "", """
seq, errors = context(n_ctx=16000).sequence(), []
def work():
    try: seq.append([5] * 3000)
    except kollama.BusyError as error: errors.append(error)
threads = [threading.Thread(target=work) for _ in range(4)]
[t.start() for t in threads]; [t.join() for t in threads]
assert len(seq) == 3000 * (4 - len(errors))"""),
    ("an alarm during a prompt", "TimeoutError", """
def ring(number, frame): raise TimeoutError
signal.signal(signal.SIGALRM, ring)
signal.setitimer(signal.ITIMER_REAL, 0.1)
context(n_ctx=16000).sequence().append([5] * 15900)"""),
    ("a deep stack", "RecursionError", """
def deep(n):
    seq = filled()
    return deep(n + 1) if n < 10**6 else seq
sys.setrecursionlimit(200)
deep(0)"""),
    ("no memory to be had", "OutOfMemoryError|ModelLoadError|MemoryError", """
import resource
limit = int(open('/proc/self/statm').read().split()[0]) * 4096 + (64 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
try:
    context(n_ctx=2**20)
finally:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))"""),
    ("no threads to be had", "OutOfMemoryError|EngineError|MemoryError|ModelLoadError", """
import resource
limit = int(open('/proc/self/statm').read().split()[0]) * 4096 + (200 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
try:
    context(n_threads=512)
finally:
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))"""),
    ("a daemon thread loads at the end", "", """
def load():
    while True: kollama.Model(path).close()
threading.Thread(target=load, daemon=True).start()
time.sleep(0.05)"""),
    ("daemon threads generate at the end", "", """
x = llm(n_ctx=4000, n_parallel=2)
def work():
    try:
        while True: x.complete('a', max_tokens=None, ignore_eos=True)
    except kollama.ClosedError: pass
[threading.Thread(target=work, daemon=True).start() for _ in range(2)]
time.sleep(0.1)"""),
    ("exit in a thread", "", "t = threading.Thread(target=lambda: (filled(), sys.exit(3))); t.start(); t.join()"),
    ("used in an atexit", "", "import atexit; seq = filled(); atexit.register(lambda: seq.append([5]))"),
    ("a forked child uses it", "", """
seq = filled()
child = os.fork()
if child == 0:
    for call in (lambda: seq.append([5]), seq.fork, seq.context.sequence, context, llm):
        try: call()
        except kollama.StateError as error: assert 'spawn' in str(error)
        else: os._exit(9)
    del seq
    gc.collect()
    os._exit(7)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
seq.append([5])"""),
    ("multiprocessing by fork", "", """
import multiprocessing
x = llm()
def work():
    try: x.complete('a')
    except kollama.StateError: sys.exit(7)
process = multiprocessing.get_context('fork').Process(target=work)
process.start(); process.join(30)
assert process.exitcode == 7, process.exitcode"""),
]
