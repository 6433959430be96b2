"""``kollama inspect MODEL``: what a model file is."""

from __future__ import annotations

import argparse
import json

from ..inspection import FileInfo
from ..inspection import inspect as inspect_file

__all__ = ["add_parser"]

VALUE_WIDTH = 72


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("inspect", help="show what a model file is")
    parser.add_argument("model", metavar="MODEL")
    parser.add_argument("--tensors", action="store_true", help="list every tensor")
    parser.add_argument("--json", action="store_true", help="everything, as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    info = inspect_file(options.model)
    if options.json:
        print(json.dumps(info.to_dict(), ensure_ascii=False, indent=2))
        return 0
    _print_summary(info)
    if options.tensors:
        for tensor in info.tensors:
            shape = " x ".join(map(str, tensor.shape))
            print(f"{tensor.name:<40} {tensor.type:<8} {shape}")
    return 0


def _print_summary(info: FileInfo) -> None:
    print(f"{'file':<40} {info.path}")
    print(f"{'format':<40} {info.format}")
    print(f"{'size':<40} {_mebibytes(info.file_size)}")
    print(f"{'parameters':<40} {info.n_params / 1e6:,.1f} M in {len(info.tensors)} tensors")
    for kind, n_bytes in info.types.items():
        print(f"{'  ' + kind:<40} {_mebibytes(n_bytes)}")
    for key, value in info.metadata.items():
        text = " ".join(value.split())
        cut = text if len(text) <= VALUE_WIDTH else text[: VALUE_WIDTH - 1] + "…"
        print(f"{key:<40} {cut}")


def _mebibytes(n_bytes: int) -> str:
    return f"{n_bytes / 2**20:,.1f} MiB"
