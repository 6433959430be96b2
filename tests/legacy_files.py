"""GGML files of 2023 with random weights, written as convert.py and quantize of llama.cpp did.

The blocks are made here with NumPy, not by the code under test. Sources: llama.cpp's convert.py and
llama.cpp at the commits that llama-cpp-python 0.1.48 (ggjt v1), 0.1.50 (v2) and 0.1.78 (v3) carry.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import gguf
import numpy as np
import tiny

MAGICS = {"ggml": b"lmgg", "ggmf": b"fmgg", "ggjt": b"tjgg"}
TYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q5_0": 6, "q5_1": 7, "q8_0": 8}
K_TYPES = {"q2_K": 10, "q3_K": 11, "q4_K": 12, "q5_K": 13, "q6_K": 14}
FTYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9,
          "q2_K": 10, "q3_K": 11, "q4_K": 14, "q5_K": 16, "q6_K": 18}
ADDED_SCORE = -1000.0

NAMES = {"attn_q": "attention.wq", "attn_k": "attention.wk", "attn_v": "attention.wv",
         "attn_output": "attention.wo", "attn_norm": "attention_norm", "ffn_gate": "feed_forward.w1",
         "ffn_down": "feed_forward.w2", "ffn_up": "feed_forward.w3", "ffn_norm": "ffn_norm"}


@dataclass
class Shape:
    """Sizes of a Llama. n_mult is what LLaMA's own code computed n_ff from; nobody may use it."""

    n_embd: int = 64
    n_head: int = 4
    n_head_kv: int = 2
    n_layer: int = 2
    n_ff: int = 96
    n_mult: int = 7

    def tensors(self, n_vocab: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
        """(legacy name, GGUF's name, shape with rows first) in the order of convert.py."""
        kv = self.n_embd // self.n_head * self.n_head_kv
        yield "tok_embeddings.weight", "token_embd.weight", (n_vocab, self.n_embd)
        yield "norm.weight", "output_norm.weight", (self.n_embd,)
        yield "output.weight", "output.weight", (n_vocab, self.n_embd)
        shapes = {"attn_q": (self.n_embd, self.n_embd), "attn_k": (kv, self.n_embd), "attn_v": (kv, self.n_embd),
                  "attn_output": (self.n_embd, self.n_embd), "attn_norm": (self.n_embd,),
                  "ffn_gate": (self.n_ff, self.n_embd), "ffn_down": (self.n_embd, self.n_ff),
                  "ffn_up": (self.n_ff, self.n_embd), "ffn_norm": (self.n_embd,)}
        for i in range(self.n_layer):
            for name, shape in shapes.items():
                yield f"layers.{i}.{NAMES[name]}.weight", f"blk.{i}.{name}.weight", shape


@dataclass
class Written:
    """What a file holds: the bytes that its tensors have in today's blocks, and the weights."""

    path: Path
    data: dict[str, bytes] = field(default_factory=dict)
    weights: dict[str, np.ndarray] = field(default_factory=dict)
    starts: list[int] = field(default_factory=list)  # of the tensor records


def vocabulary() -> list[tuple[bytes, float]]:
    """(text, score) of each token of tiny's vocabulary, as convert.py wrote them."""
    pieces, scores, types = tiny.vocabulary()
    out = []
    for i, (piece, score, kind) in enumerate(zip(pieces, scores, types, strict=True)):
        text = piece.replace("▁", " ").encode()
        if i < tiny.FIRST_BYTE:
            text = " \u2047 ".encode() if i == 0 else b""
        elif kind == gguf.TokenType.BYTE:
            text = bytes([i - tiny.FIRST_BYTE])
        out.append((text, score))
    return out


def write_header(file: BinaryIO, kind: str, version: int, tokens: Sequence[tuple[bytes, float]], shape: Shape,
                 ftype: int) -> None:
    file.write(MAGICS[kind] + (struct.pack("<I", version) if kind != "ggml" else b""))
    file.write(struct.pack("<7I", len(tokens), shape.n_embd, shape.n_mult, shape.n_head, shape.n_layer,
                           shape.n_embd // shape.n_head, ftype))
    for text, score in tokens:
        file.write(struct.pack("<I", len(text)) + text + (struct.pack("<f", score) if kind != "ggml" else b""))


def todays_blocks(weights: np.ndarray, type_name: str, random: np.random.Generator) -> bytes:
    if type_name in K_TYPES:  # nothing here can quantize to them: any bits will do for a copy
        block = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType(K_TYPES[type_name])]
        return random.bytes(weights.size // block[0] * block[1])
    kind = gguf.GGMLQuantizationType(TYPES[type_name])
    return gguf.quants.quantize(weights, kind).tobytes()


def old_blocks(today: bytes, type_name: str, version: int) -> bytes:
    """Blocks of ggjt v1 (0 and 1 here: all before v2) or v2 with the same content."""
    if type_name in ("f32", "f16") or version >= 3:
        return today
    n_scales = 2 if type_name in ("q4_1", "q5_1") else 1
    n_high = 4 if type_name.startswith("q5") else 0
    rest = 32 if type_name == "q8_0" else 16
    blocks = np.frombuffer(today, np.uint8).reshape(-1, 2 * n_scales + n_high + rest)
    scales = blocks[:, : 2 * n_scales]
    if not type_name.startswith("q5"):
        scales = scales.copy().view(np.float16).astype(np.float32).view(np.uint8)
    quants = blocks[:, 2 * n_scales + n_high :]
    if type_name != "q8_0" and version < 2:  # element 2j and 2j + 1 in byte j, not j and j + 16
        elements = np.concatenate([quants & 15, quants >> 4], axis=1)
        quants = elements[:, 0::2] | elements[:, 1::2] << 4
    return np.concatenate([scales, blocks[:, 2 * n_scales : 2 * n_scales + n_high], quants], axis=1).tobytes()


def write(path: Path, *, kind: str = "ggjt", version: int = 3, type_name: str = "q4_0", shape: Shape | None = None,
          tokens: Sequence[tuple[bytes, float]] | None = None, output_type: str | None = None, seed: int = 0) -> Written:
    """A whole file. Norms are f32, as in all of these; output_type is of output.weight alone."""
    shape = shape or Shape()
    tokens = vocabulary() if tokens is None else tokens
    random = np.random.default_rng(seed)
    out = Written(path)
    with path.open("wb") as file:
        write_header(file, kind, version, tokens, shape, FTYPES[type_name])
        for legacy, name, size in shape.tensors(len(tokens)):
            own_type = "f32" if len(size) == 1 else (output_type or type_name) if name == "output.weight" else type_name
            scale = 1.0 if name == "token_embd.weight" else 1.5 / np.sqrt(size[-1])
            weights = (random.uniform(0.9, 1.1, size) if len(size) == 1 else random.normal(0, scale, size)).astype(np.float32)
            today = todays_blocks(weights, own_type, random)
            out.data[name] = today
            if own_type not in K_TYPES:
                rows = np.frombuffer(today, np.uint8).reshape(*size[:-1], -1)
                out.weights[name] = gguf.quants.dequantize(rows, gguf.GGMLQuantizationType(TYPES[own_type])).reshape(size)
            out.starts.append(file.tell())
            file.write(struct.pack("<3I", len(size), len(legacy), (TYPES | K_TYPES)[own_type]))
            file.write(struct.pack(f"<{len(size)}I", *reversed(size)) + legacy.encode())
            if kind == "ggjt":
                file.write(bytes(-file.tell() % 32))
            file.write(old_blocks(today, own_type, version if kind == "ggjt" else 0))
    return out
