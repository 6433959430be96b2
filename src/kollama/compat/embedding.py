"""Embeddings, in a context of their own beside the one that generates."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np

from .._core.context import Context
from .._core.model import Model
from ..errors import ArgumentError, StateError
from .chat import Chatting
from .constants import (
    LLAMA_POOLING_TYPE_CLS,
    LLAMA_POOLING_TYPE_LAST,
    LLAMA_POOLING_TYPE_MEAN,
    LLAMA_POOLING_TYPE_NONE,
    LLAMA_POOLING_TYPE_UNSPECIFIED,
)
from .types import CreateEmbeddingResponse

__all__ = ["Embedding", "pooling_of"]

SIDE_BY_SIDE = 16  # texts in one computation

POOLING = {
    LLAMA_POOLING_TYPE_NONE: "none",
    LLAMA_POOLING_TYPE_MEAN: "mean",
    LLAMA_POOLING_TYPE_CLS: "cls",
    LLAMA_POOLING_TYPE_LAST: "last",
}

_Rows: TypeAlias = list[Any]  # of float, or of a list for each token


def pooling_of(model: Model, given: int) -> int:
    """The pooling type: what was given, else what the file says, else none."""
    kind = given
    if kind == LLAMA_POOLING_TYPE_UNSPECIFIED:
        architecture = model.metadata.get("general.architecture", "")
        kind = int(model.metadata.get(f"{architecture}.pooling_type", LLAMA_POOLING_TYPE_NONE))
    if kind not in POOLING:
        known = ", ".join(f"{number} ({name})" for number, name in POOLING.items())
        raise ArgumentError(f"pooling_type is {kind!r}; it can be {known}")
    return kind


class Embedding(Chatting):
    """embed and create_embedding."""

    n_batch: int
    _pooling: int = LLAMA_POOLING_TYPE_UNSPECIFIED  # that: not made for embeddings
    _embedding_options: dict[str, Any]
    _embedding_context: Context | None = None

    def pooling_type(self) -> int:
        """How the embeddings of tokens become one of the text: a LLAMA_POOLING_TYPE number."""
        return self._pooling

    def embed(
        self,
        input: str | list[str],  # noqa: A002 - llama-cpp-python's name
        normalize: bool = False,
        truncate: bool = True,
        return_count: bool = False,
    ) -> Any:
        """The embeddings of texts.

        Args:
            input: a text or a list of them.
            normalize: to length 1.
            truncate: cut texts after n_batch tokens; False: such a text is an error.
            return_count: return (embeddings, number of tokens).

        Returns:
            A list of n_embd floats for a text, a list of those for a list. With pooling NONE, which
            is that of a model whose file names none, a text gives a list of them for its tokens.

        Raises:
            StateError: this Llama was made without embedding=True.
            ArgumentError: a text has more than n_batch tokens, with truncate=False.
        """
        if self._pooling == LLAMA_POOLING_TYPE_UNSPECIFIED:
            raise StateError(
                "Llama model must be created with embedding=True to call this method")
        texts = [input] if isinstance(input, str) else list(input)
        ids = [self.tokenize(text.encode()) for text in texts]
        for i, tokens in enumerate(ids):
            if len(tokens) > self.n_batch and not truncate:
                raise ArgumentError(
                    f"Requested tokens ({len(tokens)}) exceed batch size of {self.n_batch}")
            ids[i] = tokens[: self.n_batch]
        rows = [self._row(row, normalize) for row in self._embedder().embed(ids)]
        result = rows[0] if isinstance(input, str) else rows
        return (result, sum(map(len, ids))) if return_count else result

    def create_embedding(
        self,
        input: str | list[str],  # noqa: A002 - llama-cpp-python's name
        model: str | None = None,
    ) -> CreateEmbeddingResponse:
        """The embeddings of texts, as OpenAI's interface gives them.

        Args:
            model: the name in the result; None: model_path.

        Errors are those of embed.
        """
        texts = [input] if isinstance(input, str) else input
        rows, n_tokens = self.embed(texts, return_count=True)
        return {
            "object": "list",
            "data": [{"object": "embedding", "embedding": row, "index": i}
                     for i, row in enumerate(rows)],
            "model": self.model_path if model is None else model,
            "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
        }

    def _row(self, row: Any, normalize: bool) -> _Rows:
        if normalize:
            lengths = np.linalg.norm(row, axis=-1, keepdims=True)
            row = row / np.where(lengths > 0, lengths, 1)
        values: _Rows = row.tolist()
        return values

    def _embedder(self) -> Context:
        if self._embedding_context is None:
            self._embedding_context = Context(self._model, **self._embedding_options)
            self._adapters.apply(self._embedding_context)
        return self._embedding_context

    def _embed_with(self, options: dict[str, Any], pooling_type: int) -> None:
        """Makes embeddings possible. `options` are those of the context that generates."""
        self._pooling = pooling_of(self._model, pooling_type)
        self._embedding_options = {
            **options, "n_seq_max": min(SIDE_BY_SIDE, options["n_batch"]), "embeddings": True,
            "pooling": POOLING[self._pooling],
        }

    def close(self) -> None:
        """Frees the model and all memory. Idempotent."""
        if self._embedding_context is not None:
            self._embedding_context.close()
        super().close()
