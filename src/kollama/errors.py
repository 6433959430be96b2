"""The exceptions of kollama.

Each derives from `KollamaError` and from the builtin that a caller would expect: one ``except
KollamaError`` catches all of them, ``except ValueError`` a wrong argument, ``except
FileNotFoundError`` a missing model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .types import Completion

__all__ = [
    "AbortedError",
    "ArgumentError",
    "BusyError",
    "ClosedError",
    "ContextFullError",
    "DeadlineError",
    "DecodeError",
    "EngineError",
    "FormatError",
    "KollamaError",
    "ModelLoadError",
    "ModelNotFoundError",
    "OutOfMemoryError",
    "RemoteError",
    "StateError",
    "TokenError",
    "WriteError",
]


class KollamaError(Exception):
    """Base of all errors that kollama raises."""


class ArgumentError(KollamaError, ValueError):
    """An argument has a value that cannot be used."""


class ModelLoadError(KollamaError, RuntimeError):
    """A model or a context of it cannot be made."""


class ModelNotFoundError(ModelLoadError, FileNotFoundError):
    """There is no file at the path of the model."""


class FormatError(ModelLoadError, ValueError):
    """A file is not what it should be: wrong kind, truncated or damaged."""


class WriteError(KollamaError, OSError):
    """A file cannot be written: no space, no permission, no such folder."""


class TokenError(KollamaError, ValueError):
    """A token id outside the vocabulary, or text that has no tokens."""


class ContextFullError(KollamaError, ValueError):
    """The tokens do not fit into the context."""


class DecodeError(KollamaError, RuntimeError):
    """The model could not be run over the tokens. The sequence is as it was before."""


class ClosedError(KollamaError, ValueError):
    """The object was closed, as for an operation on a closed file."""


class BusyError(KollamaError, RuntimeError):
    """The object is in use by another call."""


class AbortedError(KollamaError, RuntimeError):
    """The call was cancelled before it was done."""


class DeadlineError(AbortedError, TimeoutError):
    """The call was not done within its `timeout`, and was ended.

    `completion` is what `complete` had by then, of the type that it would have returned; None from
    other calls.
    """

    completion: Completion | list[Completion] | None = None


class StateError(KollamaError, RuntimeError):
    """The object is not in a state to give this, e.g. logits before the first append."""


class EngineError(KollamaError, RuntimeError):
    """An assertion inside ggml or llama.cpp failed. The context it failed in is of no more use."""


class RemoteError(KollamaError, ConnectionError):
    """An RPC server that holds layers of the model cannot be reached, or is gone.

    What was at work with it has ended; the model is of no more use and can be loaded again.
    """


class OutOfMemoryError(KollamaError, MemoryError):
    """Memory could not be had."""
