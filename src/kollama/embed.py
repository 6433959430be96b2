"""Embeddings of texts, in a context of their own that is made when the first are asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ._core.context import Context
from ._core.memory import token_ids
from ._core.model import Model
from .errors import ClosedError, ContextFullError
from .params import boolean

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .deadline import Deadline

    _Text = str | bytes | Sequence[int] | NDArray[np.integer]

__all__ = ["Embedder"]

SIDE_BY_SIDE = 16  # texts in one computation


class Embedder:
    """What `LLM.embed` does. `options` are those of Context."""

    def __init__(self, model: Model, n_ctx: int, **options: Any) -> None:
        self._model = model
        self._n_ctx = n_ctx
        self._options = options
        self.prepare: Callable[[Context], None] = lambda context: None
        self._context: Context | None = None
        self._closed = False
        self._lock = threading.Lock()

    def embed(self, texts: _Text | Sequence[_Text], normalize: bool, deadline: Deadline | None,
              ) -> NDArray[np.float32]:
        boolean("normalize", normalize)
        ids = [self._ids(i, text) for i, text in enumerate(_as_list(texts))]
        rows = cast("NDArray[np.float32]", self._open().embed(ids, timeout=deadline))
        if normalize:
            lengths = np.linalg.norm(rows, axis=1, keepdims=True)
            rows /= np.where(lengths > 0, lengths, 1)
        return rows

    def close(self) -> None:
        with self._lock:
            self._closed = True
            if self._context is not None:
                self._context.close()

    @property
    def contexts(self) -> list[Context]:
        """Its context, where it was needed already."""
        with self._lock:
            return [] if self._context is None or self._closed else [self._context]

    def _open(self) -> Context:
        with self._lock:
            if self._closed:
                raise ClosedError("the LLM is closed")
            if self._context is None:
                self._context = Context(self._model, n_ctx=self._n_ctx, n_seq_max=SIDE_BY_SIDE,
                                        embeddings=True, **self._options)
                self.prepare(self._context)
            return self._context

    def _ids(self, i: int, text: _Text) -> NDArray[np.int32]:
        tokenizer = self._model.tokenizer
        if isinstance(text, (str, bytes)):
            ids = tokenizer.encode(text, add_bos=tokenizer.add_bos)
        else:
            ids = token_ids(text)
        if len(ids) > self._n_ctx:
            raise ContextFullError(f"text {i} has {len(ids)} tokens, n_ctx is {self._n_ctx}")
        return ids


def _as_list(texts: Any) -> list[Any]:
    """One text is a list of one."""
    if isinstance(texts, (str, bytes)):
        return [texts]
    if not hasattr(texts, "__iter__"):
        raise TypeError(f"texts must be a list of str, not {type(texts).__name__}")
    return list(texts)
