"""Every sampler against llama.cpp's own; chains, callables, and what follows a stream."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from llama_samplers import LlamaSamplers

import kollama
from kollama.samplers import (
    AdaptiveP,
    Draw,
    Dry,
    Grammar,
    Infill,
    LogitBias,
    MinP,
    Mirostat,
    Penalties,
    Temperature,
    TopK,
    TopP,
)

PROMPT = [1, 300, 270, 5, 300, 270, 9, 300]
NINF = -float("inf")


@pytest.fixture
def seq(context: Callable[..., kollama.Context]) -> Iterator[kollama.Sequence]:
    with context(n_seq_max=3).sequence() as sequence:
        sequence.append(PROMPT)
        yield sequence


@pytest.fixture(scope="module")
def llama_cpp(tiny_path: Path) -> Iterator[LlamaSamplers]:
    library = LlamaSamplers(tiny_path)
    yield library
    library.close()


def left_by(links: list[Any], seq: kollama.Sequence) -> np.ndarray:
    """The row that the links leave."""
    seen: list[np.ndarray] = []
    kollama.Sampler.chain([*links, lambda _, logits: seen.append(logits.copy())], seed=1).sample(seq)
    return seen[-1]


def keyword_links(**options: Any) -> list[Any]:
    """The links of the keywords, without the last, which takes the token."""
    links = kollama.Sampler(**options).links
    assert getattr(links[-1], "chooses", False)
    return list(links[:-1])


CASES: dict[str, tuple[dict[str, Any], Callable[[LlamaSamplers], list[int]]]] = {
    "defaults": ({}, lambda c: [c.make("top_k", 40), c.make("top_p", 0.95, 0), c.make("min_p", 0.05, 0),
                                c.make("temp_ext", 0.8, 0, 1)]),
    "penalties": (
        {"repeat_penalty": 1.3, "presence_penalty": 0.5, "frequency_penalty": 0.25, "top_k": 0, "top_p": 1, "min_p": 0},
        lambda c: [c.make("penalties", 311, 64, 1.3, 0.25, 0.5), c.make("temp_ext", 0.8, 0, 1)]),
    "penalties over few": (
        {"repeat_penalty": 2.0, "penalty_last_n": 3, "top_k": 0, "top_p": 1, "min_p": 0},
        lambda c: [c.make("penalties", 311, 3, 2.0, 0, 0), c.make("temp_ext", 0.8, 0, 1)]),
    "dry": (
        {"dry_multiplier": 0.8, "top_k": 0, "top_p": 1, "min_p": 0},
        lambda c: [c.dry(0.8, 1.75, 2, 64, ["\n", ":", '"', "*"]), c.make("temp_ext", 0.8, 0, 1)]),
    "dry with breakers": (
        {"dry_multiplier": 2.0, "dry_base": 1.5, "dry_allowed_length": 1, "dry_penalty_last_n": 7,
         "dry_sequence_breakers": ["한국", "가"], "top_k": 0, "top_p": 1, "min_p": 0},
        lambda c: [c.dry(2.0, 1.5, 1, 7, ["한국", "가"]), c.make("temp_ext", 0.8, 0, 1)]),
    "top_n_sigma": (
        {"top_n_sigma": 1.0, "top_k": 0, "top_p": 1, "min_p": 0, "temperature": 1.0},
        lambda c: [c.make("top_n_sigma", 1.0)]),
    "typical_p": (
        {"typical_p": 0.6, "top_k": 0, "top_p": 1, "min_p": 0, "temperature": 1.0},
        lambda c: [c.make("typical", 0.6, 0)]),
    "min_keep": (
        {"top_p": 0.01, "min_p": 0.99, "typical_p": 0.02, "min_keep": 5, "temperature": 1.0},
        lambda c: [c.make("top_k", 40), c.make("typical", 0.02, 5), c.make("top_p", 0.01, 5), c.make("min_p", 0.99, 5)]),
    "xtc": (
        {"xtc_probability": 1.0, "xtc_threshold": 0.05, "top_k": 20, "top_p": 1, "min_p": 0, "temperature": 1.0},
        lambda c: [c.make("top_k", 20), c.make("xtc", 1.0, 0.05, 0, 7)]),
    "dynatemp": (
        {"temperature": 1.0, "dynatemp_range": 0.75, "dynatemp_exponent": 1.5, "top_k": 30, "top_p": 1, "min_p": 0},
        lambda c: [c.make("top_k", 30), c.make("temp_ext", 1.0, 0.75, 1.5)]),
    # Without typical_p: behind top_n_sigma llama.cpp's takes the logarithm of 0, and keeps all. Here
    # what is removed is gone.
    "everything else": (
        {"repeat_penalty": 1.2, "dry_multiplier": 0.5, "top_n_sigma": 2.0, "top_k": 100, "top_p": 0.9,
         "min_p": 0.01, "xtc_probability": 1.0, "xtc_threshold": 0.05, "temperature": 1.3, "dynatemp_range": 0.3},
        lambda c: [
            c.make("penalties", 311, 64, 1.2, 0, 0), c.dry(0.5, 1.75, 2, 64, ["\n", ":", '"', "*"]),
            c.make("top_n_sigma", 2.0), c.make("top_k", 100), c.make("top_p", 0.9, 0),
            c.make("min_p", 0.01, 0), c.make("xtc", 1.0, 0.05, 0, 7), c.make("temp_ext", 1.3, 0.3, 1)]),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("spread", [0.3, 2.0, 30.0])
def test_leaves_what_llama_cpp_leaves(seq: kollama.Sequence, llama_cpp: LlamaSamplers, name: str, spread: float) -> None:
    seq.logits[:] = np.random.default_rng(5).normal(0, spread, len(seq.logits))
    options, make = CASES[name]
    expected = llama_cpp.run(make(llama_cpp), seq.logits, PROMPT)
    got = left_by(keyword_links(**options), seq)
    if spread > 9 and name == "typical_p":
        return  # llama.cpp's takes the logarithm of 0, and keeps too much: see below
    if spread > 9:  # candidates of no probability are dropped early here, late or never there
        expected[expected < expected.max() - 79] = got[got < got.max() - 79] = NINF
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-4)
    assert np.isfinite(got).any()


@pytest.mark.parametrize("links", [
    [TopK(1)], [TopK(40)], [TopK(400)], [Penalties(repeat_penalty=1.3)],
    [Dry(dry_multiplier=2.0, dry_allowed_length=1), TopK(300)],
    [LogitBias({9: -5.0, 5: 1.0, "한국": 3.0, 200: -np.inf}), TopK(10)],
    [Penalties(presence_penalty=2.0, penalty_last_n=3), TopK(8)],
    [Penalties(repeat_penalty=1.3, frequency_penalty=0.5), lambda tokens, logits: None, TopK(300)],
], ids=repr)
def test_a_row_and_candidates_are_treated_alike(seq: kollama.Sequence, links: list[Any]) -> None:
    seq.logits[:] = np.random.default_rng(11).normal(0, 2, len(seq.logits))

    def spoil(tokens: np.ndarray, logits: np.ndarray) -> None:
        logits[[300, 5, 17, 18]] = NINF  # two of them of the prompt
        logits[[9, 20]] = np.inf, -1e30

    makes_candidates = Temperature(1.0)
    np.testing.assert_array_equal(left_by([spoil, *links], seq), left_by([spoil, makes_candidates, *links], seq))


@pytest.mark.parametrize("spread", [0.3, 2.0, 30.0, 300.0])
def test_typical_p(seq: kollama.Sequence, spread: float) -> None:
    seq.logits[:] = np.random.default_rng(6).normal(0, spread, len(seq.logits))
    p = softmax(seq.logits)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = np.abs(-np.log(p) - np.nansum(-p * np.log(p)))
    order = np.argsort(surprise)
    kept = order[: np.searchsorted(np.cumsum(p[order]), 0.7) + 1]
    assert set(np.flatnonzero(np.isfinite(left_by(keyword_links(typical_p=0.7, top_k=0, top_p=1, min_p=0), seq)))) == set(kept)


def test_infill_leaves_what_llama_cpp_leaves(seq: kollama.Sequence, llama_cpp: LlamaSamplers) -> None:
    for eos in (-9, 1.0, 9.0):
        seq.logits[:] = np.random.default_rng(5).normal(0, 2, len(seq.logits))
        seq.logits[2] = eos
        expected = llama_cpp.run([llama_cpp.make("top_k", 30), llama_cpp.infill()], seq.logits)
        np.testing.assert_array_equal(left_by([TopK(30), Infill()], seq), expected)


def test_infill_by_keyword(seq: kollama.Sequence, llama_cpp: LlamaSamplers) -> None:
    seq.logits[:] = np.random.default_rng(5).normal(0, 2, len(seq.logits))
    expected = llama_cpp.run([llama_cpp.make("top_k", 30), llama_cpp.infill(), llama_cpp.make("temp_ext", 0.5, 0, 1)], seq.logits)
    got = left_by(keyword_links(infill=True, top_k=30, top_p=1, min_p=0, temperature=0.5), seq)
    np.testing.assert_allclose(got, expected, rtol=1e-6)
    with pytest.raises(TypeError, match="infill"):
        kollama.Sampler(infill=1)  # type: ignore[arg-type]


def frequencies(seq: kollama.Sequence, n: int = 4000, **options: Any) -> np.ndarray:
    """Of the first tokens of as many seeds."""
    drawn = [kollama.Sampler(seed=seed, **options).sample(seq) for seed in range(n)]
    return np.bincount(drawn, minlength=len(seq.logits)) / n


def softmax(logits: np.ndarray) -> np.ndarray:
    p = np.exp(logits.astype(np.float64) - logits.max())
    return p / p.sum()


def assert_close(got: np.ndarray, expected: np.ndarray, n: int = 4000) -> None:
    assert set(np.flatnonzero(got)) <= set(np.flatnonzero(expected))
    support = (expected > 0).sum()
    assert np.abs(got - expected).sum() / 2 < 2 * np.sqrt(support / (2 * np.pi * n)) + 0.01


def test_mirostat(seq: kollama.Sequence) -> None:
    seq.logits[:] = np.random.default_rng(2).normal(0, 3, len(seq.logits))
    p = softmax(seq.logits / 0.8)
    # 2: what is more surprising than mu = 2 tau bits is cut off.
    kept = np.where(-np.log2(p) <= 2 * 2.0, p, 0)
    assert_close(frequencies(seq, mirostat=2, mirostat_tau=2.0), kept / kept.sum())
    # 1: the k of the paper's estimate from the 100 likeliest tokens.
    top = np.sort(p)[::-1][:100]
    ratios = np.log(np.arange(2, 101) / np.arange(1, 100))
    s = (ratios * np.log(top[:-1] / top[1:])).sum() / (ratios**2).sum()
    k = int(((s - 1) * 2 ** (2 * 1.5) / (1 - len(p) ** -(s - 1))) ** (1 / s))
    assert 1 < k < len(p)
    kept = np.where(p >= np.sort(p)[-k], p, 0)
    assert_close(frequencies(seq, mirostat=1, mirostat_tau=1.5), kept / kept.sum())


def test_adaptive_p(seq: kollama.Sequence) -> None:
    seq.logits[:] = np.random.default_rng(2).normal(0, 3, len(seq.logits))
    order = np.argsort(-seq.logits)[:40]
    p = np.zeros(len(seq.logits))
    p[order] = softmax(seq.logits[order] / 0.8)
    distance = np.abs((p - 0.2) / 0.3)
    shaped = np.zeros(len(p))
    shaped[order] = softmax((5 - 10 * distance**2 / (1 + distance))[order])
    assert_close(frequencies(seq, adaptive_target=0.2, top_p=1, min_p=0), shaped)


def test_logit_bias(seq: kollama.Sequence) -> None:
    row = seq.logits.copy()
    tok = seq.context.model.tokenizer
    ids = tok.encode("오늘 날씨")
    left = left_by([LogitBias({7: 2.5, np.int64(8): NINF, "오늘 날씨": -1.5})], seq)
    expected = row.copy()
    expected[7] += 2.5
    expected[8] = NINF
    for token in ids:
        expected[token] -= 1.5
    np.testing.assert_array_equal(left, expected)
    assert kollama.Sampler(temperature=0, logit_bias={11: 1e6}).sample(seq) == 11
    for bias in ({311: 1.0}, {2**31 - 1: NINF}):
        sampler = kollama.Sampler(logit_bias=bias)
        for _ in range(2):  # again: a failed binding is none
            with pytest.raises(kollama.TokenError, match="outside the vocabulary"):
                sampler.sample(seq)
    with pytest.raises(kollama.TokenError, match="has no tokens"):
        kollama.Sampler(logit_bias={"": 1}).sample(seq)
    with pytest.raises(kollama.ArgumentError, match="all logits are -inf"):
        kollama.Sampler(logit_bias=dict.fromkeys(range(311), NINF)).sample(seq)


ALL_KEYWORDS: list[dict[str, Any]] = [
    {"repeat_penalty": 1.3, "presence_penalty": 0.1},
    {"dry_multiplier": 1.0},
    {"typical_p": 0.7},
    {"top_n_sigma": 1.0},
    {"xtc_probability": 0.5},
    {"dynatemp_range": 0.5},
    {"mirostat": 1},
    {"mirostat": 2, "mirostat_tau": 3.0},
    {"adaptive_target": 0.4},
    {"logit_bias": {"가": 3.0}},
    {"grammar": "root ::= [가-힣a-z ]+", "top_k": 0},
]


def names(options: dict[str, Any]) -> str:
    return ",".join(options)


@pytest.mark.parametrize("options", ALL_KEYWORDS, ids=names)
def test_the_loop_and_sample_agree_and_a_clone_goes_on(llm: kollama.LLM, seq: kollama.Sequence, options: dict[str, Any]) -> None:
    done = llm.complete(PROMPT, max_tokens=30, seed=5, ignore_eos=True, **options)
    again = llm.complete(PROMPT, max_tokens=30, seed=5, ignore_eos=True, **options)
    assert done.tokens.tolist() == again.tokens.tolist()
    sampler = kollama.Sampler(seed=5, **options)
    clones: list[tuple[kollama.Sampler, kollama.Sequence]] = []
    for i, token in enumerate(done.tokens):
        seq.logits[2] = NINF  # as ignore_eos does
        if i == 10:
            clones.append((sampler.clone(), seq.fork()))
        assert sampler.sample(seq) == token
        seq.append([token])
    sampler, forked = clones[0]
    for token in done.tokens[10:]:
        forked.logits[2] = NINF
        assert sampler.sample(forked) == token
        forked.append([token])
    forked.close()


def test_a_clone_of_a_new_sampler(seq: kollama.Sequence) -> None:
    for options in [*ALL_KEYWORDS, {}]:
        sampler = kollama.Sampler(seed=5, **options)
        assert sampler.clone().sample(seq) == sampler.clone().clone().sample(seq) == sampler.sample(seq)
    off = kollama.Sampler.chain([AdaptiveP(-1)], seed=5)
    off.sample(seq)
    assert off.clone().sample(seq) == off.sample(seq)


def test_a_chain_equals_the_keywords(llm: kollama.LLM) -> None:
    links = [TopK(40), TopP(0.95), MinP(0.05), Temperature(0.8), Draw()]
    plain = llm.complete(PROMPT, max_tokens=200, seed=3)
    chain = llm.complete(PROMPT, max_tokens=200, sampler=kollama.Sampler.chain(links, seed=3))
    assert (chain.text, chain.tokens.tolist(), chain.seed) == (plain.text, plain.tokens.tolist(), 3)
    np.testing.assert_allclose(chain.logprobs, plain.logprobs, atol=2e-3)  # batches differ
    # In Python's hands, with the same text, stops and reasons.
    links.insert(1, lambda tokens, logits: None)
    stop = plain.text[20:22]
    for limit, options in ((200, {}), (5, {}), (200, {"stop": stop}), (200, {"ignore_eos": True, "logprobs": 2})):
        a = llm.complete(PROMPT, max_tokens=limit, seed=3, **options)
        b = llm.complete(PROMPT, max_tokens=limit, sampler=kollama.Sampler.chain(links, seed=3), **options)
        assert (a.text, a.tokens.tolist(), a.finish_reason, a.incomplete) == (b.text, b.tokens.tolist(), b.finish_reason, b.incomplete)
        assert (a.top_logprobs is None) == (b.top_logprobs is None) == ("logprobs" not in options)
        assert a.usage.completion_tokens == b.usage.completion_tokens


def test_a_chain_without_a_choice_takes_the_likeliest(seq: kollama.Sequence) -> None:
    assert kollama.Sampler.chain([]).sample(seq) == seq.logits.argmax()
    assert kollama.Sampler.chain([TopK(5), Temperature(0.1)]).sample(seq) == seq.logits.argmax()


def test_a_callable_sees_the_stream_and_writes_into_the_row(seq: kollama.Sequence) -> None:
    row = seq.logits.copy()
    seen: list[list[int]] = []
    kept: list[np.ndarray] = []

    def only_odd(tokens: np.ndarray, logits: np.ndarray) -> None:
        assert tokens.dtype == np.int32
        assert logits.dtype == np.float32
        assert logits.shape == (seq.context.model.n_vocab,)
        seen.append(tokens.tolist())
        kept.append(logits)
        assert np.isfinite(logits).sum() == 20
        logits[::2] = NINF

    sampler = kollama.Sampler.chain([TopK(20), only_odd], seed=1)
    for _ in range(3):
        token = sampler.sample(seq)
        order = np.argsort(-seq.logits)[:20]
        assert token == next(other for other in order if other % 2)
        seq.append([token])
    assert seen == [seq.tokens[: len(PROMPT) + i].tolist() for i in range(3)]
    np.testing.assert_array_equal(seq.context.model.n_vocab, len(row))
    del sampler
    gc.collect()
    assert kept[0][kept[0] > NINF].size <= 20  # still memory of its own
    assert np.shares_memory(kept[0], kept[2])


def test_the_row_of_a_callable_may_be_written_into_at_any_time(smollm2: kollama.Model) -> None:
    """Of a vocabulary large enough for another thread to meet the sampler in it."""
    held: list[np.ndarray] = []

    def keep(tokens: np.ndarray, logits: np.ndarray) -> None:
        held[:] = [logits]

    with smollm2.context(n_ctx=32, n_threads=1) as context, context.sequence() as seq:
        seq.append(smollm2.tokenizer.encode("서울"))
        sampler = kollama.Sampler.chain([keep, TopK(5), Draw()], seed=1)
        sampler.sample(seq)
        row, done = held[0], threading.Event()
        values = np.random.default_rng(2).normal(0, 5, (4, len(row))).astype(np.float32)

        def scribble() -> None:
            while not done.is_set():
                for value in values:
                    row[:] = value

        writer = threading.Thread(target=scribble)
        writer.start()
        try:
            tokens = [sampler.sample(seq) for _ in range(2000)]
        finally:
            done.set()
            writer.join()
        assert all(0 <= token < len(row) for token in tokens)


def test_a_callable_that_holds_its_sampler_is_collected(seq: kollama.Sequence) -> None:
    held: list[object] = []

    def link(_: np.ndarray, logits: np.ndarray) -> None:
        held.append(logits)

    held.append(kollama.Sampler.chain([link]))
    held[0].sample(seq)  # type: ignore[attr-defined]
    # The cycle goes with the test; a handle that stays fails it.


class TroubleError(Exception):
    pass


def test_what_a_callable_raises_reaches_the_caller(llm: kollama.LLM, seq: kollama.Sequence) -> None:
    def fails(tokens: np.ndarray, _: np.ndarray) -> None:
        if len(tokens) > 10:
            raise TroubleError("after ten")

    sampler = kollama.Sampler.chain([fails])
    assert sampler.sample(seq) == seq.logits.argmax()
    seq.append([5, 6, 7])
    with pytest.raises(TroubleError, match="after ten"):
        sampler.sample(seq)
    stream = llm.generate(PROMPT, sampler=kollama.Sampler.chain([fails]), ignore_eos=True)
    other = llm.generate([5, 6], temperature=0, ignore_eos=True, max_tokens=20)
    got = []
    for _ in range(3):
        got.append(next(stream).id)
        next(other)
    with pytest.raises(TroubleError):
        next(stream)
    assert len(got) == 3
    assert stream.result.finish_reason == "cancelled"
    assert len([*other]) == 17
    assert len(llm.complete(PROMPT, max_tokens=2, ignore_eos=True).tokens) == 2


@pytest.mark.parametrize(
    ("link", "error", "message"),
    [
        (lambda _, logits: logits.fill(np.nan), kollama.ArgumentError, "<lambda>.* NaN"),
        (lambda _, logits: logits.fill(NINF), kollama.ArgumentError, "<lambda>.*no token is left"),
        (lambda _, logits: logits + 1, TypeError, "<lambda> must change logits in place"),
        (lambda _: None, TypeError, "positional argument"),
    ],
)
def test_a_callable_that_spoils_the_row(llm: kollama.LLM, seq: kollama.Sequence, link: Any, error: type[Exception], message: str) -> None:
    sampler = kollama.Sampler.chain([TopK(9), link, Draw()])
    with pytest.raises(error, match=message):
        sampler.sample(seq)
    with pytest.raises(error, match=message):
        llm.complete("a", sampler=sampler)


def test_infinite_and_huge_logits_are_survived(seq: kollama.Sequence) -> None:
    for value in (np.inf, 3e38, 1e30):
        for options in ALL_KEYWORDS[:-1]:
            seq.logits[:] = np.random.default_rng(1).normal(0, 1, 311)
            seq.logits[9] = value
            seq.logits[10] = -3e38
            seq.logits[11] = NINF
            # XTC takes the likeliest away, and adaptive-p looks for less likely ones.
            token = kollama.Sampler(seed=1, **options).sample(seq)
            assert token == 9 or options.keys() & {"xtc_probability", "adaptive_target"}
    seq.logits[:] = 0
    seq.logits[:100] = 1e30

    def overflow(_: np.ndarray, logits: np.ndarray) -> None:
        logits[5] = np.inf
        logits[6] = np.inf

    assert kollama.Sampler.chain([overflow, Temperature(1e-30), Draw()], seed=1).sample(seq) < 100


def test_history_follows_the_sequence(seq: kollama.Sequence) -> None:
    rows: list[np.ndarray] = []

    def record(_: np.ndarray, logits: np.ndarray) -> None:
        rows.append(logits.copy())

    links = [Penalties(1.5, 5), Dry(1.0), record]
    sampler = kollama.Sampler.chain(links)

    def same_as_a_new_one() -> int:
        token = sampler.sample(seq)
        kollama.Sampler.chain(links).sample(seq)
        np.testing.assert_array_equal(rows[-2], rows[-1])
        return token

    seq.append([same_as_a_new_one()])
    seq.append([same_as_a_new_one(), 33, 34])  # more than was chosen
    same_as_a_new_one()
    seq.append([77])  # another one than was chosen
    same_as_a_new_one()
    same_as_a_new_one()  # and nothing appended
    seq.rewind(4)
    seq.append([12])
    same_as_a_new_one()
    seq.clear()
    seq.append([1, 9, 9])
    same_as_a_new_one()
    with seq.context.sequence() as other:
        other.append([1, 40, 40, 40])
        seq, keep = other, seq
        same_as_a_new_one()
        seq = keep


def test_one_sampler_for_two_models(seq: kollama.Sequence, tmp_path: Path) -> None:
    import tiny

    sampler = kollama.Sampler(logit_bias={310: 50.0}, repeat_penalty=1.1, grammar='root ::= "가" | [^가]+', dry_multiplier=0.1,
                              mirostat=2, seed=1)
    sampler.sample(seq)
    path = tiny.write_llama(tmp_path / "other.gguf", seed=4)
    for _ in range(2):
        with kollama.Model(path) as model, model.context(n_ctx=32, n_threads=1) as ctx:
            other = ctx.sequence()
            other.append([1, 5])
            sampler.sample(other)
    sampler.clone()  # bound to a model that is closed
    sampler.sample(seq)


def test_top_logprobs(llm: kollama.LLM, seq: kollama.Sequence) -> None:
    for k in (1, 5, 64, 65, 311, 5000):
        stream = llm.generate(PROMPT, max_tokens=3, logprobs=k, seed=2, ignore_eos=True)
        seq.rewind(len(PROMPT) - 1)
        seq.append(PROMPT[-1:])
        for token in stream:
            logits = seq.logits.astype(np.float64)
            expected = logits - np.log(np.exp(logits - logits.max()).sum()) - logits.max()
            assert token.top_logprobs is not None
            ids, values = zip(*token.top_logprobs, strict=True)
            assert list(ids) == np.argsort(-expected, kind="stable")[:k].tolist()
            np.testing.assert_allclose(values, expected[list(ids)], atol=2e-4)
            assert token.logprob == pytest.approx(expected[token.id], abs=2e-4)
            seq.append([token.id])
    assert all(token.top_logprobs is None for token in llm.generate("a", max_tokens=2))
    done = llm.complete("a", max_tokens=4, logprobs=2, ignore_eos=True)
    assert done.logprobs is not None and done.logprobs.shape == (4,) and done.logprobs.dtype == np.float32
    assert [len(top) for top in done.top_logprobs or []] == [2] * 4
    for wrong in (-1, 1.5, True):
        with pytest.raises((ValueError, TypeError), match="logprobs"):
            llm.generate("a", logprobs=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"repeat_penalty": 0}, ValueError),
        ({"repeat_penalty": float("inf")}, ValueError),
        ({"penalty_last_n": -2}, ValueError),
        ({"penalty_last_n": 2**31 - 1}, ValueError),
        ({"penalty_last_n": 1.0}, TypeError),
        ({"presence_penalty": 1e300}, ValueError),
        ({"frequency_penalty": "x"}, TypeError),
        ({"typical_p": 1.5}, ValueError),
        ({"top_n_sigma": float("nan")}, ValueError),
        ({"xtc_probability": -0.1}, ValueError),
        ({"xtc_threshold": 2}, ValueError),
        ({"dynatemp_range": -1}, ValueError),
        ({"dynatemp_exponent": -1}, ValueError),
        ({"dry_multiplier": -1}, ValueError),
        ({"dry_base": 0.5}, ValueError),
        ({"dry_allowed_length": -1}, ValueError),
        ({"dry_penalty_last_n": 2**30}, ValueError),
        ({"dry_sequence_breakers": "\n"}, TypeError),
        ({"dry_sequence_breakers": 5}, TypeError),
        ({"dry_sequence_breakers": ["a", 5]}, TypeError),
        ({"dry_sequence_breakers": [""]}, ValueError),
        ({"dry_sequence_breakers": ["\0"]}, ValueError),
        ({"dry_sequence_breakers": ["가" * 14]}, ValueError),
        ({"dry_sequence_breakers": ["\ud800"]}, ValueError),
        ({"dry_sequence_breakers": ["a"] * 65}, ValueError),
        ({"mirostat": 3}, ValueError),
        ({"mirostat": True}, ValueError),
        ({"mirostat_tau": -1}, ValueError),
        ({"mirostat_eta": float("nan")}, ValueError),
        ({"adaptive_target": 1.1}, ValueError),
        ({"adaptive_decay": 1.0}, ValueError),
        ({"min_keep": -1}, ValueError),
        ({"logit_bias": [(1, 2)]}, TypeError),
        ({"logit_bias": {-1: 2.0}}, ValueError),
        ({"logit_bias": {1.5: 2.0}}, TypeError),
        ({"logit_bias": {1: float("inf")}}, ValueError),
        ({"logit_bias": {1: float("nan")}}, ValueError),
        ({"logit_bias": {1: "much"}}, TypeError),
        ({"logit_bias": {"\udc80": 1.0}}, ValueError),
        ({"grammar": b"root ::= 5"}, TypeError),
        ({"grammar": 'root ::= "\ud800"'}, ValueError),
        ({"grammar_root": None}, TypeError),
        ({"repeat_pen": 1}, TypeError),
    ],
    ids=str,
)
def test_wrong_keywords(llm: kollama.LLM, options: dict[str, Any], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options)).split("_root")[0]):
        kollama.Sampler(**options)
    with pytest.raises(error):
        llm.generate("a", **options)


@pytest.mark.parametrize(
    ("links", "error", "message"),
    [
        (5, TypeError, "list of links"),
        ([TopK], TypeError, "TopK is a class"),
        (["top_k"], TypeError, "not str"),
        ([kollama.Sampler()], TypeError, "not Sampler"),
        ([Draw(), TopK(4)], ValueError, "Draw takes the token"),
        ([Mirostat(), Draw()], ValueError, "Mirostat takes the token"),
        ([AdaptiveP(0.5), Draw()], ValueError, "AdaptiveP takes the token"),
        ([Grammar("root ::= ")], None, ""),
        ([Grammar("rot ::= ")], ValueError, "no rule 'root'"),
    ],
    ids=str,
)
def test_wrong_chains(links: Any, error: type[Exception] | None, message: str) -> None:
    if error is None:
        kollama.Sampler.chain(links)
        return
    with pytest.raises(error, match=message):
        kollama.Sampler.chain(links)


def test_repr_and_links() -> None:
    sampler = kollama.Sampler(repeat_penalty=1.1, seed=4)
    assert repr(sampler) == "kollama.Sampler(temperature=0.8, top_k=40, top_p=0.95, min_p=0.05, repeat_penalty=1.1, seed=4)"
    assert sampler.links[0] == Penalties(1.1)
    assert kollama.Sampler(temperature=0).links[-1] == Temperature(0)
    assert kollama.Sampler(mirostat=1).links == (Temperature(0.8), Mirostat(1))
    assert repr(kollama.Sampler.chain([TopK(3), print], seed=2)) == "kollama.Sampler.chain([TopK(top_k=3), print], seed=2)"
