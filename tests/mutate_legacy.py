"""Damaged GGML files of 2023: some in their bytes, some whole and wrong in what they say."""

from __future__ import annotations

import math
import random
import struct
from pathlib import Path

import gguf
import legacy_files
import mutate
from mutate import Field

KINDS = {"ggml": ("ggml", 0), "ggmf": ("ggmf", 1), "ggjt-v1": ("ggjt", 1), "ggjt-v2": ("ggjt", 2), "ggjt-v3": ("ggjt", 3)}
MAGICS = list(legacy_files.MAGICS.values())
SHAPE = legacy_files.Shape(n_embd=32, n_head=2, n_head_kv=1, n_layer=1, n_ff=32)
K_SHAPE = legacy_files.Shape(n_embd=256, n_head=2, n_head_kv=1, n_layer=1, n_ff=256)  # their blocks are of 256
N_HEADER = 7


def seeds(folder: Path, kind: str) -> list[bytes]:
    """Small sound models of every type that the format has."""
    name, version = KINDS[kind]
    tokens = legacy_files.vocabulary()[:280]
    types = (legacy_files.TYPES | legacy_files.K_TYPES) if kind == "ggjt-v3" else legacy_files.TYPES
    return [legacy_files.write(folder / "seed.bin", kind=name, version=version, type_name=type_name, tokens=tokens,
                               shape=K_SHAPE if type_name in legacy_files.K_TYPES else SHAPE).path.read_bytes()
            for type_name in types]


def fields_of(data: bytes) -> list[Field]:
    """The numbers and texts of a sound file: header, some tokens, every tensor record."""
    has_scores = data[:4] != legacy_files.MAGICS["ggml"]
    out = [Field(0, 4, is_text=True)]
    at = 4

    def number() -> int:
        nonlocal at
        out.append(Field(at, 4))
        at += 4
        return int(struct.unpack_from("<I", data, at - 4)[0])

    if has_scores:
        number()
    n_vocab, *_ = [number() for _ in range(N_HEADER)]
    kept = len(out)
    for _ in range(n_vocab):
        length = number()
        out.append(Field(at, length, is_text=True))
        at += length
        if has_scores:
            number()
    del out[kept + 60 :]  # or the vocabulary would be all that is damaged
    while at < len(data):
        n_dims, length, kind = number(), number(), number()
        shape = [number() for _ in range(n_dims)]
        out.append(Field(at, length, is_text=True))
        at += length
        if data[:4] == legacy_files.MAGICS["ggjt"]:
            at += -at % 32
        at += _n_bytes(data, kind, shape)
    return out


def _n_bytes(data: bytes, kind: int, shape: list[int]) -> int:
    name = next(name for name, number in (legacy_files.TYPES | legacy_files.K_TYPES).items() if number == kind)
    n = math.prod(shape)
    if name in legacy_files.K_TYPES:
        per_block, n_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(kind)]
        return n // per_block * n_bytes
    if name in ("f32", "f16"):
        return n * (4 if name == "f32" else 2)
    version = struct.unpack_from("<I", data, 4)[0] if data[:4] == legacy_files.MAGICS["ggjt"] else 0
    today = bytes({"q4_0": 18, "q4_1": 20, "q5_0": 22, "q5_1": 24, "q8_0": 34}[name])
    return n // 32 * len(legacy_files.old_blocks(today, name, version))


def damaged(data: bytes, seed: int) -> bytes:
    """One of the files of this seed: mostly damaged in its bytes, some with another magic or version in front."""
    choose = random.Random(seed)
    fields = fields_of(data)
    if choose.random() < 0.1:
        data = choose.choice(MAGICS) + data[4:]
    if choose.random() < 0.1:
        data = data[:4] + struct.pack("<I", choose.choice((0, 1, 2, 3, 4))) + data[8:]
    return mutate.damaged(data, fields, seed)
