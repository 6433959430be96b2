"""``kollama chat [MODEL]``: a conversation in the terminal."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from ..chat_registry import chat_formats
from ..llm import LLM
from .options import add_model_flags, add_sampling_flags, generation_options, open_llm

__all__ = ["add_parser"]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("chat", help="talk with a model")
    parser.add_argument("model", nargs="?", metavar="MODEL", help="default: the demo model")
    parser.add_argument("--system", metavar="TEXT", help="what the model is told first")
    parser.add_argument("--format", metavar="NAME",
                        help=f"{', '.join(chat_formats())} (default: the model's own template)")
    add_model_flags(parser)
    add_sampling_flags(parser, max_tokens=1024)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    messages: list[dict[str, str]] = []
    if options.system:
        messages.append({"role": "system", "content": options.system})
    with open_llm(options, chat_format=options.format) as llm:
        while (line := _ask()) is not None:
            if line.strip():
                messages.append({"role": "user", "content": line})
                answer = _answer(llm, messages, generation_options(options))
                messages.append({"role": "assistant", "content": answer})
    return 0


def _ask() -> str | None:
    """The next line, or None at the end of the input. The mark goes to stderr: it is no answer."""
    if sys.stdin.isatty():
        print("> ", end="", file=sys.stderr, flush=True)
    line = sys.stdin.readline()
    return line.rstrip("\n") if line else None


def _answer(llm: LLM, messages: list[dict[str, str]], sampling: dict[str, Any]) -> str:
    with llm.chat(messages, **sampling) as stream:
        try:
            for token in stream:
                print(token.text, end="", flush=True)
        except KeyboardInterrupt:
            pass  # ends this answer, not the conversation
        print(flush=True)
        return stream.result.text
