"""Guessed tokens: the text is the one without them, whatever ends, replaces, cancels or shares it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

import kollama

GREEDY = {"temperature": 0, "ignore_eos": True}
ROUND = [1, *[300, 270, 5, 9, 280, 265] * 6]
# Single rows and batches are summed in other orders, and a K/V memory of 16 bits makes much of a last bit.
EXACT = {"type_k": "f32", "type_v": "f32", "flash_attn": False}
PROMPTS = [ROUND, [1, 300, 270, 5, 9], [1, *range(259, 283), *range(259, 283)]]

Make = Callable[..., kollama.LLM]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[kollama.Model]:
    """One whose greedy text goes round."""
    with kollama.Model(tiny.write_llama(tmp_path_factory.mktemp("round") / "round.gguf", say=0.2)) as opened:
        yield opened


@pytest.fixture(scope="session")
def small_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another model with the same vocabulary: its guesses are mostly wrong."""
    return tiny.write_llama(tmp_path_factory.mktemp("small") / "small.gguf", n_layer=1, n_embd=32, seed=7)


@pytest.fixture
def make(model: kollama.Model) -> Iterator[Make]:
    made = []

    def make(**options: Any) -> kollama.LLM:
        made.append(kollama.LLM(model, **({"n_ctx": 256, "n_threads": 1} | EXACT | options)))
        return made[-1]

    yield make
    for llm in made:
        llm.close()


@pytest.fixture(params=["prompt-lookup 7", "prompt-lookup 15", "itself 5", "another 2", "itself"])
def drafting(request: pytest.FixtureRequest, make: Make, model: kollama.Model, small_path: Path,
             monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes an LLM that drafts, by each of the ways, so many tokens or as many as pay."""
    way, _, n_tokens = request.param.partition(" ")
    drafts = {"prompt-lookup": "prompt-lookup", "itself": model, "another": small_path}
    if n_tokens:
        monkeypatch.setenv("KOLLAMA_DRAFT_TOKENS", n_tokens)
    return lambda **options: make(draft=drafts[way], **options)


def same(one: kollama.Completion, other: kollama.Completion) -> None:
    assert one.tokens.tolist() == other.tokens.tolist()
    assert (one.text, one.finish_reason, one.incomplete) == (other.text, other.finish_reason, other.incomplete)
    np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)


@pytest.mark.parametrize("options", [
    GREEDY, {"temperature": 0}, {"temperature": 0.3, "seed": 1}, {"temperature": 1.0, "seed": 2, "top_k": 0},
    {"temperature": 0.2, "seed": 5, "repeat_penalty": 1.1}, GREEDY | {"logprobs": 3},
    {"mirostat": 2, "seed": 3}, GREEDY | {"logit_bias": {270: 2.0}},
], ids=str)
def test_the_text_is_the_same(make: Make, drafting: Make, options: dict[str, Any]) -> None:
    plain, drafts = make(), drafting()
    for prompt in PROMPTS:
        for n in (1, 2, 3, 17, 120):
            same(drafts.complete(prompt, max_tokens=n, **options), plain.complete(prompt, max_tokens=n, **options))


@pytest.mark.parametrize("name", ["q4_0", "q5_1", "q8_0", "f16"])
def test_with_kernels_of_our_own_nothing_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """All by default: 16-bit K/V memory, flash attention, threads that pace may take away."""
    if [device.name for device in kollama.devices()] != ["kollama", "CPU"]:
        pytest.skip("this CPU has none of the instruction sets, or a GPU or a BLAS is there")
    monkeypatch.setenv("KOLLAMA_DRAFT_TOKENS", "7")
    plain = tiny.write_llama(tmp_path / "round.gguf", say=0.2, n_embd=160, n_head=5)
    kollama.quantize(plain, tmp_path / "quantized.gguf", name, pure=True)
    n_drafted = 0
    with (kollama.Model(tmp_path / "quantized.gguf") as weights, kollama.LLM(weights, n_ctx=256) as alone,
          kollama.LLM(weights, n_ctx=256, draft="prompt-lookup") as drafts):
        for options in (GREEDY, {"temperature": 0.5, "seed": 4, "ignore_eos": True}):
            for prompt in PROMPTS:
                ours, expected = (llm.complete(prompt, max_tokens=150, **options) for llm in (drafts, alone))
                assert ours.tokens.tolist() == expected.tokens.tolist()
                np.testing.assert_array_equal(ours.logprobs, expected.logprobs)
                n_drafted += ours.usage.drafted_tokens
    assert n_drafted > 200


def test_guesses_are_made_and_right(make: Make, model: kollama.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOLLAMA_DRAFT_TOKENS", "7")
    usage = make(draft="prompt-lookup").complete(ROUND, max_tokens=150, **GREEDY).usage
    assert usage.drafted_tokens >= usage.accepted_tokens > 75
    usage = make(draft=model).complete(PROMPTS[1], max_tokens=150, **GREEDY).usage
    assert usage.accepted_tokens > 120
    assert usage.accepted_tokens == pytest.approx(usage.drafted_tokens, abs=8)  # a rounding may turn one
    usage = make().complete(ROUND, max_tokens=20, **GREEDY).usage
    assert (usage.drafted_tokens, usage.accepted_tokens) == (0, 0)


def test_wrong_guesses_are_counted(make: Make, small_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KOLLAMA_DRAFT_TOKENS", "3")
    usage = make(draft=small_path).complete(PROMPTS[1], max_tokens=100, temperature=1.5, seed=3, ignore_eos=True).usage
    assert usage.drafted_tokens > 200 > usage.accepted_tokens
    assert usage.completion_tokens == 100


def test_stop_strings_end_at_the_same_place(make: Make, drafting: Make) -> None:
    plain, drafts = make(), drafting()
    text = plain.complete(ROUND, max_tokens=150, **GREEDY).text
    for at in range(3, len(text) - 3, 11):
        stop = text[at:at + 3]
        if "\ufffd" not in stop:
            ended, expected = (llm.complete(ROUND, max_tokens=150, stop=stop, **GREEDY) for llm in (drafts, plain))
            same(ended, expected)
            assert expected.finish_reason == "stop"


def test_what_is_in_memory_is_the_text(drafting: Make, make: Make) -> None:
    llm = drafting()
    first = llm.complete(ROUND, max_tokens=60, **GREEDY)
    longer = [*ROUND, *first.tokens.tolist(), 300, 270]
    second = llm.complete(longer, max_tokens=40, **GREEDY)
    assert second.usage.reused_tokens == len(ROUND) + 59
    same(second, make().complete(longer, max_tokens=40, **GREEDY))


def test_streams_in_a_context_of_ones_own(model: kollama.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from kollama._core.generation import TokenStream

    monkeypatch.setenv("KOLLAMA_DRAFT_TOKENS", "7")
    with model.context(n_ctx=256, n_threads=1, draft="prompt-lookup") as context, context.sequence() as seq, \
            model.context(n_ctx=256, n_threads=1) as other, other.sequence() as expected:
        stream = TokenStream(seq, kollama.Sampler(temperature=0), ROUND, max_tokens=80, stop=[], ignore_eos=True)
        ids = [token.id for token in stream]
        assert stream.stats[0].accepted_tokens > 0
        assert seq.tokens.tolist() == ROUND + ids[:-1]
        blob = seq.state()
        expected.restore(blob)
        assert expected.tokens.tolist() == ROUND + ids[:-1]
        for one in (seq, expected):
            one.append(ids[-1:])
        np.testing.assert_array_equal(seq.logits, expected.logits)
        np.testing.assert_allclose(seq.logits, fresh_row(model, ROUND + ids), atol=0.02)


def fresh_row(model: kollama.Model, ids: list[int]) -> Any:
    with model.context(n_ctx=256, n_threads=1) as context, context.sequence() as seq:
        seq.append(ids)
        return seq.logits.copy()


def test_several_at_once(make: Make, drafting: Make) -> None:
    plain, drafts = make(), drafting(n_parallel=5)
    prompts = [*PROMPTS, [1, 280, 281], [1, *[261, 262, 263, 264] * 9], [1, 5, 6, 7], [1, 290]]
    for options in (GREEDY, {"temperature": 0.4, "seed": 3}):
        together = drafts.complete(prompts, max_tokens=90, **options)
        for prompt, done in zip(prompts, together, strict=True):
            same(done, plain.complete(prompt, max_tokens=90, **options))


def test_more_streams_than_rows(make: Make) -> None:
    drafts, plain = make(draft="prompt-lookup", n_parallel=20, n_ctx=128), make()
    done = drafts.complete([[*prompt, 259 + i] for i in range(7) for prompt in PROMPTS[:3]], max_tokens=30, **GREEDY)
    assert [one.usage.completion_tokens for one in done] == [30] * 21
    same(done[0], plain.complete([*PROMPTS[0], 259], max_tokens=30, **GREEDY))


def test_a_batch_that_hardly_holds_a_token(make: Make, drafting: Make) -> None:
    plain = make()
    for n_batch in (1, 2, 5):
        llm = drafting(n_batch=n_batch)
        same(llm.complete(ROUND, max_tokens=60, **GREEDY), plain.complete(ROUND, max_tokens=60, **GREEDY))


def test_a_full_context(make: Make, drafting: Make) -> None:
    plain, drafts = make(n_ctx=64), drafting(n_ctx=64)
    ended = drafts.complete(ROUND, max_tokens=None, **GREEDY)
    assert ended.finish_reason == "length"
    assert len(ended.tokens) == 64 - len(ROUND) + 1
    same(ended, plain.complete(ROUND, max_tokens=None, **GREEDY))


def test_guesses_take_no_room_from_others(model: kollama.Model, monkeypatch: pytest.MonkeyPatch) -> None:
    from kollama._core.generation import TokenStream

    monkeypatch.setenv("KOLLAMA_DRAFT_TOKENS", "7")
    with model.context(n_ctx=256, n_seq_max=2, n_threads=1, draft="prompt-lookup") as context, \
            context.sequence() as other, context.sequence() as seq:
        other.append([5] * (256 - len(ROUND) - 10))
        stream = TokenStream(seq, kollama.Sampler(temperature=0), ROUND, stop=[], ignore_eos=True)
        tokens = list(stream)
    assert len(tokens) == 11
    assert stream.stats[2] == "length"


@pytest.mark.parametrize("ahead", ["stream", "whole"])
def test_context_shift(make: Make, drafting: Make, ahead: str) -> None:
    plain, drafts = (made(n_ctx=64, context_shift=True, n_keep=2) for made in (make, drafting))
    results = []
    for llm in (drafts, plain):
        if ahead == "whole":
            results.append(llm.complete(ROUND, max_tokens=300, **GREEDY))
        else:
            with llm.generate(ROUND, max_tokens=300, **GREEDY) as gen:
                for _ in gen:
                    pass
                results.append(gen.result)
    same(*results)
    same(drafts.complete(ROUND, max_tokens=9, **GREEDY), plain.complete(ROUND, max_tokens=9, **GREEDY))


def test_send(make: Make, drafting: Make) -> None:
    written = []
    for llm in (drafting(), make()):
        with llm.generate(ROUND, max_tokens=90, temperature=0.5, seed=4, ignore_eos=True) as gen:
            for _ in range(20):
                next(gen)
            gen.send(280)
            for _ in range(10):
                next(gen)
            gen.send(270)
            gen.send(271)
            for _ in gen:
                pass
            written.append(gen.result)
    same(*written)


def test_cancelled_in_the_middle(make: Make, drafting: Make) -> None:
    plain, llm = make(), drafting(n_parallel=2)
    expected = plain.complete(ROUND, max_tokens=100, **GREEDY)
    for n in (1, 5, 23):
        with llm.generate(ROUND, max_tokens=None, **GREEDY) as gen, llm.generate(PROMPTS[1], max_tokens=90, **GREEDY) as other:
            ids = [next(gen).id for _ in range(n)]
            rest = [next(other).id]
            gen.close()
            rest += [token.id for token in other]
        assert ids == expected.tokens.tolist()[:n]
        assert rest == plain.complete(PROMPTS[1], max_tokens=90, **GREEDY).tokens.tolist()
        same(llm.complete(ROUND, max_tokens=100, **GREEDY), expected)


def test_cancelled_from_another_thread(drafting: Make) -> None:
    llm = drafting(n_ctx=4096)
    for seconds in (0.01, 0.05):
        gen = llm.generate(ROUND, max_tokens=None, **GREEDY)
        timer = threading.Timer(seconds, gen.close)
        timer.start()
        for _ in gen:
            pass
        timer.join()
    assert llm.complete(ROUND, max_tokens=5, **GREEDY).usage.completion_tokens == 5


def test_grammar(make: Make, drafting: Make) -> None:
    options = {"grammar": 'root ::= ("ab" | "c")+ "."', "temperature": 0.7, "seed": 3, "max_tokens": 60}
    same(drafting().complete(ROUND, **options), make().complete(ROUND, **options))


def test_json_schema(make: Make, drafting: Make) -> None:
    pytest.importorskip("llguidance")
    options = {"regex": "(ab|ac|b){4,20}", "temperature": 0.7, "seed": 3, "max_tokens": 60}
    same(drafting().complete(ROUND, **options), make().complete(ROUND, **options))


def test_an_error_comes_after_the_tokens_before_it(drafting: Make) -> None:
    sampler = kollama.Sampler.chain([kollama.samplers.Grammar('root ::= "a"+')])
    with drafting().generate(ROUND, sampler=sampler, max_tokens=30) as gen:
        assert {next(gen).text for _ in range(9)} == {"a"}
        with pytest.raises(kollama.ArgumentError):
            gen.send(270)


def test_callables_choose_without_guesses(drafting: Make) -> None:
    seen = []

    def link(tokens: Any, logits: Any) -> None:
        seen.append(len(tokens))

    done = drafting().complete(ROUND, sampler=kollama.Sampler.chain([link]), max_tokens=30)
    assert done.usage.drafted_tokens == 0
    assert seen == list(range(len(ROUND), len(ROUND) + len(done.tokens)))


def test_beside_a_prompt_that_is_read(drafting: Make, make: Make) -> None:
    llm, plain = drafting(n_parallel=2, n_batch=8, n_ctx=512), make(n_ctx=512)
    with llm.generate(ROUND, max_tokens=90, **GREEDY) as gen:
        ids = [next(gen).id for _ in range(10)]
        long = [1, *[259 + i % 25 for i in range(200)]]
        same(llm.complete(long, max_tokens=20, **GREEDY), plain.complete(long, max_tokens=20, **GREEDY))
        ids += [token.id for token in gen]
    assert ids == plain.complete(ROUND, max_tokens=90, **GREEDY).tokens.tolist()


# ---- what cannot be --------------------------------------------------------------------------------


def test_errors(make: Make, model: kollama.Model, mamba_path: Path, tmp_path: Path) -> None:
    with pytest.raises(kollama.ModelNotFoundError, match="draft can be 'prompt-lookup'"):
        make(draft="prompt_lookup")
    with pytest.raises(TypeError, match="draft must be"):
        make(draft=3)
    with pytest.raises(kollama.ArgumentError, match="prompt-lookup"):
        model.context(draft="lookup")
    with pytest.raises(TypeError, match="draft must be"):
        model.context(draft=True)
    with pytest.raises(kollama.ArgumentError, match="embeddings"):
        model.context(draft="prompt-lookup", embeddings=True)
    with kollama.Model(mamba_path) as mamba:
        with pytest.raises(kollama.ArgumentError, match="memory cannot go back"):
            kollama.LLM(mamba, draft="prompt-lookup")
        with pytest.raises(kollama.ArgumentError, match="recurrent"):
            make(draft=mamba)
    with kollama.Model(model.path, vocab_only=True) as words, pytest.raises(kollama.ArgumentError, match="vocab_only"):
        make(draft=words)
    closed = kollama.Model(model.path)
    closed.close()
    with pytest.raises(kollama.ClosedError):
        make(draft=closed)


def test_another_vocabulary(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = tiny.WORDS.copy()
    monkeypatch.setattr(tiny, "WORDS", [*words, "▁부산"])
    longer = tiny.write_llama(tmp_path / "longer.gguf")
    monkeypatch.setattr(tiny, "WORDS", [words[1], words[0], *words[2:]])
    swapped = tiny.write_llama(tmp_path / "swapped.gguf")
    with pytest.raises(kollama.ArgumentError, match=r"another vocabulary: \d+ tokens"):
        make(draft=longer)
    with pytest.raises(kollama.ArgumentError, match=r"token 259 is '▁대한', and '▁' in the model"):
        make(draft=swapped)


def test_the_draft_model_stays_open(model: kollama.Model, small_path: Path) -> None:
    draft = kollama.Model(small_path)
    with model.context(draft=draft, n_ctx=64) as context:
        assert context.draft is draft
        with pytest.raises(kollama.BusyError, match="1 context of this model is open"):
            draft.close()
    draft.close()


def test_positions_of_the_draft_end_first(tmp_path: Path, make: Make) -> None:
    short = tiny.write_gpt2(tmp_path / "gpt2.gguf", n_ctx=48)
    llm, plain = make(draft=short), make()
    same(llm.complete(ROUND, max_tokens=100, **GREEDY), plain.complete(ROUND, max_tokens=100, **GREEDY))
