"""``kollama rpc-server``: this machine's devices for models elsewhere."""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from .._core.runtime import backend_loaded, default_threads, plugins, rpc_serve
from ..backends import no_rpc
from ..errors import ModelLoadError
from ..params import integer
from ..servers import DEFAULT_PORT, is_loopback, resolve, try_to_bind

__all__ = ["add_parser"]

WARNING = """\
kollama: WARNING: listening at {address}:{port}, beyond this machine. The protocol is neither
authenticated nor encrypted: whoever reaches this port reads what is computed, writes into this
process's memory and can take it over. Only in a network where everybody is trusted."""


def add_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser(
        "rpc-server", help="hold layers of models that run on other machines",
        description="Holds layers for kollama.Model(rpc=[...]) elsewhere. Serves one process at a "
                    "time. The protocol is neither authenticated nor encrypted.")
    parser.add_argument("--host", default="127.0.0.1", metavar="HOST",
                        help="address to listen at (default: %(default)s, this machine alone)")
    parser.add_argument("--port", type=int, default=DEFAULT_PORT, metavar="N",
                        help="(default: %(default)s)")
    parser.add_argument("--device", action="append", default=[], metavar="NAME",
                        help="as kollama devices names it; may be given several times "
                             "(default: every GPU, or else the CPU)")
    parser.add_argument("--n-threads", type=int, metavar="N",
                        help="default: what cores, affinity and quota allow")
    parser.add_argument("--cache", type=Path, metavar="FOLDER",
                        help="keep large tensors there, so that they need not be sent again")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    port = integer("port", options.port, 1, 65535)
    n_threads = default_threads()
    if options.n_threads is not None:
        n_threads = integer("n_threads", options.n_threads, 1, 512)
    if not backend_loaded("RPC"):
        raise ModelLoadError(no_rpc(plugins()))
    address = resolve(options.host)
    try_to_bind(address, port)
    if options.cache is not None:
        options.cache.mkdir(parents=True, exist_ok=True)
    if not is_loopback(address):
        print(WARNING.format(address=address, port=port), file=sys.stderr, flush=True)
    # The server is a loop inside ggml, in which Python's handlers do not run.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    rpc_serve(f"{address}:{port}", cache_dir=options.cache, n_threads=n_threads,
              devices=options.device)
    return 1
