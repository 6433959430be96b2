"""Output of a given form, by llguidance: what it allows, and how far a stream has come in it.

Nothing here imports llguidance before it is needed.
"""

from __future__ import annotations

import json
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakKeyDictionary

from .errors import ArgumentError, KollamaError
from .schemas import check_finite, schema_of

if TYPE_CHECKING:
    from types import ModuleType

    from llguidance import LLMatcher, LLTokenizer

__all__ = ["Matcher", "json_grammar", "lark_grammar", "regex_grammar"]

MAX_TOKEN_BYTES = 1000  # llguidance's tree of the vocabulary is at most 1024 deep
KEPT_GRAMMARS = 16  # of a model, compiled

# Without "no_forcing" llguidance would have our tokenizer spell what can come in one way only, and
# that way alone be chosen. Here the model chooses among all ways to cut a text into tokens.
OPTIONS = '\n%llguidance {"no_forcing": true}\n'

# A space or a new line with its indentation, once: a small model that may write as many as it likes
# does so until max_tokens. And escapes of any character, not of control characters alone.
JSON_OPTIONS = {
    "whitespace_pattern": r"[ ]|\n[ ]{0,20}",
    "json_allow_general_unicode_escapes": True,
}


def _llguidance() -> ModuleType:
    try:
        import llguidance
    except ImportError:
        raise KollamaError(
            "json_schema, regex and lark need llguidance: pip install 'kollama[structured]'"
        ) from None
    return llguidance


def json_grammar(given: Any) -> str:
    """llguidance's grammar of the JSON texts that a schema allows.

    Raises:
        ArgumentError: the schema cannot be met, or uses what llguidance does not know.
        TypeError: it is no schema.
        KollamaError: llguidance is not installed.
    """
    schema = schema_of(given)
    own = schema.get("x-guidance", {})
    if not isinstance(own, dict):
        raise ArgumentError("json_schema: x-guidance must be an object")
    schema["x-guidance"] = JSON_OPTIONS | own
    text = json.dumps(schema, ensure_ascii=False)
    # By itself first: inside a Lark text its errors name lines that the caller never wrote.
    _check("json_schema", _llguidance().LLMatcher.grammar_from_json_schema(text))
    check_finite(schema)
    return _grammar(f"start: %json {text}")


def regex_grammar(regex: str) -> str:
    """llguidance's grammar of the texts that a regular expression matches as a whole."""
    grammar = _llguidance().LLMatcher.grammar_from_regex(regex)
    _check("regex", grammar)
    return _grammar(json.loads(grammar)["grammars"][0]["lark_grammar"])


def lark_grammar(lark: str) -> str:
    """llguidance's grammar of a text in its dialect of Lark."""
    grammar = _grammar(lark)
    _check("lark", grammar)
    return grammar


def _grammar(lark: str) -> str:
    return json.dumps({"grammars": [{"lark_grammar": lark + OPTIONS}]}, ensure_ascii=False)


def _check(name: str, grammar: str) -> None:
    if message := _llguidance().LLMatcher.validate_grammar(grammar):
        raise ArgumentError(f"{name} cannot be used: {_readable(message)}")


def _readable(message: str) -> str:
    """llguidance's reason without the dump of its state, and without our own lines."""
    text = message.partition("\n<")[0].partition("\n   1 | start: /")[0]
    lines = [line for line in text.split("\n") if OPTIONS.strip() not in line]
    return "\n".join(lines).removeprefix("at 1(8): ").strip()


class Model(Protocol):
    """What is asked of a kollama.Model, which is above this module."""

    @property
    def tokenizer(self) -> Any: ...


class _Vocabulary:
    """A model's tokens as llguidance wants them, and the grammars that were compiled for them."""

    def __init__(self, model: Model) -> None:
        self.tokenizer = _tokenizer_of(model)
        self.ends = frozenset(self.tokenizer.eos_tokens)
        self.lock = threading.Lock()
        self.matchers: OrderedDict[str, LLMatcher] = OrderedDict()

    def matcher(self, name: str, grammar: str) -> LLMatcher:
        """A matcher at the beginning. It is copied, never used itself."""
        with self.lock:
            found = self.matchers.get(grammar)
            if found is None:
                found = self.matchers[grammar] = self._compile(name, grammar)
            self.matchers.move_to_end(grammar)
            if len(self.matchers) > KEPT_GRAMMARS:
                self.matchers.popitem(last=False)
            return found

    def _compile(self, name: str, grammar: str) -> LLMatcher:
        library = _llguidance()
        limits = library.LLParserLimits(verbose_errors=False)
        matcher: LLMatcher = library.LLMatcher(self.tokenizer, grammar, log_level=0, limits=limits)
        first = matcher.deep_copy()
        first.compute_bitmask()
        for made in (matcher, first):
            if made.is_error():
                reason = _readable(made.get_error())
                if reason == "NoExtensionBias":
                    reason = "there is no text that it allows"
                raise ArgumentError(f"{name} cannot be used: {reason}")
        return matcher


def _tokenizer_of(model: Model) -> LLTokenizer:
    tokens, special = model.tokenizer._token_bytes()
    ends = [token for token in range(len(tokens)) if model.tokenizer.is_eog(token)]
    if not ends:
        raise ArgumentError("this model has no end token: nothing could end what it writes")
    if model.tokenizer.eos in ends:  # llguidance takes the first for the main one
        ends.insert(0, ends.pop(ends.index(model.tokenizer.eos)))
    tokens = [b"" if len(token) > MAX_TOKEN_BYTES else token for token in tokens]
    return _llguidance().LLTokenizer(_Tokens(tokens, special, ends[0]), eos_token=ends)  # type: ignore[no-any-return]


class _Tokens:
    """What LLTokenizer asks of a tokenizer."""

    is_tokenizer_wrapper = True
    bos_token_id = None

    def __init__(self, tokens: list[bytes], special: list[int], eos: int) -> None:
        self.tokens = tokens
        self.special_token_ids = special
        self.eos_token_id = eos

    def __call__(self, text: bytes) -> list[int]:
        return []  # for the tokens that are forced: none are


_vocabularies: WeakKeyDictionary[Model, _Vocabulary] = WeakKeyDictionary()
_making = threading.Lock()


def _vocabulary(model: Model) -> _Vocabulary:
    with _making:
        found = _vocabularies.get(model)
        if found is None:
            found = _vocabularies[model] = _Vocabulary(model)
        return found


class Matcher:
    """One stream's place in a grammar: what the native link of a chain asks.

    Args:
        name: the keyword that the grammar was given by, for messages.
        grammar: llguidance's.
    """

    def __init__(self, name: str, grammar: str) -> None:
        self._name = name
        self._grammar = grammar
        self._ends: frozenset[int] = frozenset()
        self._beginning: LLMatcher | None = None
        self._place: LLMatcher | None = None

    def bind(self, model: Model) -> None:
        """Learns the tokens of a model."""
        vocabulary = _vocabulary(model)
        self._beginning = vocabulary.matcher(self._name, self._grammar)
        self._ends = vocabulary.ends
        self._place = None

    def begin(self) -> None:
        """Goes to the beginning."""
        self._place = None

    def allows(self, token: int) -> bool:
        """Whether this token may come next."""
        place = self._here()
        if place.is_stopped():
            self._check(place)
            return token in self._ends
        return place.validate_tokens([token]) == 1

    def accept(self, token: int) -> bool:
        """Goes on behind a token. Returns whether nothing but an end token can follow.

        Raises:
            ArgumentError: the token may not come here, or the grammar grows beyond all limits.
        """
        if not self.allows(token):
            raise ArgumentError(f"{self._name} does not allow token {token} here")
        place = self._here()
        place.consume_token(token)
        self._check(place)
        return place.is_stopped()

    def mask(self, address: int, size: int) -> None:
        """Writes which tokens may come next: a bit each, size bytes of memory at address."""
        place = self._here()
        place.unsafe_compute_mask_ptr(address, size)
        self._check(place)

    def clone(self) -> Matcher:
        """One at the same place."""
        other = Matcher(self._name, self._grammar)
        other._ends, other._beginning = self._ends, self._beginning
        other._place = None if self._place is None else self._place.deep_copy()
        return other

    def _here(self) -> LLMatcher:
        if self._place is None:
            assert self._beginning is not None
            self._place = self._beginning.deep_copy()
        return self._place

    def _check(self, place: LLMatcher) -> None:
        if place.is_error():
            raise ArgumentError(f"{self._name} cannot go on here: {_readable(place.get_error())}")
