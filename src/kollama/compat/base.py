"""A model with one stream of tokens: what it is, and what it holds."""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._core.context import Context
from .._core.model import Model
from .._core.sampler import Sampler
from .._core.sequence import Sequence as TokenSequence
from ..adapters import Adapters
from ..errors import BusyError, StateError
from ..params import SEED_MAX, seed_of
from .constants import LLAMA_DEFAULT_SEED
from .sampling import Sampling
from .tokenizer import BaseLlamaTokenizer, LlamaTokenizer

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Base"]


class Base:
    """The model, its context and the one sequence in it."""

    def __init__(self, model: Model, context: Context | None, *, seed: int,
                 last_n_tokens_size: int, logits_all: bool) -> None:
        self._model = model
        self._context = context
        self._adapters = Adapters(model)
        self._sequence = None if context is None else context.sequence()
        self._logits_all = logits_all
        self._sampler: tuple[Sampling, Sampler] | None = None  # of sample()
        self._running: weakref.ref[Generator[Any, None, None]] | None = None
        self._turn = threading.Lock()
        self._scores_of: tuple[list[int], NDArray[np.single]] | None = None
        self.last_n_tokens_size = last_n_tokens_size
        self.tokenizer_: BaseLlamaTokenizer = LlamaTokenizer(self)
        self.metadata = dict(model.metadata)
        self.set_seed(seed)

    # ---- what it is ------------------------------------------------------------------------------

    @property
    def _open(self) -> TokenSequence:
        if self._sequence is None:
            raise StateError("the model was opened with vocab_only=True: it can only tokenize")
        return self._sequence

    def n_ctx(self) -> int:
        """Tokens that the context holds."""
        return 0 if self._context is None else self._context.n_ctx

    def n_embd(self) -> int:
        """Length of an embedding."""
        return self._model.n_embd

    def n_vocab(self) -> int:
        """Number of tokens in the vocabulary."""
        return self._model.n_vocab

    def token_eos(self) -> int:
        """The id of the end token, or -1."""
        eos = self._model.tokenizer.eos
        return -1 if eos is None else eos

    def token_bos(self) -> int:
        """The id of the begin token, or -1."""
        bos = self._model.tokenizer.bos
        return -1 if bos is None else bos

    def token_nl(self) -> int:
        """The id of a newline."""
        return LlamaTokenizer(self).newline()

    def tokenizer(self) -> LlamaTokenizer:
        """The tokenizer of this model."""
        return LlamaTokenizer(self)

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """Ids of a text in UTF-8; a bos first where the model asks for one.

        Args:
            special: read special tokens in the text.

        Raises:
            TokenError: the bytes are not UTF-8.
        """
        return self.tokenizer_.tokenize(text, add_bos, special)

    def detokenize(self, tokens: Iterable[int], prev_tokens: Sequence[int] | None = None,
                   special: bool = False) -> bytes:
        """The bytes of tokens. A leading space is dropped only after a bos: decode several ways.

        Args:
            prev_tokens: taken for compatibility; the bytes do not depend on them.
            special: write special tokens, too.
        """
        return self.tokenizer_.detokenize(list(tokens), prev_tokens, special)

    # ---- what it holds ---------------------------------------------------------------------------

    @property
    def n_tokens(self) -> int:
        """Tokens in memory. To set it drops the last ones."""
        return len(self._open)

    @n_tokens.setter
    def n_tokens(self, n: int) -> None:
        self._open.rewind(n)

    @property
    def _input_ids(self) -> NDArray[np.intc]:
        return self._open.tokens

    @property
    def input_ids(self) -> NDArray[np.intc]:
        """The ids in memory, then zeros: a copy, shape (n_ctx,)."""
        ids = np.zeros(self.n_ctx(), np.intc)
        tokens = self._open.tokens
        ids[: len(tokens)] = tokens
        return ids

    @property
    def eval_tokens(self) -> deque[int]:
        """The ids in memory."""
        return deque(self._open.tokens.tolist(), maxlen=self.n_ctx())

    @property
    def eval_logits(self) -> deque[list[float]]:
        """The logits after each token in memory; without logits_all, after the last alone."""
        if self._logits_all:
            return deque(self._scores.tolist(), maxlen=self.n_ctx())
        return deque([self._open.logits.tolist()], maxlen=1)

    @property
    def _scores(self) -> NDArray[np.single]:
        """Logits after each token in memory, shape (n_tokens, n_vocab).

        They are computed when they are asked for, in one more pass over the tokens.
        """
        if not self._logits_all:
            raise StateError("scores need Llama(..., logits_all=True)")
        tokens = self._open.tokens
        if self._scores_of is None or self._scores_of[0] != tokens.tolist():
            rows = np.empty((len(tokens), self.n_vocab()), np.single)
            self._open.clear()
            for i, token in enumerate(tokens.tolist()):
                self._open.append([token])
                rows[i] = self._open.logits
            self._scores_of = (tokens.tolist(), rows)
        return self._scores_of[1]

    @property
    def scores(self) -> NDArray[np.single]:
        """Logits after each token in memory, then zeros: shape (n_ctx, n_vocab). See logits_all."""
        scores = np.zeros((self.n_ctx(), self.n_vocab()), np.single)
        scores[: self.n_tokens] = self._scores
        return scores

    def set_seed(self, seed: int) -> None:
        """The seed of what is sampled from now on; -1 or 0xFFFFFFFF: a random one."""
        drawn = seed is None or seed in (-1, LLAMA_DEFAULT_SEED)
        self._seed = seed_of(None) if drawn else seed_of(seed % (SEED_MAX + 1))
        self._sampler = None

    # ---- one at a time ---------------------------------------------------------------------------

    def _begin(self, run: Generator[Any, None, None]) -> None:
        """Makes this the run in progress. One that was left unfinished is ended.

        Raises:
            BusyError: another thread computes a token of the run in progress.
        """
        with self._turn:
            before = None if self._running is None else self._running()
            if before is not None:
                try:
                    before.close()
                except ValueError:  # it is executing
                    raise BusyError("another thread is in a call of this Llama: give each thread "
                                    "one of its own, or use kollama.LLM") from None
            self._running = weakref.ref(run)

    def close(self) -> None:
        """Frees the model and all memory. Idempotent."""
        running = None if self._running is None else self._running()
        if running is not None:
            running.close()
        self._sampler = self._scores_of = None
        if self._sequence is not None:
            self._sequence.close()
        if self._context is not None:
            self._context.close()
        self._adapters.close()
        self._model.close()
