"""The chat formats of the Korean Llama family, and the two that everybody knows.

Where a format was trained on single questions, an earlier question and its answer are put before
the next one in the same shape. Answers are stripped of the white space around them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from .chat import Message
from .chat_format import ChatFormat, Mark, Part, Special
from .errors import ArgumentError

__all__ = ["BUILTIN"]

CONTEXT_ROLES = ("context", "input")
CHATML_ROLES = ("system", "user", "assistant")


@dataclass(slots=True)
class Turn:
    """A question, what goes with it, and its answer: None for the one to be answered."""

    question: str
    context: str | None = None
    answer: str | None = None


@dataclass(slots=True)
class Dialogue:
    system: str | None
    turns: list[Turn]


def content_of(message: Message) -> str:
    """The text of a message. OpenAI's list of parts is joined; what is no text is an error."""
    content = message["content"]
    if isinstance(content, str):
        return content
    if not isinstance(content, (list, tuple)):
        raise TypeError(f"the content of a message must be a str, not {type(content).__name__}")
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise ArgumentError("a message holds something that is no text: this format has no "
                                "place for it")
        texts.append(part["text"])
    return "".join(texts)


def dialogue(name: str, messages: Sequence[Message], *, system: str = "",
             context: bool = False) -> Dialogue:
    """The messages as turns.

    Args:
        name: of the format, for errors.
        system: why a system message has no place; empty where it has one, as the first message.
        context: whether a question can have a message of role "context" (or "input") after it.
    """
    result = Dialogue(None, [])
    for index, message in enumerate(messages):
        role, text = message["role"], content_of(message)
        last = result.turns[-1] if result.turns else None
        if role == "system" and system:
            raise ArgumentError(f"the chat format {name} has no place for a system message: "
                                f"{system}")
        if role == "system":
            if index:
                raise ArgumentError("a system message must be the first of the messages")
            result.system = text
        elif role == "user":
            if last is not None and last.answer is None:
                raise ArgumentError(f"message {index}: two questions with no answer between them")
            result.turns.append(Turn(text))
        elif role in CONTEXT_ROLES and context:
            if last is None or last.answer is not None or last.context is not None:
                raise ArgumentError(f'message {index}: a "{role}" message stands right after the '
                                    "user's message that it belongs to")
            last.context = text
        elif role == "assistant":
            if last is None or last.answer is not None:
                raise ArgumentError(f"message {index}: an answer with no question before it")
            last.answer = text.strip()
        else:
            roles = ["system"] * (not system) + ["user", "assistant"] + ["context"] * context
            raise _unknown(name, index, role, roles)
    if not result.turns or result.turns[-1].answer is not None:
        raise ArgumentError("the last message must be a question: there is nothing to answer")
    return result


def _unknown(name: str, index: int, role: object, roles: Sequence[str]) -> ArgumentError:
    return ArgumentError(f"message {index} has the role {role!r}; the chat format {name} knows "
                         f"{', '.join(roles)}")


_KULLM = "아래는 작업을 설명하는 명령어입니다. 요청을 적절히 완료하는 응답을 작성하세요."
_KULLM_WITH_INPUT = (
    "아래는 작업을 설명하는 명령어와 추가 컨텍스트를 제공하는 입력이 짝을 이루는 예제입니다. "
    "요청을 적절히 완료하는 응답을 작성하세요."
)
_TO_THE_USER = 'put it into the first user message, or what it tells into a "context" message'


def _kullm(name: str, after_heading: str) -> ChatFormat:
    def render(messages: Sequence[Message]) -> str:
        turns = dialogue(name, messages, system=_TO_THE_USER, context=True).turns
        with_input = any(turn.context is not None for turn in turns)
        blocks = [_KULLM_WITH_INPUT if with_input else _KULLM]
        for turn in turns:
            blocks.append(f"### 명령어:\n{turn.question}")
            if turn.context is not None:
                blocks.append(f"### 입력:\n{turn.context}")
            blocks.append(f"### 응답:{after_heading}" if turn.answer is None
                          else f"### 응답:\n{turn.answer}")
        return "\n\n".join(blocks)

    return ChatFormat(name, render, ("### 명령어:", "### 입력:", "### 응답:"))


def _koalpaca(messages: Sequence[Message]) -> str:
    blocks = []
    for turn in dialogue("koalpaca", messages, system=_TO_THE_USER, context=True).turns:
        blocks.append(f"### 질문: {turn.question}")
        if turn.context is not None:
            blocks.append(f"### 맥락: {turn.context}")
        blocks.append("### 답변:" if turn.answer is None else f"### 답변: {turn.answer}")
    return "\n\n".join(blocks)


def _llama_2(messages: Sequence[Message]) -> Iterator[Part]:
    found = dialogue("llama-2", messages)
    for index, turn in enumerate(found.turns):
        question = turn.question
        if index == 0 and found.system is not None:
            question = f"<<SYS>>\n{found.system}\n<</SYS>>\n\n{question}"
        # Stripped as Meta's own code does it; each turn is a text of its own there, too.
        yield f"[INST] {question.strip()} [/INST]"
        if turn.answer is not None:
            yield f" {turn.answer} "
            yield Mark.EOS
            yield Mark.BOS


def _qa(messages: Sequence[Message]) -> str:
    found = dialogue("qa", messages)
    lines = [] if found.system is None else [found.system]
    for turn in found.turns:
        lines.append(f"Q: {turn.question} A: {turn.answer or ''}")
    return "\n".join(lines)


def _chatml(messages: Sequence[Message]) -> Iterator[Part]:
    for index, message in enumerate(messages):
        if message["role"] not in CHATML_ROLES:
            raise _unknown("chatml", index, message["role"], CHATML_ROLES)
        yield Special("<|im_start|>")
        yield f"{message['role']}\n{content_of(message)}"
        yield Special("<|im_end|>")
        yield "\n"
    yield Special("<|im_start|>")
    yield "assistant\n"


BUILTIN = (
    _kullm("kullm", "\n"),
    _kullm("llama-2-ko-chat", ""),  # kfkas/Llama-2-ko-7b-Chat: KULLM's, with no newline at the end
    ChatFormat("koalpaca", _koalpaca, ("### 질문:", "### 맥락:", "### 답변:")),
    ChatFormat("llama-2", _llama_2),
    ChatFormat("qa", _qa, ("Q:", "\n")),
    ChatFormat("chatml", _chatml, ("<|im_end|>", "<|im_start|>")),
)
