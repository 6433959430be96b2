"""Chats without an end: what of a prompt that is too long is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["fit"]


def fit(prompt: NDArray[np.int32], n_ctx: int, n_keep: int) -> NDArray[np.int32]:
    """prompt; where it leaves no room in n_ctx, without the oldest tokens behind the first n_keep.

    Half of the room behind n_keep is dropped at a time: a chat that grows by little keeps its
    beginning for many turns, and what is in memory of it is used again.
    """
    n_block = max(1, (n_ctx - n_keep) // 2)
    n_over = len(prompt) - n_ctx + 1  # the answer needs a place
    if n_over <= 0:
        return prompt
    n_drop = -(-n_over // n_block) * n_block
    n_drop = min(n_drop, len(prompt) - n_keep - 1)
    return np.concatenate([prompt[:n_keep], prompt[n_keep + n_drop :]])
