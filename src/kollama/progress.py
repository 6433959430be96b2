"""A progress bar on stderr for work that takes long."""

from __future__ import annotations

import sys
from collections.abc import Callable

__all__ = ["progress_bar"]


def progress_bar(title: str) -> Callable[[float], None]:
    """A callable that takes how much is done, 0 to 1. Silent where stderr is no terminal."""
    if not sys.stderr.isatty():
        return lambda done: None
    try:
        from tqdm import tqdm
    except ImportError:
        return _PlainBar(title)
    bar = tqdm(total=1.0, desc=title, file=sys.stderr, leave=False,
               bar_format="{desc}: {percentage:3.0f}%|{bar}| {elapsed}")

    def show(done: float) -> None:
        bar.update(done - bar.n)
        if done >= 1:
            bar.close()

    return show


class _PlainBar:
    """Percentages, where tqdm is not installed."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._percent = -1

    def __call__(self, done: float) -> None:
        percent = int(done * 100)
        if percent != self._percent:
            self._percent = percent
            end = "\n" if done >= 1 else ""
            print(f"\r{self._title}: {percent:3d}%", end=end, file=sys.stderr, flush=True)
