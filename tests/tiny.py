"""Tiny models with random weights, made with the `gguf` package: no download, milliseconds to run.

Their vocabulary is of SentencePiece kind, like Llama-2's: control tokens, 256 byte tokens, and some
Korean pieces. Random weights choose byte tokens often, so their text is full of broken and split
characters: what a stream must survive.
"""

from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np

BOS, EOS = 1, 2
FIRST_BYTE = 3
WORDS = ["▁", "▁대한", "민국", "의", "▁수도", "는", "▁서울", "이다", ".", "▁안녕", "하세요", "오늘", "날씨",
         "가", "좋", "네요", "한", "국", "어", "a", "b", "c", "▁the", "\n"]


def vocabulary() -> tuple[list[str], list[float], list[int]]:
    """(pieces, scores, types) as GGUF has them."""
    types = gguf.TokenType
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)] + WORDS
    kinds = [types.UNKNOWN, types.CONTROL, types.CONTROL] + [types.BYTE] * 256 + [types.NORMAL] * len(WORDS)
    # A piece is merged from its first parts, one character at a time: they are pieces too.
    parts = {word[:n] for word in WORDS for n in range(1, len(word))} | set("".join(WORDS))
    parts = sorted(parts - set(WORDS))
    pieces += parts
    kinds += [types.NORMAL] * len(parts)
    return pieces, [-float(i) for i in range(len(pieces))], [int(kind) for kind in kinds]


def replace_each_byte(data: bytes) -> str:
    """data as text, with one U+FFFD for each byte that is part of no character."""
    kept = data.decode("utf-8", "surrogateescape")  # such a byte becomes one lone surrogate
    return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in kept)


def write_legacy_vocabulary(path: Path, magic: bytes = b"tjgg", version: int | None = 3) -> Path:
    """The header and the vocabulary of a GGML file of 2023, as convert.py wrote them; no tensors."""
    pieces, scores, types = vocabulary()
    with path.open("wb") as file:
        file.write(magic + (b"" if version is None else struct.pack("<I", version)))
        file.write(struct.pack("<7I", len(pieces), 64, 1, 2, 2, 32, 0))
        for i, (piece, score, kind) in enumerate(zip(pieces, scores, types, strict=True)):
            text = piece.replace("▁", " ").encode()
            if i < FIRST_BYTE:
                text = " \u2047 ".encode() if i == 0 else b""
            elif kind == gguf.TokenType.BYTE:
                text = bytes([i - FIRST_BYTE])
            file.write(struct.pack("<I", len(text)) + text)
            if version is not None:
                file.write(struct.pack("<f", score))
    return path


def add_vocabulary(writer: gguf.GGUFWriter) -> int:
    pieces, scores, types = vocabulary()
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(EOS)
    writer.add_add_bos_token(True)
    writer.add_add_space_prefix(True)
    return len(pieces)


def _write(writer: gguf.GGUFWriter, tensors: dict[str, np.ndarray]) -> None:
    for name, tensor in tensors.items():
        writer.add_tensor(name, tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_llama(path: Path, *, n_layer: int = 2, n_embd: int = 64, n_head: int = 2, n_head_kv: int | None = None, seed: int = 0,
                architecture: str = "llama", chat_template: str | None = None,
                pooling_type: int | None = None, say: float = 1.0) -> Path:
    """A Llama with random float32 weights. say: what attention and feed-forward count for; with little,
    the next token depends on the last one most of all, and greedy text goes round.
    """
    random = np.random.default_rng(seed)
    n_ff = 2 * n_embd
    n_kv = n_embd // n_head * (n_head_kv or n_head)
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_name("tiny")
    writer.add_context_length(16384)
    writer.add_embedding_length(n_embd)
    writer.add_block_count(n_layer)
    writer.add_feed_forward_length(n_ff)
    writer.add_head_count(n_head)
    writer.add_head_count_kv(n_head_kv or n_head)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(n_embd // n_head)
    if pooling_type is not None:
        writer.add_uint32(f"{architecture}.pooling_type", pooling_type)
    if chat_template is not None:
        writer.add_chat_template(chat_template)
    n_vocab = add_vocabulary(writer)

    def weights(*shape: int) -> np.ndarray:
        return random.normal(0, 1.5 / np.sqrt(shape[-1]), shape)

    tensors = {"token_embd.weight": random.normal(0, 1, (n_vocab, n_embd)),
               "output_norm.weight": np.ones(n_embd),
               "output.weight": weights(n_vocab, n_embd)}
    for i in range(n_layer):
        tensors |= {
            f"blk.{i}.attn_norm.weight": np.ones(n_embd),
            f"blk.{i}.attn_q.weight": weights(n_embd, n_embd),
            f"blk.{i}.attn_k.weight": weights(n_kv, n_embd),
            f"blk.{i}.attn_v.weight": weights(n_kv, n_embd),
            f"blk.{i}.attn_output.weight": say * weights(n_embd, n_embd),
            f"blk.{i}.ffn_norm.weight": np.ones(n_embd),
            f"blk.{i}.ffn_gate.weight": weights(n_ff, n_embd),
            f"blk.{i}.ffn_up.weight": weights(n_ff, n_embd),
            f"blk.{i}.ffn_down.weight": say * weights(n_embd, n_ff),
        }
    _write(writer, tensors)
    return path


def write_mamba(path: Path, *, n_layer: int = 2, n_embd: int = 32, seed: int = 0) -> Path:
    """A Mamba with random weights: its memory is a recurrent state, which has no past."""
    random = np.random.default_rng(seed)
    d_inner, d_state, d_conv, dt_rank = 2 * n_embd, 16, 4, 2
    writer = gguf.GGUFWriter(str(path), "mamba")
    writer.add_context_length(4096)
    writer.add_embedding_length(n_embd)
    writer.add_feed_forward_length(0)
    writer.add_head_count(0)
    writer.add_block_count(n_layer)
    writer.add_ssm_conv_kernel(d_conv)
    writer.add_ssm_inner_size(d_inner)
    writer.add_ssm_state_size(d_state)
    writer.add_ssm_time_step_rank(dt_rank)
    writer.add_layer_norm_rms_eps(1e-5)
    n_vocab = add_vocabulary(writer)

    def weights(*shape: int) -> np.ndarray:
        return random.normal(0, 1 / np.sqrt(shape[-1]), shape)

    tensors = {"token_embd.weight": random.normal(0, 1, (n_vocab, n_embd)),
               "output_norm.weight": np.ones(n_embd)}
    for i in range(n_layer):
        tensors |= {
            f"blk.{i}.attn_norm.weight": np.ones(n_embd),
            f"blk.{i}.ssm_in.weight": weights(2 * d_inner, n_embd),
            f"blk.{i}.ssm_conv1d.weight": weights(d_inner, d_conv),
            f"blk.{i}.ssm_conv1d.bias": np.zeros(d_inner),
            f"blk.{i}.ssm_x.weight": weights(dt_rank + 2 * d_state, d_inner),
            f"blk.{i}.ssm_dt.weight": weights(d_inner, dt_rank),
            f"blk.{i}.ssm_dt.bias": np.zeros(d_inner),
            f"blk.{i}.ssm_a": -np.ones((d_inner, d_state)),
            f"blk.{i}.ssm_d": np.ones(d_inner),
            f"blk.{i}.ssm_out.weight": weights(n_embd, d_inner),
        }
    _write(writer, tensors)
    return path


def write_gpt2(path: Path, *, n_layer: int = 1, n_embd: int = 32, n_ctx: int = 16, seed: int = 0) -> Path:
    """A GPT-2 with random weights: it has learned positions, n_ctx of them and no more."""
    random = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(str(path), "gpt2")
    writer.add_context_length(n_ctx)
    writer.add_embedding_length(n_embd)
    writer.add_feed_forward_length(4 * n_embd)
    writer.add_head_count(2)
    writer.add_block_count(n_layer)
    writer.add_layer_norm_eps(1e-5)
    n_vocab = add_vocabulary(writer)

    def layer(name: str, *shape: int) -> dict[str, np.ndarray]:
        return {f"{name}.weight": random.normal(0, 0.2, shape), f"{name}.bias": np.zeros(shape[0])}

    tensors = {"token_embd.weight": random.normal(0, 1, (n_vocab, n_embd)),
               "position_embd.weight": random.normal(0, 1, (n_ctx, n_embd))} | layer("output_norm", n_embd)
    for i in range(n_layer):
        for name, shape in {"attn_norm": (n_embd,), "attn_qkv": (3 * n_embd, n_embd), "attn_output": (n_embd, n_embd),
                            "ffn_norm": (n_embd,), "ffn_up": (4 * n_embd, n_embd), "ffn_down": (n_embd, 4 * n_embd)}.items():
            tensors |= layer(f"blk.{i}.{name}", *shape)
    _write(writer, tensors)
    return path
