import sys
from collections.abc import Iterable
from typing import final

import numpy as np
from numpy.typing import NDArray

__pyx_capi__: dict[str, object]

@final
class Buffer:
    def __new__(cls) -> Buffer: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...
        def __release_buffer__(self, buffer: memoryview, /) -> None: ...

@final
class RowArray: ...

def token_ids(ids: Iterable[int] | NDArray[np.integer]) -> NDArray[np.int32]: ...
