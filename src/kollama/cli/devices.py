"""``kollama devices``: what this machine can compute with."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict

from .._core.runtime import default_threads, devices, llama_version, plugins

__all__ = ["add_parser"]


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("devices", help="show what this machine can compute with")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    found = devices()
    for plugin in plugins():
        if plugin.problem is not None:
            print(f"kollama: {plugin} is not loaded: {plugin.problem}", file=sys.stderr)
        elif plugin.n_devices == 0 and plugin.name != "rpc":
            print(f"kollama: {plugin} is loaded and finds no device", file=sys.stderr)
    if options.json:
        print(json.dumps([asdict(device) for device in found], ensure_ascii=False))
        return 0
    for device in found:
        words = [device.name, device.type, device.description]
        if device.memory_total:  # what computes on the CPU has none of its own
            free, total = device.memory_free / 2**30, device.memory_total / 2**30
            words.append(f"{free:.1f} of {total:.1f} GiB free")
        print("\t".join(words))
    print(f"llama.cpp {llama_version()}, {default_threads()} threads by default")
    return 0
