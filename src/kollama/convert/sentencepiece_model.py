"""tokenizer.model: SentencePiece's protobuf, read as far as a GGUF needs it."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..errors import FormatError

__all__ = ["SentencePieceModel", "read_model"]

BPE = 2


@dataclass
class SentencePieceModel:
    """Pieces with their scores and types, which are GGUF's, and whether a text gets a space."""

    pieces: list[str]
    scores: list[float]
    types: list[int]
    adds_space: bool = True


def read_model(path: Path) -> SentencePieceModel:
    """Reads the ModelProto; field numbers are those of sentencepiece_model.proto.

    Raises:
        FormatError: it is truncated, or no model of byte-pair encoding.
    """
    try:
        return _read(path)
    except (IndexError, struct.error, UnicodeDecodeError, _DamageError):
        raise FormatError(f"{path}: is no SentencePiece model, or damaged") from None


class _DamageError(Exception):
    pass


def _read(path: Path) -> SentencePieceModel:
    model = SentencePieceModel([], [], [])
    kind = 1  # unigram is the default
    for field, value in _fields(path.read_bytes()):
        if field not in (1, 2, 3):
            continue
        parts = dict(_fields(_bytes(value)))
        if field == 1:
            model.pieces.append(_bytes(parts.get(1, b"")).decode())
            model.scores.append(struct.unpack("<f", _bytes(parts.get(2, bytes(4))))[0])
            model.types.append(_int(parts.get(3, 1)))
        elif field == 2:
            kind = _int(parts.get(3, 1))
        else:
            model.adds_space = bool(parts.get(3, 1))
    if not model.pieces:
        raise _DamageError
    if kind != BPE:
        raise FormatError(f"{path}: is not a model of byte-pair encoding, which Llama's is")
    return model


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """(field, value) of a message: an int, or the bytes of a text, a message or a fixed number."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire = key & 7
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value
            continue
        if wire == 2:
            length, at = _varint(data, at)
        elif wire in (1, 5):
            length = 8 if wire == 1 else 4
        else:
            raise _DamageError
        if length > len(data) - at:
            raise _DamageError
        yield key >> 3, data[at:at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        shift += 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise _DamageError


def _bytes(value: int | bytes) -> bytes:
    if isinstance(value, int):
        raise _DamageError
    return value


def _int(value: int | bytes) -> int:
    if not isinstance(value, int):
        raise _DamageError
    return value
