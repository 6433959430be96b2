"""JSON schemas as callers have them: a mapping, JSON text, a Pydantic model, True for any JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

from .errors import ArgumentError

__all__ = ["check_finite", "schema_of"]

DATA = ("const", "default", "enum", "examples")  # keywords whose values are no schemas


def schema_of(given: Any) -> dict[str, Any]:
    """The schema as a dict of its own.

    Raises:
        ArgumentError: it is no JSON, or False, which nothing satisfies.
        TypeError: it is none of the things that can be a schema.
    """
    schema = _loaded(given)
    if schema is True:
        return {}
    if schema is False:
        raise ArgumentError("json_schema is False: no value satisfies it")
    if not isinstance(schema, Mapping):
        raise TypeError("json_schema must be a mapping, JSON text of one, True or a Pydantic "
                        f"model, not {type(schema).__name__}")
    try:
        # Through JSON: what is none is found here, and what the caller changes later is not seen.
        copy: dict[str, Any] = json.loads(json.dumps(schema, allow_nan=False, ensure_ascii=False))
        json.dumps(copy, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        reason = "json_schema is not valid Unicode: it holds half of a surrogate pair"
        raise ArgumentError(reason) from None
    except RecursionError:
        raise ArgumentError("json_schema is nested too deeply") from None
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"json_schema is not JSON: {error}") from None
    _encode_references(copy)
    return copy


def _encode_references(schema: Any) -> None:
    """A $ref is a URI, which has no Hangul, while those who write schemas by hand have."""
    if isinstance(schema, list):
        for part in schema:
            _encode_references(part)
    elif isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref" and isinstance(value, str) and not value.isascii():
                schema[key] = quote(value, safe="#/:?&=%~!$'()*+,;@[]")
            elif key not in DATA:
                _encode_references(value)


def _loaded(given: Any) -> Any:
    # Pydantic's models and its TypeAdapters, by what they can do: it is not imported here.
    for method in ("model_json_schema", "json_schema"):
        if not isinstance(given, (Mapping, str)) and callable(getattr(given, method, None)):
            return getattr(given, method)()
    if not isinstance(given, (str, bytes)):
        return given
    try:
        return json.loads(given)
    except RecursionError:
        raise ArgumentError("json_schema is nested too deeply") from None
    except ValueError as error:
        raise ArgumentError(f"json_schema is not JSON: {error}") from None


def check_finite(schema: dict[str, Any]) -> None:
    """Raises where every value of the schema would contain itself, and so none can be written.

    Only what is certain is refused: keywords that are not looked at may be met by something.
    """
    try:
        finite = _is_finite(schema, schema, ())
    except RecursionError:
        raise ArgumentError("json_schema is nested too deeply") from None
    if not finite:
        raise ArgumentError("json_schema cannot be met: a value of it would have to contain itself")


def _is_finite(schema: Any, root: Any, within: tuple[str, ...]) -> bool:
    if not isinstance(schema, dict):
        return True
    reference = schema.get("$ref")
    if isinstance(reference, str) and (reference == "#" or reference.startswith("#/")):
        if reference in within:  # the smallest value never repeats a reference on its way down
            return False
        if not _is_finite(_resolve(reference, root), root, (*within, reference)):
            return False
    for key, enough in (("anyOf", any), ("oneOf", any), ("allOf", all)):
        parts = schema.get(key)
        if not isinstance(parts, list) or not parts:
            continue
        if not enough(_is_finite(part, root, within) for part in parts):
            return False
    return all(_is_finite(part, root, within) for part in _needed(schema))


def _needed(schema: dict[str, Any]) -> list[Any]:
    """The schemas of what any value has inside."""
    properties, items = schema.get("properties"), schema.get("items")
    if schema.get("type") == "object" and isinstance(properties, dict):
        required = schema.get("required")
        names = required if isinstance(required, list) else []
        return [properties[name] for name in names if name in properties]
    if schema.get("type") == "array":
        least, first = schema.get("minItems"), schema.get("prefixItems")
        count = least if isinstance(least, int) else 0
        first = first if isinstance(first, list) else []
        return [*first[:count], *([items] if count > len(first) else [])]
    return []


def _resolve(reference: str, root: Any) -> Any:
    found = root
    for part in unquote(reference[1:]).split("/")[1:]:
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, list) and key.isdecimal() and int(key) < len(found):
            found = found[int(key)]
        elif isinstance(found, dict) and key in found:
            found = found[key]
        else:
            return True  # nothing there: llguidance says so
    return found
