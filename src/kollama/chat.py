"""Chat templates, rendered as Hugging Face's transformers renders them."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import ArgumentError, KollamaError

if TYPE_CHECKING:
    import numpy as np
    from jinja2 import Template
    from numpy.typing import NDArray

    from ._core.model import Model
    from ._core.tokenizer import Tokenizer

__all__ = ["Message", "check_messages", "encode_rendered", "render", "render_template"]

Message = Mapping[str, Any]


def render(model: Model, messages: Sequence[Message]) -> str:
    """The prompt that the model's own template makes of the messages.

    Raises:
        ArgumentError: the model has no template, or the template refuses the messages.
        KollamaError: jinja2 is not installed.
    """
    if model.chat_template is None:
        raise ArgumentError(
            f"{model.path} has no chat template: it is a base model, so use generate or complete "
            "with a prompt of your own"
        )
    return render_template(model.chat_template, model.tokenizer, messages)


def render_template(source: str, tokenizer: Tokenizer, messages: Sequence[Message]) -> str:
    """The prompt that a Jinja template makes of the messages. Errors are those of render."""
    check_messages(messages)
    special = {
        "bos_token": "" if tokenizer.bos is None else tokenizer.piece(tokenizer.bos),
        "eos_token": "" if tokenizer.eos is None else tokenizer.piece(tokenizer.eos),
    }
    template = _compile(source)
    return template.render(messages=messages, add_generation_prompt=True, **special)


def encode_rendered(tokenizer: Tokenizer, text: str) -> NDArray[np.int32]:
    """Special tokens in the text are parsed; bos is added only where the template did not."""
    ids = tokenizer.encode(text, parse_special=True)
    if tokenizer.add_bos and (len(ids) == 0 or ids[0] != tokenizer.bos):
        ids = tokenizer.encode(text, parse_special=True, add_bos=True)
    return ids


def check_messages(messages: Sequence[Message]) -> None:
    """Raises where these are not mappings with a role and a content."""
    if isinstance(messages, (str, bytes, Mapping)):
        raise TypeError('messages must be a list such as [{"role": "user", "content": "안녕"}]')
    if not messages:
        raise ArgumentError("the list of messages is empty")
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise TypeError(f"message {index} must be a mapping, not {type(message).__name__}")
        if "role" not in message or "content" not in message:
            raise ArgumentError(f'message {index} needs "role" and "content"')


def _compile_source(source: str) -> Template:
    try:
        from jinja2.exceptions import TemplateError
        from jinja2.sandbox import ImmutableSandboxedEnvironment
    except ImportError:
        raise KollamaError(
            "chat templates need jinja2: pip install 'kollama[chat]'"
        ) from None

    def raise_exception(message: str) -> NoReturn:
        raise ArgumentError(f"the model's chat template refuses these messages: {message}")

    def strftime_now(form: str) -> str:
        return datetime.datetime.now().strftime(form)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=["jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = strftime_now
    try:
        return environment.from_string(source)
    except TemplateError as error:
        raise ArgumentError(f"the model's chat template is broken: {error}") from None


# Not as a decorator: stubtest cannot compare a decorated function's signature.
_compile = functools.lru_cache(maxsize=16)(_compile_source)


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None,
             separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
    # Jinja's own escapes HTML, and Hangul.
    import json

    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators,
                      sort_keys=sort_keys)
