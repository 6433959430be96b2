"""Control vectors in llama.cpp's GGUF files."""

from __future__ import annotations

import os
from os import PathLike
from typing import TYPE_CHECKING

import numpy as np

from . import params
from ._core.gguf import tensor_places
from ._core.model import Model
from .errors import FormatError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["load_control_vector"]


def load_control_vector(
    path: str | bytes | PathLike[str] | PathLike[bytes], model: Model
) -> NDArray[np.float32]:
    """A control vector for a model, from a GGUF file with tensors "direction.1", "direction.2", ...

    Returns:
        float32 array of shape (n_layer, n_embd), for `set_control_vector`; zeros where the file has
        no direction for a layer. Sums and multiples of such arrays are control vectors, too.

    Raises:
        ModelNotFoundError: there is no such file.
        FormatError: it is damaged, no control vector, or one for another model.
    """
    name = os.fsdecode(path)
    params.check_file(name, "control vector")
    vector = np.zeros((model.n_layer, model.n_embd), np.float32)
    places = tensor_places(name)
    if not places:
        raise FormatError(f"{name}: there is no direction in it")
    for tensor, (kind, shape, offset) in places.items():
        layer = _layer(name, tensor)
        if kind != "f32" or shape != (model.n_embd,) or layer >= model.n_layer:
            raise FormatError(
                f"{name}: its tensor {tensor!r} is {kind} of shape {shape}; for this model it is "
                f"f32 of shape ({model.n_embd},), for layers 1 to {model.n_layer - 1}"
            )
        vector[layer] += np.fromfile(name, "<f4", model.n_embd, offset=offset)
    return vector


def _layer(name: str, tensor: str) -> int:
    kind, _, number = tensor.partition(".")
    if kind != "direction" or not number.isdecimal() or int(number) == 0:
        raise FormatError(f"{name}: its tensor {tensor!r} is no direction of a control vector")
    return int(number)
