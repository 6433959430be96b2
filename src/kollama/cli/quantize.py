"""``kollama quantize SRC DST TYPE``: the weights of a model in fewer bits."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict

from ..quantization import Quantization, quantize, type_names

__all__ = ["add_parser"]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("quantize", help="write a model with smaller weights",
                                 usage="%(prog)s [options] SRC DST TYPE\n"
                                       "       %(prog)s --dry-run [options] SRC TYPE",
                                 epilog=f"types: {', '.join(type_names())}")
    parser.add_argument("words", nargs="+", metavar="SRC DST TYPE",
                        help="a GGUF in f32, f16 or bf16, the new file, and its type")
    parser.add_argument("--imatrix", metavar="FILE",
                        help="importance matrix: GGUF or .dat of llama-imatrix, or .npz")
    parser.add_argument("--tensor-type", action="append", default=[], metavar="PATTERN=TYPE",
                        help="type of the tensors whose name has this; may be given several times")
    parser.add_argument("--output-type", metavar="TYPE", help="type of the output matrix")
    parser.add_argument("--embedding-type", metavar="TYPE", help="type of the token embeddings")
    parser.add_argument("--allow-requantize", action="store_true",
                        help="begin with quantized weights, which costs quality")
    parser.add_argument("--leave-output", action="store_true", help="keep the output matrix")
    parser.add_argument("--pure", action="store_true", help="one type for all matrices")
    parser.add_argument("--n-threads", type=int, metavar="N",
                        help="default: what cores, affinity and quota allow")
    parser.add_argument("--dry-run", action="store_true", help="only say what would become of it")
    parser.add_argument("--json", action="store_true", help="every tensor, as JSON")
    parser.set_defaults(run=run, parser=parser)


def run(options: argparse.Namespace) -> int:
    words = list(options.words)
    if options.dry_run and len(words) == 2:
        words.insert(1, None)
    if len(words) != 3:
        options.parser.error("SRC, DST and TYPE")
    done = quantize(
        words[0], words[1], words[2],
        imatrix=options.imatrix,
        tensor_types=_pairs(options),
        output_type=options.output_type,
        embedding_type=options.embedding_type,
        allow_requantize=options.allow_requantize,
        leave_output=options.leave_output,
        pure=options.pure,
        n_threads=options.n_threads,
        dry_run=options.dry_run,
        progress=True,
    )
    if options.json:
        print(json.dumps(asdict(done), ensure_ascii=False, indent=2))
    else:
        _print(done)
    return 0


def _pairs(options: argparse.Namespace) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in options.tensor_type:
        pattern, equals, kind = text.rpartition("=")
        if not equals:
            options.parser.error(f"--tensor-type {text}: write PATTERN=TYPE")
        pairs.setdefault(pattern, kind)
    return pairs


def _print(done: Quantization) -> None:
    if done.path is not None:
        print(f"{'file':<12} {done.path}")
    print(f"{'before':<12} {_size(done.size_before)}")
    print(f"{'after':<12} {_size(done.size_after)}")
    sizes: Counter[str] = Counter()
    for tensor in done.tensors:
        sizes[tensor.type] += tensor.size_after
    for kind, n_bytes in sizes.most_common():
        print(f"{'  ' + kind:<12} {_size(n_bytes)} in {done.types[kind]} tensors")
    if done.needs_imatrix:
        print("needs an importance matrix: --imatrix")


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.1f} MiB"
