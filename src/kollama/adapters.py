"""What an LLM adds to its model: LoRA adapters and a control vector, in each of its contexts."""

from __future__ import annotations

import os
from collections.abc import Iterable
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np

from ._core.context import Context
from ._core.lora import Lora
from ._core.model import Model
from .control_vectors import load_control_vector

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    _Path = str | bytes | PathLike[str] | PathLike[bytes]
    _Adapter = Lora | _Path

__all__ = ["Adapters"]


class Adapters:
    """Those in use. Adapters given as paths are opened, and closed when others take their place."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._own: list[Lora] = []
        self.lora: list[tuple[Lora, float]] = []
        self._control: tuple[ArrayLike | None, float, tuple[int, int] | None] = (None, 1.0, None)

    def apply(self, context: Context) -> None:
        """Gives a context what is in use."""
        context.set_lora(self.lora)
        vector, scale, layers = self._control
        context.set_control_vector(vector, scale=scale, layers=layers)

    def set_lora(self, given: _Adapter | Iterable[_Adapter | tuple[_Adapter, float]] | None,
                 contexts: list[Context]) -> None:
        """Takes other adapters into use; where that fails, nothing has changed."""
        before, own_before = self.lora, self._own
        self.lora, self._own = [], []
        try:
            self.lora = [self._open(item) for item in _as_list(given)]
            for context in contexts:
                context.set_lora(self.lora)
        except BaseException:
            for adapter in self._own:
                adapter.close()
            self.lora, self._own = before, own_before
            for context in contexts:
                context.set_lora(self.lora)
            raise
        for adapter in own_before:
            adapter.close()

    def set_control_vector(self, vector: ArrayLike | _Path | None, scale: float,
                           layers: tuple[int, int] | None, contexts: list[Context]) -> None:
        if isinstance(vector, (str, bytes, PathLike)):
            vector = load_control_vector(vector, self._model)
        rows = None if vector is None else np.array(vector, np.float32)
        for context in contexts:
            context.set_control_vector(rows, scale=scale, layers=layers)
        self._control = (rows, scale, layers)

    def close(self) -> None:
        for adapter in self._own:
            adapter.close()

    def _open(self, item: Any) -> tuple[Lora, float]:
        adapter, scale = item if isinstance(item, (tuple, list)) and len(item) == 2 else (item, 1.0)
        if isinstance(adapter, (str, bytes, PathLike)):
            adapter = self._model.lora(adapter)
            self._own.append(adapter)
        return adapter, scale


def _as_list(given: object) -> list[object]:
    """One adapter, by itself or with its scale, is a list of one."""
    if given is None:
        return []
    is_pair = (isinstance(given, tuple) and len(given) == 2
               and isinstance(given[1], (int, float)) and not isinstance(given[1], bool))
    if is_pair or isinstance(given, (Lora, str, bytes, os.PathLike)):
        return [given]
    if not isinstance(given, Iterable):
        raise TypeError("lora must be a Lora, a path, or a list of these or of (Lora, scale), "
                        f"not {type(given).__name__}")
    return list(given)
