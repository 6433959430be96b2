"""Scores of documents for a query, by a model with a classification head."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from .errors import ArgumentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ._core.model import Model
    from .deadline import Deadline
    from .embed import Embedder

__all__ = ["rerank"]


def rerank(
    embedder: Embedder, model: Model, query: str, documents: Iterable[str],
    deadline: Deadline | None = None,
) -> NDArray[np.float32]:
    """What `LLM.rerank` does. The embedder's contexts rank."""
    if isinstance(documents, (str, bytes)) or not isinstance(documents, Iterable):
        raise TypeError(f"documents must be a list of str, not {type(documents).__name__}")
    pairs = [pair_ids(model, query, document) for document in documents]
    if not pairs:
        model.rank_head()
        return np.zeros(0, np.float32)
    return np.ascontiguousarray(embedder.embed(pairs, False, deadline)[:, 0])


def pair_ids(model: Model, query: str, document: str) -> NDArray[np.int32]:
    """The tokens of a pair, as llama.cpp's server makes them."""
    for name, text in (("query", query), ("a document", document)):
        if not isinstance(text, str):
            raise TypeError(f"{name} must be str, not {type(text).__name__}")
        if not text:
            raise ArgumentError(f"{name} is empty")
    head = model.rank_head()
    encode = model.tokenizer.encode
    if head["prompt"] is not None:
        texts = {"{query}": query, "{document}": document}
        parts = re.split(r"(\{query\}|\{document\})", head["prompt"])
        return encode("".join(texts.get(part, part) for part in parts), parse_special=True)
    bos, eos, sep = (_ids(head[name]) for name in ("bos", "eos", "sep"))
    return np.concatenate([bos, encode(query), eos, sep, encode(document), eos])


def _ids(token: int | None) -> NDArray[np.int32]:
    return np.array([] if token is None else [token], np.int32)
