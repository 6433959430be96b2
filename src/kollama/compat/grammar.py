"""Grammars that a text must follow."""

from __future__ import annotations

import json
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from ..errors import ArgumentError
from .json_schema import JSON_GBNF, schema_to_gbnf

__all__ = ["JSON_GBNF", "LlamaGrammar"]


class LlamaGrammar:
    """A grammar in llama.cpp's GBNF, whose rule ``root`` is the whole text."""

    def __init__(self, *, _grammar: str) -> None:
        if not isinstance(_grammar, str):
            raise TypeError(f"a grammar must be a str, not {type(_grammar).__name__}")
        if not _grammar.strip():
            raise ArgumentError("the grammar is empty")
        self.text = _grammar

    @classmethod
    def from_string(cls, grammar: str, verbose: bool = True) -> LlamaGrammar:
        """A grammar of its text. The text is checked when a sampler is made of it."""
        return cls(_grammar=grammar)

    @classmethod
    def from_file(cls, file: str | PathLike[str], verbose: bool = True) -> LlamaGrammar:
        """A grammar of a UTF-8 file.

        Raises:
            OSError: the file cannot be read.
        """
        return cls(_grammar=Path(file).read_text("utf-8"))

    @classmethod
    def from_json_schema(
        cls, json_schema: str | Mapping[str, Any], verbose: bool = True
    ) -> LlamaGrammar:
        """A grammar of the JSON texts that a schema allows.

        Raises:
            ArgumentError: the schema is not JSON, or has a keyword that cannot be kept.
        """
        try:
            schema = json.loads(json_schema) if isinstance(json_schema, str) else json_schema
        except ValueError as error:
            raise ArgumentError(f"the JSON schema is not JSON: {error}") from None
        return cls(_grammar=schema_to_gbnf(schema))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LlamaGrammar) and other.text == self.text

    def __hash__(self) -> int:
        return hash(self.text)
