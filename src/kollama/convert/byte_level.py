"""Llama 3's tokenizer.json: byte-level BPE, for which a GGUF has merges and llama.cpp the rules.

llama.cpp knows how to cut text by the name of a model, not by the file's expression: only the one
of Llama 3 is taken, whose name is "llama-bpe".
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import FormatError

__all__ = ["ByteLevel", "is_byte_level", "read_byte_level"]

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4
CUTS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+")


@dataclass
class ByteLevel:
    """By id; None: there is no such piece. `merges` are as GGUF has them, two pieces in a text."""

    pieces: list[str | None]
    types: list[int]
    merges: list[str]


def is_byte_level(content: Any) -> bool:
    decoder = content.get("decoder") if isinstance(content, dict) else None
    return isinstance(decoder, dict) and decoder.get("type") == "ByteLevel"


def read_byte_level(path: Path, content: dict[str, Any]) -> ByteLevel:
    """Of the content of a tokenizer.json that is_byte_level.

    Raises:
        FormatError: it is not Llama 3's kind, or damaged.
    """
    if not _is_llama_3(content):
        raise FormatError(f"{path}: is byte-level BPE, but does not cut text as Llama 3 does; "
                          "llama.cpp's convert_hf_to_gguf.py knows others, and kollama reads "
                          "what it writes")
    try:
        vocab, merges = dict(content["model"]["vocab"]), content["model"]["merges"]
        by_id = {i: piece for piece, i in vocab.items()}
        added = {token["id"]: token for token in content.get("added_tokens") or ()}
        by_id |= {i: token["content"] for i, token in added.items()}
        size = max(by_id) + 1
        if min(by_id) < 0 or size > 2 * len(by_id) + 1000:
            raise ValueError
        types = [CONTROL if i in added and added[i].get("special") else
                 USER_DEFINED if i in added else NORMAL for i in range(size)]
        texts = [merge if isinstance(merge, str) else " ".join(merge) for merge in merges]
        if any(text.count(" ") != 1 for text in texts):
            raise ValueError
    except (AttributeError, KeyError, TypeError, ValueError):
        raise FormatError(f"{path}: the vocabulary or the merges are damaged") from None
    return ByteLevel([by_id.get(i) for i in range(size)], types, texts)


def _is_llama_3(content: dict[str, Any]) -> bool:
    model, cutter = content.get("model"), content.get("pre_tokenizer")
    if not isinstance(model, dict) or not isinstance(cutter, dict) or content.get("normalizer"):
        return False
    parts = cutter.get("pretokenizers")
    parts = [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []
    if len(parts) != 2:
        return False
    split, level = parts
    return bool(
        model.get("type") == "BPE" and model.get("ignore_merges") and not model.get("dropout")
        and split.get("type") == "Split" and split.get("pattern") == {"Regex": CUTS}
        and split.get("behavior") == "Isolated" and not split.get("invert")
        and level.get("type") == "ByteLevel" and not level.get("add_prefix_space")
        and not level.get("use_regex"))
