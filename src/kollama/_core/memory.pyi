import sys
from typing import final

__pyx_capi__: dict[str, object]

@final
class Buffer:
    def __new__(cls) -> Buffer: ...
    if sys.version_info >= (3, 12):
        def __buffer__(self, flags: int, /) -> memoryview: ...
        def __release_buffer__(self, buffer: memoryview, /) -> None: ...
