"""tokenizer.json of Llama's family, as pieces with the scores and types of a GGUF.

llama.cpp knows no merges for this kind of vocabulary, only scores: of two pieces that could be
made, the one with the higher score is. The score of a piece is therefore minus the rank of the
first merge that makes it; docs/convert.md has how near that comes. kollama reads the merges.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .._core.tokenizer import Tokenizer

__all__ = ["TokenizerJson", "read_tokenizer_json"]

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


@dataclass
class TokenizerJson:
    """By id; None: there is no such piece. `ids`: bos, eos and unk, where the file tells them."""

    text: str
    pieces: list[str | None]
    scores: list[float]
    types: list[int]
    ids: dict[str, int]
    adds_bos: bool
    adds_space: bool


def read_tokenizer_json(path: Path) -> TokenizerJson:
    """Reads the file twice: kollama's tokenizer says what is wrong with it, and what it means.

    Raises:
        ModelNotFoundError: there is no such file.
        FormatError: it is damaged, or has rules that kollama does not know.
    """
    tokenizer = Tokenizer.from_file(path)
    data = path.read_bytes()
    content = json.loads(data)
    model = content["model"]
    added = {token["id"]: token for token in content.get("added_tokens") or ()}
    by_id = {i: piece for piece, i in model["vocab"].items()}
    by_id |= {i: token["content"] for i, token in added.items()}
    ranks = _first_ranks(model["merges"])

    pieces = [by_id.get(i) for i in range(max(by_id, default=-1) + 1)]
    unknown = model.get("unk_token")
    types = [_type_of(piece, added.get(i), unknown, bool(model.get("byte_fallback")), ranks)
             for i, piece in enumerate(pieces)]
    lowest = len(model["merges"])
    scores = [0.0 if types[i] in (UNKNOWN, CONTROL, BYTE) else
              -float(ranks.get(piece or "", lowest + i)) for i, piece in enumerate(pieces)]
    ids = {"bos": tokenizer.bos, "eos": tokenizer.eos,
           "unknown": None if unknown is None else model["vocab"].get(unknown)}
    space = tokenizer.encode("a")
    return TokenizerJson(
        text=data.decode("utf-8-sig"),
        pieces=pieces,
        scores=scores,
        types=types,
        ids={name: i for name, i in ids.items() if i is not None},
        adds_bos=tokenizer.add_bos,
        adds_space=len(space) > 0 and (tokenizer.piece(int(space[0])) or "").startswith("▁"),
    )


def _first_ranks(merges: list[Any]) -> dict[str, int]:
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        text = merge.replace(" ", "", 1) if isinstance(merge, str) else "".join(merge)
        ranks.setdefault(text, rank)
    return ranks


def _type_of(piece: str | None, added: dict[str, Any] | None, unknown: str | None,
             has_bytes: bool, ranks: dict[str, int]) -> int:
    if piece is None:
        return NORMAL
    if piece == unknown:
        return UNKNOWN
    if added is not None and added.get("special"):
        return CONTROL
    if has_bytes and len(piece) == 6 and piece.startswith("<0x") and piece.endswith(">"):
        return BYTE
    # A piece that merges make is one of the vocabulary, whoever added it.
    return NORMAL if added is None or piece in ranks else USER_DEFINED

