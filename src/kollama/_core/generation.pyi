from collections.abc import Iterable
from typing import final

import numpy as np
from numpy.typing import NDArray

from kollama._core.sampler import Sampler
from kollama._core.sequence import Sequence
from kollama._core.watch import Watch
from kollama.deadline import Deadline
from kollama.types import FinishReason, Timings, Token, Usage

STREAM_AHEAD: int
NEWS_NONE: int
NEWS_TOKEN: int
NEWS_CHOICE: int
NEWS_END: int

@final
class TokenStream:
    def __new__(
        cls,
        sequence: Sequence,
        sampler: Sampler,
        prompt: Iterable[int] | NDArray[np.integer],
        *,
        max_tokens: int | None = None,
        stop: list[bytes],
        ignore_eos: bool = False,
        ahead: int = ...,
        top: int = 0,
        shift_at: int | None = None,
        n_keep: int = 0,
        deadline: Deadline | None = None,
        watch: Watch | None = None,
        key: int = 0,
    ) -> TokenStream: ...
    def __iter__(self) -> TokenStream: ...
    def __next__(self) -> Token: ...
    def send(self, token: int) -> tuple[Token, Token | None]: ...
    def look(self, for_end: bool = False) -> int: ...
    def request_cancel(self) -> None: ...
    def close(self) -> bool: ...
    @property
    def stats(self) -> tuple[Usage, Timings, FinishReason | None, bytes]: ...
