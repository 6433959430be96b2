"""``kollama tokenize [FILE] TEXT``: the tokens of a text."""

from __future__ import annotations

import argparse
import json

from .._core.tokenizer import Tokenizer
from ..demo import demo_model

__all__ = ["add_parser"]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("tokenize", help="show the tokens of a text",
                                 usage="%(prog)s [options] [FILE] TEXT")
    parser.add_argument("words", nargs="+", metavar="[FILE] TEXT",
                        help="a tokenizer.json or a model (default: the demo model) and the text")
    parser.add_argument("--add-bos", action="store_true", help="put bos in front")
    parser.add_argument("--parse-special", action="store_true",
                        help="read special tokens in the text as tokens")
    parser.add_argument("--normalize", choices=["NFC"], help="compose the text first")
    parser.add_argument("--offsets", action="store_true",
                        help="also the characters that each token stands for")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    if len(options.words) > 2:
        options.parser.error("one FILE and one TEXT: put the text in quotes")
    *file, text = options.words
    tokenizer = Tokenizer.from_file(file[0] if file else demo_model())
    encode = tokenizer.encode_with_offsets if options.offsets else tokenizer.encode
    result = encode(text, add_bos=options.add_bos, parse_special=options.parse_special,
                    normalize=options.normalize)
    ids, offsets = result if isinstance(result, tuple) else (result, None)
    pieces = [tokenizer.piece(token) for token in ids]
    if options.json:
        found = {"ids": ids.tolist(), "pieces": pieces}
        if offsets is not None:
            found["offsets"] = offsets.tolist()
        print(json.dumps(found, ensure_ascii=False))
    else:
        for i, (token, piece) in enumerate(zip(ids, pieces, strict=True)):
            where = "" if offsets is None else f"\t{offsets[i, 0]}:{offsets[i, 1]}"
            print(f"{token}\t{piece}{where}")
    return 0
