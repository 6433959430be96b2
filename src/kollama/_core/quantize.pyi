from collections.abc import Callable, Mapping
from os import PathLike
from typing import final

import numpy as np
from numpy.typing import NDArray

def file_types() -> list[str]: ...
def tensor_types() -> list[str]: ...

@final
class Quantizer:
    def __new__(cls, path: str | bytes | PathLike[str] | PathLike[bytes]) -> Quantizer: ...
    @property
    def parts(self) -> list[str]: ...
    @property
    def tensors(self) -> list[tuple[str, str, str, int, int, bool]]: ...
    @property
    def sizes(self) -> tuple[int, int]: ...
    def plan(
        self,
        type: str,  # noqa: A002
        *,
        overrides: Mapping[str, str],
        importance: Mapping[str, NDArray[np.float32]],
        output_type: str | None = None,
        embedding_type: str | None = None,
        importance_file: str | None = None,
        importance_dataset: str | None = None,
        importance_chunks: int = -1,
        allow_requantize: bool = False,
        leave_output: bool = False,
        pure: bool = False,
    ) -> None: ...
    def run(
        self,
        path: str | bytes | PathLike[str] | PathLike[bytes],
        *,
        n_threads: int,
        progress: Callable[[float], object] | None = None,
    ) -> None: ...
