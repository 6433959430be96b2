"""kollama.compat: create_chat_completion."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

import kollama
from kollama.compat import ChatCompletionRequestUserMessage, Llama, LlamaGrammar

QUESTION = ChatCompletionRequestUserMessage(role="user", content="대한민국의 수도는 어디인가요?")
BIAS = {tiny.EOS: -200.0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model without a chat template."""
    return tiny.write_llama(tmp_path_factory.mktemp("base") / "base.gguf")


@pytest.fixture
def llama(base: Path) -> Iterator[Llama]:
    with Llama(str(base), n_ctx=512, n_threads=1, seed=7, chat_format="kullm") as opened:
        yield opened


def content_of(result: Any) -> str:
    return str(result["choices"][0]["message"]["content"])


def test_shape(llama: Llama) -> None:
    result: Any = llama.create_chat_completion([QUESTION], max_tokens=5, logit_bias=BIAS)
    assert set(result) == {"id", "object", "created", "model", "choices", "usage"}
    assert result["id"].startswith("chatcmpl-")
    assert result["object"] == "chat.completion"
    (choice,) = result["choices"]
    assert set(choice) == {"index", "message", "logprobs", "finish_reason"}
    assert choice["message"] == {"role": "assistant", "content": content_of(result)}
    assert (choice["logprobs"], choice["finish_reason"]) == (None, "length")
    prompt = kollama.chat_formats()["kullm"].encode([QUESTION], llama._model.tokenizer)
    assert result["usage"] == {"prompt_tokens": len(prompt), "completion_tokens": 5, "total_tokens": len(prompt) + 5}
    same: Any = llama(prompt.tolist(), max_tokens=5, temperature=0.0, logit_bias=BIAS)
    greedy: Any = llama.create_chat_completion([QUESTION], max_tokens=5, temperature=0.0, logit_bias=BIAS)
    assert content_of(greedy) == same["choices"][0]["text"]


@pytest.mark.parametrize("options", [{}, {"logprobs": True, "top_logprobs": 2}, {"logprobs": True}], ids=str)
def test_stream(llama: Llama, options: dict[str, Any]) -> None:
    common = {"max_tokens": 30, "temperature": 2.0, "seed": 3, "logit_bias": BIAS, **options}
    whole: Any = llama.create_chat_completion([QUESTION], **common)
    llama.reset()  # a prompt read anew differs in its last bits from one that is reused
    chunks: list[Any] = list(llama.create_chat_completion([QUESTION], stream=True, **common))
    assert {(chunk["object"], frozenset(chunk)) for chunk in chunks} == {
        ("chat.completion.chunk", frozenset({"id", "object", "created", "model", "choices"}))}
    choices = [chunk["choices"][0] for chunk in chunks]
    assert {frozenset(choice) for choice in choices} == {frozenset({"index", "delta", "logprobs", "finish_reason"})}
    assert choices[0]["delta"] == {"role": "assistant"}
    assert (choices[-1]["delta"], choices[-1]["finish_reason"]) == ({}, whole["choices"][0]["finish_reason"])
    assert "".join(choice["delta"]["content"] for choice in choices[1:-1]) == content_of(whole)
    if options:
        joined = [entry["token"] for choice in choices if choice["logprobs"] for entry in choice["logprobs"]["content"]]
        content = whole["choices"][0]["logprobs"]["content"]
        assert joined == [entry["token"] for entry in content]
        for entry in content:
            assert set(entry) == {"token", "bytes", "logprob", "top_logprobs"}
            assert {frozenset(top) for top in entry["top_logprobs"]} == {frozenset({"token", "bytes", "logprob"})}
            assert len(entry["top_logprobs"]) >= options.get("top_logprobs", 1)


def test_formats(base: Path, tiny_path: Path) -> None:
    message = {"role": "user", "content": "안녕하세요"}
    for path, chat_format, meant in [(base, None, "llama-2"), (base, "koalpaca", "koalpaca"), (tiny_path, "qa", "qa")]:
        with Llama(str(path), n_ctx=256, n_threads=1, chat_format=chat_format) as llama:
            assert llama.chat_format == meant
            expected = kollama.chat_formats()[meant].encode([message], llama._model.tokenizer)
            result: Any = llama.create_chat_completion([message], max_tokens=1)
            assert result["usage"]["prompt_tokens"] == len(expected)
    with Llama(str(tiny_path), n_ctx=256, n_threads=1) as llama, kollama.LLM(tiny_path, n_ctx=256, n_threads=1) as llm:
        assert llama.chat_format == "chat_template.default"
        result = llama.create_chat_completion([message], max_tokens=1)
        with llm.chat([message], max_tokens=1) as stream:
            assert result["usage"]["prompt_tokens"] == stream.finish().usage.prompt_tokens
        llama.chat_format = "koalpaca"  # as people set it
        changed: Any = llama.create_chat_completion([message], max_tokens=1)
        assert changed["usage"] != result["usage"]


def test_the_formats_stop_texts(llama: Llama) -> None:
    heading = "### 명령어:"
    forced = llama.tokenize(("네 " + heading).encode(), add_bos=False)[1:]  # after the space that begins a text
    prompt: list[int] = []

    def write_heading(ids: Any, row: Any) -> Any:
        prompt.append(len(ids))
        row[:] = -100
        row[forced[min(len(ids) - prompt[0], len(forced) - 1)]] = 100
        return row

    result: Any = llama.create_chat_completion([QUESTION], max_tokens=60, logits_processor=[write_heading])
    assert (content_of(result), result["choices"][0]["finish_reason"]) == ("네 ", "stop")
    prompt.clear()
    mine: Any = llama.create_chat_completion([QUESTION], max_tokens=60, stop="네", logits_processor=[write_heading])
    assert content_of(mine) == ""


def test_json_answers(llama: Llama) -> None:
    schema = {"type": "object", "properties": {"수도": {"enum": ["서울", "부산"]}}, "required": ["수도"]}
    result = llama.create_chat_completion([QUESTION], response_format={"type": "json_object", "schema": schema}, max_tokens=120)
    assert json.loads(content_of(result))["수도"] in ("서울", "부산")
    free = llama.create_chat_completion([QUESTION], response_format={"type": "json_object"}, max_tokens=8, temperature=0.0)
    assert content_of(free).startswith("{")
    grammar = LlamaGrammar.from_string('root ::= "서울"')
    for form in (None, {"type": "text"}):
        answer = llama.create_chat_completion([QUESTION], response_format=form, grammar=grammar)  # type: ignore[arg-type]
        assert content_of(answer) == "서울"


def test_a_chat_handler_gets_everything(base: Path) -> None:
    seen: dict[str, Any] = {}

    def handler(**arguments: Any) -> Any:
        seen.update(arguments)
        return arguments["llama"].create_completion("안녕", max_tokens=1)

    with Llama(str(base), n_ctx=64, n_threads=1, chat_handler=handler) as llama:
        result: Any = llama.create_chat_completion([QUESTION], tools=[{"type": "function"}], temperature=0.5)
        assert result["object"] == "text_completion"
        assert (seen["llama"], seen["messages"], seen["temperature"]) == (llama, [QUESTION], 0.5)
        assert seen["tools"] == [{"type": "function"}]


@pytest.mark.parametrize(("options", "reason"), [
    ({"tools": [{"type": "function"}]}, "tools: calling tools"), ({"functions": [{}]}, "functions"), ({"tool_choice": "auto"}, "tool_choice"),
    ({"response_format": {"type": "xml"}}, "has the type 'xml'"),
    ({"response_format": {"type": "json_object", "schema": {"type": "string", "pattern": "a"}}}, "pattern"),
    ({"messages": [{"role": "system", "content": "짧게"}, QUESTION]}, "no place for a system message"),
    ({"messages": []}, "empty"), ({"messages": [{"role": "tool", "content": "a"}]}, "role 'tool'"), ({"tfs_z": 0.5}, "tfs_z"),
])  # fmt: skip
def test_refusals(llama: Llama, options: dict[str, Any], reason: str) -> None:
    with pytest.raises(kollama.ArgumentError, match=reason):
        llama.create_chat_completion(**{"messages": [QUESTION], "max_tokens": 2, **options})


def test_what_says_nothing_is_accepted(llama: Llama) -> None:
    result = llama.create_chat_completion([QUESTION], max_tokens=2, tools=[], tool_choice="none", functions=None, stop=None, logprobs=False)
    assert content_of(result) is not None
