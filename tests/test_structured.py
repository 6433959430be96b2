"""Output of a given form: JSON schemas, regular expressions and Lark, by llguidance."""

from __future__ import annotations

import gc
import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

import kollama
from kollama import schemas, structured
from kollama.samplers import JsonSchema, Lark, Regex, Temperature, TopK

SCHEMAS = json.loads(
    (Path(__file__).resolve().parent.parent / "benchmarks" / "structured_schemas.json").read_text("utf-8"))

PERSON = {
    "type": "object",
    "properties": {
        "이름": {"type": "string", "pattern": "^[가-힣]{1,3}$"},
        "나이": {"type": "integer", "minimum": 0, "maximum": 99},
        "도시": {"enum": ["서울", "부산", "쀍뙓"]},
    },
    "required": ["이름", "나이", "도시"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("given", [PERSON, json.dumps(PERSON), json.dumps(PERSON, ensure_ascii=False)],
                         ids=["mapping", "escaped", "text"])
def test_korean_keys_strings_and_enums(llm: kollama.LLM, given: Any) -> None:
    for seed in range(4):
        done = llm.complete("한국", json_schema=given, seed=seed, max_tokens=200)
        assert done.finish_reason == "stop"
        value = json.loads(done.text)
        assert list(value) == ["이름", "나이", "도시"]
        jsonschema.validate(value, PERSON)


def test_a_reference_with_a_korean_name(llm: kollama.LLM) -> None:
    schema = {"$defs": {"답/1": {"enum": ["예", "아니오"]}}, "$ref": "#/$defs/답~11"}
    assert json.loads(llm.complete("a", json_schema=schema, seed=1).text) in ("예", "아니오")


def test_regex_and_lark(llm: kollama.LLM) -> None:
    for seed in range(4):
        done = llm.complete("a", regex="[가-힣]{2,3}-[0-9]{2}", seed=seed)
        assert re.fullmatch("[가-힣]{2,3}-[0-9]{2}", done.text)
        assert done.finish_reason == "stop"
        done = llm.complete("a", lark='start: "서울" | "부산" NUMBER\nNUMBER: /[0-9]{3}/', seed=seed)
        assert re.fullmatch("서울|부산[0-9]{3}", done.text)


def test_any_json(llm: kollama.LLM) -> None:
    bias: dict[int | str, float] = {"]": 60.0}
    for anything in (True, {}, "true"):
        done = llm.complete("a", json_schema=anything, seed=3, max_tokens=200, logit_bias=bias)
        assert done.finish_reason in ("length", "stop", "eos")
        if done.finish_reason != "length":
            json.loads(done.text)


def test_it_ends_where_nothing_more_can_come(llm: kollama.LLM) -> None:
    done = llm.complete("a", json_schema={"const": "가"}, seed=1)
    assert (done.text, done.finish_reason) == ('"가"', "stop")
    assert not llm.tokenizer.is_eog(int(done.tokens[-1]))
    assert llm.complete("a", json_schema={"const": "가"}, ignore_eos=True).text == '"가"'
    # Where more can come, the model says when.
    eos = llm.tokenizer.eos
    assert eos is not None
    done = llm.complete("a", regex="(가나)*", logit_bias={eos: 90.0}, seed=1)
    assert (done.text, done.finish_reason) == ("", "eos")


def test_what_max_tokens_cuts_says_so(llm: kollama.LLM) -> None:
    whole = llm.complete("a", json_schema=PERSON, seed=1, max_tokens=200)
    n = len(whole.tokens)
    assert llm.complete("a", json_schema=PERSON, seed=1, max_tokens=n).finish_reason == "stop"
    cut = llm.complete("a", json_schema=PERSON, seed=1, max_tokens=n - 1)
    assert cut.finish_reason == "length"
    assert whole.text.startswith(cut.text)
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut.text)


def test_the_last_token_of_a_stream_says_that_it_is(llm: kollama.LLM) -> None:
    tokens = list(llm.generate("a", json_schema={"enum": ["가나"]}, seed=1))
    assert [token.finish_reason for token in tokens[:-1]] == [None] * (len(tokens) - 1)
    assert tokens[-1].finish_reason == "stop"
    assert "".join(token.text for token in tokens) == '"가나"'


def test_only_the_refused_are_masked(llm: kollama.LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    masks: list[int] = []
    mask = structured.Matcher.mask
    monkeypatch.setattr(structured.Matcher, "mask",
                        lambda self, address, size: (masks.append(size), mask(self, address, size))[1])
    for make in (lambda **form: kollama.Sampler(temperature=0, **form),
                 lambda **form: kollama.Sampler.chain([Regex(**form)])):
        with llm._context.sequence() as seq:
            seq.append([1, 300])
            a = llm.tokenizer.id("a")
            seq.logits[a] = 99
            assert make(regex="[a-c]+").sample(seq) == a
            assert masks == []
            assert llm.tokenizer.decode([make(regex="[bc]").sample(seq)]) in "bc"
            assert masks == [40]  # 311 tokens, in words of 32 bits
            masks.clear()


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 0, "repeat_penalty": 1.0001}])
def test_greedy_takes_the_likeliest_of_what_is_allowed(llm: kollama.LLM, options: dict[str, float]) -> None:
    done = llm.complete("a", regex="[abc]{5}", **options)  # type: ignore[arg-type]
    tok = llm.tokenizer
    allowed = [token for token in range(len(tok)) if tok._token_bytes()[0][token] in (b"a", b"b", b"c")]
    with llm._context.sequence() as seq:
        seq.append(tok.encode("a", add_bos=tok.add_bos))
        for token in done.tokens:
            assert token == allowed[int(np.argmax(seq.logits[allowed]))]
            seq.append([token])
    assert len(done.tokens) == 5


def test_logprobs_are_the_model_s_own(llm: kollama.LLM) -> None:
    tok = llm.tokenizer
    done = llm.complete("a", json_schema=PERSON, seed=1, max_tokens=200, logprobs=2)
    assert done.logprobs is not None and done.top_logprobs is not None
    with llm._context.sequence() as seq:
        seq.append(tok.encode("a", add_bos=tok.add_bos))
        for token, logprob, top in zip(done.tokens, done.logprobs, done.top_logprobs, strict=True):
            row = seq.logits.astype(np.float64)
            own = row - np.log(np.exp(row - row.max()).sum()) - row.max()
            assert own[token] == pytest.approx(logprob, abs=1e-4)
            assert top[0][0] == int(row.argmax())
            seq.append([token])


def test_seeds(llm: kollama.LLM) -> None:
    texts = [llm.complete("a", json_schema=PERSON, seed=seed, max_tokens=200).text for seed in (7, 7, 8)]
    assert texts[0] == texts[1] != texts[2]


def test_several_at_once(llm: kollama.LLM) -> None:
    for done in llm.complete(["a", "b", "c"], json_schema=PERSON, seed=7, max_tokens=200):
        jsonschema.validate(json.loads(done.text), PERSON)
    streams = [llm.generate("a", json_schema=PERSON, max_tokens=200), llm.generate("b", regex="[가-힣]{20}")]
    texts = ["", ""]
    for _ in range(200):
        for i, stream in enumerate(streams):
            texts[i] += getattr(next(stream, None), "text", "")
    jsonschema.validate(json.loads(texts[0]), PERSON)
    assert re.fullmatch("[가-힣]{20}", texts[1])
    for stream in streams:
        stream.close()


def test_in_a_chain_it_masks_at_its_place(llm: kollama.LLM) -> None:
    with llm._context.sequence() as seq:
        seq.append([1, 300])
        seq.logits[9] = 99
        with pytest.raises(kollama.ArgumentError, match="regex allows none of the tokens"):
            kollama.Sampler.chain([TopK(1), Regex("[가나]")]).sample(seq)
        seq.logits[:] = -np.inf
        seq.logits[9] = 99
        with pytest.raises(kollama.ArgumentError, match="json_schema allows none of the tokens"):
            kollama.Sampler(json_schema={"const": 1}).sample(seq)
    for link in (JsonSchema(PERSON), Lark('start: "가나" | "나"'), Regex("[가나]{2}")):
        done = llm.complete("a", sampler=kollama.Sampler.chain([link, TopK(5), Temperature(1)]), max_tokens=200)
        assert done.finish_reason == "stop"


def test_every_way_to_choose(llm: kollama.LLM) -> None:
    for options in ({"mirostat": 1}, {"mirostat": 2}, {"adaptive_target": 0.5}, {"xtc_probability": 1.0},
                    {"repeat_penalty": 1.3}, {"top_k": 0, "top_p": 1.0, "min_p": 0.0}):
        done = llm.complete("a", json_schema=PERSON, seed=1, max_tokens=200, **options)  # type: ignore[arg-type]
        jsonschema.validate(json.loads(done.text), PERSON)


def test_a_callable_beside_it(llm: kollama.LLM) -> None:
    def no_b(_: np.ndarray, logits: np.ndarray) -> None:
        logits[llm.tokenizer.id("b")] = -np.inf
        logits[3 + ord("b")] = -np.inf

    sampler = kollama.Sampler.chain([Regex("[ab]{6}"), no_b])
    assert llm.complete("a", sampler=sampler).text == "aaaaaa"


def test_special_tokens_are_no_text(llm: kollama.LLM) -> None:
    tok = llm.tokenizer
    with llm._context.sequence() as seq:
        seq.append([1, 300])
        seq.logits[[0, 1, 2]] = 99
        assert kollama.Sampler(regex="(?s:.+)", temperature=0).sample(seq) not in (0, 1, 2)
        seq.logits[[0, 1]] = -99
        assert kollama.Sampler(regex="(?s:.*)", temperature=0).sample(seq) == tok.eos


def test_it_follows_what_the_caller_does(llm: kollama.LLM) -> None:
    tok = llm.tokenizer
    a, b = tok.id("a"), tok.id("b")

    def sample() -> str:
        return tok.decode([sampler.sample(seq)])

    with llm._context.sequence() as seq:
        seq.append([1, 300])
        sampler = kollama.Sampler(regex="(ab|bc)+", temperature=0)
        for _ in range(3):
            assert sample() in "ab"  # again and again, nothing appended
        seq.append([b])
        assert sample() == "c"
        seq.rewind(2)
        seq.append([a])
        assert sample() == "b"
        seq.append([a])  # what it does not allow
        for _ in range(2):
            with pytest.raises(kollama.ArgumentError, match="regex does not allow token"):
                sampler.sample(seq)
        seq.rewind(2)
        seq.append([a])
        assert sample() == "b"
    # A generation begins anew with the same sampler.
    for _ in range(2):
        assert re.fullmatch("(ab|bc)+.?", llm.complete("x", sampler=sampler, max_tokens=8).text)


def test_after_the_end_only_an_end_token_comes(llm: kollama.LLM) -> None:
    tok = llm.tokenizer
    with llm._context.sequence() as seq:
        seq.append([1, 300])
        sampler = kollama.Sampler(json_schema={"const": 7}, temperature=0)
        text = bytearray()
        while not tok.is_eog(token := sampler.sample(seq)):
            text += tok.decode_bytes([token])
            seq.append([token])
        assert text == b"7"
        seq.append([token])
        assert tok.is_eog(sampler.sample(seq))


def test_a_clone_goes_on_from_the_same_place(context: Callable[..., kollama.Context]) -> None:
    with context(n_seq_max=2) as ctx, ctx.sequence() as seq:
        tok = ctx.model.tokenizer
        seq.append([1, 300])
        sampler = kollama.Sampler(regex="a(bb|cc)a", temperature=0)
        for _ in range(2):
            seq.append([sampler.sample(seq)])
        with seq.fork() as fork:
            other = sampler.clone()
            rest = []
            for stream, one in ((seq, sampler), (fork, other)):
                ids = []
                while not tok.is_eog(token := one.sample(stream)):
                    ids.append(token)
                    stream.append([token])
                rest.append(tok.decode(ids))
        assert rest[0] == rest[1] and re.fullmatch("(b|c)a", rest[0])


def test_one_sampler_with_another_model(llm: kollama.LLM, tiny_path: Path) -> None:
    sampler = kollama.Sampler(json_schema={"const": "가"})
    assert llm.complete("a", sampler=sampler).text == '"가"'
    with kollama.LLM(tiny_path, n_ctx=64, n_threads=1) as other:
        assert other.complete("a", sampler=sampler).text == '"가"'
    assert llm.complete("a", sampler=sampler).text == '"가"'


def test_the_vocabulary_is_read_once_for_a_model_and_goes_with_it(
    tiny_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads: list[object] = []
    read = structured._tokenizer_of
    monkeypatch.setattr(structured, "_tokenizer_of", lambda model: (reads.append(None), read(model))[1])
    gc.collect()
    before = len(structured._vocabularies)
    with kollama.LLM(tiny_path, n_ctx=64, n_threads=1) as llm:
        for i in range(structured.KEPT_GRAMMARS + 2):
            assert llm.complete("a", json_schema={"const": i}).text == str(i)
        assert len(reads) == 1
        assert len(structured._vocabularies) == before + 1
    del llm
    gc.collect()
    assert len(structured._vocabularies) == before


def test_the_bytes_of_all_tokens(llm: kollama.LLM) -> None:
    tok = llm.tokenizer
    tokens, special = tok._token_bytes()
    assert special == [0, 1, 2]
    assert len(tokens) == len(tok)
    for token in range(3, len(tok)):
        assert tokens[token] == tok.decode_bytes([tok.id("a"), token])[1:]


def test_what_a_matcher_raises_reaches_the_caller(
    llm: kollama.LLM, context: Callable[..., kollama.Context], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> bool:
        raise ZeroDivisionError("mine")

    for method in ("bind", "begin", "allows", "accept", "mask"):
        with monkeypatch.context() as patch:
            patch.setattr(structured.Matcher, method, fail)
            with pytest.raises(ZeroDivisionError, match="mine"):
                llm.complete("a", json_schema=PERSON)
            with context().sequence() as seq:
                seq.append([1, 300])
                with pytest.raises(ZeroDivisionError, match="mine"):
                    kollama.Sampler(json_schema=PERSON).sample(seq)
        assert llm.complete("a", json_schema={"const": "가"}).text == '"가"'


def test_what_it_raises_far_ahead_reaches_the_caller_too(
    llm: kollama.LLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    accept = structured.Matcher.accept
    calls: list[int] = []

    def third(self: structured.Matcher, token: int) -> bool:
        calls.append(token)
        if len(calls) == 3:
            raise ZeroDivisionError("mine")
        return accept(self, token)

    monkeypatch.setattr(structured.Matcher, "accept", third)
    stream = llm.generate("a", regex="[abc]{9}")
    for _ in range(2):
        next(stream)
    with pytest.raises(ZeroDivisionError, match="mine"):
        next(stream)


class Pydantic:
    """What a class of Pydantic offers."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        return {"$defs": {"색": {"enum": ["빨강"], "title": "색", "type": "string"}},
                "properties": {"color": {"$ref": "#/$defs/색"}}, "required": ["color"], "title": "P", "type": "object",
                "additionalProperties": False}


class TypeAdapter:
    def json_schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


def test_pydantic(llm: kollama.LLM) -> None:
    assert json.loads(llm.complete("a", json_schema=Pydantic, seed=1).text) == {"color": "빨강"}
    assert llm.complete("a", json_schema=TypeAdapter(), seed=1).text in ("true", "false")


REFUSED = [
    ({"json_schema": False}, "no value satisfies it"),
    ({"json_schema": "false"}, "no value satisfies it"),
    ({"json_schema": {"enum": []}}, "Unsatisfiable"),
    ({"json_schema": {"type": "object", "required": ["a"], "additionalProperties": False, "properties": {}}}, "Unsatisfiable"),
    ({"json_schema": {"type": "integer", "minimum": 2, "maximum": 1}}, "Unsatisfiable"),
    ({"json_schema": {"type": "string", "minLength": 2, "maxLength": 1}}, "Unsatisfiable"),
    ({"json_schema": {"allOf": [{"type": "string"}, {"type": "null"}]}}, "Unsatisfiable"),
    ({"json_schema": {"type": "array", "items": False, "minItems": 1}}, "Unsatisfiable"),
    ({"json_schema": {"not": {}}}, "not"),
    ({"json_schema": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
    ({"json_schema": {"type": "글자"}}, "글자"),
    ({"json_schema": {"type": "string", "format": "idn-email"}}, "idn-email"),
    ({"json_schema": {"type": "string", "pattern": "("}}, "unclosed group"),
    ({"json_schema": {"type": "string", "pattern": "(?=a)b"}}, "look-around"),
    ({"json_schema": {"$ref": "https://example.com/x.json"}}, "example.com"),
    ({"json_schema": {"$ref": "#/$defs/없음"}}, "%EC%97%86"),
    ({"json_schema": {"$ref": "#"}}, "contain itself"),
    ({"json_schema": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]}}, "contain itself"),
    ({"json_schema": "{"}, "not JSON"),
    ({"json_schema": b"\xff"}, "not JSON"),
    ({"json_schema": {"enum": [float("nan")]}}, "not JSON"),
    ({"json_schema": {"enum": [{1}]}}, "not JSON"),
    ({"json_schema": {"const": "\ud800"}}, "surrogate"),
    ({"json_schema": "[" * 100_000}, "nested"),
    ({"json_schema": {"x-guidance": 3}}, "x-guidance"),
    ({"regex": "("}, "unclosed group"),
    ({"regex": "(?=a)b"}, "look-around"),
    ({"regex": "\ud800"}, "surrogate"),
    ({"lark": 'start: "a" | b'}, 'unknown name: "b"'),
    ({"lark": 'begin: "a"'}, "start"),
    ({"lark": "start: %json {\"enum\": []}"}, "Unsatisfiable"),
    ({"regex": "a", "lark": 'start: "a"'}, "regex and lark"),
    ({"grammar": 'root ::= "a"', "json_schema": {}}, "grammar and json_schema"),
]


@pytest.mark.parametrize(("form", "reason"), REFUSED, ids=lambda value: repr(value)[:50])
def test_what_cannot_be_is_refused_before_anything_runs(form: dict[str, Any], reason: str) -> None:
    with pytest.raises(kollama.ArgumentError, match=re.escape(reason)) as caught:
        kollama.Sampler(**form)
    assert "no_forcing" not in str(caught.value)


@pytest.mark.parametrize("form", [{"regex": "[a&&b]"}, {"lark": "start: start"}, {"lark": "start: <nonsense>"}],
                         ids=str)
def test_what_only_the_vocabulary_shows_is_refused_before_the_first_token(llm: kollama.LLM, form: dict[str, str]) -> None:
    with pytest.raises(kollama.ArgumentError, match="cannot be used") as caught:
        llm.complete("a", **form)  # type: ignore[arg-type]
    assert "no_forcing" not in str(caught.value)


def test_types() -> None:
    for form in ({"json_schema": 3}, {"json_schema": [1]}, {"json_schema": "3"}, {"regex": 3}, {"lark": b"start: 3"}):
        with pytest.raises(TypeError):
            kollama.Sampler(**form)  # type: ignore[arg-type]


def test_without_llguidance(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    for form in ({"json_schema": {}}, {"regex": "a"}, {"lark": 'start: "a"'}):
        with pytest.raises(kollama.KollamaError, match=re.escape("pip install 'kollama[structured]'")):
            kollama.Sampler(**form)  # type: ignore[arg-type]


def test_the_schema_is_taken_as_it_was() -> None:
    schema: dict[str, Any] = {"properties": {"a": {"$ref": "#/$defs/가"}, "enum": [{"$ref": "가"}]}, "$defs": {"가": {}}}
    taken = schemas.schema_of(schema)
    schema["properties"]["a"] = 1
    assert taken["properties"]["a"] == {"$ref": "#/$defs/%EA%B0%80"}
    assert taken["properties"]["enum"] == [{"$ref": "가"}]


@pytest.mark.parametrize(("schema", "finite"), [
    ({"type": "array", "items": {"$ref": "#"}}, True),
    ({"type": "array", "items": {"$ref": "#"}, "minItems": 1}, False),
    ({"type": "array", "prefixItems": [{"type": "null"}], "items": {"$ref": "#"}, "minItems": 1}, True),
    ({"type": "array", "prefixItems": [{"type": "null"}], "items": {"$ref": "#"}, "minItems": 2}, False),
    ({"anyOf": [{"type": "null"}, {"$ref": "#"}]}, True),
    ({"allOf": [{"type": "null"}, {"$ref": "#"}]}, False),
    ({"type": "object", "properties": {"a": {"$ref": "#"}}}, True),
    ({"type": "object", "properties": {"a": {"$ref": "#/properties/b"}, "b": {"$ref": "#/properties/a"}}, "required": ["b"]}, False),
    ({"type": "object", "properties": {"a/b": {"$ref": "#/properties/a~1b/x"}}, "required": ["a/b"]}, True),
    ({"$ref": "#/prefixItems/1", "prefixItems": [{}, {"type": "null"}]}, True),
    ({"$ref": "#anchor"}, True),
    ({"type": ["object", "null"], "properties": {"a": {"$ref": "#"}}, "required": ["a"]}, True),
], ids=str)
def test_values_that_would_contain_themselves(schema: dict[str, Any], finite: bool) -> None:
    if finite:
        schemas.check_finite(schema)
    else:
        with pytest.raises(kollama.ArgumentError, match="contain itself"):
            schemas.check_finite(schema)


def test_fifty_schemas() -> None:
    assert len(SCHEMAS) == 50
    for entry in SCHEMAS:
        jsonschema.Draft202012Validator.check_schema(entry["schema"])
        kollama.Sampler(json_schema=entry["schema"])


@pytest.fixture
def deep() -> Iterator[None]:
    """The judge needs ten frames for each level of what a small model nests a thousand deep."""
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(30_000)
    yield
    sys.setrecursionlimit(limit)


@pytest.mark.model
@pytest.mark.usefixtures("deep")
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_a_real_model_keeps_to_every_schema(smollm2: kollama.Model, temperature: float) -> None:
    checker = jsonschema.Draft202012Validator.FORMAT_CHECKER
    with kollama.LLM(smollm2, n_ctx=2048, n_parallel=5) as llm:
        for entry in SCHEMAS:
            done = llm.complete(entry.get("prompt", "Here is an example in JSON:\n"), json_schema=entry["schema"],
                                temperature=temperature, seed=1, max_tokens=1500)
            assert done.finish_reason in ("stop", "eos"), entry["name"]
            jsonschema.Draft202012Validator(entry["schema"], format_checker=checker).validate(json.loads(done.text))


@pytest.mark.model
def test_gemma_writes_korean_json(gemma: kollama.Model) -> None:
    with kollama.LLM(gemma, n_ctx=512) as llm:
        done = llm.complete("서울에 사는 사람을 JSON으로 쓰면:\n", json_schema=PERSON, seed=1, max_tokens=200)
        jsonschema.validate(json.loads(done.text), PERSON)


def test_a_token_that_is_sent(llm: kollama.LLM) -> None:
    tok = llm.tokenizer
    a, b = tok.id("a"), tok.id("b")
    with llm.generate("x", regex="(ab|bc)[abc]", temperature=0, logit_bias={a: 30.0}) as stream:
        assert next(stream).id == a
        assert tok.decode([stream.send(b).id]) == "c"
        assert tok.decode([next(stream).id]) == "a"
        with pytest.raises(kollama.ArgumentError, match="regex does not allow token"):
            stream.send(tok.id("가"))
