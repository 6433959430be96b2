"""kollama.compat step by step: tokens, eval, sample, generate, states, caches, grammars."""

from __future__ import annotations

import itertools
import json
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from conftest import VOCABULARIES

import kollama
from kollama.compat import (
    Llama,
    LlamaCache,
    LlamaGrammar,
    LlamaRAMCache,
    LlamaState,
    LlamaTokenizer,
)

PROMPT = "대한민국의 수도는"


@pytest.fixture
def llama(tiny_path: Path) -> Iterator[Llama]:
    with Llama(str(tiny_path), n_ctx=128, n_threads=1, seed=7) as opened:
        yield opened


@pytest.fixture
def vocabulary() -> Iterator[Llama]:
    """Llama-2's, without weights."""
    with Llama(str(VOCABULARIES / "ggml-vocab-llama-spm.gguf"), vocab_only=True) as opened:
        yield opened


def fresh(path: str) -> Llama:
    return Llama(path, n_ctx=128, n_threads=1, seed=7)


def text_of(result: Any) -> str:
    return str(result["choices"][0]["text"])


# ---- text and ids --------------------------------------------------------------------------------


def test_tokenize_as_llama_cpp_python(vocabulary: Llama) -> None:
    text = b"Hello World"
    assert vocabulary.tokenize(text) == [1, 15043, 2787]
    assert vocabulary.detokenize([1, 15043, 2787]) == text
    assert vocabulary.tokenize(text, add_bos=False) == [15043, 2787]
    assert vocabulary.detokenize([15043, 2787]) == b" Hello World"
    assert vocabulary.tokenize(b"Hello World</s>") == [1, 15043, 2787, 829, 29879, 29958]
    assert vocabulary.tokenize(b"Hello World</s>", special=True) == [1, 15043, 2787, 2]
    assert vocabulary.tokenize(b"", special=True) == [1]
    assert vocabulary.detokenize([1]) == b""
    assert vocabulary.detokenize([1, 15043, 2], special=True) == b"<s> Hello</s>"
    assert (vocabulary.token_bos(), vocabulary.token_eos(), vocabulary.token_nl()) == (1, 2, 13)
    assert (vocabulary.n_vocab(), vocabulary.n_ctx()) == (32000, 0)
    assert vocabulary.metadata["general.architecture"] == "llama"


def test_parts_of_a_syllable_are_bytes(llama: Llama) -> None:
    ids = [tiny.FIRST_BYTE + byte for byte in "뷁".encode()]
    assert b"".join(llama.detokenize([token]) for token in ids).decode() == "뷁"
    assert llama.detokenize(llama.tokenize("대한민국 뷁".encode())).decode() == "대한민국 뷁"


def test_tokenizer_objects(llama: Llama, tiny_path: Path) -> None:
    for tokenizer in (llama.tokenizer(), LlamaTokenizer(llama), LlamaTokenizer.from_ggml_file(str(tiny_path))):
        ids = tokenizer.encode(PROMPT)
        assert ids == llama.tokenize(PROMPT.encode())
        assert tokenizer.decode(ids) == PROMPT
    with pytest.raises(TypeError, match="must be bytes"):
        llama.tokenize(PROMPT)  # type: ignore[arg-type]
    with pytest.raises(kollama.TokenError):
        llama.tokenize(b"\xff")


def test_without_weights_there_is_only_text(vocabulary: Llama) -> None:
    for call in (lambda: vocabulary("a"), lambda: vocabulary.eval([1]), vocabulary.reset, lambda: vocabulary.n_tokens,
                 vocabulary.save_state, lambda: next(vocabulary.generate([1]))):
        with pytest.raises(kollama.StateError, match="vocab_only"):
            call()


# ---- eval, sample, generate ----------------------------------------------------------------------


def test_eval_and_sample(llama: Llama) -> None:
    ids = llama.tokenize(PROMPT.encode())
    llama.eval(ids[:2])
    llama.eval(ids[2:])
    llama.eval([])
    assert llama.n_tokens == len(ids)
    assert llama.input_ids[: llama.n_tokens].tolist() == ids
    assert llama.input_ids.shape == (128,)
    assert list(llama.eval_tokens) == ids
    best = int(np.argmax(llama.eval_logits[-1]))
    assert llama.sample(temp=0.0) == llama.sample(temp=0.0, idx=len(ids) - 1) == best
    with pytest.raises(kollama.ArgumentError, match="idx is 0"):
        llama.sample(idx=0)
    llama.n_tokens = 2
    assert llama.n_tokens == 2
    llama.reset()
    assert llama.n_tokens == 0
    with pytest.raises(kollama.StateError):
        llama.sample()


def test_sample_goes_on_with_one_sampler(llama: Llama) -> None:
    def drawn() -> list[int]:
        llama.set_seed(3)
        return [llama.sample(temp=3.0, top_k=0, min_p=0.0, top_p=1.0) for _ in range(12)]

    llama.eval(llama.tokenize(PROMPT.encode()))
    first = drawn()
    assert first == drawn()
    assert len(set(first)) > 3  # not the same number drawn again and again


def test_a_processor_leaves_the_logits(llama: Llama) -> None:
    llama.eval(llama.tokenize(PROMPT.encode()))
    before = llama.eval_logits[-1]
    assert llama.sample(logits_processor=[lambda ids, row: np.where(np.arange(len(row)) == 9, 1.0, -np.inf)]) == 9
    assert llama.eval_logits[-1] == before


def test_generate_is_the_loop_by_hand(llama: Llama) -> None:
    ids = llama.tokenize(PROMPT.encode())
    with fresh(llama.model_path) as other:
        expected = []
        other.eval(ids)
        for _ in range(8):
            expected.append(other.sample(temp=0.0))
            other.eval(expected[-1:])
    generated = list(itertools.islice(llama.generate(ids, temp=0.0), 8))
    assert generated == expected
    assert llama.n_tokens == len(ids) + 7  # the last is not evaluated
    # The same again, with all of the prompt in memory, and with more than it.
    assert list(itertools.islice(llama.generate(ids, temp=0.0), 8)) == expected
    llama.reset()
    llama.eval(ids)
    assert list(itertools.islice(llama.generate(ids, temp=0.0), 8)) == expected


def test_generate_sent_tokens(llama: Llama) -> None:
    ids = llama.tokenize(PROMPT.encode())
    tokens = llama.generate(ids, temp=0.0)
    first = next(tokens)
    tokens.send([262, 263])
    assert llama._input_ids.tolist() == [*ids, first, 262, 263]
    n = llama.n_tokens
    next(llama.generate([264], reset=False))
    assert llama._input_ids.tolist()[n:] == [264]
    with pytest.raises(kollama.ArgumentError, match="no token"):
        next(llama.generate([]))


def test_generate_stops(llama: Llama) -> None:
    ids = llama.tokenize(PROMPT.encode())
    assert len(list(llama.generate(ids, stopping_criteria=lambda so_far, row: len(so_far) >= 9))) == 3
    with pytest.raises(kollama.ContextFullError):
        list(llama.generate(ids))


def test_a_recurrent_model(mamba_path: Path) -> None:
    with fresh(str(mamba_path)) as llama:
        prompt = llama.tokenize("대한민국의 수도".encode())
        other = [*prompt[:2], 262]
        greedy: dict[str, Any] = {"max_tokens": 4, "temperature": 0.0, "logprobs": 0}
        expected = text_of(llama(prompt, **greedy))
        llama(other, **greedy)
        assert text_of(llama(prompt, **greedy)) == expected
        for logprobs in (None, 0):
            stream: Any = llama(prompt, stream=True, max_tokens=50, logprobs=logprobs)
            next(stream)
            stream.close()
            assert text_of(llama(prompt, **greedy)) == expected


def test_scores_need_logits_all(llama: Llama, tiny_path: Path) -> None:
    with pytest.raises(kollama.StateError, match="logits_all=True"):
        assert llama.scores.shape
    with Llama(str(tiny_path), n_ctx=64, n_threads=1, logits_all=True) as all_rows:
        ids = all_rows.tokenize(PROMPT.encode())
        all_rows(ids, max_tokens=3, temperature=0.0)
        scores = all_rows.scores
        assert scores.shape == (64, all_rows.n_vocab())
        tokens = all_rows._input_ids.tolist()
        assert not scores[len(tokens) :].any()
        llama.reset()
        for token, row in zip(tokens, scores, strict=False):
            llama.eval([token])
            assert row == pytest.approx(np.array(llama.eval_logits[-1]), abs=1e-3)
        assert len(all_rows.eval_logits) == len(tokens)
        assert all_rows._input_ids.tolist() == tokens


# ---- states and caches ---------------------------------------------------------------------------


def test_a_state_comes_back(llama: Llama) -> None:
    ids = llama.tokenize(PROMPT.encode())
    llama.eval(ids)
    state = llama.save_state()
    assert (state.n_tokens, state.llama_state_size) == (len(ids), len(state.llama_state))
    assert state.input_ids[: state.n_tokens].tolist() == ids
    hot: dict[str, Any] = {"max_tokens": 12, "temperature": 3.0}
    first, second = text_of(llama(PROMPT, **hot)), text_of(llama(PROMPT, **hot))
    assert first != second
    llama.load_state(state)
    assert llama._input_ids.tolist() == ids
    assert text_of(llama(PROMPT, **hot)) == first
    with fresh(llama.model_path) as other:
        other.load_state(state)
        assert other.n_tokens == len(ids)
        assert text_of(other(PROMPT, **hot)) == first


def test_a_cache_spares_the_prompt(llama: Llama) -> None:
    cache = LlamaRAMCache()
    assert LlamaCache is LlamaRAMCache
    greedy: dict[str, Any] = {"max_tokens": 4, "temperature": 0.0}
    expected = text_of(llama(PROMPT, **greedy))
    llama.set_cache(cache)
    assert text_of(llama(PROMPT, **greedy)) == expected
    assert cache.cache_size > 0
    ids = llama.tokenize(PROMPT.encode())
    assert ids in cache
    assert [9, 9] not in cache
    with fresh(llama.model_path) as other:
        loaded: list[int] = []
        load = other.load_state
        other.load_state = lambda state: (loaded.append(state.n_tokens), load(state))[1]  # type: ignore[method-assign,func-returns-value]
        other.set_cache(cache)
        assert text_of(other(PROMPT, **greedy)) == expected
        assert loaded == [len(ids) + 3]
        assert "".join(text_of(chunk) for chunk in other(PROMPT, stream=True, **greedy)) == expected
        assert len(loaded) == 1  # memory has as much of it


def test_a_cache_forgets_the_oldest() -> None:
    def state(size: int) -> LlamaState:
        return LlamaState(np.zeros(4, np.intc), np.empty((0, 5), np.single), 2, b"", size, 0)

    cache = LlamaRAMCache(capacity_bytes=100)
    cache[[1, 2]] = state(40)
    cache[[3, 4]] = state(40)
    assert cache[[1, 2, 9]].llama_state_size == 40  # used: now the younger one
    cache[[5, 6]] = state(40)
    assert ([1] in cache, [3] in cache, [5] in cache) == (True, False, True)
    assert cache.cache_size == 80
    with pytest.raises(KeyError):
        cache[[7]]


# ---- samplers ------------------------------------------------------------------------------------


def test_arguments_reach_the_sampler(llama: Llama) -> None:
    ids = llama.tokenize(PROMPT.encode())
    cases: list[tuple[dict[str, Any], dict[str, Any]]] = [
        ({"temp": 1.5, "top_k": 12, "top_p": 0.8, "min_p": 0.01}, {"temperature": 1.5, "top_k": 12, "top_p": 0.8, "min_p": 0.01}),
        ({"top_k": -1}, {"top_k": 0}), ({"typical_p": 0.5}, {"typical_p": 0.5}),
        ({"repeat_penalty": 1.3}, {"repeat_penalty": 1.3, "penalty_last_n": 64}),
        ({"frequency_penalty": 0.7, "presence_penalty": 0.3}, {"frequency_penalty": 0.7, "presence_penalty": 0.3}),
        ({"mirostat_mode": 1, "mirostat_tau": 3.0, "mirostat_eta": 0.2}, {"mirostat": 1, "mirostat_tau": 3.0, "mirostat_eta": 0.2}),
        ({"mirostat_mode": 2}, {"mirostat": 2}), ({"temp": 0.0, "mirostat_mode": 2}, {"temperature": 0}),
    ]  # fmt: skip
    for given, meant in cases:
        sampler = kollama.Sampler(**{"seed": 11, **meant})  # type: ignore[typeddict-item]
        llama.reset()
        llama.eval(ids)
        expected = []
        for _ in range(10):
            expected.append(sampler.sample(llama._open))
            llama.eval(expected[-1:])
        llama.set_seed(11)
        assert list(itertools.islice(llama.generate(ids, **given), 10)) == expected, given


def test_last_n_tokens_size(tiny_path: Path) -> None:
    def written(size: int) -> str:
        with Llama(str(tiny_path), n_ctx=128, n_threads=1, last_n_tokens_size=size) as llama:
            return text_of(llama(PROMPT, max_tokens=30, temperature=0.0, repeat_penalty=3.0))

    assert written(0) != written(64)


# ---- grammars ------------------------------------------------------------------------------------


def test_a_grammar_is_kept(llama: Llama) -> None:
    grammar = LlamaGrammar.from_string('root ::= "서울" ("입니다" | "이다") "."')
    for options in ({}, {"logprobs": 1}, {"temperature": 3.0}):
        result: Any = llama(PROMPT, max_tokens=40, grammar=grammar, **options)  # type: ignore[arg-type]
        assert text_of(result) in ("서울입니다.", "서울이다.")
        assert result["choices"][0]["finish_reason"] == "stop"
    tokens = itertools.takewhile(lambda token: token != tiny.EOS, llama.generate(llama.tokenize(PROMPT.encode()), grammar=grammar))
    assert llama.detokenize(tokens).decode() in ("서울입니다.", "서울이다.")
    with pytest.raises(kollama.ArgumentError, match="nowhere"):
        llama(PROMPT, grammar=LlamaGrammar.from_string("root ::= nowhere"))


SCHEMAS: list[Any] = [
    {"type": "object", "properties": {"이름": {"type": "string", "maxLength": 3}, "나이": {"type": "integer"}}, "required": ["이름"]},
    {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
    {"type": "array", "items": {"type": "null"}, "maxItems": 0},
    {"type": "array", "items": {"enum": [1, 2]}, "maxItems": 4},
    {"enum": ["서울", 3, None, {"a": "\"\\"}]},
    {"const": "가\n나"},
    {"anyOf": [{"type": "null"}, {"type": "string", "minLength": 1, "maxLength": 2}]},
    {"type": ["boolean", "string"], "maxLength": 1, "title": "t", "description": "d"},
    {"type": "object", "properties": {"a": {"type": "null"}, "b": {"const": 1}, "c": {"const": 2}}, "required": ["b"]},
    {"type": "object", "properties": {"a": {"const": 0}, "b": {"const": 1}}},
    {"type": "object", "additionalProperties": False},
    {"properties": {"a": {"$ref": "#/$defs/A"}}, "required": ["a"], "$defs": {"A": {"properties": {"n": {"type": "boolean"}}, "required": ["n"]}}},
]  # fmt: skip


def valid(schema: Any, value: Any, root: Any = None) -> bool:
    """Whether a value is of a schema: only what SCHEMAS use."""
    root = root or schema
    if "$ref" in schema:
        return valid(root["$defs"]["A"], value, root)
    if "enum" in schema:
        return value in schema["enum"]
    if "const" in schema:
        return bool(value == schema["const"])
    if "anyOf" in schema:
        return any(valid(one, value, root) for one in schema["anyOf"])
    kinds = schema.get("type", "object")
    kinds = kinds if isinstance(kinds, list) else [kinds]
    python = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool, "null": type(None)}
    if type(value) not in [python[kind] for kind in kinds]:
        return False
    if isinstance(value, dict):
        properties = schema.get("properties", {})
        return (set(schema.get("required", ())) <= set(value) <= set(properties)
                and all(valid(properties[key], item, root) for key, item in value.items()))
    if isinstance(value, list):
        return (schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", 99)
                and all(valid(schema["items"], item, root) for item in value))
    if isinstance(value, str):
        broken = "\ufffd" in value  # a part of a character is one for the grammar, and several in the text
        return broken or bool(schema.get("minLength", 0) <= len(value) <= schema.get("maxLength", 99))
    return True


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: json.dumps(schema, ensure_ascii=False)[:50])
def test_what_a_schemas_grammar_allows_is_of_the_schema(llama: Llama, schema: Any) -> None:
    grammar = LlamaGrammar.from_json_schema(json.dumps(schema))
    texts = set()
    for seed in range(12):
        result: Any = llama("json", max_tokens=110, temperature=5.0, top_k=0, min_p=0.0, seed=seed, grammar=grammar)
        if result["choices"][0]["finish_reason"] == "stop":
            texts.add(text_of(result))
            assert valid(schema, json.loads(text_of(result))), text_of(result)
    assert texts


@pytest.mark.parametrize(("schema", "reason"), [
    ({"type": "string", "pattern": "a+"}, "pattern cannot be kept"), ({"type": "integer", "minimum": 3}, "minimum cannot be kept"),
    ({"type": "number", "multipleOf": 2}, "multipleOf"), ({"$ref": "https://example.org/a"}, "outside the schema"),
    ({"$ref": "#/$defs/B"}, "there is no #/\\$defs/B"), ({"type": "date"}, "the type 'date' is none of"), ({"enum": []}, "empty"),
    ({"allOf": [{"type": "null"}]}, "allOf cannot be kept"), (3, "no schema"), ({"anyOf": []}, "nothing to choose"),
    ({"type": "object", "required": ["a"], "properties": {"b": {}}}, "'a' is required"), ("{", "not JSON"),
    ({"type": "array", "minItems": 3, "maxItems": 2}, "maxItems is 2"),
])  # fmt: skip
def test_schemas_that_cannot_be_kept(schema: Any, reason: str) -> None:
    with pytest.raises(kollama.ArgumentError, match=reason):
        LlamaGrammar.from_json_schema(schema if isinstance(schema, str) else json.dumps(schema))


# ---- the Hub -------------------------------------------------------------------------------------


def test_from_pretrained(tiny_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    hub: Any = types.ModuleType("huggingface_hub")

    class HfApi:
        def list_repo_files(self, repo_id: str) -> list[str]:
            return ["README.md", "a-q4_0.gguf", "a-q8_0.gguf", "parts/a-00002.gguf"]

    def hf_hub_download(repo_id: str, filename: str, **folders: Any) -> str:
        asked.append((repo_id, filename, folders["cache_dir"]))
        return str(tiny_path)

    hub.HfApi, hub.hf_hub_download = HfApi, hf_hub_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    with Llama.from_pretrained("beomi/x", "*q4_0.gguf", additional_files=["*00002*"], cache_dir="c", n_ctx=64, n_threads=1) as llama:
        assert llama.n_ctx() == 64
    assert asked == [("beomi/x", "a-q4_0.gguf", "c"), ("beomi/x", "parts/a-00002.gguf", "c")]
    with pytest.raises(kollama.ArgumentError, match="0 files of beomi/x match 'b\\*': README.md, a-q4_0"):
        Llama.from_pretrained("beomi/x", "b*")
    with pytest.raises(kollama.ArgumentError, match="2 files of beomi/x match"):
        Llama.from_pretrained("beomi/x", "a-*")
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(kollama.KollamaError, match="pip install huggingface_hub"):
        Llama.from_pretrained("beomi/x", "a-*")
