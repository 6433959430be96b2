"""One function's arguments for another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

__all__ = ["same_arguments"]

P = ParamSpec("P")
T = TypeVar("T")


def same_arguments(other: Callable[P, Any]) -> Callable[[Callable[..., T]], Callable[P, T]]:
    """Gives the decorated function the signature of another, for type checkers and `inspect`."""

    def decorate(function: Callable[..., T]) -> Callable[P, T]:
        from inspect import signature

        function.__signature__ = signature(other)  # type: ignore[attr-defined]
        return function

    return decorate
