"""Models of other formats -> GGUF."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..errors import ArgumentError, ModelNotFoundError
from ..progress import progress_bar

__all__ = ["convert"]

Path_ = str | os.PathLike[str]


def convert(
    src: Path_,
    dst: Path_,
    *,
    type: str | None = None,  # noqa: A002 - llama.cpp's word
    rms_norm_eps: float | None = None,
    tokenizer: Path_ | None = None,
    progress: Callable[[float], bool | None] | bool | None = None,
) -> None:
    """Writes a GGUF of a legacy GGML file, or of a folder with a Llama of Hugging Face.

    Memory stays small whatever the size of the model. `dst` appears whole or not at all.

    Args:
        src: a GGML, GGMF or GGJT file of 2023, or a folder with config.json, *.safetensors and
            tokenizer.json or tokenizer.model. A folder needs ``pip install 'kollama[convert]'``.
        dst: the file to write; one of this name from before is replaced at the end.
        type: of a folder's weights: "f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1" or
            "q8_0"; None takes that of the embeddings. A legacy file keeps its types; `quantize`
            makes others.
        rms_norm_eps: of a legacy file, which does not say; None takes 1e-5, Llama-2's.
        tokenizer: a tokenizer.json whose rules are used in place of the source's own.
        progress: called with 0.0 to 1.0, False stops; True shows a progress bar.

    Raises:
        ModelNotFoundError: there is no src, or a file that it names is missing.
        FormatError: src is damaged, or a model of another kind; the text says what.
        ArgumentError: an argument has no meaning for this kind of src, or dst is src.
        WriteError: dst cannot be written.
        AbortedError: progress returned False.
    """
    from pathlib import Path  # takes a fifth of `import kollama`

    source = Path(src)
    if not source.exists():
        raise ModelNotFoundError(f"{source}: there is no such file or folder")
    if progress is True:
        progress = progress_bar(Path(dst).name)
    elif not progress:
        progress = None
    elif not callable(progress):
        raise TypeError("progress must be a callable, True or None")
    if source.is_dir():
        if rms_norm_eps is not None:
            raise ArgumentError("rms_norm_eps is for legacy files: a folder's config.json has it")
        from .folder import convert_folder

        convert_folder(source, Path(dst), type=type, tokenizer=tokenizer, progress=progress)
    else:
        if type is not None:
            raise ArgumentError(
                f"type is {type!r}, but a legacy file keeps its types: convert it, "
                "then use kollama.quantize")
        from .._core.legacy import convert_legacy
        from ..files import new_file

        with new_file(dst, source=source) as scratch:
            convert_legacy(source, scratch, rms_norm_eps=rms_norm_eps, tokenizer=tokenizer,
                           progress=progress)
