"""Steps as the dicts that create_completion returns."""

from __future__ import annotations

import time
import uuid
from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, field

from .._core.tokenizer import Decoder
from ..errors import BusyError
from .loop import Loop
from .run import Request, Step, TokenScore, score, steps
from .tokenizer import LlamaTokenizer
from .types import CompletionChoice, CompletionLogprobs, CreateCompletionResponse

__all__ = ["Completion"]


@dataclass(slots=True)
class Completion:
    """One call of create_completion."""

    llama: Loop
    request: Request
    model: str
    prompt_text: str
    echo: bool
    strip_space: bool  # nothing stands before the text
    tokens: list[int] = field(default_factory=list)
    _id: str = field(default_factory=lambda: f"cmpl-{uuid.uuid4()}")
    _created: int = field(default_factory=lambda: int(time.time()))
    _offset: int = 0  # of the next token, in characters of the text before it
    _characters: Decoder | None = None

    def whole(self) -> CreateCompletionResponse:
        """The completion."""
        text, reason = "", None
        logprobs = None if self.request.logprobs is None else _no_logprobs()
        with closing(self._parts()) as parts:
            for piece, some, finish in parts:
                text, reason = text + piece, finish
                if logprobs is not None and some is not None:
                    _extend(logprobs, some)
        n_prompt, n = len(self.request.prompt), len(self.tokens)
        response = self._response(text, logprobs, reason)
        response["usage"] = {"prompt_tokens": n_prompt, "completion_tokens": n,
                             "total_tokens": n_prompt + n}
        return response

    def chunks(self) -> Generator[CreateCompletionResponse, None, None]:
        """The same in chunks of whole characters; the last has no text but the finish_reason."""
        logprobs = None if self.request.logprobs is None else _no_logprobs()
        with closing(self._parts()) as parts:
            for piece, some, finish in parts:
                if logprobs is not None and some is not None:
                    _extend(logprobs, some)
                tokens_wait = logprobs is not None and bool(logprobs["tokens"])
                if piece or (finish is not None and tokens_wait):
                    yield self._response(piece, logprobs, None)
                    logprobs = None if logprobs is None else _no_logprobs()
                if finish is not None:
                    yield self._response("", None, finish)

    def _parts(
        self,
    ) -> Generator[tuple[str, CompletionLogprobs | None, str | None], None, None]:
        """(text, logprobs, finish) of each step, the echoed prompt first."""
        run = steps(self.llama, self.request)
        self.llama._begin(run)
        wants_scores = self.request.logprobs is not None
        with closing(run):
            if self.echo:
                self._characters = self.llama._model.tokenizer.decoder(skip_special=True)
                scored = list(self._prompt_scores()) if wants_scores else []
                yield self.prompt_text, self._logprobs(scored, first=True), None
            self._offset = len(self.prompt_text)
            self._characters = LlamaTokenizer(self.llama).stream()
            finished = False
            for step in run:
                finished = step.finish is not None
                yield self._part(step)
            if not finished:
                raise BusyError("a later call of this Llama ended this stream")

    def _part(self, step: Step) -> tuple[str, CompletionLogprobs | None, str | None]:
        if step.token is not None:
            self.tokens.append(step.token)
        if self.strip_space and step.text:
            self.strip_space = False
            step.text = step.text.removeprefix(" ")
        logprobs = None if step.score is None else self._logprobs([step.score])
        return step.text, logprobs, step.finish

    def _prompt_scores(self) -> Iterator[TokenScore]:
        """What the model thought of each token of the prompt, in a pass of their own."""
        sequence, n_top = self.llama._open, self.request.logprobs or 0
        prompt = self.request.prompt
        sequence.clear()
        for i, token in enumerate(prompt):
            if i > 0:
                yield score(sequence.logits, token, n_top)
            elif token != self.llama.token_bos():
                yield TokenScore(token, 0.0, [])  # never shown: see _logprobs
            sequence.append([token])

    def _logprobs(self, scores: list[TokenScore], first: bool = False) -> CompletionLogprobs | None:
        if self.request.logprobs is None:
            return None
        result = _no_logprobs()
        for i, item in enumerate(scores):
            text = self._token_text(item.token)
            result["tokens"].append(text)
            result["text_offset"].append(self._offset)
            known = not (first and i == 0)  # of the first token OpenAI's interface says nothing
            result["token_logprobs"].append(item.logprob if known else None)
            top: dict[str, float] = {}
            for token, logprob in item.top:
                top.setdefault(self._token_text(token), logprob)
            result["top_logprobs"].append(top | {text: item.logprob} if known else None)
            if self._characters is not None:
                self._offset += len(self._characters.push(item.token))
        return result

    def _token_text(self, token: int) -> str:
        raw = self.llama.detokenize([token], special=True)
        try:
            return raw.decode()
        except UnicodeDecodeError:  # a part of a character, as OpenAI's interface writes it
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    def _response(self, text: str, logprobs: CompletionLogprobs | None,
                  finish: str | None) -> CreateCompletionResponse:
        choice: CompletionChoice = {"text": text, "index": 0, "logprobs": logprobs,
                                    "finish_reason": finish}
        return {"id": self._id, "object": "text_completion", "created": self._created,
                "model": self.model, "choices": [choice]}


def _no_logprobs() -> CompletionLogprobs:
    return {"tokens": [], "text_offset": [], "token_logprobs": [], "top_logprobs": []}


def _extend(logprobs: CompletionLogprobs, more: CompletionLogprobs) -> None:
    logprobs["tokens"] += more["tokens"]
    logprobs["text_offset"] += more["text_offset"]
    logprobs["token_logprobs"] += more["token_logprobs"]
    logprobs["top_logprobs"] += more["top_logprobs"]
