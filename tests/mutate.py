"""Damaged files by the thousand, the same ones for the same seed: for anything that reads a file.

`damaged(data, fields, seed)` knows bytes only; `fields` says where its numbers lie. What a format
means is the business of a module beside this one, as mutate_gguf.py.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Sequence
from dataclasses import dataclass

WIDTHS = {1: "<B", 2: "<H", 4: "<I", 8: "<Q"}


@dataclass(frozen=True)
class Field:
    """A number of 1, 2, 4 or 8 bytes, or text of any length."""

    offset: int
    size: int
    is_text: bool = False


def damaged(data: bytes, fields: Sequence[Field], seed: int) -> bytes:
    """data with one to three kinds of damage."""
    choose = random.Random(seed)
    for _ in range(choose.choice((1, 1, 1, 2, 3))):
        kind = choose.choice((_bits, _byte, _number, _number, _number, _number, _cut, _splice, _drop, _insert))
        data = kind(data, fields, choose)
    return data


def _somewhere(data: bytes, fields: Sequence[Field], choose: random.Random) -> int:
    """An offset, mostly within or near a field: the rest of a file is weights."""
    if fields and choose.random() < 0.9:
        field = choose.choice(fields)
        return min(field.offset + choose.randrange(max(field.size, 1)), max(len(data) - 1, 0))
    return choose.randrange(max(len(data), 1))


def _bits(data: bytes, fields: Sequence[Field], choose: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(choose.choice((1, 1, 2, 8))):
        if out:
            out[_somewhere(data, fields, choose)] ^= 1 << choose.randrange(8)
    return bytes(out)


def _byte(data: bytes, fields: Sequence[Field], choose: random.Random) -> bytes:
    out = bytearray(data)
    if out:
        out[_somewhere(data, fields, choose)] = choose.choice((0, 1, 0x7F, 0x80, 0xFF, choose.randrange(256)))
    return bytes(out)


def interesting(bits: int, current: int, size: int, choose: random.Random) -> int:
    """A value of so many bits that code forgets: limits, neighbours, sizes."""
    top = 1 << bits
    return choose.choice((
        0, 1, 2, 3, top - 1, top // 2, top // 2 - 1, top // 2 + 1, top - 2, 1 << 31, (1 << 31) - 1, 1 << 32, 255, 256,
        65535, 65536, current + 1, current - 1, current * 2, current // 2, -current, size, size + 1, size - 1, 512, 513,
        choose.randrange(64), choose.randrange(5000), choose.randrange(top),
    )) % top


def _number(data: bytes, fields: Sequence[Field], choose: random.Random) -> bytes:
    numbers = [field for field in fields if field.size in WIDTHS and not field.is_text]
    if numbers:
        field = choose.choice(numbers)
        offset, width = field.offset, field.size
    else:
        offset, width = _somewhere(data, fields, choose), choose.choice((4, 8))
    if offset + width > len(data):
        return data
    current = struct.unpack_from(WIDTHS[width], data, offset)[0]
    value = struct.pack(WIDTHS[width], interesting(8 * width, current, len(data), choose))
    return data[:offset] + value + data[offset + width :]


def _cut(data: bytes, fields: Sequence[Field], choose: random.Random) -> bytes:
    return data[: _somewhere(data, fields, choose)]


def _splice(data: bytes, fields: Sequence[Field], choose: random.Random) -> bytes:
    """A piece of the file over another."""
    source, target = _somewhere(data, fields, choose), _somewhere(data, fields, choose)
    length = choose.choice((1, 4, 8, 24, 100, 1000))
    piece = data[source : source + length]
    return data[:target] + piece + data[target + len(piece) :]


def _drop(data: bytes, fields: Sequence[Field], choose: random.Random) -> bytes:
    at = _somewhere(data, fields, choose)
    return data[:at] + data[at + choose.choice((1, 4, 8, 24, 100)) :]


def _insert(data: bytes, fields: Sequence[Field], choose: random.Random) -> bytes:
    at, source = _somewhere(data, fields, choose), _somewhere(data, fields, choose)
    return data[:at] + data[source : source + choose.choice((1, 4, 8, 24, 100))] + data[at:]
