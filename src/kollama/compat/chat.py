"""create_chat_completion: messages to a prompt, and completions to OpenAI's chat shapes."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from typing import Any, TypeAlias, cast

from ..chat import Message, encode_rendered, render_template
from ..chat_registry import find_format
from ..errors import ArgumentError
from .complete import Completing
from .grammar import JSON_GBNF, LlamaGrammar
from .processors import LogitsProcessor
from .types import (
    ChatCompletionLogprobs,
    ChatCompletionRequestResponseFormat,
    ChatCompletionStreamResponseDelta,
    CompletionLogprobs,
    CreateChatCompletionResponse,
    CreateChatCompletionStreamResponse,
    CreateCompletionResponse,
)

__all__ = ["ChatHandler", "Chatting"]

_Chunks = Generator[CreateChatCompletionStreamResponse, None, None]

# Called with llama=, messages= and all other arguments of create_chat_completion.
ChatHandler: TypeAlias = Callable[..., Any]

TEMPLATE = "chat_template.default"


class Chatting(Completing):
    """Answers to conversations."""

    chat_format: str
    chat_handler: ChatHandler | None

    def create_chat_completion(
        self,
        messages: Sequence[Message],
        functions: Sequence[Mapping[str, Any]] | None = None,
        function_call: str | Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        temperature: float = 0.2,
        top_p: float = 0.95,
        top_k: int = 40,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        stream: bool = False,
        stop: str | Iterable[str] | None = (),
        seed: int | None = None,
        response_format: ChatCompletionRequestResponseFormat | None = None,
        max_tokens: int | None = None,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        logits_processor: Iterable[LogitsProcessor] | LogitsProcessor | None = None,
        grammar: LlamaGrammar | None = None,
        logit_bias: Mapping[int, float] | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
    ) -> CreateChatCompletionResponse | _Chunks:
        """The answer to a conversation, in the chat format of this Llama.

        Args:
            messages: mappings with "role" and "content".
            functions, function_call, tools, tool_choice: not supported, but for a chat_handler.
            response_format: {"type": "json_object"}: JSON alone, of a "schema" if there is one.
            logprobs: True: give each token's log-probability, and those of the top_logprobs most
                likely ones.

        The other arguments are those of create_completion.

        Raises:
            ArgumentError: the format refuses the messages, or a value cannot be honoured.
        """
        arguments = {name: value for name, value in locals().items() if name != "self"}
        if self.chat_handler is not None:
            return cast("CreateChatCompletionResponse | _Chunks",
                        self.chat_handler(llama=self, **arguments))
        for name in ("functions", "function_call", "tools", "tool_choice"):
            if arguments.pop(name) not in (None, [], (), "none"):
                raise ArgumentError(f"{name}: calling tools is not supported; leave it None")
        del arguments["messages"], arguments["response_format"], arguments["top_logprobs"]
        prompt, stops = self._chat_prompt(messages)
        arguments["stop"] = [*([stop] if isinstance(stop, str) else stop or ()), *stops]
        arguments["grammar"] = _grammar_of(response_format, grammar)
        arguments["logprobs"] = (top_logprobs or 0) if logprobs else None
        completion = self.create_completion(prompt, **arguments)
        if stream:
            return _chat_chunks(cast("Generator[CreateCompletionResponse, None, None]", completion))
        return _chat_whole(cast("CreateCompletionResponse", completion))

    def _chat_prompt(self, messages: Sequence[Message]) -> tuple[list[int], tuple[str, ...]]:
        """Ids, and the texts that end an answer."""
        tokenizer = self._model.tokenizer
        template = self._template(self.chat_format)
        if template is not None:
            text = render_template(template, tokenizer, messages)
            return encode_rendered(tokenizer, text).tolist(), ()
        style = find_format(self.chat_format)
        return style.encode(messages, tokenizer).tolist(), style.stop

    def _template(self, chat_format: str) -> str | None:
        """The model's own template of that name."""
        if chat_format == TEMPLATE:
            return self._model.chat_template
        if chat_format.startswith("chat_template."):
            return self.metadata.get(f"tokenizer.{chat_format}")
        return None

    def _default_chat_format(self) -> str:
        return "llama-2" if self._model.chat_template is None else TEMPLATE


def _grammar_of(response_format: ChatCompletionRequestResponseFormat | None,
                grammar: LlamaGrammar | None) -> LlamaGrammar | None:
    if response_format is None or response_format.get("type") == "text":
        return grammar
    if response_format.get("type") != "json_object":
        raise ArgumentError(f"response_format has the type {response_format.get('type')!r}; it can "
                            "be 'text' or 'json_object'")
    if "schema" in response_format:
        return LlamaGrammar.from_json_schema(cast("Mapping[str, Any]", response_format["schema"]))
    return LlamaGrammar.from_string(JSON_GBNF)


def _chat_whole(completion: CreateCompletionResponse) -> CreateChatCompletionResponse:
    choice = completion["choices"][0]
    return {
        "id": "chat" + completion["id"],
        "object": "chat.completion",
        "created": completion["created"],
        "model": completion["model"],
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": choice["text"]},
                "logprobs": _chat_logprobs(choice["logprobs"]),
                "finish_reason": choice["finish_reason"],
            }
        ],
        "usage": completion["usage"],
    }


def _chat_chunks(chunks: Generator[CreateCompletionResponse, None, None]) -> _Chunks:
    for index, chunk in enumerate(chunks):
        choice = chunk["choices"][0]
        if index == 0:
            yield _chunk(chunk, {"role": "assistant"}, None, None)
        ends = choice["finish_reason"] is not None
        yield _chunk(chunk, {} if ends else {"content": choice["text"]},
                     choice["logprobs"], choice["finish_reason"])


def _chunk(
    chunk: CreateCompletionResponse, delta: ChatCompletionStreamResponseDelta,
    logprobs: CompletionLogprobs | None, finish_reason: str | None,
) -> CreateChatCompletionStreamResponse:
    return {
        "id": "chat" + chunk["id"],
        "model": chunk["model"],
        "created": chunk["created"],
        "object": "chat.completion.chunk",
        "choices": [
            {
                "index": 0,
                "delta": delta,
                "logprobs": _chat_logprobs(logprobs),
                "finish_reason": finish_reason,
            }
        ],
    }


def _chat_logprobs(logprobs: CompletionLogprobs | None) -> ChatCompletionLogprobs | None:
    if logprobs is None:
        return None
    return {
        "content": [
            {
                "token": token,
                "bytes": None,
                "logprob": 0.0 if logprob is None else logprob,
                "top_logprobs": [
                    {"token": other, "logprob": its, "bytes": None}
                    for other, its in (top or {}).items()
                ],
            }
            for token, logprob, top in zip(logprobs["tokens"], logprobs["token_logprobs"],
                                           logprobs["top_logprobs"], strict=True)
        ],
        "refusal": None,
    }
