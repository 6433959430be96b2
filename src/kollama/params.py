"""Argument checks: each names the argument, the value it got and what it can be."""

from __future__ import annotations

import math
import operator
import os
from typing import Any

from .errors import ArgumentError, ModelLoadError, ModelNotFoundError

__all__ = ["boolean", "check_file", "choice", "integer", "number", "paths_of", "seed_of"]

INT32_MAX = 2**31 - 1
SEED_MAX = 2**32 - 1


def integer(name: str, value: Any, low: int, high: int = INT32_MAX) -> int:
    """An int, or what has ``__index__``, from low to high."""
    if isinstance(value, bool):
        raise TypeError(f"{name} must be an integer, not a bool")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {type(value).__name__}") from None
    if not low <= number <= high:
        raise ArgumentError(f"{name} is {number}; it can be {low} to {high}")
    return number


def number(name: str, value: Any, low: float, high: float = math.inf) -> float:
    """A finite real number from low to high."""
    if isinstance(value, bool) or not hasattr(value, "__float__"):
        raise TypeError(f"{name} must be a number, not {type(value).__name__}")
    real = float(value)
    if not math.isfinite(real) or not low <= real <= high:
        limits = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
        raise ArgumentError(f"{name} is {real:g}; it can be {limits}")
    return real


def boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {type(value).__name__}")
    return value


def choice(name: str, value: Any, allowed: dict[Any, int]) -> int:
    """The number that stands for value. bools and ints are told apart: 1 is not True."""
    for key, result in allowed.items():
        if type(key) is type(value) and key == value:
            return result
    names = ", ".join(repr(key) for key in allowed)
    raise ArgumentError(f"{name} is {value!r}; it can be {names}")


def seed_of(value: Any) -> int:
    """None becomes a random seed."""
    if value is None:
        return int.from_bytes(os.urandom(4), "little")
    return integer("seed", value, 0, SEED_MAX)


def paths_of(path: Any) -> list[str]:
    """One path, or a list of the parts of a split model."""
    given = path if isinstance(path, (list, tuple)) else [path]
    if not given:
        raise ArgumentError("the list of model files is empty")
    return [os.fsdecode(item) for item in given]


def check_file(path: str, kind: str) -> None:
    """Raises where there is no file at path."""
    from pathlib import Path  # takes a fifth of `import kollama`

    if Path(path).is_dir():
        raise ModelLoadError(f"{path}: is a directory, not a {kind} file")
    if not Path(path).exists():
        raise ModelNotFoundError(f"{path}: there is no such file")
    if not Path(path).is_file():  # a pipe would never end
        raise ModelLoadError(f"{path}: is not a regular file")
