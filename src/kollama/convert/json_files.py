"""JSON files of a folder, with errors that name them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import FormatError, ModelNotFoundError

__all__ = ["integer_of", "list_of", "number_of", "object_of", "read_object", "read_optional"]


def read_object(path: Path) -> dict[str, Any]:
    """The object that a file holds.

    Raises:
        ModelNotFoundError: there is no such file.
        FormatError: it is not UTF-8, not JSON, or no object.
    """
    try:
        text = path.read_text("utf-8-sig")
        value = json.loads(text)
        if "\\ud" in text.lower():  # half of a pair alone is no character, and cannot be written
            json.dumps(value, ensure_ascii=False).encode()
    except FileNotFoundError:
        raise ModelNotFoundError(f"{path}: there is no such file") from None
    except (ValueError, RecursionError) as error:  # of JSON and of UTF-8
        raise FormatError(f"{path}: is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise FormatError(f"{path}: holds no JSON object")
    return value


def read_optional(path: Path) -> dict[str, Any]:
    """The object that a file holds, empty where there is no such file."""
    return read_object(path) if path.exists() else {}


def object_of(path: Path, data: dict[str, Any], key: str) -> dict[str, Any]:
    """An object in the object, empty where there is none."""
    value = data.get(key)
    if value is not None and not isinstance(value, dict):
        raise FormatError(f"{path}: {key} is no object")
    return value or {}


def list_of(path: Path, data: dict[str, Any], key: str) -> list[Any]:
    """A list in the object, empty where there is none."""
    value = data.get(key)
    if value is not None and not isinstance(value, list):
        raise FormatError(f"{path}: {key} is no list")
    return value or []


def integer_of(path: Path, data: dict[str, Any], key: str, *, low: int = 1,
               high: int = 2**31 - 1) -> int:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise FormatError(f"{path}: {key} is {value!r}, not an integer from {low} to {high}")
    return value


def number_of(path: Path, data: dict[str, Any], key: str) -> float:
    value = data.get(key)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < 1e30:
        raise FormatError(f"{path}: {key} is {value!r}, not a positive number")
    return float(value)
