"""Smaller weights: `kollama.quantize`."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from numpy.typing import ArrayLike

from ._core.quantize import Quantizer, file_types, tensor_types
from ._core.runtime import default_threads
from .errors import ArgumentError, FormatError
from .files import new_file
from .imatrix import Importance, read_importance
from .params import boolean, check_file, integer
from .progress import progress_bar

__all__ = ["Quantization", "QuantizedTensor", "quantize", "type_names"]

MAX_THREADS = 1024
LEGACY_MAGICS = (b"lmgg", b"fmgg", b"tjgg")
FLOAT_TYPES = ("f32", "f16", "bf16")

_Path = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class QuantizedTensor:
    """What became of a tensor: its types by ggml's names, its bytes before and after."""

    name: str
    source_type: str
    type: str
    size_before: int
    size_after: int
    needs_imatrix: bool = False


@dataclass(frozen=True, slots=True)
class Quantization:
    """A quantized file, or with a dry run what would become of it: `path` is None then.

    Sizes are of the files, in bytes; `size_before` is of all parts of a split model.
    """

    source: str
    path: str | None
    type: str
    size_before: int
    size_after: int
    tensors: list[QuantizedTensor]

    @property
    def types(self) -> dict[str, int]:
        """How many tensors are of each type, the most frequent first."""
        return dict(Counter(tensor.type for tensor in self.tensors).most_common())

    @property
    def needs_imatrix(self) -> bool:
        """Whether it cannot be done without an importance matrix that has more than was given."""
        return any(tensor.needs_imatrix for tensor in self.tensors)


def type_names() -> list[str]:
    """What `quantize` takes as type."""
    return file_types()


def quantize(
    src: _Path,
    dst: _Path | None,
    type: str,  # noqa: A002
    *,
    imatrix: _Path | Mapping[str, ArrayLike] | None = None,
    tensor_types: Mapping[str, str] | None = None,
    output_type: str | None = None,
    embedding_type: str | None = None,
    allow_requantize: bool = False,
    leave_output: bool = False,
    pure: bool = False,
    n_threads: int | None = None,
    dry_run: bool = False,
    progress: Callable[[float], object] | Literal[True] | None = None,
) -> Quantization:
    """Writes a model with its weights in fewer bits.

    The weights are bit for bit those of llama.cpp's llama-quantize, and so is the choice of each
    tensor's type. Memory does not depend on the size of the model: about 100 MB. The new file
    appears under its name when it is complete; one of that name from before stays until then.

    Args:
        src: a GGUF in f32, f16 or bf16, or the first part of a split one.
        dst: the new file; not src. None for a dry run.
        type: the name of a type as llama-quantize has them, such as "q4_0", "q8_0", "q4_k_m",
            "iq2_xs" or "f16", in upper or lower case; "copy" changes no weight, and makes one
            file of a split model.
        imatrix: how much each column matters: a file of llama-imatrix (GGUF or .dat), an .npz, or
            a mapping from the names of tensors to arrays. The types below three bits need one.
        tensor_types: regular expressions, searched in the names of tensors, and the types of those
            that they are found in; the first that is found counts. For quantized types.
        output_type, embedding_type: types of the output matrix and of the token embeddings; they
            come before tensor_types.
        allow_requantize: begin with weights that are quantized already, which costs quality.
        leave_output: keep the output matrix as it is.
        pure: the type itself for all matrices, not the mixture that llama-quantize makes of it.
        n_threads: default: physical cores, affinity and quota allow it.
        dry_run: only say what would become of each tensor, and the exact size of the new file.
        progress: called with 0.0 to 1.0 of the bytes read, False stops; True shows a bar.

    Raises:
        ModelNotFoundError: there is no file at src.
        FormatError: src or the imatrix is damaged, or of a kind that cannot be read; or a weight
            is no finite number.
        ModelLoadError: llama.cpp does not know the architecture of src.
        ArgumentError: no such type, or it does not fit; an importance matrix is missing, or is of
            another model; src is quantized already; dst is src.
        WriteError: dst cannot be written, e.g. because the disk is full.
        AbortedError: progress returned False.
    """
    kind = _type_of("type", type, file_types())
    assert kind is not None
    source = os.fsdecode(src)
    if not dry_run and dst is None:
        raise ArgumentError("dst is None; that is for a dry run")
    if progress is not None and progress is not True and not callable(progress):
        raise TypeError("progress must be a callable, True or None")
    options = {
        "output_type": _type_of("output_type", output_type, _tensor_types()),
        "embedding_type": _type_of("embedding_type", embedding_type, _tensor_types()),
        "allow_requantize": boolean("allow_requantize", allow_requantize),
        "leave_output": boolean("leave_output", leave_output),
        "pure": boolean("pure", pure),
    }
    _check_honoured(kind, options, imatrix is not None, bool(tensor_types))
    if n_threads is None:
        n_threads = default_threads()
    integer("n_threads", n_threads, 1, MAX_THREADS)
    boolean("dry_run", dry_run)
    check_file(source, "model")
    _refuse_legacy(source)
    importance = Importance({}) if imatrix is None else read_importance(imatrix)

    quantizer = Quantizer(source)
    overrides = _overrides([tensor[0] for tensor in quantizer.tensors], tensor_types or {})
    quantizer.plan(kind, overrides=overrides, importance=importance.values,
                   importance_file=importance.file, importance_dataset=importance.dataset,
                   importance_chunks=importance.chunks, **options)  # type: ignore[arg-type]
    tensors = [QuantizedTensor(*tensor) for tensor in quantizer.tensors]
    if not dry_run:
        assert dst is not None
        _write(quantizer, Path(os.fsdecode(dst)), n_threads, progress)
    path = None if dry_run or dst is None else os.fsdecode(dst)
    return Quantization(source, path, kind, *quantizer.sizes, tensors)


def _write(quantizer: Quantizer, dst: Path, n_threads: int,
           progress: Callable[[float], object] | Literal[True] | None) -> None:
    show = progress_bar(dst.name) if progress is True else progress
    for part in quantizer.parts[1:]:
        if dst.exists() and dst.samefile(part):
            raise ArgumentError(f"{dst}: is a part of the source itself; choose another name")
    with new_file(dst, source=quantizer.parts[0]) as scratch:
        quantizer.run(scratch, n_threads=n_threads, progress=show)


def _tensor_types() -> list[str]:
    return tensor_types()  # a name that quantize has for an argument


def _type_of(name: str, value: Any, allowed: list[str]) -> str | None:
    if value is None and name != "type":
        return None
    if not isinstance(value, str):
        raise TypeError(f"{name} must be the name of a type, not {value.__class__.__name__}")
    if value.lower() not in allowed:
        raise ArgumentError(f"{name} is {value!r}; it can be {', '.join(allowed)}")
    return value.lower()


def _check_honoured(
    kind: str, options: Mapping[str, object], imatrix: bool, overrides: bool
) -> None:
    """Raises for what llama.cpp would leave out without a word."""
    unused = []
    if kind == "copy":
        unused = [name for name, value in options.items() if value]
    if kind == "copy" or kind in FLOAT_TYPES:
        unused += ["imatrix"] * imatrix + ["tensor_types"] * overrides
    if unused:
        raise ArgumentError(f"{', '.join(unused)}: has no meaning with the type {kind}")
    if options["leave_output"] and options["output_type"] is not None:
        raise ArgumentError("leave_output and output_type exclude each other")


def _refuse_legacy(path: str) -> None:
    with Path(path).open("rb") as file:
        if file.read(4) in LEGACY_MAGICS:
            raise FormatError(
                f"{path}: a GGML file of 2023; make a GGUF of it first, with kollama.convert")


def _overrides(names: list[str], wanted: Mapping[str, str]) -> dict[str, str]:
    """The type of each tensor that a pattern is found in."""
    found: dict[str, str] = {}
    for pattern, value in wanted.items():
        kind = _type_of(f"tensor_types[{pattern!r}]", value, tensor_types())
        assert kind is not None
        try:
            matches = [name for name in names if re.search(pattern, name)]
        except (re.error, RecursionError) as error:
            raise ArgumentError(
                f"tensor_types: {pattern!r} is no regular expression: {error}") from None
        if not matches:
            raise ArgumentError(f"tensor_types: {pattern!r} is found in the name of no tensor")
        for name in matches:
            found.setdefault(name, kind)
    return found
