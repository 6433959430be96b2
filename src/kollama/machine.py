"""What computes here: plain values, imported when somebody asks."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Device", "Plugin"]


@dataclass(frozen=True)
class Device:
    """Something that computes: a CPU, a GPU, or an accelerator library such as a BLAS.

    `type` is "cpu", "gpu", "igpu" (shares the machine's memory) or "accel"; memory is in bytes.
    """

    name: str
    description: str
    backend: str
    type: str
    memory_free: int
    memory_total: int


@dataclass(slots=True)
class Plugin:
    """A package that brings a backend library, such as kollama-cuda.

    `library` is the path of what was loaded, `problem` why nothing was: one of them is None.
    `n_devices` are those that it found; a plugin that finds none is of no use here, but for "rpc",
    whose devices are the servers that a Model names.
    """

    name: str
    package: str
    version: str
    library: str | None = None
    problem: str | None = None
    n_devices: int = 0

    def __str__(self) -> str:
        return f"{self.package} {self.version}".rstrip()
