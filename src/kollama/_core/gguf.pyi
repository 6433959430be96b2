from os import PathLike

def read_header(
    path: str | bytes | PathLike[str] | PathLike[bytes],
) -> tuple[str, int, dict[str, str], list[tuple[str, str, tuple[int, ...], int]]]: ...
def tensor_places(
    path: str | bytes | PathLike[str] | PathLike[bytes],
) -> dict[str, tuple[str, tuple[int, ...], int]]: ...
