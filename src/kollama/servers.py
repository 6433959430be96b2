"""What is to be known of an RPC server before ggml connects to it: ggml itself would wait for ever
for one that does not answer, and end the process where one speaks another version.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Any

from .errors import ArgumentError, RemoteError

__all__ = ["DEFAULT_PORT", "check", "is_loopback", "parse", "resolve", "try_to_bind"]

DEFAULT_PORT = 50052
TIMEOUT_S = 5.0

# ggml-rpc.cpp of the pinned commit: HELLO is always 14; its answer is a size, and the version.
HELLO = 14
CAPABILITIES = 24
VERSION = (7, 0)


def parse(value: Any, most: int) -> list[str]:
    """The servers of an rpc argument: one, or a list of them; None is none."""
    if value is None:
        return []
    names = [value] if isinstance(value, str) else list(value)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"rpc must be host:port texts, not {type(name).__name__}")
        host, colon, port = name.rpartition(":")
        is_port = port.isdecimal() and 0 < int(port) < 65536
        if not colon or not host or ":" in host or not is_port:
            raise ArgumentError(f"rpc is {name!r}; it can be host:port, e.g. "
                                f"'192.168.0.7:{DEFAULT_PORT}'")
    if not names:
        raise ArgumentError("rpc is an empty list; it can be None")
    if len(names) > most:
        raise ArgumentError(f"rpc names {len(names)} servers; it can name {most}")
    if len(set(names)) < len(names):
        raise ArgumentError(f"rpc names a server twice: {names}")
    return names


def check(name: str) -> None:
    """Says hello to a server.

    Raises:
        RemoteError: nobody answers, or not as a server of our version does.
    """
    host, _, port = name.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), TIMEOUT_S) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.sendall(struct.pack("<BQ", HELLO, CAPABILITIES) + bytes(CAPABILITIES))
            answer = _receive(connection, 8 + 4)
    except TimeoutError:
        raise RemoteError(
            f"{name} does not answer within {TIMEOUT_S:.0f} s: a kollama rpc-server serves one "
            "process at a time, and another may be connected to it") from None
    except EOFError:
        raise RemoteError(f"{name} hangs up: it is no RPC server of this version") from None
    except OSError as error:
        raise RemoteError(f"{name} cannot be reached: {error.strerror or error}: is a kollama "
                          "rpc-server running there?") from None
    size, major, minor, patch, _ = struct.unpack("<QBBBB", answer)
    if size != 4 + CAPABILITIES:
        raise RemoteError(f"{name} is no RPC server of this version")
    if major != VERSION[0] or minor > VERSION[1]:
        raise RemoteError(f"{name} speaks version {major}.{minor}.{patch} of the protocol, and "
                          f"this kollama {VERSION[0]}.{VERSION[1]}: install the same on both")


def _receive(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data


def resolve(host: str) -> str:
    """The IPv4 address of a host: ggml's transport knows no other."""
    try:
        return str(socket.getaddrinfo(host, None, socket.AF_INET, socket.SOCK_STREAM)[0][4][0])
    except OSError as error:
        raise ArgumentError(f"host is {host!r}: {error.strerror or error}; it can be a name with "
                            "an IPv4 address, or that") from None


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address).is_loopback


def try_to_bind(address: str, port: int) -> None:
    """Raises an OSError that says why where a server could not listen there."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
        except OSError as error:
            reason = f"cannot listen at {address}:{port}: {error.strerror}"
            raise OSError(error.errno, reason) from None
