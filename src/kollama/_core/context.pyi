from collections.abc import Iterable
from types import TracebackType
from typing import Literal, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kollama._core.lora import Lora
from kollama._core.model import Model
from kollama._core.sequence import Sequence
from kollama.deadline import Deadline

@final
class Context:
    def __new__(
        cls,
        model: Model,
        *,
        n_ctx: int = 4096,
        n_seq_max: int = 1,
        n_batch: int | None = None,
        n_threads: int | None = None,
        type_k: str = "f16",
        type_v: str = "f16",
        flash_attn: bool | Literal["auto"] = "auto",
        swa_full: bool = True,
        embeddings: bool = False,
        pooling: Literal["mean", "last", "cls", "none", "rank"] | None = None,
        busy: Literal["wait", "error"] = "wait",
        draft: Literal["prompt-lookup"] | Model | None = None,
    ) -> Context: ...
    @property
    def model(self) -> Model: ...
    @property
    def n_ctx(self) -> int: ...
    @property
    def n_seq_max(self) -> int: ...
    @property
    def n_batch(self) -> int: ...
    @property
    def n_threads(self) -> int: ...
    @property
    def pooling(self) -> str | None: ...
    @property
    def busy(self) -> Literal["wait", "error"]: ...
    @property
    def draft(self) -> Literal["prompt-lookup"] | Model | None: ...
    @property
    def closed(self) -> bool: ...
    def embed(
        self,
        texts: Iterable[Iterable[int] | NDArray[np.integer]],
        *,
        timeout: float | Deadline | None = None,
    ) -> NDArray[np.float32] | list[NDArray[np.float32]]: ...
    @property
    def lora(self) -> tuple[tuple[Lora, float], ...]: ...
    def set_lora(self, adapters: Iterable[Lora | tuple[Lora, float]]) -> None: ...
    def set_control_vector(
        self,
        vector: ArrayLike | None,
        *,
        scale: float = 1.0,
        layers: tuple[int, int] | None = None,
    ) -> None: ...
    def check_shift(self) -> None: ...
    def sequence(self) -> Sequence: ...
    def close(self) -> None: ...
    def __enter__(self) -> Context: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...
