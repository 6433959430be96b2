"""Llama models in your Python process, with Korean text that is exactly right.

`LLM` is the easy front: a model that writes. `Model`, `Context`, `Sequence` and `Sampler` are what
it is made of, for control of every token.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from . import samplers
from ._core.context import Context
from ._core.lora import Lora
from ._core.model import Model
from ._core.runtime import default_threads, devices, llama_version, plugins
from ._core.sampler import Sampler
from ._core.sequence import Sequence
from ._core.tokenizer import Decoder, Tokenizer
from .chat_format import ChatFormat, Mark, Special
from .chat_registry import chat_formats, register_chat_format
from .control_vectors import load_control_vector
from .convert import convert
from .errors import (
    AbortedError,
    ArgumentError,
    BusyError,
    ClosedError,
    ContextFullError,
    DeadlineError,
    DecodeError,
    EngineError,
    FormatError,
    KollamaError,
    ModelLoadError,
    ModelNotFoundError,
    OutOfMemoryError,
    RemoteError,
    StateError,
    TokenError,
    WriteError,
)
from .generate import Generation
from .inspection import FileInfo, TensorInfo, VocabularyInfo, inspect
from .llm import LLM
from .quantization import Quantization, QuantizedTensor, quantize
from .types import Completion, Device, Plugin, Timings, Token, Usage

__all__ = [
    "LLM",
    "AbortedError",
    "ArgumentError",
    "AsyncGeneration",
    "BusyError",
    "ChatFormat",
    "ClosedError",
    "Completion",
    "Context",
    "ContextFullError",
    "DeadlineError",
    "DecodeError",
    "Decoder",
    "Device",
    "EngineError",
    "FileInfo",
    "FormatError",
    "Generation",
    "KollamaError",
    "Lora",
    "Mark",
    "Model",
    "ModelLoadError",
    "ModelNotFoundError",
    "OutOfMemoryError",
    "Plugin",
    "Quantization",
    "QuantizedTensor",
    "RemoteError",
    "Sampler",
    "Sequence",
    "Special",
    "StateError",
    "TensorInfo",
    "Timings",
    "Token",
    "TokenError",
    "Tokenizer",
    "Usage",
    "VocabularyInfo",
    "WriteError",
    "chat_formats",
    "convert",
    "default_threads",
    "devices",
    "inspect",
    "llama_version",
    "load_control_vector",
    "plugins",
    "quantize",
    "register_chat_format",
    "samplers",
]

if TYPE_CHECKING:
    from .aio import AsyncGeneration

    __version__: str
else:

    def __getattr__(name: str) -> object:
        if name == "AsyncGeneration":  # asyncio takes longer to import than all of this
            from .aio import AsyncGeneration

            return AsyncGeneration
        # Reading the version of an installed package takes as long as the rest of this import.
        if name == "__version__":
            from importlib.metadata import version

            return version("kollama")
        raise AttributeError(f"module 'kollama' has no attribute {name!r}")



# A library is silent until its user asks for its log.
logging.getLogger("kollama").addHandler(logging.NullHandler())
