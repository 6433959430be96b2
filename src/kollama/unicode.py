"""Composition of decomposed text (NFC), and where each of its characters came from."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["compose", "compose_with_sources"]


def compose(text: str) -> str:
    """text in Unicode's normalization form C."""
    return unicodedata.normalize("NFC", text)


def compose_with_sources(text: str) -> tuple[str, NDArray[np.int32] | None]:
    """compose(text), and for each of its characters the first and last + 1 character of text.

    None stands for text that was composed already: each character is its own source.
    """
    if unicodedata.is_normalized("NFC", text):
        return text, None
    parts: list[str] = []
    sources: list[tuple[int, int]] = []
    starts = [i for i, char in enumerate(text) if i == 0 or _begins(char)]
    for first, last in zip(starts, [*starts[1:], len(text)], strict=True):
        part = compose(text[first:last])
        parts.append(part)
        sources += [(first, last)] * len(part)
    return "".join(parts), np.array(sources, np.int32).reshape(-1, 2)


def _begins(char: str) -> bool:
    """Whether a character never composes with, nor is reordered before, what precedes it."""
    if not _followers:  # found at the first need: it takes a tenth of a second
        _followers.update(_find_followers())
    return unicodedata.combining(char) == 0 and char not in _followers


_followers: set[str] = set()


def _find_followers() -> Iterator[str]:
    """The characters that compose with one before them: Hangul vowels and finals among them."""
    yield from (chr(code) for code in (*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)))
    for code in range(0x110000):
        parts = unicodedata.decomposition(chr(code)).split()
        if len(parts) == 2 and not parts[0].startswith("<"):
            yield chr(int(parts[1], 16))
