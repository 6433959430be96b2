"""A machine that calls the library at random, beside a plain model of what each call must do.

The model knows the tokens of every sequence, which memory cells they share, and which error a call
must raise. `python tests/machine.py SECONDS [SEED]` runs it for that long and prints how many calls
it made.
"""

from __future__ import annotations

import gc
import itertools
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import hypothesis.strategies as st
import numpy as np
import tiny
from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

import kollama
from kollama._core.runtime import live_handles

CELLS_STEP = 256  # llama.cpp rounds the size of its memory up to a multiple of this
TOLERANCE = 0.1  # of a logit: the K/V memory is f16, and batches of other sizes add up otherwise

N_VOCAB = len(tiny.vocabulary()[0])
INDEX = st.integers(0, 99)  # of an object; taken modulo their number
RARELY = st.sampled_from([False, False, False, False, True])
IDS = st.lists(st.integers(0, N_VOCAB - 1), min_size=1, max_size=90)
WRONG_IDS = st.sampled_from([[], [-1], [5, N_VOCAB], [2**31], [1.5], ["a"], None, "text", [[1, 2]]])
TEXT = st.text(alphabet="대한민국의 수도는 서울이다.abc\n\0é漢", max_size=30)
SAMPLING = st.fixed_dictionaries({}, optional={
    "temperature": st.sampled_from([0, 0.5, 1.5]), "top_k": st.integers(0, 50), "seed": st.integers(0, 2**32 - 1),
    "top_p": st.floats(0.1, 1), "min_p": st.floats(0, 1), "repeat_penalty": st.floats(0.5, 2), "typical_p": st.floats(0.1, 1),
    "dry_multiplier": st.floats(0, 2), "xtc_probability": st.floats(0, 1), "mirostat": st.integers(0, 2),
    "logit_bias": st.dictionaries(st.integers(0, N_VOCAB - 1), st.floats(-50, 50), max_size=3),
    "grammar": st.sampled_from(['root ::= "a"+', "root ::= .*", 'root ::= [가-힣]*']),
})

PHASES = (Phase.generate,)  # shrinking what hangs or depends on time would take hours
calls: Counter[str] = Counter()


class SequenceModel:
    def __init__(self, real: kollama.Sequence, context: ContextModel) -> None:
        self.real, self.context, self.open = real, context, True
        self.tokens: list[int] = []
        self.cells: list[int] = []  # what fork shares
        self.has_logits = False

    @property
    def usable(self) -> bool:
        return self.open and self.context.open


class ContextModel:
    def __init__(self, real: kollama.Context, model: ModelModel, n_ctx: int, n_seq_max: int) -> None:
        self.real, self.model, self.n_ctx, self.n_seq_max, self.open = real, model, n_ctx, n_seq_max, True
        self.sequences: list[SequenceModel] = []

    @property
    def n_cells_free(self) -> int:
        used = set().union(*(s.cells for s in self.sequences)) if self.sequences else set()
        return -(-self.n_ctx // CELLS_STEP) * CELLS_STEP - len(used)


class ModelModel:
    def __init__(self, real: kollama.Model) -> None:
        self.real, self.open = real, True


class LLMModel:
    def __init__(self, real: kollama.LLM, model: ModelModel, n_ctx: int, n_parallel: int) -> None:
        self.real, self.model, self.n_ctx, self.n_parallel, self.open = real, model, n_ctx, n_parallel, True
        self.streams: list[StreamModel] = []


class StreamModel:
    def __init__(self, real: kollama.Generation, llm: LLMModel, max_tokens: int | None, n_prompt: int) -> None:
        self.real, self.llm, self.n_got = real, llm, 0
        self.limit = min(max_tokens or 10**9, llm.n_ctx - n_prompt + 1)
        self.state = "new"  # then "running", "ended"


class Machine(RuleBasedStateMachine):
    path: ClassVar[Path]
    known: ClassVar[dict[tuple[int, ...], np.ndarray]] = {}  # logits by tokens

    def __init__(self) -> None:
        super().__init__()
        gc.collect()
        self.before = live_handles()
        self.models = [ModelModel(kollama.Model(self.path))]
        self.contexts: list[ContextModel] = []
        self.sequences: list[SequenceModel] = []
        self.samplers: list[kollama.Sampler] = []
        self.llms: list[LLMModel] = []
        self.streams: list[StreamModel] = []
        self.blobs: list[tuple[bytes, list[int]]] = []
        self.arrays: list[np.ndarray] = []
        self.new_cell = itertools.count().__next__
        self.open_context(0, 256, 3, n_threads=1)
        self.open_sequence(0)

    def call(self, expected: type[BaseException] | tuple[type[BaseException], ...] | None, function: Any,
             *arguments: Any, **options: Any) -> Any:
        """Calls it. Where expected is an error, it must be raised; else none may be."""
        calls[getattr(function, "__name__", type(function).__name__)] += 1
        if expected is None:
            return function(*arguments, **options)
        try:
            got = function(*arguments, **options)
        except expected:
            return None
        raise AssertionError(f"no {expected} from {function}, but {got!r}")

    def pick(self, things: list[Any], index: int) -> Any:
        return things[index % len(things)]

    # ---- models and contexts ----

    @precondition(lambda self: len(self.models) < 3)
    @rule(mmap=st.sampled_from([True, False, "auto"]))
    def load(self, mmap: Any) -> None:
        self.models.append(ModelModel(self.call(None, kollama.Model, self.path, mmap=mmap)))

    @rule(i=INDEX, now=RARELY)
    def close_model(self, i: int, now: bool) -> None:
        model = self.pick(self.models, i)
        if not now:
            return
        in_use = any(c.open and c.model is model for c in self.contexts) or any(x.open and x.model is model for x in self.llms)
        self.call(kollama.BusyError if in_use else None, model.real.close)
        model.open = in_use and model.open
        assert model.real.closed == (not model.open)

    @precondition(lambda self: len(self.contexts) < 4)
    @rule(i=INDEX, n_ctx=st.sampled_from([1, 32, 100, 256]), n_seq_max=st.integers(1, 4), n_threads=st.integers(1, 2),
          n_batch=st.sampled_from([None, 1, 7, 64]), flash_attn=st.sampled_from(["auto", True, False]))
    def open_context(self, i: int, n_ctx: int, n_seq_max: int, **options: Any) -> None:
        model = self.pick(self.models, i)
        made = self.call(None if model.open else kollama.ClosedError, model.real.context, n_ctx=n_ctx, n_seq_max=n_seq_max, **options)
        if made is not None:
            self.contexts.append(ContextModel(made, model, n_ctx, n_seq_max))

    @precondition(lambda self: self.contexts)
    @rule(i=INDEX, now=RARELY, forget=st.booleans())
    def close_context(self, i: int, now: bool, forget: bool) -> None:
        context = self.pick(self.contexts, i)
        if not now:
            return
        self.call(None, context.real.close)
        context.open = False
        if forget:
            self.contexts.remove(context)

    @rule(i=INDEX, option=st.sampled_from([
        {"n_ctx": 0}, {"n_ctx": -5}, {"n_ctx": "8"}, {"n_batch": 0}, {"n_threads": 0}, {"n_threads": 10**6}, {"n_seq_max": 0},
        {"n_seq_max": 10**9}, {"type_k": "q9"}, {"type_v": 3}, {"flash_attn": 1}, {"embeddings": "no"}, {"pooling": "mean"},
        {"swa_full": None}, {"n_ctx": 2**40}, {"n_ctx": float("nan")}]))
    def open_wrong_context(self, i: int, option: dict[str, Any]) -> None:
        self.call((kollama.ArgumentError, TypeError, kollama.ClosedError), self.pick(self.models, i).real.context, **option)

    # ---- sequences ----

    @precondition(lambda self: self.contexts)
    @rule(i=INDEX)
    def open_sequence(self, i: int) -> None:
        context = self.pick(self.contexts, i)
        full = len(context.sequences) == context.n_seq_max
        made = self.call(kollama.ClosedError if not context.open else kollama.ArgumentError if full else None, context.real.sequence)
        if made is not None:
            self.add(SequenceModel(made, context))

    def add(self, sequence: SequenceModel) -> None:
        self.sequences.append(sequence)
        sequence.context.sequences.append(sequence)

    @precondition(lambda self: self.sequences)
    @rule(i=INDEX, ids=IDS, numpy=st.booleans())
    def append(self, i: int, ids: list[int], numpy: bool) -> None:
        s = self.pick(self.sequences, i)
        fits = len(ids) <= s.context.n_ctx - len(s.tokens) and len(ids) <= s.context.n_cells_free
        given = np.array(ids, np.int32) if numpy else ids
        self.call(kollama.ClosedError if not s.usable else None if fits else kollama.ContextFullError, s.real.append, given)
        if s.usable and fits:
            s.tokens += ids
            s.cells += [self.new_cell() for _ in ids]
            s.has_logits = True

    @precondition(lambda self: self.sequences)
    @rule(i=INDEX, ids=WRONG_IDS)
    def append_wrong(self, i: int, ids: Any) -> None:
        s = self.pick(self.sequences, i)
        self.call((ValueError, TypeError), s.real.append, ids)

    @precondition(lambda self: self.sequences)
    @rule(i=INDEX, n=st.integers(-2, 120))
    def rewind(self, i: int, n: int) -> None:
        s = self.pick(self.sequences, i)
        right = 0 <= n <= len(s.tokens)
        self.call((kollama.ArgumentError, kollama.ClosedError) if n < 0 else kollama.ClosedError if not s.usable
                  else None if right else kollama.ArgumentError, s.real.rewind, n)
        if s.usable and right:
            self.cut(s, n)

    def cut(self, s: SequenceModel, n: int) -> None:
        s.tokens, s.cells, s.has_logits = s.tokens[:n], s.cells[:n], False

    @precondition(lambda self: self.sequences)
    @rule(i=INDEX)
    def clear(self, i: int) -> None:
        s = self.pick(self.sequences, i)
        self.call(None if s.usable else kollama.ClosedError, s.real.clear)
        if s.usable:
            self.cut(s, 0)

    @precondition(lambda self: self.sequences)
    @rule(i=INDEX)
    def fork(self, i: int) -> None:
        s = self.pick(self.sequences, i)
        full = len(s.context.sequences) == s.context.n_seq_max
        made = self.call(kollama.ClosedError if not s.usable else kollama.ArgumentError if full else None, s.real.fork) \
            if s.usable or not s.context.open or not full else None
        if made is not None:
            other = SequenceModel(made, s.context)
            other.tokens, other.cells, other.has_logits = list(s.tokens), list(s.cells), s.has_logits
            self.add(other)

    @precondition(lambda self: self.sequences)
    @rule(i=INDEX, now=RARELY, how=st.sampled_from(["close", "forget"]))
    def end_sequence(self, i: int, now: bool, how: str) -> None:
        s = self.pick(self.sequences, i)
        if not now:
            return
        if how == "close":
            self.call(None, s.real.close)
            assert s.real.closed
        else:
            self.sequences.remove(s)
            del s.real
        s.open = False
        if s in s.context.sequences:
            s.context.sequences.remove(s)

    @precondition(lambda self: self.sequences)
    @rule(i=INDEX, write=st.booleans())
    def look(self, i: int, write: bool) -> None:
        s = self.pick(self.sequences, i)
        expected = None if s.usable else kollama.ClosedError
        length, tokens = self.call(expected, len, s.real), self.call(expected, lambda: s.real.tokens)
        logits = self.call(expected or (None if s.has_logits else kollama.StateError), lambda: s.real.logits)
        if expected is None:
            assert (length, tokens.tolist()) == (len(s.tokens), s.tokens)
        if logits is not None:
            assert logits.shape == (N_VOCAB,)
            known = self.known.setdefault(tuple(s.tokens), logits.copy())
            assert np.abs(known - logits).max() < TOLERANCE
            self.arrays.append(logits)
            if write:
                logits[:] += 0  # what is written is read by a sampler; the same values here

    @precondition(lambda self: self.sequences)
    @rule(i=INDEX)
    def state(self, i: int) -> None:
        s = self.pick(self.sequences, i)
        blob = self.call(None if s.usable else kollama.ClosedError, s.real.state)
        if blob is not None:
            self.blobs.append((blob, list(s.tokens)))

    @precondition(lambda self: self.sequences and self.blobs)
    @rule(i=INDEX, k=INDEX, where=st.integers(0, 10**6), damage=st.sampled_from([0, 0, 0, 1, 255]))
    def restore(self, i: int, k: int, where: int, damage: int) -> None:
        s, (blob, tokens) = self.pick(self.sequences, i), self.pick(self.blobs, k)
        if damage:
            broken = bytearray(blob)
            broken[where % len(blob)] ^= damage
            self.call((kollama.FormatError, kollama.ClosedError), s.real.restore, bytes(broken))
            return
        calls["restore"] += 1
        refused: kollama.KollamaError | None = None
        try:
            s.real.restore(blob)
        except (kollama.ClosedError, kollama.ContextFullError, kollama.FormatError, kollama.DecodeError) as error:
            refused = error
        assert s.usable != isinstance(refused, kollama.ClosedError)
        if refused is None:
            s.tokens, s.cells, s.has_logits = list(tokens), [self.new_cell() for _ in tokens], False
        elif isinstance(refused, kollama.ContextFullError):
            assert len(tokens) > s.context.n_ctx
        elif isinstance(refused, kollama.FormatError):
            assert "flash_attn" in str(refused)
            self.cut(s, 0)
        elif isinstance(refused, kollama.DecodeError):  # no room beside the others
            self.cut(s, 0)
            assert len(tokens) > s.context.n_cells_free

    # ---- samplers ----

    @precondition(lambda self: len(self.samplers) < 4)
    @rule(options=SAMPLING)
    def make_sampler(self, options: dict[str, Any]) -> None:
        self.samplers.append(self.call(None, kollama.Sampler, **options))

    @precondition(lambda self: self.samplers and self.sequences)
    @rule(i=INDEX, k=INDEX, how=st.sampled_from(["sample", "clone", "forget"]))
    def use_sampler(self, i: int, k: int, how: str) -> None:
        sampler, s = self.pick(self.samplers, k), self.pick(self.sequences, i)
        if how == "clone":
            self.call(None, sampler.clone)
        elif how == "forget":
            self.samplers.remove(sampler)
        else:
            expected = None if s.usable and s.has_logits else kollama.StateError if s.usable else kollama.ClosedError
            try:
                token = self.call(expected, sampler.sample, s.real)
            except kollama.ArgumentError:  # a grammar that has ended leaves no token
                assert "grammar" in repr(sampler)
            else:
                assert token is None or 0 <= token < N_VOCAB

    # ---- the easy front ----

    @precondition(lambda self: len(self.llms) < 2)
    @rule(i=INDEX, n_ctx=st.sampled_from([4, 32, 128]), n_parallel=st.integers(1, 2))
    def open_llm(self, i: int, n_ctx: int, n_parallel: int) -> None:
        model = self.pick(self.models, i)
        made = self.call(None if model.open else kollama.ClosedError, kollama.LLM, model.real, n_ctx=n_ctx, n_parallel=n_parallel, n_threads=1)
        if made is not None:
            self.llms.append(LLMModel(made, model, n_ctx, n_parallel))

    @precondition(lambda self: self.llms)
    @rule(i=INDEX, now=RARELY)
    def close_llm(self, i: int, now: bool) -> None:
        llm = self.pick(self.llms, i)
        if not now:
            return
        self.call(None, llm.real.close)
        llm.open = False
        self.llms.remove(llm)

    @precondition(lambda self: self.llms and len(self.streams) < 5)
    @rule(i=INDEX, ids=IDS, max_tokens=st.sampled_from([None, 1, 3, 50]), options=SAMPLING, ignore_eos=st.booleans(),
          stop=st.sampled_from([None, "국", ["a", "\n"]]))
    def generate(self, i: int, ids: list[int], max_tokens: int | None, options: dict[str, Any], **rest: Any) -> None:
        llm = self.pick(self.llms, i)
        fits = len(ids) <= llm.n_ctx
        made = self.call(None if fits else kollama.ContextFullError, llm.real.generate, ids, max_tokens=max_tokens, **options, **rest)
        if made is not None:
            self.streams.append(StreamModel(made, llm, max_tokens, len(ids)))
            llm.streams.append(self.streams[-1])

    @precondition(lambda self: self.streams)
    @rule(i=INDEX, how=st.sampled_from(["next", "next", "next", "finish", "close", "forget", "result"]))
    def use_stream(self, i: int, how: str) -> None:
        s = self.pick(self.streams, i)
        n_running = sum(x.state == "running" for x in s.llm.streams)
        if how in ("next", "finish"):
            self.advance(s, how, blocked=s.state == "new" and n_running == s.llm.n_parallel)
        elif how == "close":
            self.call(None, s.real.close)
            s.state = "ended"
        elif how == "forget":
            self.streams.remove(s)
            s.llm.streams.remove(s)
            del s.real
        else:
            result = self.call(None, lambda: s.real.result)
            assert len(result.tokens) == s.n_got <= s.limit

    def advance(self, s: StreamModel, how: str, blocked: bool) -> None:
        call = s.real.__next__ if how == "next" else s.real.finish
        calls[how] += 1
        try:
            got = call()
        except StopIteration:
            assert s.state != "new" or s.n_got == 0
        except kollama.BusyError:
            assert blocked
            if how == "finish":  # which can be tried again; an iterator that raised has ended
                return
        except kollama.ClosedError:
            assert not s.llm.open
        except kollama.ArgumentError:
            assert "grammar" in repr(s.real._sampler)
        else:
            assert not (blocked and s.llm.open)
            if how == "next":
                s.n_got += 1
                s.state = "running"
                assert 0 <= got.id < N_VOCAB
                return
            s.n_got = len(got.tokens)
        s.state = "ended"

    @precondition(lambda self: self.llms)
    @rule(i=INDEX, texts=st.lists(TEXT, max_size=3))
    def complete(self, i: int, texts: list[str]) -> None:
        llm = self.pick(self.llms, i)
        if sum(x.state == "running" for x in llm.streams) or llm.n_ctx < 128:
            return
        done = self.call(None, llm.real.complete, texts, max_tokens=2) if texts else []
        assert [len(d.tokens) for d in done] <= [2] * len(texts)

    # ---- text ----

    @rule(i=INDEX, text=TEXT)
    def tokenize(self, i: int, text: str) -> None:
        model = self.pick(self.models, i)
        tokenizer = self.call(None if model.open else kollama.ClosedError, lambda: model.real.tokenizer)
        if tokenizer is not None:
            ids = self.call(None, tokenizer.encode, text)
            assert self.call(None, tokenizer.decode, ids) == text
            decoder = self.call(None, tokenizer.decoder)
            assert "".join([decoder.push(int(token)) for token in ids] + [decoder.flush()]) == text

    def teardown(self) -> None:
        while self.arrays:
            self.arrays.pop()[:] = 1  # valid memory, whatever was closed
        for name in ("arrays", "streams", "llms", "samplers", "sequences", "contexts", "models", "blobs"):
            getattr(self, name).clear()
        gc.collect()
        assert live_handles() == self.before, (live_handles(), self.before)
        self.known.clear()


def run_for(seconds: float, path: Path, first_seed: int | None = None, n_examples: int = 20) -> Counter[str]:
    """Runs slices, each of another seed, until the time is over; at least one. Returns the calls made."""
    Machine.path = path
    calls.clear()
    end = time.monotonic() + seconds
    for number in itertools.count(0 if first_seed is None else first_seed):
        machine = Machine if first_seed is None else seed(number)(Machine)
        run_state_machine_as_test(machine, settings=settings(
            max_examples=n_examples, stateful_step_count=60, deadline=None, database=None, phases=PHASES,
            suppress_health_check=list(HealthCheck)))
        if time.monotonic() >= end:
            break
    return calls


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        made = run_for(float(sys.argv[1]), tiny.write_llama(Path(folder) / "tiny.gguf"), *map(int, sys.argv[2:]))
    print(f"{made.total()} calls: {dict(made.most_common())}")
