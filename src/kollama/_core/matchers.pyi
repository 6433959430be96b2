from typing import final

@final
class Matchers:
    def __new__(cls) -> Matchers: ...
