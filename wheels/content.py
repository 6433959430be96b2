"""Checks what is in a wheel, of any platform, or in the source distribution, without running it.

    python wheels/content.py kollama-*.whl kollama-*.tar.gz ...

Tag and top level, names, size, and of each library and module of a Linux wheel: stripped, found
by its neighbours in this wheel alone, nothing undefined that is not Python's. With abi3audit and
auditwheel beside this interpreter (wheels/requirements.txt) also what they say.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from pathlib import Path

TAG = "cp311-abi3"
BUDGET_MB = 12.0
SDIST_BUDGET_MB = 25.0
PLUGIN_BUDGET_MB = {"blas": 0.5, "rpc": 0.5, "vulkan": 40.0, "cuda": 150.0}
VARIANTS = {"x86_64": 14, "aarch64": 8}  # that ggml knows for Linux
NEWEST = {"manylinux": 28, "musllinux": 2}  # what a wheel may ask for: glibc 2.28, musl 1.2
# Of the C++ runtime, where neither the system nor Python brings it; auditwheel adds a hash.
RUNTIME = {"win": ("msvcp140",), "musllinux": ("libstdc++-", "libgcc_s-")}

# Symbols that need no library: gcc's start files ask for them, weakly.
WEAK = re.compile(r"_ITM_|__gmon_start__|__cxa_finalize")


def runtime(platform: str) -> tuple[str, ...]:
    return next((names for tag, names in RUNTIME.items() if tag in platform), ())


def members(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        assert archive.testzip() is None, f"{wheel.name} is damaged"
        return [file for file in archive.namelist() if not file.endswith("/")]


def check_names(wheel: Path) -> list[str]:
    """One top-level package and its dist-info; libraries under names of our own, each once."""
    # A build number may stand before the tags.
    name, version, *_, python, abi, platform = wheel.stem.split("-")
    assert f"{python}-{abi}" == TAG, f"{wheel.name} is not tagged {TAG}"
    files = members(wheel)
    tops = {file.split("/")[0] for file in files}
    assert tops == {"kollama", f"{name}-{version}.dist-info"}, f"top-level entries: {tops}"
    assert len(files) == len(set(files)), "a file is there twice"
    libraries = [Path(file).name for file in files if file.startswith("kollama/lib/")]
    assert libraries, "no libraries"
    libraries = [library for library in libraries if not library.startswith(runtime(platform))]
    assert all(library.startswith(("libkollama", "kollama")) for library in libraries), libraries
    assert not any(".so." in library for library in libraries), f"versioned copies: {libraries}"
    binaries = [file for file in files if file.endswith((".so", ".dylib", ".dll", ".pyd"))]
    homes = {str(Path(file).parent) for file in binaries}
    assert homes == {"kollama/lib", "kollama/_core"}, f"libraries and modules in {homes}"
    modules = [file for file in binaries if file.startswith("kollama/_core/")]
    assert modules, "no extension modules"
    assert all(".abi3." in file or file.endswith(".pyd") for file in modules), modules
    for needed in ("kollama/py.typed", "kollama/_core/model.pyi"):
        assert needed in files, f"{needed} is missing"
    assert not any(file.endswith((".pyx", ".pxd", ".cpp", ".c", ".h")) for file in files), "sources"
    licences = [file for file in files if ".dist-info/licenses/" in file]
    assert any("llama.cpp" in file for file in licences), licences
    return binaries


def check_size(wheel: Path, budget_mb: float) -> None:
    size = wheel.stat().st_size / 1e6
    assert size <= budget_mb, f"{wheel.name} has {size:.1f} MB, and may have {budget_mb}"
    print(f"  size: {size:.2f} MB of {budget_mb:g}")


def symbols(file: Path) -> tuple[set[str], set[str]]:
    """The names that an ELF file exports, and those without a version that it needs."""
    exported, needed = set(), set()
    for line in say("readelf", "-W", "--dyn-syms", file).splitlines():
        fields = line.split()
        if len(fields) < 8 or not fields[0].rstrip(":").isdigit():
            continue
        section, name = fields[6], fields[7]
        if section != "UND":
            exported.add(name.split("@")[0])
        elif "@" not in name and not WEAK.match(name):
            needed.add(name)
    return exported, needed


def check_linux(folder: Path, binaries: list[str], platform: str) -> None:
    """Stripped, found beside each other, complete: what has no version is in another file."""
    machine = platform.partition("linux_")[2].split("_", 2)[-1]
    cpus = [file for file in binaries if "libkollama-ggml-cpu" in file]
    binaries = [file for file in binaries if not Path(file).name.startswith(runtime(platform))]
    if len(cpus) > 1:
        assert len(cpus) == VARIANTS.get(machine, len(cpus)), f"{len(cpus)} CPU variants"
    exports = {file: symbols(folder / file) for file in binaries}
    for file in binaries:
        sections = say("readelf", "-W", "-S", "-d", folder / file)
        assert not re.search(r"\.symtab|\.debug_", sections), f"{file} is not stripped"
        paths = re.findall(r"\(R(?:UN)?PATH\).*\[(.*)\]", sections)
        wanted = "$ORIGIN" if file.startswith("kollama/lib/") else "$ORIGIN/../lib"
        assert set(":".join(paths).split(":")) == {wanted}, f"{file} looks in {paths}"
        needed = re.findall(r"\(NEEDED\).*\[(.*)\]", sections)
        ours = [f"kollama/lib/{name}" for name in needed if "kollama" in name]
        missing = exports[file][1].difference(*(exports[each][0] for each in ours))
        if "musllinux" in platform: # has no versions
            continue
        if file.startswith("kollama/_core/"):
            missing = {name for name in missing if not name.startswith(("Py", "_Py"))}
        assert not missing, f"{file} needs what no library here has: {sorted(missing)}"
    print(f"  {len(cpus)} CPU libraries, {len(binaries)} libraries and modules: stripped, complete")


def tool(name: str) -> str | None:
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def say(*command: str | Path) -> str:
    """What a tool prints, both streams; its failure is one of ours."""
    done = subprocess.run(command, capture_output=True, text=True, check=False,
                          env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"})
    text = (done.stdout + done.stderr).strip()
    assert done.returncode == 0, f"{Path(command[0]).name}: {text}"
    return text


def check_with_tools(wheel: Path, platform: str) -> None:
    if abi3audit := tool("abi3audit"):
        text = say(abi3audit, "--strict", "--verbose", "--summary", wheel)
        print(f"  abi3audit: {text.splitlines()[-1].strip()}")
    else:
        print("  abi3audit: not here, left out")
    if "linux" not in platform:
        return
    if auditwheel := tool("auditwheel"):
        text = " ".join(say(auditwheel, "show", wheel).split())
        tags = re.findall(r'consistent with the following platform tag: "([a-z0-9_]+)"', text)
        print(f"  auditwheel show: {', '.join(tags)}")
        if promised := re.match(r"(many|musl)linux_\d+_(\d+)_", platform):
            libc, minor = f"{promised[1]}linux", int(promised[2])
            assert minor <= NEWEST[libc], f"{platform} leaves out too many machines"
            found = [int(tag.split("_")[2]) for tag in tags if tag.startswith(libc)]
            assert min(found, default=99) <= minor, f"{platform} promises more than {tags}"
    else:
        print("  auditwheel: not here, left out")


def check_sdist(archive: Path) -> None:
    """Of llama.cpp what a build without a network needs, and not its models and tools."""
    with tarfile.open(archive) as tar:
        files = {file.partition("/")[2] for file in tar.getnames()}
    llama_cpp = "third_party/llama.cpp/"
    inner = ("CMakeLists.txt", "LICENSE", "src/llama.cpp", "ggml/src/ggml-cuda/ggml-cuda.cu")
    for needed in ("PKG-INFO", "pyproject.toml", "CMakeLists.txt", "csrc/kollama.h",
                   "LICENSES/llama.cpp.txt", *(llama_cpp + each for each in inner)):
        assert needed in files, f"{needed} is missing"
    others = {file.split("/")[2] for file in files if file.startswith(llama_cpp)}
    assert not others & {".git", "models", "docs", "tools", "media"}, sorted(others)
    check_size(archive, SDIST_BUDGET_MB)


def check_plugin(wheel: Path, folder: Path) -> None:
    """One stripped library, which finds others by what is loaded before it, and by no path."""
    package = wheel.name.split("-")[0]
    files = members(wheel)
    tops = {file.split("/")[0] for file in files}
    assert tops == {package, "-".join(wheel.name.split("-")[:2]) + ".dist-info"}, tops
    assert any("llama.cpp" in file for file in files if ".dist-info/licenses/" in file), files
    kind = package.removeprefix("kollama_")
    library = f"{package}/libkollama-ggml-{kind}.so"
    assert [file for file in files if ".so" in file] == [library], files
    check_size(wheel, PLUGIN_BUDGET_MB[kind])
    with zipfile.ZipFile(wheel) as archive:
        sections = say("readelf", "-W", "-S", "-d", archive.extract(library, folder))
    assert not re.search(r"\.symtab|\.debug_|R(UN)?PATH", sections), "not stripped, or with a path"
    assert "[libkollama-ggml-base.so]" in sections, "not linked with kollama's ggml"


def check(wheel: Path) -> None:
    print(wheel.name)
    if wheel.name.endswith(".tar.gz"):
        check_sdist(wheel)
        return
    platform = wheel.stem.split("-")[-1].split(".")[0]
    if wheel.name.startswith("kollama_"):
        with tempfile.TemporaryDirectory() as folder:
            check_plugin(wheel, Path(folder))
        return
    binaries = check_names(wheel)
    print("  top level, names, licences: as they should be")
    check_size(wheel, BUDGET_MB)
    if "linux" in platform:
        with tempfile.TemporaryDirectory() as folder:
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(folder, binaries)
            check_linux(Path(folder), binaries, platform)
    check_with_tools(wheel, platform)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheels", type=Path, nargs="+", metavar="FILE")
    options = parser.parse_args()
    for wheel in options.wheels:
        check(wheel)
    return 0


if __name__ == "__main__":
    sys.exit(main())
