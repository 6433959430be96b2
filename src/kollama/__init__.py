"""Llama models in your Python process, with Korean text that is exactly right.

`LLM` is the easy front: a model that writes. `Model`, `Context`, `Sequence` and `Sampler` are what
it is made of, for control of every token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._core.context import Context
from ._core.lora import Lora
from ._core.model import Model
from ._core.runtime import default_threads, devices, llama_version, plugins
from ._core.sampler import Sampler
from ._core.sequence import Sequence
from ._core.tokenizer import Decoder, Tokenizer
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
from .llm import LLM

if TYPE_CHECKING:
    from . import samplers
    from .aio import AsyncGeneration
    from .chat_format import ChatFormat, Mark, Special
    from .chat_registry import chat_formats, register_chat_format
    from .control_vectors import load_control_vector
    from .inspection import FileInfo, TensorInfo, VocabularyInfo, inspect
    from .machine import Device, Plugin
    from .quantization import Quantization, QuantizedTensor, quantize
    from .types import Completion, Timings, Token, Usage

    __version__: str

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

if not TYPE_CHECKING:
    # What not every program asks for is imported when it is asked for.
    _LATER = {
        "AsyncGeneration": "aio",
        "ChatFormat": "chat_format",
        "Completion": "types",
        "Device": "machine",
        "FileInfo": "inspection",
        "Mark": "chat_format",
        "Plugin": "machine",
        "Quantization": "quantization",
        "QuantizedTensor": "quantization",
        "Special": "chat_format",
        "TensorInfo": "inspection",
        "Timings": "types",
        "Token": "types",
        "Usage": "types",
        "VocabularyInfo": "inspection",
        "chat_formats": "chat_registry",
        "inspect": "inspection",
        "load_control_vector": "control_vectors",
        "quantize": "quantization",
        "register_chat_format": "chat_registry",
    }

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name in _LATER:
            value = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
        elif name == "samplers":
            value = import_module(f"{__name__}.samplers")
        elif name == "__version__":
            from importlib.metadata import version  # takes as long as all of the above

            value = version("kollama")
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
