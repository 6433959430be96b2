"""``kollama run [MODEL] PROMPT``: continue a text."""

from __future__ import annotations

import argparse
import sys

from .options import add_model_flags, add_sampling_flags, generation_options, open_llm

__all__ = ["add_parser"]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("run", help="continue a text",
                                 usage="%(prog)s [options] [MODEL] PROMPT")
    parser.add_argument("words", nargs="+", metavar="[MODEL] PROMPT",
                        help='a model file (default: the demo model) and the text; "-" reads stdin')
    parser.add_argument("--echo", action="store_true", help="repeat the prompt before the answer")
    add_model_flags(parser)
    add_sampling_flags(parser, max_tokens=128)
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    if len(options.words) > 2:
        options.parser.error("one MODEL and one PROMPT: put the prompt in quotes")
    *model, prompt = options.words
    options.model = model[0] if model else None
    if prompt == "-":
        prompt = sys.stdin.buffer.read().decode()
    with open_llm(options) as llm, llm.generate(prompt, **generation_options(options)) as stream:
        if options.echo:
            print(prompt, end="", flush=True)
        for token in stream:
            print(token.text, end="", flush=True)
        print()
        _report_incomplete(stream.result.incomplete)
    return 0


def _report_incomplete(rest: bytes) -> None:
    if rest:
        print(f"kollama: the text ends inside a character: bytes {rest.hex(' ')}", file=sys.stderr)
