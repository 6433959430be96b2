"""States of a Llama, and caches of them by their tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..slots import n_common

__all__ = ["BaseLlamaCache", "LlamaCache", "LlamaRAMCache", "LlamaState"]


@dataclass(slots=True)
class LlamaState:
    """What `Llama.save_state` returns: tokens with all that was computed of them.

    `scores` is empty, of shape (0, n_vocab): the logits of the last token are in llama_state.
    """

    input_ids: NDArray[np.intc]
    scores: NDArray[np.single]
    n_tokens: int
    llama_state: bytes
    llama_state_size: int
    seed: int


class BaseLlamaCache(ABC):
    """A mapping from token ids to the state that was saved after them.

    To read, any state that shares a prefix with the ids will do: the longest is given.
    """

    def __init__(self, capacity_bytes: int = 2 << 30) -> None:
        self.capacity_bytes = capacity_bytes

    @property
    @abstractmethod
    def cache_size(self) -> int:
        """Bytes of all states."""

    @abstractmethod
    def __getitem__(self, key: Sequence[int]) -> LlamaState: ...

    @abstractmethod
    def __contains__(self, key: Sequence[int]) -> bool: ...

    @abstractmethod
    def __setitem__(self, key: Sequence[int], value: LlamaState) -> None: ...


class LlamaRAMCache(BaseLlamaCache):
    """States in memory. The one used least recently goes when there are more than the capacity."""

    def __init__(self, capacity_bytes: int = 2 << 30) -> None:
        super().__init__(capacity_bytes)
        self.cache_state: OrderedDict[tuple[int, ...], LlamaState] = OrderedDict()

    @property
    def cache_size(self) -> int:
        """Bytes of all states."""
        return sum(state.llama_state_size for state in self.cache_state.values())

    def __getitem__(self, key: Sequence[int]) -> LlamaState:
        found = self._nearest(key)
        if found is None:
            raise KeyError("no state in the cache begins like these tokens")
        self.cache_state.move_to_end(found)
        return self.cache_state[found]

    def __contains__(self, key: Sequence[int]) -> bool:
        return self._nearest(key) is not None

    def __setitem__(self, key: Sequence[int], value: LlamaState) -> None:
        self.cache_state.pop(tuple(key), None)
        self.cache_state[tuple(key)] = value
        while self.cache_state and self.cache_size > self.capacity_bytes:
            self.cache_state.popitem(last=False)

    def _nearest(self, key: Sequence[int]) -> tuple[int, ...] | None:
        wanted = np.array(key, np.int32)
        best, longest = None, 0
        for ids in self.cache_state:
            shared = n_common(np.array(ids, np.int32), wanted)
            if shared > longest:
                best, longest = ids, shared
        return best


LlamaCache = LlamaRAMCache
