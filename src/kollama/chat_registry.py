"""Chat formats by name: those that are built in, and those that users add."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeAlias

from .chat_builtin import BUILTIN
from .chat_format import ChatFormat, Render
from .errors import ArgumentError

if TYPE_CHECKING:
    from ._core.model import Model

__all__ = ["FormatLike", "chat_formats", "find_format", "format_for", "register_chat_format"]

# What stands for a format wherever one can be given.
FormatLike: TypeAlias = str | ChatFormat | Render

_builtin = {item.name: item for item in BUILTIN}
_added: dict[str, ChatFormat] = {}


def chat_formats() -> dict[str, ChatFormat]:
    """The chat formats that have a name, each with its name: a copy."""
    return {**_builtin, **_added}


def register_chat_format(
    name: str, render: Render, *, stop: str | Iterable[str] = ()
) -> ChatFormat:
    """Adds a chat format, so that ``LLM.chat(messages, format=name)`` knows it.

    A name that was added before gets the new format.

    Args:
        name: what to call it.
        render: takes the messages and returns the prompt, a str or its parts: see ChatFormat.
        stop: text or texts that end an answer besides the model's end token.

    Raises:
        ArgumentError: the name is one of the built-in formats, or a stop text is empty.
    """
    if not isinstance(name, str):
        raise TypeError(f"the name of a chat format must be a str, not {type(name).__name__}")
    if not callable(render):
        raise TypeError(f"render must be callable, not {type(render).__name__}")
    if not name:
        raise ArgumentError("a chat format needs a name")
    if name in _builtin:
        raise ArgumentError(f"{name!r} is the name of a built-in chat format: choose another")
    texts = (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("stop must hold str")
    if "" in texts:
        raise ArgumentError("stop holds an empty string: it would end every answer at once")
    _added[name] = ChatFormat(name, render, texts)
    return _added[name]


def find_format(chosen: FormatLike) -> ChatFormat:
    """The format of a name; a ChatFormat as it is; a callable as a format without stop texts.

    Raises:
        ArgumentError: no format has this name.
    """
    if isinstance(chosen, ChatFormat):
        return chosen
    if isinstance(chosen, str):
        known = chat_formats()
        if chosen not in known:
            raise ArgumentError(f"there is no chat format {chosen!r}; there are {', '.join(known)}")
        return known[chosen]
    if callable(chosen):
        return ChatFormat(getattr(chosen, "__name__", "of a callable"), chosen)
    raise TypeError("a chat format is a name, a ChatFormat or a callable, not "
                    f"{type(chosen).__name__}")


def format_for(model: Model, chosen: FormatLike | None) -> ChatFormat | None:
    """The format that was chosen; None for the model's own template.

    Raises:
        ArgumentError: none was chosen, and the model has no template.
    """
    if chosen is not None:
        return find_format(chosen)
    if model.chat_template is None:
        raise ArgumentError(
            f"{model.path} has no chat template: name the format it was trained with, format=..., "
            f"one of {', '.join(chat_formats())}; for a base model, use generate or complete with "
            "a prompt of your own"
        )
    return None
