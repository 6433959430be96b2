"""Context shift: room in a sequence that is full, and text that goes on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny

import kollama

TOKENS = [1, 300, 270, 5, 9, 11, 12, 40, 41, 42, 43, 44]
GREEDY = {"temperature": 0, "ignore_eos": True}


@pytest.fixture(scope="module")
def shallow_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer: its keys and values know of no other token, so a shift is exact."""
    return tiny.write_llama(tmp_path_factory.mktemp("models") / "shallow.gguf", n_layer=1)


@pytest.fixture
def shallow(shallow_path: Path) -> Iterator[kollama.Context]:
    with kollama.Model(shallow_path) as model, model.context(
            n_ctx=64, n_seq_max=3, n_threads=1, type_k="f32", type_v="f32", flash_attn=False) as ctx:
        yield ctx


def row_after(ctx: kollama.Context, ids: list[int]) -> np.ndarray:
    with ctx.sequence() as seq:
        seq.append(ids)
        return seq.logits.copy()


@pytest.mark.parametrize(("n_keep", "n_discard"), [(0, 1), (0, 11), (1, 5), (4, 7), (10, 1)])
def test_as_if_the_discarded_had_never_been(shallow: kollama.Context, n_keep: int, n_discard: int) -> None:
    seq = shallow.sequence()
    seq.append(TOKENS)
    view = seq.logits
    seq.shift(n_keep, n_discard)
    left = TOKENS[:n_keep] + TOKENS[n_keep + n_discard :]
    assert seq.tokens.tolist() == left
    assert seq.n_exact == n_keep
    assert np.shares_memory(view, seq.logits)
    np.testing.assert_allclose(seq.logits, row_after(shallow, left), atol=1e-4)
    seq.append([7, 8])
    np.testing.assert_allclose(seq.logits, row_after(shallow, [*left, 7, 8]), atol=1e-4)
    assert seq.n_exact == n_keep
    seq.rewind(n_keep)
    assert seq.n_exact == n_keep == len(seq)
    seq.append([7, 8])
    assert seq.n_exact == n_keep + 2


def test_again_and_again(shallow: kollama.Context) -> None:
    seq = shallow.sequence()
    ids: list[int] = []
    for i in range(200):
        if len(seq) == 64:
            seq.shift(2, 31)
            del ids[2:33]
        seq.append([3 + i])
        ids.append(3 + i)
        assert len(seq) == len(ids)
    np.testing.assert_allclose(seq.logits, row_after_reset(shallow, seq, ids), atol=1e-3)


def row_after_reset(ctx: kollama.Context, seq: kollama.Sequence, ids: list[int]) -> np.ndarray:
    kept = seq.logits.copy()
    seq.clear()
    seq.append(ids)
    fresh = seq.logits.copy()
    seq.logits[:] = kept
    return fresh


def test_without_logits_there_are_none_after_it(shallow: kollama.Context) -> None:
    seq = shallow.sequence()
    seq.append(TOKENS)
    seq.rewind(10)
    seq.shift(1, 3)
    with pytest.raises(kollama.StateError):
        _ = seq.logits
    seq.append([7])
    np.testing.assert_allclose(seq.logits, row_after(shallow, [*TOKENS[:1], *TOKENS[4:10], 7]), atol=1e-4)


def test_saved_after_a_shift(shallow: kollama.Context) -> None:
    seq, other = shallow.sequence(), shallow.sequence()
    seq.append(TOKENS)
    seq.shift(2, 4)
    other.restore(seq.state())
    assert (other.n_exact, other.tokens.tolist()) == (2, seq.tokens.tolist())
    for each in (seq, other):
        each.append([7])
    np.testing.assert_allclose(other.logits, seq.logits, atol=1e-5)


def test_forks(shallow: kollama.Context) -> None:
    seq = shallow.sequence()
    seq.append(TOKENS)
    fork = seq.fork()
    fork.append([7])
    third = fork.fork()
    for each in (seq, fork, third):
        with pytest.raises(kollama.StateError, match="a fork shares the first 1[23] tokens"):
            each.shift(2, 4)
    third.close()
    fork.rewind(6)
    seq.shift(2, 4)  # what it moves is its own
    assert fork.tokens.tolist() == TOKENS[:6]
    fork.append([7])
    np.testing.assert_allclose(fork.logits, row_after(shallow, [*TOKENS[:6], 7]), atol=1e-4)
    np.testing.assert_allclose(seq.logits, row_after(shallow, TOKENS[:2] + TOKENS[6:]), atol=1e-4)
    fork.close()
    seq.shift(1, 3)
    again = seq.fork()
    assert again.n_exact == 1
    seq.close()
    again.shift(0, 2)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [((-1, 1), ValueError), ((0, 0), ValueError), ((0, 12), ValueError), ((12, 1), ValueError), ((3, 9), ValueError),
     ((1.5, 1), TypeError), ((0, None), TypeError), ((2**40, 1), ValueError)])
def test_wrong_arguments(shallow: kollama.Context, arguments: tuple[int, int], error: type[Exception]) -> None:
    seq = shallow.sequence()
    seq.append(TOKENS)
    with pytest.raises(error):
        seq.shift(*arguments)
    assert seq.tokens.tolist() == TOKENS
    assert seq.n_exact == len(TOKENS)


def test_a_memory_that_cannot(mamba_path: Path) -> None:
    with kollama.Model(mamba_path) as model, model.context(n_ctx=64, n_threads=1) as ctx:
        with ctx.sequence() as seq:
            seq.append(TOKENS)
            with pytest.raises(kollama.ArgumentError, match="cannot be shifted"):
                seq.shift(1, 2)
            assert len(seq) == len(TOKENS)
        with pytest.raises(kollama.ArgumentError, match="cannot be shifted"):
            ctx.check_shift()
        with pytest.raises(kollama.ArgumentError, match="cannot be shifted"):
            kollama.LLM(model, n_ctx=64, n_threads=1, context_shift=True)


# ---- LLM -----------------------------------------------------------------------------------------


def by_hand(ctx: kollama.Context, prompt: list[int], n: int, n_keep: int) -> list[int]:
    out: list[int] = []
    with ctx.sequence() as seq:
        seq.append(prompt)
        while len(out) < n:
            row = seq.logits
            row[tiny.EOS] = -np.inf
            out.append(int(row.argmax()))
            if len(seq) == ctx.n_ctx:
                seq.shift(n_keep, (len(seq) - n_keep) // 2)
            seq.append(out[-1:])
    return out


@pytest.mark.parametrize("n_keep", [0, 3])
def test_text_goes_on_beyond_n_ctx(model: kollama.Model, n_keep: int) -> None:
    with model.context(n_ctx=32, n_threads=1) as ctx:
        expected = by_hand(ctx, TOKENS, 150, n_keep + 1)  # TOKENS begin with bos
    with kollama.LLM(model, n_ctx=32, n_parallel=2, n_threads=1, context_shift=True, n_keep=n_keep) as llm:
        done = llm.complete(TOKENS, max_tokens=150, **GREEDY)
        assert done.tokens.tolist() == expected
        assert [token.id for token in llm.generate(TOKENS, max_tokens=150, **GREEDY)] == expected
        together = llm.complete([TOKENS, TOKENS], max_tokens=150, **GREEDY)
        assert [each.tokens.tolist() for each in together] == [expected] * 2
    with kollama.LLM(model, n_ctx=32, n_threads=1) as llm:
        assert len(llm.complete(TOKENS, max_tokens=150, **GREEDY).tokens) == 32 - len(TOKENS) + 1


def test_memory_of_a_shift_is_not_taken_for_another_prompt(model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=32, n_threads=1, context_shift=True, n_keep=3) as llm:
        llm.complete(TOKENS, max_tokens=60, **GREEDY)
        slot = llm._slots._slots[0].sequence
        shifted = slot.tokens.tolist()
        assert slot.n_exact == 4
        done = llm.complete(shifted[:20], max_tokens=8, **GREEDY)
        assert done.usage.reused_tokens == 4
    with kollama.LLM(model, n_ctx=32, n_threads=1) as fresh:
        assert fresh.complete(shifted[:20], max_tokens=8, **GREEDY).tokens.tolist() == done.tokens.tolist()


def test_send_beside_a_shift(model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=32, n_threads=1, context_shift=True, n_keep=3) as llm:
        expected = llm.complete(TOKENS, max_tokens=80, seed=3, temperature=2).tokens.tolist()
        with llm.generate(TOKENS, max_tokens=80, seed=3, temperature=2) as gen:
            next(gen)
            try:
                while True:
                    gen.send(gen.tokens[-1].id)
            except StopIteration:
                pass
            assert gen.result.tokens.tolist() == expected
        for n in range(15, 30):  # a shift comes with the 21st; what is before it may have run ahead
            with llm.generate(TOKENS, max_tokens=40, **GREEDY) as gen:
                for _ in range(n):
                    next(gen)
                gen.send(50)
                ids = [token.id for token in gen]
                assert gen.result.tokens.tolist()[n - 1] == 50
                assert len(ids) == 40 - n - 1


def test_a_sampler_sees_the_whole_stream(model: kollama.Model) -> None:
    seen: list[int] = []
    with kollama.LLM(model, n_ctx=32, n_threads=1, context_shift=True) as llm:
        sampler = kollama.Sampler.chain([lambda ids, _: seen.append(len(ids))])
        llm.complete(TOKENS, max_tokens=50, sampler=sampler, ignore_eos=True)
        assert seen == [len(TOKENS) + i for i in range(50)]
        text = llm.complete(TOKENS, max_tokens=70, grammar='root ::= "a" [bc]{99}', seed=1).text
    assert text[0] == "a"
    assert set(text[1:]) <= set("bc")
    assert len(text) == 70


def test_a_prompt_that_is_too_long(model: kollama.Model) -> None:
    long = [1, *range(10, 109)]
    with kollama.LLM(model, n_ctx=32, n_threads=1, context_shift=True, n_keep=3) as llm:
        done = llm.complete(long, max_tokens=1, **GREEDY)
        assert done.usage.prompt_tokens < 32
        kept = llm._slots._slots[0].sequence.tokens.tolist()[: done.usage.prompt_tokens]
        assert kept == long[:4] + long[4 - done.usage.prompt_tokens :]
        longer = llm.complete([*long, 200], max_tokens=1, **GREEDY)
        assert longer.usage.reused_tokens == done.usage.prompt_tokens  # dropped by halves, not one by one
        for n in range(1, 100):
            n_prompt = llm.complete(long[:n], max_tokens=1, **GREEDY).usage.prompt_tokens
            assert n_prompt == n if n < 32 else 18 <= n_prompt < 32


@pytest.mark.parametrize(("options", "error"), [
    ({"context_shift": 1}, TypeError), ({"context_shift": True, "n_keep": 29}, ValueError), ({"n_keep": -1}, ValueError),
    ({"context_shift": True, "n_ctx": 3}, ValueError)])
def test_wrong_options(model: kollama.Model, options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error, match="context_shift|n_keep"):
        kollama.LLM(model, **({"n_ctx": 32, "n_threads": 1} | options))
