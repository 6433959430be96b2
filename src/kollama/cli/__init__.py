"""The command line. Text goes to stdout as it is produced; everything else goes to stderr."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from ..errors import KollamaError
from . import bench, chat, convert, devices, inspect, quantize, rpc_server, run, tokenize

__all__ = ["main"]

COMMANDS = (run, chat, tokenize, inspect, convert, quantize, devices, bench, rpc_server)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(
        stream=sys.stderr,
        format="kollama: %(message)s",
        level=(logging.ERROR, logging.WARNING, logging.INFO)[min(options.verbose, 2)],
    )
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding="utf-8", errors="replace")  # type: ignore[union-attr]
    try:
        status: int = options.run(options)
        sys.stdout.flush()
        return status
    except (KollamaError, OSError, TypeError, ValueError) as error:
        return _report(error)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130  # as a shell reports SIGINT


def _report(error: Exception) -> int:
    if isinstance(error, BrokenPipeError):
        # The reader, such as head, has what it wanted. Python would complain again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    text = " ".join(str(error).split())
    print(f"kollama: {text}", file=sys.stderr)
    return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="kollama", description="Llama models in your terminal, with exact Korean text."
    )
    parser.add_argument("-v", "--verbose", action="count", default=0,
                        help="show what llama.cpp logs; twice: all of it")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add_parser(commands)
    return parser
