"""Text and ids as llama-cpp-python gives them: bytes, and lists."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from os import PathLike
from typing import TYPE_CHECKING

from .._core.tokenizer import Decoder, Tokenizer
from ..errors import TokenError

if TYPE_CHECKING:
    from .base import Base

__all__ = ["BaseLlamaTokenizer", "LlamaTokenizer"]


class BaseLlamaTokenizer(abc.ABC):
    @abc.abstractmethod
    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        """Ids of a text in UTF-8."""

    @abc.abstractmethod
    def detokenize(self, tokens: Sequence[int], prev_tokens: Sequence[int] | None = None,
                   special: bool = False) -> bytes:
        """The bytes of tokens."""


class LlamaTokenizer(BaseLlamaTokenizer):
    """The tokenizer of a Llama, or of a model file: `from_ggml_file`."""

    def __init__(self, llama: Base | Tokenizer) -> None:
        # The model, not its tokenizer: that goes when the model is closed.
        self._source = llama if isinstance(llama, Tokenizer) else llama._model
        # A text begins with a space that decoding drops. After another token nothing is dropped.
        self._anchor = int(self._tokenizer.encode("a")[-1])
        self._anchor_length = len(self._tokenizer.decode_bytes([self._anchor]))

    @property
    def _tokenizer(self) -> Tokenizer:
        return self._source if isinstance(self._source, Tokenizer) else self._source.tokenizer

    def newline(self) -> int:
        """The id of a newline: the byte's own, or that of a text of one newline."""
        try:
            return self._tokenizer.id("<0x0A>")
        except TokenError:
            return int(self._tokenizer.encode("\n")[-1])

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = True) -> list[int]:
        tokenizer = self._tokenizer
        if not isinstance(text, (bytes, bytearray, memoryview)):
            raise TypeError(f"text must be bytes, not {type(text).__name__}: text.encode()")
        ids = tokenizer.encode(text, add_bos=add_bos and tokenizer.add_bos, parse_special=special)
        return [int(token) for token in ids]

    def detokenize(self, tokens: Sequence[int], prev_tokens: Sequence[int] | None = None,
                   special: bool = False) -> bytes:
        raw = self._tokenizer.decode_bytes([self._anchor, *tokens], skip_special=not special)
        text = raw[self._anchor_length :]
        after_bos = len(tokens) > 0 and tokens[0] == self._tokenizer.bos
        return text[1:] if after_bos and text.startswith(b" ") else text

    def encode(self, text: str, add_bos: bool = True, special: bool = True) -> list[int]:
        return self.tokenize(text.encode(), add_bos, special)

    def decode(self, tokens: Sequence[int]) -> str:
        return self.detokenize(tokens).decode("utf-8", errors="ignore")

    @classmethod
    def from_ggml_file(cls, path: str | PathLike[str]) -> LlamaTokenizer:
        """The tokenizer of a model file."""
        return cls(Tokenizer.from_file(path))

    def stream(self) -> Decoder:
        """An incremental decoder for tokens that follow others."""
        decoder = self._tokenizer.decoder(skip_special=True)
        decoder.push(self._anchor)
        return decoder
