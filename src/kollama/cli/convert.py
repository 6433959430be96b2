"""``kollama convert SRC DST``: a model of another format as GGUF."""

from __future__ import annotations

import argparse

from ..convert import convert

__all__ = ["add_parser"]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "convert", help="write a GGUF of a GGML file of 2023, or of a Hugging Face folder")
    parser.add_argument("src", metavar="SRC", help="a .bin file, or a folder with config.json")
    parser.add_argument("dst", metavar="DST", help="the GGUF to write")
    parser.add_argument("--type", metavar="TYPE",
                        help="of a folder's weights: f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0 "
                             "(default: that of the embeddings)")
    parser.add_argument("--rms-norm-eps", type=float, metavar="EPS",
                        help="of a .bin file, which does not say (default: 1e-5)")
    parser.add_argument("--tokenizer", metavar="FILE", help="a tokenizer.json to use")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    convert(options.src, options.dst, type=options.type, rms_norm_eps=options.rms_norm_eps,
            tokenizer=options.tokenizer, progress=True)
    return 0
