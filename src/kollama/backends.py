"""Backend plugins: packages that bring a backend library of ggml's, found by their entry points.

A plugin's entry point in the group "kollama.backends" is a module with

    LLAMA_COMMIT: str        # the commit of llama.cpp that the library was built from
    def library() -> str     # its absolute path, with what it needs at run time loaded

KOLLAMA_PLUGINS in the environment names those to load, e.g. "blas,rpc"; empty, none.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Iterable
from pathlib import Path

from .machine import Plugin

__all__ = ["GROUP", "explain", "find_plugins", "no_gpu", "no_rpc"]

GROUP = "kollama.backends"
GPU_PLUGINS = {"cuda": "'kollama[cuda]' (NVIDIA)", "vulkan": "'kollama[vulkan]'"}
HINTS = {
    "libcuda.so.1": "it comes with NVIDIA's driver",
    "libvulkan.so.1": "it is the system's Vulkan loader (Debian: libvulkan1)",
}


def find_plugins(llama_commit: str) -> list[Plugin]:
    """Every installed plugin: one that can be loaded has a library, the others a problem.

    Args:
        llama_commit: that of the kollama which is to load them; a plugin of another one is refused,
            since ggml's structures change from commit to commit.
    """
    wanted = os.environ.get("KOLLAMA_PLUGINS")
    if wanted == "":
        return []
    points = importlib.metadata.entry_points(group=GROUP)
    if wanted is not None:
        names = {name.strip() for name in wanted.split(",")}
        points = importlib.metadata.EntryPoints(p for p in points if p.name in names)
    return [_inspect(point, llama_commit) for point in sorted(points, key=lambda p: p.name)]


def _inspect(point: importlib.metadata.EntryPoint, llama_commit: str) -> Plugin:
    package, version = (point.dist.name, point.dist.version) if point.dist else (point.value, "")
    plugin = Plugin(name=point.name, package=package, version=version)
    try:
        module = point.load()
        commit = module.LLAMA_COMMIT
        if commit != llama_commit:
            own = importlib.metadata.version("kollama")
            plugin.problem = (
                f"it was built for llama.cpp {commit[:12]}, and kollama {own} has "
                f"{llama_commit[:12]}: pip install '{package}=={own}'")
            return plugin
        path = module.library()
        if not Path(path).is_absolute() or not Path(path).is_file():
            plugin.problem = f"its library {path} is not there: reinstall it"
        else:
            plugin.library = str(path)
    except Exception as error:  # whatever somebody else's package raises must not reach our user
        plugin.problem = explain(error)
    return plugin


def explain(error: object) -> str:
    """What went wrong, in one line, with where a missing library comes from."""
    text = " ".join(str(error).split())
    if isinstance(error, Exception) and not isinstance(error, OSError):
        text = f"{type(error).__name__}: {text}"
    hints = [hint for library, hint in HINTS.items() if library in text]
    return "; ".join([text, *hints])


def no_gpu(plugins: Iterable[Plugin]) -> str:
    """Why there is no GPU to hold layers, and what to do."""
    reasons = []
    missing = dict(GPU_PLUGINS)
    for plugin in plugins:
        missing.pop(plugin.name, None)
        if plugin.problem is not None:
            reasons.append(f"{plugin} is not loaded: {plugin.problem}")
        elif plugin.name in GPU_PLUGINS:
            reasons.append(f"{plugin} is loaded and finds no device")
    begin = "no GPU can be used: " if reasons else "no GPU backend is installed: "
    if missing:
        reasons.append("pip install " + " or ".join(missing.values()))
    return f"{begin}{'; '.join(reasons)}; or leave n_gpu_layers at 0"


def no_rpc(plugins: Iterable[Plugin]) -> str:
    """Why no server can be reached, and what to do."""
    for plugin in plugins:
        if plugin.name == "rpc" and plugin.problem is not None:
            return f"{plugin} is not loaded: {plugin.problem}"
    return "the RPC backend is not installed: pip install 'kollama[rpc]'"
