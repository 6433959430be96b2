"""``kollama inspect MODEL``: what a model file is."""

from __future__ import annotations

import argparse
import json

from ..inspection import FileInfo
from ..inspection import inspect as inspect_file

__all__ = ["add_parser"]

NAME_WIDTH = 42
VALUE_WIDTH = 72


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("inspect",
                                 help="show what a model file is, or where it is damaged")
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--n-ctx", type=int, default=4096, metavar="N",
                        help="tokens of context to compute the memory for (default: %(default)s)")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    info = inspect_file(options.model)
    memory = info.memory(options.n_ctx)
    if options.json:
        needed = {"n_ctx": options.n_ctx, "bytes": memory}
        print(json.dumps(info.to_dict() | {"memory": needed}, ensure_ascii=False, indent=2))
        return 0
    _print_summary(info)
    if memory is not None:
        _print("memory", f"{_mebibytes(memory)} at {options.n_ctx} tokens of context, and buffers")
    _print_vocabulary(info)
    _print_metadata(info)
    if options.tensors:
        print()
        for tensor in info.tensors:
            shape = " x ".join(map(str, tensor.shape))
            print(f"{tensor.name:<{NAME_WIDTH}} {tensor.type:<8} {shape}")
    return 0


def _print(name: str, value: str) -> None:
    print(f"{name:<{NAME_WIDTH}} {value}".rstrip())


def _print_summary(info: FileInfo) -> None:
    _print("file", info.path)
    _print("format", info.format)
    _print("size", _mebibytes(info.file_size))
    _print("parameters", f"{info.n_params / 1e6:,.1f} M in {len(info.tensors)} tensors")
    for kind, n_bytes in info.types.items():
        _print("  " + kind, _mebibytes(n_bytes))


def _print_vocabulary(info: FileInfo) -> None:
    vocabulary = info.vocabulary
    if vocabulary is None:
        _print("vocabulary", "none that can be read")
        return
    _print("vocabulary", f"{vocabulary.n_tokens:,} tokens, {vocabulary.n_korean:,} of them Korean")
    if vocabulary.korean_samples:
        _print("  such as", " ".join(piece.strip() for piece in vocabulary.korean_samples))
    _print("  begins and ends with", f"{vocabulary.bos or '-'} {vocabulary.eos or '-'}")


def _print_metadata(info: FileInfo) -> None:
    print()
    for key, value in info.metadata.items():
        text = " ".join(value.split())
        cut = text if len(text) <= VALUE_WIDTH else text[: VALUE_WIDTH - 1] + "…"
        _print(key, cut + (" (assumed: the file does not say)" if key in info.assumed else ""))


def _mebibytes(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.1f} MiB"
