"""What wheels/ checks and links with, without building a wheel."""

from __future__ import annotations

import ctypes
import platform
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

WHEELS = Path(__file__).resolve().parent.parent / "wheels"
sys.path.insert(0, str(WHEELS))

import content  # noqa: E402

FILES = ["kollama/__init__.py", "kollama/py.typed", "kollama/_core/model.pyi", "kollama/_core/model.abi3.so",
         "kollama/lib/libkollama.so", "kollama/lib/libkollama-ggml-cpu-x64.so", "kollama-1.0.dist-info/METADATA",
         "kollama-1.0.dist-info/licenses/LICENSES/llama.cpp.txt"]


def write_wheel(folder: Path, *files: str, tag: str = "cp311-abi3-linux_x86_64") -> Path:
    path = folder / f"kollama-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file in files:
            archive.writestr(file, b"")
    return path


def test_names_of_a_wheel(tmp_path: Path) -> None:
    binaries = content.check_names(write_wheel(tmp_path, *FILES))
    assert binaries == [file for file in FILES if file.endswith(".so")]
    content.check_names(write_wheel(tmp_path, *FILES, tag="0quick-cp311-abi3-manylinux_2_28_x86_64"))


@pytest.mark.parametrize(("file", "reason"), [
    ("bin/llama", "top-level entries"),
    ("include/llama.h", "top-level entries"),
    ("kollama.libs/libstdc++.so.6", "top-level entries"),
    ("kollama/lib/libllama.so", "libllama.so"),
    ("kollama/lib/libkollama-llama.so.0", "versioned copies"),
    ("kollama/libkollama-ggml.so", "libraries and modules in"),
    ("kollama/_core/sampler.cpython-311-x86_64-linux-gnu.so", "cpython-311"),
    ("kollama/_core/model.pyx", "sources"),
    ("kollama/__init__.py", "twice"),
])
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_what_does_not_belong_there(tmp_path: Path, file: str, reason: str) -> None:
    with pytest.raises(AssertionError, match=reason):
        content.check_names(write_wheel(tmp_path, *FILES, file))


@pytest.mark.parametrize("missing", ["kollama/py.typed", "kollama/_core/model.pyi", "kollama/_core/model.abi3.so",
                                     "kollama/lib/", "kollama-1.0.dist-info/licenses/"])
def test_what_is_missing(tmp_path: Path, missing: str) -> None:
    files = [file for file in FILES if not file.startswith(missing)]
    with pytest.raises(AssertionError):
        content.check_names(write_wheel(tmp_path, *files))


@pytest.mark.parametrize("tag", ["cp311-cp311-linux_x86_64", "py3-none-any"])
def test_a_wheel_for_one_python_is_refused(tmp_path: Path, tag: str) -> None:
    with pytest.raises(AssertionError, match="not tagged cp311-abi3"):
        content.check_names(write_wheel(tmp_path, *FILES, tag=tag))


def test_size_budget(tmp_path: Path) -> None:
    file = tmp_path / "kollama.whl"
    file.write_bytes(bytes(1_000_001))
    content.check_size(file, 1.1)
    with pytest.raises(AssertionError, match=r"1\.0 MB, and may have 1"):
        content.check_size(file, 1.0)


HAS_GCC = (platform.system() == "Linux" and platform.machine() in ("x86_64", "aarch64")
           and bool(shutil.which("g++")) and platform.libc_ver()[0] == "glibc")


@pytest.mark.skipif(not HAS_GCC, reason="for GCC on Linux with glibc")
@pytest.mark.parametrize(("wrong", "reason"), [
    ("", ""),
    ("-g", "not stripped"),
    ("-Wl,-rpath,/opt", "with a path"),
    ("base", "not linked with kollama's ggml"),
    ("kollama/__init__.py", "kollama/__init__.py|'kollama'"),
    ("kollama_rpc/libkollama-ggml-base.so", "libkollama-ggml-base"),
])
def test_a_plugin(tmp_path: Path, wrong: str, reason: str) -> None:
    def link(name: str, *options: str) -> Path:
        subprocess.run(["gcc", "-shared", "-nostdlib", "-x", "c", "/dev/null", "-o", tmp_path / name,
                        f"-Wl,-soname,{name}", *options], check=True)
        return tmp_path / name

    base = link("libkollama-ggml-base.so")
    options = [] if wrong == "-g" else ["-s"]
    if wrong != "base":
        options += ["-Wl,--no-as-needed", f"-L{tmp_path}", "-x", "none", str(base)]
    library = link("libkollama-ggml-rpc.so", *options, *([wrong] if wrong.startswith("-Wl") else []))
    wheel = tmp_path / "kollama_rpc-1.0-py3-none-manylinux_2_28_x86_64.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.write(library, "kollama_rpc/libkollama-ggml-rpc.so")
        archive.writestr("kollama_rpc-1.0.dist-info/licenses/LICENSES/llama.cpp.txt", "")
        if "/" in wrong and not wrong.startswith("-"):
            archive.writestr(wrong, "")
    if reason:
        with pytest.raises(AssertionError, match=reason):
            content.check_plugin(wheel, tmp_path)
    else:
        content.check_plugin(wheel, tmp_path)


# Each line asks for what GCC 12 or glibc 2.36 has and glibc 2.28 had not: std::filesystem in libstdc++.so,
# stat, threads in libc, log2 with a new version, a wait by the steady clock, random numbers.
NEWER = r"""
#include <chrono>
#include <cmath>
#include <condition_variable>
#include <filesystem>
#include <mutex>
#include <random>
#include <sys/stat.h>
#include <thread>

extern "C" __attribute__((visibility("default"))) int tries(const char * folder, double x) {
    int         n = 0;
    struct stat there;
    n += stat(folder, &there) == 0 && S_ISDIR(there.st_mode);
    n += std::filesystem::is_directory(folder);
    std::thread([&] { n++; }).join();
    std::mutex              mutex;
    std::condition_variable never;
    std::unique_lock        lock(mutex);
    const auto              start = std::chrono::steady_clock::now();
    n += !never.wait_for(lock, std::chrono::milliseconds(20), [] { return false; });
    n += std::chrono::steady_clock::now() - start >= std::chrono::milliseconds(20);
    try {
        std::filesystem::file_size("/does/not/exist");
    } catch (const std::filesystem::filesystem_error &) {
        n++;
    }
    std::random_device random;
    n += (random() | random()) != 0;
    return n + (std::log2(x) == 3.0);
}
"""


@pytest.mark.skipif(not HAS_GCC, reason="for GCC on Linux with glibc")
def test_what_is_linked_runs_on_an_older_linux(tmp_path: Path) -> None:
    subprocess.run([sys.executable, WHEELS / "old_glibc.py", tmp_path / "old"], check=True, capture_output=True)
    source, library = tmp_path / "newer.cpp", tmp_path / "libnewer.so"
    source.write_text(NEWER)
    subprocess.run(["g++", "-std=c++17", "-O2", "-fPIC", "-shared", "-fvisibility=hidden", source, "-o", library,
                    f"-L{tmp_path}/old", "-Wl,--exclude-libs,ALL", "-Wl,-z,defs"], check=True)
    table = subprocess.run(["readelf", "-W", "--dyn-syms", library], check=True, capture_output=True, text=True).stdout
    versions = {tuple(map(int, minor.split("."))) for minor in re.findall(r"@GLIBC_(\d+(?:\.\d+)+)", table)}
    assert versions
    assert max(versions) <= (2, 28)
    assert max(map(int, re.findall(r"@GLIBCXX_3\.4\.(\d+)", table))) <= 24
    assert content.symbols(library)[1] == set()
    tries = ctypes.CDLL(str(library)).tries
    tries.argtypes = [ctypes.c_char_p, ctypes.c_double]
    assert tries(bytes(tmp_path), 8.0) == 8
