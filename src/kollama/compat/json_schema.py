"""JSON schemas as GBNF grammars."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ArgumentError
from ..params import integer

__all__ = ["JSON_GBNF", "schema_to_gbnf"]

# Lengths are limited so that a model cannot write white space or digits for ever.
PRIMITIVES = {
    "ws": r'( " " | "\n" [ \t]{0,20} )?',
    "char": r'[^"\\\x7F\x00-\x1F] | "\\" ( ["\\/bfnrt] | "u" [0-9a-fA-F]{4} )',
    "string": r'"\"" char* "\""',
    "integer": '"-"? ( "0" | [1-9] [0-9]{0,15} )',
    "number": 'integer ( "." [0-9]{1,16} )? ( [eE] [-+]? [0-9]{1,3} )?',
    "boolean": '"true" | "false"',
    "null": '"null"',
    "pair": 'string ws ":" ws value',
    "object": '"{" ws ( pair ws ( "," ws pair ws )* )? "}"',
    "array": '"[" ws ( value ws ( "," ws value ws )* )? "]"',
    "value": "object | array | string | number | boolean | null",
}
ANNOTATIONS = {
    "$comment", "$defs", "$id", "$schema", "default", "definitions", "deprecated", "description",
    "examples", "format", "readOnly", "title", "writeOnly",
}
KEYWORDS = {
    "object": {"properties", "required", "additionalProperties"},
    "array": {"items", "minItems", "maxItems"},
    "string": {"minLength", "maxLength"},
    "integer": set[str](),
    "number": set[str](),
    "boolean": set[str](),
    "null": set[str](),
}


def _text(rules: Mapping[str, str]) -> str:
    return "".join(f"{name} ::= {body}\n" for name, body in rules.items())


JSON_GBNF = _text({"root": "object"} | PRIMITIVES)


def schema_to_gbnf(schema: Mapping[str, Any]) -> str:
    """A grammar of JSON texts that the schema allows: GBNF whose root is the schema.

    Properties come in the schema's order, and no others but where additionalProperties is a schema
    and there are no properties. Annotations, format among them, say nothing about the text.

    Raises:
        ArgumentError: the schema has a keyword that a grammar here cannot keep.
    """
    return _Converter(schema).convert()


class _Converter:
    def __init__(self, schema: Any) -> None:
        self._schema = schema
        self._rules: dict[str, str] = {}
        self._references: dict[str, str] = {}

    def convert(self) -> str:
        root = self._body(self._schema, "root")
        return _text({"root": root} | self._rules | PRIMITIVES)

    def _rule(self, name: str, body: str) -> str:
        """A rule of its own, and the name it got."""
        name = f"{name}-{len(self._rules)}"
        self._rules[name] = body
        return name

    def _body(self, schema: Any, where: str) -> str:
        """What stands right of the ``::=`` of a rule for this schema."""
        if schema is True or schema == {}:
            return "value"
        if not isinstance(schema, Mapping):
            raise ArgumentError(f"JSON schema, at {where}: {schema!r} is no schema that has a text")
        for keyword, convert in (("$ref", self._reference), ("const", self._const),
                                 ("enum", self._enum), ("anyOf", self._any), ("oneOf", self._any)):
            if keyword in schema:
                _only(schema, where, {keyword, "type"})
                return convert(schema[keyword], where)
        kind = schema.get("type", "object" if "properties" in schema else None)
        if isinstance(kind, (list, tuple)):
            return self._any([{**schema, "type": one} for one in kind], where, shared=True)
        if kind is None:
            _only(schema, where, set())
            return "value"
        if kind not in KEYWORDS:
            raise ArgumentError(f"JSON schema, at {where}: the type {kind!r} is none of "
                                f"{', '.join(KEYWORDS)}")
        _only(schema, where, {"type"} | KEYWORDS[kind])
        if kind in ("object", "array", "string"):
            converters = {"object": self._object, "array": self._array, "string": self._string}
            return converters[kind](schema, where)
        return str(kind)

    def _reference(self, target: Any, where: str) -> str:
        if not isinstance(target, str) or not target.startswith("#"):
            raise ArgumentError(f"JSON schema, at {where}: $ref {target!r} is outside the schema")
        if target not in self._references:
            found = self._schema
            for part in target.lstrip("#").strip("/").split("/") if target != "#" else []:
                key = part.replace("~1", "/").replace("~0", "~")
                if not isinstance(found, Mapping) or key not in found:
                    raise ArgumentError(f"JSON schema, at {where}: there is no {target}")
                found = found[key]
            name = self._references[target] = self._rule("ref", "")  # known before it is converted
            self._rules[name] = self._body(found, target)
        return self._references[target]

    def _const(self, value: Any, where: str) -> str:
        text = json.dumps(value, ensure_ascii=False)
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    def _enum(self, values: Any, where: str) -> str:
        if not values:
            raise ArgumentError(f"JSON schema, at {where}: the enum is empty")
        return " | ".join(self._const(value, where) for value in values)

    def _any(self, schemas: Sequence[Any], where: str, shared: bool = False) -> str:
        if not schemas:
            raise ArgumentError(f"JSON schema, at {where}: there is nothing to choose from")
        if shared:  # {"type": ["string", "null"], "maxLength": 5}: each type takes its own keywords
            known = {word for one in schemas for word in KEYWORDS.get(str(one["type"]), ())}
            schemas = [{word: value for word, value in one.items() if word not in known
                        or word in KEYWORDS.get(str(one["type"]), ())} for one in schemas]
        names = [self._rule("any", self._body(schema, f"{where}/{i}"))
                 for i, schema in enumerate(schemas)]
        return " | ".join(names)

    def _string(self, schema: Mapping[str, Any], where: str) -> str:
        return f'"\\"" char{_times(schema, "minLength", "maxLength")} "\\""'

    def _array(self, schema: Mapping[str, Any], where: str) -> str:
        item = self._rule("item", self._body(schema.get("items", True), f"{where}/items"))
        low = integer("minItems", schema.get("minItems", 0), 0)
        high = schema.get("maxItems")
        if high is not None:
            high = integer("maxItems", high, low)
        if high == 0:
            return '"[" ws "]"'
        more = f'( "," ws {item} ws ){{{max(low - 1, 0)},{"" if high is None else high - 1}}}'
        items = f"{item} ws {more}"
        return f'"[" ws {items if low else f"( {items} )?"} "]"'

    def _object(self, schema: Mapping[str, Any], where: str) -> str:
        properties = schema.get("properties") or {}
        required = schema.get("required") or ()
        if missing := [name for name in required if name not in properties]:
            raise ArgumentError(f"JSON schema, at {where}: {missing[0]!r} is required, and no "
                                "property")
        more = schema.get("additionalProperties", True)
        if not properties:
            if more is False:
                return '"{" ws "}"'
            value = self._rule("more", self._body(more, f"{where}/additionalProperties"))
            pair = self._rule("pair", f'string ws ":" ws {value} ws')
            return f'"{{" ws ( {pair} ( "," ws {pair} )* )? "}}"'
        pairs = [
            (self._rule("pair", f'{self._const(name, where)} ws ":" ws '
                                f'{self._rule("property", self._body(its, f"{where}/{name}"))} ws'),
             name in required)
            for name, its in properties.items()
        ]
        return f'"{{" ws {self._members(pairs)} "}}"'

    def _members(self, pairs: list[tuple[str, bool]]) -> str:
        """A rule for the pairs in order, those that are not required left out at will."""
        first = after = '""'  # what can follow: nothing written yet, or a comma is due
        for pair, required in reversed(pairs):
            with_comma = self._rule("rest", f'"," ws {pair} {after}'
                                            + ("" if required else f" | {after}"))
            first = self._rule("first", f"{pair} {after}" + ("" if required else f" | {first}"))
            after = with_comma
        return first


def _times(schema: Mapping[str, Any], least: str, most: str) -> str:
    low = integer(least, schema.get(least, 0), 0)
    if most in schema:
        return f"{{{low},{integer(most, schema[most], low)}}}"
    return f"{{{low},}}" if low else "*"


def _only(schema: Mapping[str, Any], where: str, known: set[str]) -> None:
    unknown = sorted(set(schema) - known - ANNOTATIONS)
    if unknown:
        raise ArgumentError(f"JSON schema, at {where}: {', '.join(unknown)} cannot be kept by a "
                            "grammar here")
