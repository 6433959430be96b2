"""``kollama tokenize [MODEL] TEXT``: the tokens of a text."""

from __future__ import annotations

import argparse
import json

from .._core.model import Model
from ..demo import demo_model

__all__ = ["add_parser"]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("tokenize", help="show the tokens of a text",
                                 usage="%(prog)s [options] [MODEL] TEXT")
    parser.add_argument("words", nargs="+", metavar="[MODEL] TEXT",
                        help="a model file (default: the demo model) and the text")
    parser.add_argument("--add-bos", action="store_true", help="put bos in front")
    parser.add_argument("--parse-special", action="store_true",
                        help="read special tokens in the text as tokens")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    if len(options.words) > 2:
        options.parser.error("one MODEL and one TEXT: put the text in quotes")
    *model, text = options.words
    with Model(model[0] if model else demo_model(), vocab_only=True) as opened:
        tokenizer = opened.tokenizer
        ids = tokenizer.encode(text, add_bos=options.add_bos, parse_special=options.parse_special)
        pieces = [tokenizer.piece(token) for token in ids]
    if options.json:
        print(json.dumps({"ids": ids.tolist(), "pieces": pieces}, ensure_ascii=False))
    else:
        for token, piece in zip(ids, pieces, strict=True):
            print(f"{token}\t{piece}")
    return 0
