"""What the tests of conversion share: a folder with a tokenizer.model, and looks into a GGUF."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import hf_folder
import numpy as np
import sentencepiece_model
import tiny

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 256}


def read(path: Path) -> dict[str, gguf.ReaderTensor]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def key(path: Path, name: str) -> Any:
    field = gguf.GGUFReader(path).get_field(name)
    return None if field is None else field.contents()


def rms(a: Any, b: Any) -> float:
    return float(np.sqrt(np.mean((np.asarray(a, np.float64) - b) ** 2)))


def types_of(path: Path) -> dict[str, str]:
    return {name: tensor.tensor_type.name for name, tensor in read(path).items() if len(tensor.shape) > 1}


def vocabulary(path: Path) -> tuple[list[str], list[float], list[int]]:
    names = ("tokens", "scores", "token_type")
    return tuple(key(path, f"tokenizer.ggml.{name}") for name in names)  # type: ignore[return-value]


def sentencepiece_folder(path: Path, *, add_dummy_prefix: bool = True, added: dict[str, int] | None = None,
                         n_vocab: int | None = None, **settings: Any) -> Path:
    pieces, scores, types = tiny.vocabulary()
    n = n_vocab or len(pieces) + len(added or {})
    folder = hf_folder.llama(tokenizer="model", n_vocab=n, num_hidden_layers=1)
    folder.files["tokenizer.model"] = sentencepiece_model.write(pieces, scores, types, add_dummy_prefix=add_dummy_prefix)
    if added is not None:
        folder.files["added_tokens.json"] = added
    folder.files["tokenizer_config.json"] = settings
    return folder.write(path)
