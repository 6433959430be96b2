"""The front: streams, stop strings, whole characters, many prompts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny

import kollama

PROMPT = "대한민국의 수도는"


def greedy_by_hand(context: Callable[..., kollama.Context], ids: list[int], n: int) -> list[int]:
    """The reference: logits, argmax, append."""
    seq = context().sequence()
    seq.append(ids)
    out: list[int] = []
    for _ in range(n):
        out.append(int(np.argmax(seq.logits)))
        if out[-1] == tiny.EOS:
            break
        seq.append(out[-1:])
    return out


def test_the_stream_is_what_a_loop_by_hand_gives(llm: kollama.LLM, context: Callable[..., kollama.Context]) -> None:
    ids = llm.tokenizer.encode(PROMPT, add_bos=True).tolist()
    expected = greedy_by_hand(context, ids, 60)
    tokens = list(llm.generate(PROMPT, max_tokens=60, temperature=0))
    assert [token.id for token in tokens] == expected
    done = llm.complete(PROMPT, max_tokens=60, temperature=0)
    assert done.tokens.tolist() == expected
    assert done.text == "".join(token.text for token in tokens)
    assert [token.finish_reason for token in tokens[:-1]] == [None] * (len(tokens) - 1)
    assert tokens[-1].finish_reason == done.finish_reason


def test_ids_as_prompt(llm: kollama.LLM) -> None:
    ids = llm.tokenizer.encode(PROMPT, add_bos=True)
    as_text = llm.complete(PROMPT, max_tokens=20, seed=5)
    for prompt in (ids, ids.tolist(), tuple(ids.tolist()), list(ids), ids.astype(np.int64)):
        assert llm.complete(prompt, max_tokens=20, seed=5).text == as_text.text


def test_every_text_is_whole_characters(llm: kollama.LLM) -> None:
    for seed in range(30):
        with llm.generate(PROMPT, max_tokens=80, temperature=3, top_k=0, min_p=0, seed=seed) as stream:
            texts = [token.text for token in stream]
            result = stream.result
        visible = [i for i in result.tokens.tolist() if not llm.tokenizer.is_eog(i)]
        raw = b"".join(llm.tokenizer.decode_bytes([3, i], skip_special=True)[1:] for i in visible)
        assert raw.endswith(result.incomplete)
        assert "".join(texts) == tiny.replace_each_byte(raw[: len(raw) - len(result.incomplete)])


def test_logprob_is_of_the_models_own_distribution(llm: kollama.LLM, context: Callable[..., kollama.Context]) -> None:
    seq = context().sequence()
    seq.append(llm.tokenizer.encode(PROMPT, add_bos=True))
    for token in llm.generate(PROMPT, max_tokens=20, temperature=2, seed=1):
        row = seq.logits.astype(np.float64)
        expected = row[token.id] - row.max() - np.log(np.exp(row - row.max()).sum())
        assert token.logprob == pytest.approx(expected, abs=0.05)
        if token.finish_reason is None:
            seq.append([token.id])


def test_usage_timings_seed(llm: kollama.LLM) -> None:
    n_prompt = len(llm.tokenizer.encode(PROMPT, add_bos=True))
    done = llm.complete(PROMPT, max_tokens=5, ignore_eos=True, seed=11)
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (n_prompt, 5)
    assert done.usage.total_tokens == n_prompt + 5
    assert done.timings.prompt_seconds > 0
    assert done.timings.generate_seconds > 0
    assert done.seed == 11
    unseeded = llm.complete(PROMPT, max_tokens=12, temperature=2)
    assert llm.complete(PROMPT, max_tokens=12, temperature=2, seed=unseeded.seed).text == unseeded.text


def test_a_prefix_in_memory_is_reused_and_changes_nothing(llm: kollama.LLM) -> None:
    first = llm.complete(PROMPT, max_tokens=10, temperature=0)
    assert first.usage.reused_tokens == 0
    again = llm.complete(PROMPT, max_tokens=10, temperature=0)
    assert again.usage.reused_tokens == again.usage.prompt_tokens - 1
    assert again.tokens.tolist() == first.tokens.tolist()
    longer = llm.complete(PROMPT + " 서울", max_tokens=10, temperature=0)
    assert 0 < longer.usage.reused_tokens < longer.usage.prompt_tokens
    with kollama.LLM(llm.model, n_ctx=256, n_threads=1) as fresh:
        assert fresh.complete(PROMPT + " 서울", max_tokens=10, temperature=0).text == longer.text


# ---- ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 7])
def test_max_tokens(llm: kollama.LLM, n: int) -> None:
    done = llm.complete(PROMPT, max_tokens=n, ignore_eos=True)
    assert len(done.tokens) == n
    assert done.finish_reason == "length"


def test_until_the_context_is_full(model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=40, n_threads=1) as llm:
        done = llm.complete(PROMPT, max_tokens=None, ignore_eos=True)
        assert done.finish_reason == "length"
        assert done.usage.total_tokens == 41  # the last sampled token needs no place
        assert len(llm.complete([5] * 40, max_tokens=9).tokens) == 1


def test_prompt_longer_than_the_context(model: kollama.Model) -> None:
    with kollama.LLM(model, n_ctx=40, n_threads=1) as llm:
        with pytest.raises(kollama.ContextFullError, match="the prompt has 41 tokens, n_ctx is 40"):
            llm.generate([5] * 41)
        assert llm.complete(PROMPT, max_tokens=1).text is not None


def test_ignore_eos(llm: kollama.LLM) -> None:
    hot = {"max_tokens": 100, "temperature": 3, "top_k": 0, "top_p": 1.0, "min_p": 0}
    for seed in range(100):
        options = hot | {"seed": seed}
        ended = llm.complete(PROMPT, **options)
        if ended.finish_reason == "eos":
            break
    assert ended.tokens[-1] == tiny.EOS
    assert "</s>" not in ended.text
    ignored = llm.complete(PROMPT, ignore_eos=True, **options)
    assert tiny.EOS not in ignored.tokens
    assert ignored.finish_reason == "length"


def test_stop_strings_never_leak(llm: kollama.LLM) -> None:
    options = {"max_tokens": 60, "temperature": 3, "top_k": 0, "min_p": 0, "seed": 8, "ignore_eos": True}
    text = llm.complete(PROMPT, **options).text
    assert len(text) > 30
    for start in range(1, len(text) - 6):
        for length in (1, 2, 5):
            stop = text[start : start + length]
            if "\ufffd" in stop:
                continue  # made of broken bytes: no text can name them
            with llm.generate(PROMPT, stop=[stop, "절대로 나오지 않는 말"], **options) as stream:
                pieces = [token.text for token in stream]
                assert stream.result.finish_reason == "stop"
            assert "".join(pieces) == text[: text.index(stop)]


def test_what_may_become_a_stop_string_is_held_back_then_given(llm: kollama.LLM) -> None:
    options = {"max_tokens": 40, "temperature": 3, "seed": 8, "ignore_eos": True}
    text = llm.complete(PROMPT, **options).text
    almost = [text[i : i + 3] + "!결코!" for i in range(len(text) - 3)]
    assert llm.complete(PROMPT, stop=almost, **options).text == text


def test_closing_early(llm: kollama.LLM) -> None:
    with llm.generate(PROMPT, ignore_eos=True) as stream:
        next(stream)
        next(stream)
    assert next(stream, None) is None
    assert stream.result.finish_reason == "cancelled"
    assert len(stream.result.tokens) == 2
    stream.close()
    assert llm.complete(PROMPT, max_tokens=3, temperature=0).text == llm.complete(
        PROMPT, max_tokens=3, temperature=0).text


# ---- several at a time ---------------------------------------------------------------------------


def test_a_list_of_prompts(llm: kollama.LLM) -> None:
    prompts = [PROMPT, "안녕하세요", "오늘 날씨가", "한국어", "the a b c"]
    together = llm.complete(prompts, max_tokens=12, temperature=0)
    alone = [llm.complete(prompt, max_tokens=12, temperature=0) for prompt in prompts]
    assert [done.text for done in together] == [done.text for done in alone]
    by_id = [llm.tokenizer.encode(prompt, add_bos=True) for prompt in prompts]
    for batch in (by_id, [ids.tolist() for ids in by_id]):
        assert [done.text for done in llm.complete(batch, max_tokens=12, temperature=0)] == [done.text for done in alone]


def test_streams_side_by_side(llm: kollama.LLM) -> None:
    options = {"max_tokens": 20, "temperature": 0}
    expected = [llm.complete(prompt, **options).text for prompt in (PROMPT, "안녕하세요")]
    with llm.generate(PROMPT, **options) as first, llm.generate("안녕하세요", **options) as second:
        texts = ["", ""]
        for a, b in zip(first, second, strict=False):
            texts[0] += a.text
            texts[1] += b.text
    assert [text.startswith(got) or text == got for text, got in zip(expected, texts, strict=True)] == [True, True]


def test_too_many_in_one_thread(llm: kollama.LLM) -> None:
    with llm.generate(PROMPT) as first, llm.generate("안녕하세요") as second:
        next(first)
        next(second)
        with pytest.raises(kollama.BusyError, match="n_parallel"):
            next(llm.generate("한국어"))
    llm.complete("한국어", max_tokens=2)


def test_other_threads_wait_for_their_turn(llm: kollama.LLM) -> None:
    expected = llm.complete(PROMPT, max_tokens=15, temperature=0).text
    texts: list[str] = []

    def work() -> None:
        for _ in range(3):
            texts.append(llm.complete(PROMPT, max_tokens=15, temperature=0).text)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert texts == [expected] * 18


def test_a_sampler_serves_one_stream(llm: kollama.LLM) -> None:
    sampler = kollama.Sampler(seed=1)
    with llm.generate(PROMPT, sampler=sampler) as stream:
        next(stream)
        with pytest.raises(kollama.BusyError, match="sampler"):
            next(llm.generate(PROMPT, sampler=sampler))
    llm.complete(PROMPT, sampler=sampler, max_tokens=2)


# ---- chat ----------------------------------------------------------------------------------------


def test_chat_renders_the_models_template(llm: kollama.LLM) -> None:
    messages = [{"role": "user", "content": "안녕"}]
    with llm.chat(messages, max_tokens=5, seed=2) as stream:
        text = "".join(token.text for token in stream)
    ids = llm.tokenizer.encode("<s>user\n안녕\nthe\n", parse_special=True)
    assert ids.tolist().count(tiny.BOS) == 1
    assert llm.complete(ids, max_tokens=5, seed=2).text == text
    assert stream.result.usage.prompt_tokens == len(ids)  # no second bos


def test_chat_without_a_template(tmp_path: Path) -> None:
    with kollama.LLM(tiny.write_llama(tmp_path / "base.gguf"), n_ctx=64, n_threads=1) as llm, pytest.raises(
        kollama.ArgumentError, match="no chat template"
    ):
        llm.chat([{"role": "user", "content": "안녕"}])


def test_template_that_refuses(tmp_path: Path) -> None:
    template = "{{ raise_exception('역할이 틀렸습니다') }}"
    with kollama.LLM(tiny.write_llama(tmp_path / "no.gguf", chat_template=template), n_ctx=64, n_threads=1) as llm, pytest.raises(
        kollama.ArgumentError, match="역할이 틀렸습니다"
    ):
        llm.chat([{"role": "user", "content": "안녕"}])


@pytest.mark.parametrize(
    ("messages", "error"),
    [("안녕", TypeError), ([], ValueError), ([{"role": "user"}], ValueError), (["안녕"], TypeError), ({"role": "user"}, TypeError)],
)
def test_wrong_messages(llm: kollama.LLM, messages: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="message"):
        llm.chat(messages)  # type: ignore[arg-type]


# ---- wrong arguments -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"max_tokens": 0}, ValueError),
        ({"max_tokens": -1}, ValueError),
        ({"max_tokens": 1.5}, TypeError),
        ({"stop": ""}, ValueError),
        ({"stop": [3]}, TypeError),
        ({"ignore_eos": 1}, TypeError),
        ({"temperature": -1}, ValueError),
        ({"temprature": 1}, TypeError),
        ({"sampler": 1}, TypeError),
    ],
)
def test_wrong_options(llm: kollama.LLM, options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        llm.generate(PROMPT, **options)


@pytest.mark.parametrize(
    ("prompt", "error"),
    [(None, TypeError), (3, TypeError), ([1.5], TypeError), ([-1], kollama.TokenError), ([10**7], kollama.TokenError),
     ("가\ud800", kollama.TokenError), ([], ValueError), (np.zeros((2, 2), np.int32), ValueError), ([2**40], kollama.TokenError)],
)
def test_wrong_prompts(llm: kollama.LLM, prompt: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        llm.complete(prompt)  # type: ignore[call-overload]


def test_both_sampler_and_keywords(llm: kollama.LLM) -> None:
    with pytest.raises(kollama.ArgumentError, match="not both"):
        llm.generate(PROMPT, sampler=kollama.Sampler(), temperature=1)


def test_closed_llm(model: kollama.Model) -> None:
    llm = kollama.LLM(model, n_ctx=64, n_threads=1)
    stream = llm.generate(PROMPT, ignore_eos=True)
    next(stream)
    llm.close()
    llm.close()
    with pytest.raises(kollama.ClosedError):
        for _ in stream:
            pass
    with pytest.raises(kollama.ClosedError):
        llm.complete(PROMPT)
    assert llm.closed
    assert not model.closed
