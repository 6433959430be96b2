from typing import final

__pyx_capi__: dict[str, object]

@final
class Matchers:
    def __new__(cls) -> Matchers: ...
