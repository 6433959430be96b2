"""llama.cpp's own `llama-bench` and its like, built as kollama's libraries are: the yardsticks."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import kollama

__all__ = ["Measurement", "build", "configure", "measure"]

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "third_party" / "llama.cpp"
FOLDER = ROOT / "build" / "llama-bench"
SUFFIX = ".exe" if os.name == "nt" else ""

# What cmake/llama.cmake sets for kollama. Devices stay out: kollama's n_gpu_layers is 0 here.
OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "BUILD_SHARED_LIBS": "ON",
    "GGML_BACKEND_DL": "ON",
    "GGML_OPENMP": "OFF",
    "GGML_CCACHE": "OFF",  # the launchers below cover all of llama.cpp, not only ggml
    "GGML_BLAS": "OFF",
    "GGML_METAL": "OFF",
    "LLAMA_OPENSSL": "OFF",
    "LLAMA_BUILD_APP": "OFF",
    "LLAMA_BUILD_EXAMPLES": "OFF",
    "LLAMA_BUILD_SERVER": "OFF",
    "LLAMA_BUILD_TESTS": "OFF",
    "LLAMA_BUILD_TOOLS": "ON",
}


@dataclass(frozen=True)
class Measurement:
    """One run of llama-bench: its tokens/s, and what it says about itself and the machine."""

    tokens_per_second: float
    commit: str
    cpu: str
    command: list[str]


def build(folder: Path = FOLDER, tool: str = "llama-bench") -> Path:
    """Path of the tool in the folder, built there first. What is up to date is left alone."""
    configure(folder)
    # `ggml` brings the CPU backend along, which is loaded at run time and linked by nobody.
    command = ["cmake", "--build", str(folder), "--config", "Release",
               "--parallel", str(os.cpu_count() or 1), "--target", tool, "ggml"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "bin" / f"{tool}{SUFFIX}"


def configure(folder: Path = FOLDER) -> None:
    """Runs CMake with the options that kollama's libraries were built with."""
    options = OPTIONS | _cpu_options()
    if ccache := shutil.which("ccache"):
        options |= {"CMAKE_C_COMPILER_LAUNCHER": ccache, "CMAKE_CXX_COMPILER_LAUNCHER": ccache}
    command = ["cmake", "-S", str(SOURCE), "-B", str(folder)]
    if shutil.which("ninja") and not (folder / "CMakeCache.txt").exists():
        command += ["-G", "Ninja"]  # a folder that exists keeps its generator
    command += [f"-D{name}={value}" for name, value in sorted(options.items())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def measure(
    binary: Path,
    model: Path,
    *,
    tokens: int,
    threads: int,
    flash_attn: str,
    kv_type: str,
    load_mode: str,
) -> Measurement:
    """Speed of generating so many tokens from an empty context, in a process of its own."""
    command = [
        str(binary), "-o", "json", "-r", "1", "-p", "0", "-n", str(tokens), "-t", str(threads),
        "-ngl", "0", "-fa", flash_attn, "-ctk", kv_type, "-ctv", kv_type, "-lm", load_mode,
        "-m", str(model),
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{binary} failed ({done.returncode}): {done.stderr.strip()}")
    (report,) = json.loads(done.stdout)
    return Measurement(report["avg_ts"], report["build_commit"], report["cpu_info"], command)


def _cpu_options() -> dict[str, str]:
    """As cmake/llama.cmake decides, for the kind of kollama that is installed."""
    if _has_all_variants():
        return {"GGML_NATIVE": "OFF", "GGML_CPU_ALL_VARIANTS": "ON"}
    if platform.machine().lower() in ("x86_64", "amd64"):
        return {"GGML_NATIVE": "OFF", "GGML_CPU_ALL_VARIANTS": "OFF"} | _x86_features()
    return {"GGML_NATIVE": "ON", "GGML_CPU_ALL_VARIANTS": "OFF"}


def _has_all_variants() -> bool:
    """A wheel for every CPU carries one library per CPU type; a local build has a single one."""
    libraries = (Path(kollama.__file__).parent / "lib").iterdir()
    return any("kollama-ggml-cpu-" in library.name for library in libraries)


def _x86_features() -> dict[str, str]:
    """GGML_<feature> for this CPU: the list of cmake/native.cmake, and the compiler's answer."""
    text = (ROOT / "cmake" / "native.cmake").read_text()
    listed = re.search(r"set\(KOLLAMA_X86_FEATURES(.*?)\)", text, re.DOTALL)
    if listed is None:
        raise RuntimeError("cmake/native.cmake has no list of KOLLAMA_X86_FEATURES any more")
    compiler = os.environ.get("CC", "cc").split()
    command = [*compiler, "-march=native", "-dM", "-E", "-x", "c", os.devnull]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    macros = {line.split()[1] for line in answer.splitlines()}
    pairs = [pair.split(":") for pair in listed[1].split()]
    return {f"GGML_{name}": "ON" if macro in macros else "OFF" for name, macro in pairs}
