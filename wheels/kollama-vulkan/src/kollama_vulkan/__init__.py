"""The Vulkan backend of kollama. Nothing here is called by users."""

from pathlib import Path

from ._build import LLAMA_COMMIT

__all__ = ["LLAMA_COMMIT", "library"]


def library() -> str:
    """The path of the backend library."""
    return str(Path(__file__).parent.resolve() / "libkollama-ggml-vulkan.so")
