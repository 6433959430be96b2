"""What a chat format is, for models that bring none of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from .chat import Message, check_messages

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._core.tokenizer import Tokenizer

__all__ = ["ChatFormat", "Mark", "Part", "Render", "Special"]


class Mark(Enum):
    """The vocabulary's own begin and end token inside a prompt; nothing where it has none.

    The bos that opens a prompt is none of a format's business: it is added where the model asks
    for one, and never twice.
    """

    BOS = "<s>"
    EOS = "</s>"


@dataclass(frozen=True, slots=True)
class Special:
    """A special token of a format, such as ``<|im_start|>``, by its text.

    Where the vocabulary has no such token it is text like any other.
    """

    text: str


Part: TypeAlias = str | Special | Mark
Render: TypeAlias = Callable[[Sequence[Message]], str | Iterable[Part]]


@dataclass(frozen=True, slots=True)
class ChatFormat:
    """How messages become a prompt, and the texts that end an answer besides the end token.

    `render` takes the messages and returns the prompt: a str, or its parts in order. A str is never
    parsed for special tokens, so that what a user writes cannot become one; `Special` and `Mark`
    stand for those that the format itself wants.
    """

    name: str
    render: Render
    stop: tuple[str, ...] = ()

    def parts(self, messages: Sequence[Message]) -> list[Part]:
        """The prompt of the messages, in parts.

        Raises:
            ArgumentError: the format has no place for one of the messages.
        """
        check_messages(messages)
        prompt = self.render(messages)
        parts: list[Part] = [prompt] if isinstance(prompt, str) else list(prompt)
        for part in parts:
            if not isinstance(part, (str, Special, Mark)):
                raise TypeError(f"the chat format {self.name} gave a {type(part).__name__}; a "
                                "prompt is made of str, Special and Mark")
        return parts

    def text(self, messages: Sequence[Message]) -> str:
        """The prompt as people read it, with the marks between turns as ``</s><s>``."""
        return "".join(_text(part) for part in self.parts(messages))

    def encode(self, messages: Sequence[Message], tokenizer: Tokenizer) -> NDArray[np.int32]:
        """The prompt's ids (int32, shape (n,)), a bos first where the model asks for one.

        Text between two special tokens is encoded at one go. So what the messages hold joins with
        the format's words as if it had been written there, and is never parsed for special tokens.
        """
        runs: list[NDArray[np.int32]] = []
        text = ""
        for part in self.parts(messages):
            ids = _special_ids(part, tokenizer)
            if ids is None:
                text += _text(part)
                continue
            if text:
                runs.append(tokenizer.encode(text))
                text = ""
            runs.append(np.array(ids, np.int32))
        if text:
            runs.append(tokenizer.encode(text))
        prompt = np.concatenate([np.array([], np.int32), *runs])
        bos = tokenizer.bos if tokenizer.add_bos else None
        if bos is not None and prompt[:1] != [bos]:
            prompt = np.insert(prompt, 0, bos)
        return prompt


def _text(part: Part) -> str:
    if isinstance(part, str):
        return part
    return part.text if isinstance(part, Special) else part.value


def _special_ids(part: Part, tokenizer: Tokenizer) -> list[int] | None:
    """The one or no token that a part stands for; None where it is text."""
    if isinstance(part, Mark):
        token = tokenizer.bos if part is Mark.BOS else tokenizer.eos
        return [] if token is None else [token]
    if isinstance(part, Special):
        ids = tokenizer.encode(part.text, parse_special=True)
        if len(ids) == 1:
            return [int(ids[0])]
    return None
