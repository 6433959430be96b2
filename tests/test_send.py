"""gen.send: a token in the place of the one that was sampled, as if it had been sampled itself."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

import kollama

PROMPT = [1, 300, 270, 5, 9]
GREEDY = {"temperature": 0, "ignore_eos": True}


def logprob(context: Callable[..., kollama.Context], ids: list[int], token: int) -> float:
    with context().sequence() as seq:
        seq.append(ids)
        row = seq.logits.astype(np.float64)
    return float(row[token] - row.max() - np.log(np.exp(row - row.max()).sum()))


def continued(llm: kollama.LLM, ids: list[int], n: int, **options: Any) -> list[int]:
    return llm.complete(ids, max_tokens=n, **(GREEDY | options)).tokens.tolist()


@pytest.mark.parametrize("place", [1, 2, 7, 20])
def test_the_rest_is_that_of_a_prompt_with_the_token(llm: kollama.LLM, place: int) -> None:
    with llm.generate(PROMPT, max_tokens=40, **GREEDY) as gen:
        before = [next(gen).id for _ in range(place)]
        other = (before[-1] + 17) % 250 + 3
        after = [gen.send(other).id, *(token.id for token in gen)]
        result = gen.result
    head = [*before[:-1], other]
    assert len(after) == 40 - place
    assert after == continued(llm, PROMPT + head, len(after))
    assert result.tokens.tolist() == head + after
    assert (result.finish_reason, result.usage.completion_tokens) == ("length", 40)
    assert result.text.encode() == b"".join(t.text.encode() for t in gen.tokens)


def test_every_token_is_replaced(llm: kollama.LLM) -> None:
    sent = [40 + 3 * i for i in range(30)]
    with llm.generate(PROMPT, max_tokens=31, logprobs=3, **GREEDY) as gen:
        token = next(gen)
        for i, other in enumerate(sent):
            # Another batch rounds otherwise, and two tokens can be as likely as each other.
            best = llm.complete(PROMPT + sent[:i], max_tokens=1, logprobs=3, **GREEDY).top_logprobs
            assert best is not None
            near = {other_id: logprob for other_id, logprob in best[0] if logprob > best[0][0][1] - 0.01}
            assert token.logprob == pytest.approx(near[token.id], abs=0.01)
            token = gen.send(other)
        result = gen.result
    assert result.tokens.tolist() == [*sent, token.id]
    assert [len(top) for top in result.top_logprobs or []] == [3] * 31
    decoder = llm.tokenizer.decoder(skip_special=True)
    decoder.push(PROMPT[-1])
    assert result.text == "".join(decoder.push(i) for i in [*sent, token.id])


def test_logprobs_are_of_the_token_that_was_sent(llm: kollama.LLM, context: Callable[..., kollama.Context]) -> None:
    with llm.generate(PROMPT, max_tokens=9, logprobs=2, **GREEDY) as gen:
        first = next(gen)
        gen.send(77)     # what ran ahead is undone
        gen.send(78)     # nothing ran ahead
        result = gen.result
    assert result.logprobs is not None
    assert result.logprobs[0] == pytest.approx(logprob(context, PROMPT, 77), abs=0.02)
    assert result.logprobs[1] == pytest.approx(logprob(context, [*PROMPT, 77], 78), abs=0.02)
    assert result.top_logprobs is not None
    assert result.top_logprobs[0] == [(i, pytest.approx(p, abs=0.02)) for i, p in first.top_logprobs or []]


def send_what_was_sampled(gen: kollama.Generation) -> None:
    token = next(gen)
    try:
        while True:
            token = gen.send(token.id)
    except StopIteration:
        pass


OPTIONS: dict[str, dict[str, Any]] = {
    "draw": {"temperature": 1.5, "top_k": 0, "top_p": 1, "min_p": 0},
    "penalties": {"temperature": 1.5, "repeat_penalty": 1.4, "frequency_penalty": 0.3, "dry_multiplier": 0.5},
    "xtc": {"temperature": 1.5, "xtc_probability": 0.5, "xtc_threshold": 0.01},
    "mirostat 1": {"mirostat": 1, "temperature": 1.2},
    "mirostat 2": {"mirostat": 2, "temperature": 1.2},
    "adaptive": {"adaptive_target": 0.3, "temperature": 1.2},
}


def slowly(gen: kollama.Generation, n: int) -> list[int]:
    """The engine runs as far ahead as it may."""
    out = []
    for _ in range(n):
        out.append(next(gen).id)
        threading.Event().wait(0.004)
    return out


@pytest.mark.parametrize("name", OPTIONS)
def test_the_same_seed_and_the_same_tokens_sent_give_the_same_again(llm: kollama.LLM, name: str) -> None:
    texts = set()
    for pace in (slowly, lambda gen, n: [next(gen).id for _ in range(n)]):
        with llm.generate(PROMPT, max_tokens=40, seed=4, ignore_eos=True, **OPTIONS[name]) as gen:
            ids = pace(gen, 6)
            ids[-1:] = [90, gen.send(90).id]
            ids += pace(gen, 5)
            ids[-1:] = [91, gen.send(91).id]
            ids += [token.id for token in gen]
        assert gen.result.tokens.tolist() == ids
        texts.add(tuple(ids))
    assert len(texts) == 1


@pytest.mark.parametrize("name", [*OPTIONS, "callable"])
def test_to_send_what_was_sampled_changes_nothing(llm: kollama.LLM, name: str) -> None:
    def sampler() -> kollama.Sampler:
        if name == "callable":
            return kollama.Sampler.chain([lambda ids, logits: logits.__imul__(0.5).sum and None, kollama.samplers.Draw()], seed=4)
        return kollama.Sampler(seed=4, **OPTIONS[name])

    expected = llm.complete(PROMPT, max_tokens=25, sampler=sampler(), ignore_eos=True)
    with llm.generate(PROMPT, max_tokens=25, sampler=sampler(), ignore_eos=True) as gen:
        send_what_was_sampled(gen)
        assert gen.result.text == expected.text
        assert gen.result.tokens.tolist() == expected.tokens.tolist()
    np.testing.assert_allclose(gen.result.logprobs, expected.logprobs, atol=0.02)


def test_a_last_token_is_replaced_and_the_text_goes_on(llm: kollama.LLM) -> None:
    options = {"max_tokens": 100, "temperature": 3, "top_k": 0, "top_p": 1.0, "min_p": 0}
    seed = next(s for s in range(100) if llm.complete(PROMPT, seed=s, **options).finish_reason == "eos")
    with llm.generate(PROMPT, seed=seed, **options) as gen:
        tokens = []
        while not tokens or tokens[-1].finish_reason is None:
            tokens.append(next(gen))
        assert tokens[-1].id == tiny.EOS
        following = gen.send(70)
        assert gen.tokens[-2].id == 70
        assert gen.tokens[-2].finish_reason is None
        assert following is gen.tokens[-1]
    assert tiny.EOS not in gen.result.tokens.tolist()[: len(tokens)]


def test_a_token_that_ends(llm: kollama.LLM) -> None:
    with llm.generate(PROMPT, max_tokens=50, temperature=0) as gen:
        next(gen)
        with pytest.raises(StopIteration):
            gen.send(tiny.EOS)
        assert gen.result.finish_reason == "eos"
        assert gen.result.tokens.tolist() == [tiny.EOS]
        with pytest.raises(StopIteration):
            gen.send(70)
        assert list(gen) == []
    with llm.generate(PROMPT, max_tokens=3, **GREEDY) as gen:
        for _ in range(3):
            next(gen)
        with pytest.raises(StopIteration):
            gen.send(70)
        assert gen.result.finish_reason == "length"
        assert gen.result.tokens[-1] == 70


def test_stop_strings_see_the_token_that_was_sent(llm: kollama.LLM) -> None:
    a, b = (llm.tokenizer.id(letter) for letter in "ab")
    with llm.generate(PROMPT, max_tokens=50, stop=["ab"], **GREEDY) as gen:
        next(gen)
        gen.send(a)
        assert gen.tokens[0].text == ""  # it may become the stop string
        with pytest.raises(StopIteration):
            gen.send(b)
        assert (gen.result.finish_reason, gen.result.text) == ("stop", "")
    syllable = [tiny.FIRST_BYTE + byte for byte in "각".encode()]
    with llm.generate(PROMPT, max_tokens=50, **GREEDY) as gen:
        next(gen)
        for part in syllable:
            gen.send(part)
        assert [token.text for token in gen.tokens[:3]] == ["", "", "각"]


def test_grammars(llm: kollama.LLM) -> None:
    with llm.generate(PROMPT, max_tokens=20, grammar='root ::= ("가" | "나") [a-c]+ "."', temperature=0) as gen:
        next(gen)
        second = gen.send(llm.tokenizer.id("가"))
        assert second.text in "abc"
        with pytest.raises(kollama.ArgumentError, match="grammar does not allow token"):
            gen.send(llm.tokenizer.id("가"))
        assert gen.result.finish_reason == "cancelled"
    llm.complete(PROMPT, max_tokens=2)


def test_a_recurrent_memory_reads_again(mamba_path: Path) -> None:
    with kollama.LLM(mamba_path, n_ctx=128, n_threads=1) as llm, llm.generate(PROMPT, max_tokens=20, **GREEDY) as gen:
        for _ in range(4):
            next(gen)
        gen.send(60)
        gen.send(61)
        tail = [token.id for token in gen]
        result = gen.result.tokens.tolist()
        assert result[3:5] == [60, 61]
        gen.close()
        assert tail == continued(llm, PROMPT + result[:6], len(tail))


def test_side_by_side(llm: kollama.LLM) -> None:
    expected = continued(llm, PROMPT, 40)
    with llm.generate(PROMPT, max_tokens=40, **GREEDY) as plain, llm.generate([1, 301], max_tokens=40, **GREEDY) as gen:
        next(gen)
        got = []
        for token in plain:
            got.append(token.id)
            if len(gen.tokens) < 30:
                gen.send(50 + len(got))
    assert got == expected
    assert gen.result.tokens.tolist()[:29] == [51 + i for i in range(29)]


def test_wrong_use(llm: kollama.LLM) -> None:
    gen = llm.generate(PROMPT, max_tokens=10, **GREEDY)
    with pytest.raises(TypeError, match="has not given one out yet"):
        gen.send(5)
    first = gen.send(None)
    for wrong, error in ((-1, kollama.TokenError), (10**6, kollama.TokenError), (1.5, TypeError), ("가", TypeError), (True, TypeError)):
        with pytest.raises(error):
            gen.send(wrong)  # type: ignore[arg-type]
    assert [first.id, *(token.id for token in gen)] == continued(llm, PROMPT, 10)


def test_a_sampler_that_served_another_stream_since(llm: kollama.LLM) -> None:
    sampler = kollama.Sampler(seed=1)
    with llm.generate(PROMPT, max_tokens=3, sampler=sampler, ignore_eos=True) as gen:
        for _ in range(3):
            next(gen)
        llm.complete(PROMPT, max_tokens=2, sampler=sampler)
        with pytest.raises(kollama.StateError, match="another stream since"):
            gen.send(5)


def test_a_stream_by_itself(context: Callable[..., kollama.Context]) -> None:
    from kollama._core.generation import TokenStream

    with context().sequence() as seq:
        stream = TokenStream(seq, kollama.Sampler(temperature=0), PROMPT, max_tokens=5, stop=[], ignore_eos=True)
        with pytest.raises(kollama.StateError, match="no token was generated yet"):
            stream.send(5)
        next(stream)
        with pytest.raises(kollama.TokenError):
            stream.send(-1)
        replaced, following = stream.send(70)
        assert replaced.id == 70
        assert following is not None
        assert [replaced.id, following.id, *(token.id for token in stream)][1:] == [
            token.id for token in TokenStream(seq, kollama.Sampler(temperature=0), [*PROMPT, 70], max_tokens=4, stop=[], ignore_eos=True)]
        with pytest.raises(StopIteration):
            stream.send(70)
