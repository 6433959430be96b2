"""What a model file is, from its header and its vocabulary alone."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ._core.gguf import read_header
from ._core.tokenizer import Tokenizer
from .errors import ArgumentError, KollamaError, ModelLoadError, ModelNotFoundError
from .params import integer

__all__ = ["FileInfo", "TensorInfo", "VocabularyInfo", "inspect"]

# Bytes of one element of the K/V memory, by ggml's type name: a block's bytes over its elements.
KV_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0, "q8_0": 34 / 32, "q5_1": 24 / 32, "q5_0": 22 / 32,
            "q4_1": 20 / 32, "q4_0": 18 / 32}
# What a GGML file of 2023 does not have, and kollama takes from Llama-2.
NOT_IN_LEGACY = (
    "llama.context_length", "llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base",
)
N_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A weight: its type by ggml's name, its shape with rows first, its bytes as GGUF."""

    name: str
    type: str
    shape: tuple[int, ...]
    n_bytes: int


@dataclass(frozen=True, slots=True)
class VocabularyInfo:
    """A vocabulary: how many tokens, how many of them Korean, and some of those."""

    n_tokens: int
    n_korean: int
    korean_samples: list[str]
    bos: str | None
    eos: str | None


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A model file.

    `metadata` holds GGUF's keys as text, an array as "[type x count]". Those of a GGML file of 2023
    are what its header and its tensors say; `assumed` names the ones that it has no place for.
    `vocabulary` is None where the file has none that can be read.
    """

    path: str
    format: str
    file_size: int
    metadata: dict[str, str]
    tensors: list[TensorInfo]
    vocabulary: VocabularyInfo | None
    assumed: tuple[str, ...]

    @property
    def architecture(self) -> str | None:
        return self.metadata.get("general.architecture")

    @property
    def n_params(self) -> int:
        return sum(math.prod(tensor.shape) for tensor in self.tensors)

    @property
    def types(self) -> dict[str, int]:
        """Bytes by tensor type, the largest first."""
        sizes: Counter[str] = Counter()
        for tensor in self.tensors:
            sizes[tensor.type] += tensor.n_bytes
        return dict(sizes.most_common())

    @property
    def hyperparameters(self) -> dict[str, str]:
        """The metadata of the architecture, without its name in front."""
        prefix = f"{self.architecture}."
        return {key.removeprefix(prefix): value for key, value in self.metadata.items()
                if key.startswith(prefix)}

    def memory(self, n_ctx: int = 4096, *, type_k: str = "f16", type_v: str = "f16") -> int | None:
        """Bytes that the weights and the K/V memory of n_ctx tokens take on a CPU.

        None where the header does not tell, as for recurrent models. Buffers for computing come on
        top, some hundred megabytes for 7B; layers with a sliding window may take less.

        Raises:
            ArgumentError: n_ctx is not positive, or a type that K/V memory cannot have.
        """
        n_ctx = integer("n_ctx", n_ctx, 1)
        for name, kind in (("type_k", type_k), ("type_v", type_v)):
            if kind not in KV_BYTES:
                raise ArgumentError(f"{name} is {kind!r}; it can be {', '.join(KV_BYTES)}")
        widths = _kv_widths(self.hyperparameters)
        if widths is None:
            return None
        k, v = widths
        weights = sum(tensor.n_bytes for tensor in self.tensors)
        return weights + math.ceil(n_ctx * (k * KV_BYTES[type_k] + v * KV_BYTES[type_v]))

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, for JSON."""
        return asdict(self) | {"n_params": self.n_params, "types": self.types}


def inspect(path: str | os.PathLike[str]) -> FileInfo:
    """Reads the header and the vocabulary of a model file; its weights are not touched.

    Raises:
        ModelNotFoundError: there is no such file.
        FormatError: it is of another kind, truncated or damaged; the text says where.
    """
    file = Path(path)
    if not file.exists():
        raise ModelNotFoundError(f"{file}: there is no such file")
    if file.is_dir():
        raise ModelLoadError(f"{file}: is a directory, not a model file")
    name, version, metadata, tensors = read_header(file)
    return FileInfo(
        path=str(file),
        format=f"gguf v{version}" if name == "gguf" else name,
        file_size=file.stat().st_size,
        metadata=metadata,
        tensors=[TensorInfo(*tensor) for tensor in tensors],
        vocabulary=_vocabulary(file),
        assumed=() if name == "gguf" else NOT_IN_LEGACY,
    )


def _kv_widths(hyperparameters: Mapping[str, str]) -> tuple[int, int] | None:
    """Elements of K and of V that one token has in all layers."""
    try:
        n_layer, n_embd, n_head = (
            int(hyperparameters[key])
            for key in ("block_count", "embedding_length", "attention.head_count")
        )
        n_head_kv = int(hyperparameters.get("attention.head_count_kv", n_head))
        width_k = int(hyperparameters.get("attention.key_length", n_embd // n_head))
        width_v = int(hyperparameters.get("attention.value_length", n_embd // n_head))
    except (KeyError, ValueError, ZeroDivisionError):  # no attention, or one number a layer
        return None
    return n_layer * n_head_kv * width_k, n_layer * n_head_kv * width_v


def _vocabulary(file: Path) -> VocabularyInfo | None:
    try:
        tokenizer = Tokenizer.from_file(file)
    except KollamaError:
        return None
    pieces = (_piece(tokenizer, token) for token in range(len(tokenizer)))
    korean = [piece for piece in pieces if any("가" <= char <= "힣" for char in piece)]
    # Words tell more than syllables. The first ones of a vocabulary are the most frequent.
    telling = [piece for piece in korean if len(piece.strip("▁ ")) > 1] or korean
    step = max(1, len(telling) // N_SAMPLES)
    return VocabularyInfo(
        n_tokens=len(tokenizer),
        n_korean=len(korean),
        korean_samples=telling[::step][:N_SAMPLES],
        bos=None if tokenizer.bos is None else tokenizer.piece(tokenizer.bos),
        eos=None if tokenizer.eos is None else tokenizer.piece(tokenizer.eos),
    )


def _piece(tokenizer: Tokenizer, token: int) -> str:
    """What a token stands for: pieces of byte-level vocabularies are spelled otherwise."""
    return tokenizer.decode_bytes([token]).decode("utf-8", "replace")
