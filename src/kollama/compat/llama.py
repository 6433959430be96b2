"""`Llama`, with the arguments and the results of llama-cpp-python's."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .._core.context import Context
from ..chat_registry import find_format
from ..slots import n_common
from . import arguments
from .chat import ChatHandler
from .constants import (
    LLAMA_ATTENTION_TYPE_UNSPECIFIED,
    LLAMA_DEFAULT_SEED,
    LLAMA_POOLING_TYPE_UNSPECIFIED,
    LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED,
    LLAMA_SPLIT_MODE_LAYER,
)
from .embedding import Embedding
from .pretrained import download

__all__ = ["Llama"]


class Llama(Embedding):
    """A model that completes text: llama-cpp-python's `Llama`, run by kollama.

    Args:
        model_path: a GGUF, or a GGML file of 2023.
        n_gpu_layers: -1: all. More than 0 without a GPU backend raises.
        n_ctx: tokens of prompt and answer together; 0: what the model was trained with.
        n_threads: None: what cores, affinity and quota allow. n_threads_batch: the same or None.
        use_mmap: False: never; True: where it costs nothing.
        seed: -1 or 0xFFFFFFFF: a random one.
        last_n_tokens_size: how far back penalties look.
        logits_all: give `scores`. They cost a second pass, when they are asked for. The `logprobs`
            of a completion do not need it.
        embedding: make `embed` possible, in a context of its own.
        pooling_type: of embeddings; unspecified: the file's own, else none.
        flash_attn: None: where it helps.
        type_k, type_v: of the K/V memory, by number (GGML_TYPE_Q8_0) or by name ("q8_0").
        chat_format: a name of `kollama.chat_formats()`; None: the model's own template, or else
            "llama-2", as llama-cpp-python has it.
        chat_handler: called for create_chat_completion with llama= and all its arguments.
        rms_norm_eps: of a GGML file, which does not store it.
        tokenizer: path of a tokenizer.json that replaces the file's own vocabulary rules.
        verbose: taken for compatibility: nothing is ever printed. See logging.getLogger("kollama").

    Every other argument can have llama-cpp-python's default alone. A Llama does one thing at a
    time: a new call ends a stream that was left unfinished.

    Raises:
        ModelNotFoundError: there is no file at model_path.
        ArgumentError: an argument asks for what cannot be honoured.
    """

    def __init__(
        self,
        model_path: str,
        *,
        n_gpu_layers: int = 0,
        split_mode: int = LLAMA_SPLIT_MODE_LAYER,
        main_gpu: int = 0,
        tensor_split: list[float] | None = None,
        vocab_only: bool = False,
        use_mmap: bool = True,
        use_mlock: bool = False,
        kv_overrides: dict[str, bool | int | float | str] | None = None,
        seed: int = LLAMA_DEFAULT_SEED,
        n_ctx: int = 512,
        n_batch: int = 512,
        n_ubatch: int = 512,
        n_threads: int | None = None,
        n_threads_batch: int | None = None,
        rope_scaling_type: int | None = LLAMA_ROPE_SCALING_TYPE_UNSPECIFIED,
        pooling_type: int = LLAMA_POOLING_TYPE_UNSPECIFIED,
        attention_type: int = LLAMA_ATTENTION_TYPE_UNSPECIFIED,
        rope_freq_base: float = 0.0,
        rope_freq_scale: float = 0.0,
        yarn_ext_factor: float = -1.0,
        yarn_attn_factor: float = 1.0,
        yarn_beta_fast: float = 32.0,
        yarn_beta_slow: float = 1.0,
        yarn_orig_ctx: int = 0,
        logits_all: bool = False,
        embedding: bool = False,
        offload_kqv: bool = True,
        flash_attn: bool | None = None,
        op_offload: bool | None = None,
        swa_full: bool | None = None,
        no_perf: bool = False,
        last_n_tokens_size: int = 64,
        lora_base: str | None = None,
        lora_scale: float = 1.0,
        lora_path: str | None = None,
        numa: bool | int = False,
        chat_format: str | None = None,
        chat_handler: ChatHandler | None = None,
        draft_model: Any = None,
        tokenizer: str | None = None,
        type_k: int | str | None = None,
        type_v: int | str | None = None,
        spm_infill: bool = False,
        rms_norm_eps: float | None = None,
        verbose: bool = True,
    ) -> None:
        given = {name: value for name, value in locals().items()
                 if name not in ("self", "__class__")}
        arguments.refuse(given)
        model = arguments.open_model(given)
        context = None
        try:
            options = arguments.context_options(model, given)
            context = None if vocab_only else Context(model, **options)
            super().__init__(model, context, seed=seed, last_n_tokens_size=last_n_tokens_size,
                             logits_all=logits_all)
            if lora_path is not None and context is not None:
                self._adapters.set_lora([(lora_path, lora_scale)], [context])
            if embedding:
                self._embed_with(options, pooling_type)
            self.chat_handler = chat_handler
            self.chat_format = self._default_chat_format() if chat_format is None else chat_format
            if self._template(self.chat_format) is None and chat_handler is None:
                find_format(self.chat_format)
        except BaseException:
            if context is not None:
                context.close()
            if hasattr(self, "_adapters"):
                self._adapters.close()
            model.close()
            raise
        self._given = given
        self.model_path = model_path
        self.verbose = verbose
        self.n_batch = 0 if context is None else context.n_batch
        self.n_threads = 0 if context is None else context.n_threads

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: str,
        additional_files: Sequence[str] | None = None,
        local_dir: str | None = None,
        cache_dir: str | None = None,
        **kwargs: Any,
    ) -> Self:
        """A Llama of a file from the Hugging Face Hub, with the arguments of Llama.

        Args:
            filename: name or glob pattern of the one model file, or of the first of its parts.
            additional_files: names or patterns of the other parts.

        Raises:
            KollamaError: huggingface_hub is not installed.
            ArgumentError: no file, or several, match a pattern.
        """
        path = download(repo_id, [filename, *(additional_files or ())],
                        local_dir=local_dir, cache_dir=cache_dir)
        return cls(model_path=path, **kwargs)

    @staticmethod
    def logits_to_logprobs(logits: ArrayLike, axis: int = -1) -> NDArray[np.single]:
        """The natural logarithms of a softmax along an axis: float32, of the shape of logits."""
        values = np.asarray(logits, np.single)
        shifted = values - values.max(axis=axis, keepdims=True)
        with np.errstate(divide="ignore"):
            total = np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
        return np.asarray(shifted - total, np.single)

    @staticmethod
    def longest_token_prefix(a: Sequence[int], b: Sequence[int]) -> int:
        """How many tokens two sequences begin with together."""
        return n_common(np.array(a, np.int64), np.array(b, np.int64))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return self._given

    def __setstate__(self, state: dict[str, Any]) -> None:
        Llama.__init__(self, **state)
