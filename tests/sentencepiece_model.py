"""A SentencePiece .model out of pieces, scores and types: its protobuf, written by hand.

Field numbers are those of sentencepiece_model.proto. So the reference can be asked about the
vocabulary of any GGUF, whose own .model is not at hand.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

BPE = 2


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _piece(text: str, score: float, kind: int) -> bytes:
    return _bytes(1, text.encode()) + _varint(2 << 3 | 5) + struct.pack("<f", score) + _number(3, kind)


def write(pieces: Sequence[str], scores: Sequence[float], types: Sequence[int], *, add_dummy_prefix: bool) -> bytes:
    """The bytes of the model; types are those of GGUF, which took them from SentencePiece."""
    def named(kind: int, otherwise: int) -> int:
        return next((i for i, t in enumerate(types) if t == kind), otherwise)

    unknown = named(2, 0)
    trainer = _number(3, BPE) + _number(4, len(pieces)) + _number(35, 1)  # model_type, vocab_size, byte_fallback
    trainer += _number(40, unknown) + _number(41, 1) + _number(42, 2)  # unk_id, bos_id, eos_id
    normalizer = _bytes(1, b"identity") + _number(3, int(add_dummy_prefix)) + _number(4, 0) + _number(5, 1)
    body = b"".join(_bytes(1, _piece(*entry)) for entry in zip(pieces, scores, types, strict=True))
    return body + _bytes(2, trainer) + _bytes(3, normalizer)
