"""Makes a folder to link against, so that what this machine's GCC builds runs on an older Linux.

    python wheels/old_glibc.py FOLDER [--compiler aarch64-linux-gnu-gcc]
    LDFLAGS=-LFOLDER pip wheel .

A symbol of glibc or libstdc++ gets at link time the newest version that the library there has. So
the folder holds stubs of this machine's libraries that know versions up to those of manylinux_2_28
only, as Red Hat's toolsets do it for the compilers of the manylinux images:

- what has an older version, too (pthread_create, log2), is bound to that one;
- what libstdc++.so did not have yet comes, hidden, from libstdc++.a;
- what glibc did not have yet comes from old_glibc.c.

Nothing of a stub gets into what is linked but names and versions. One libstdc++.so and one
libgcc_s.so, those of the machine that runs it, serve all libraries: exceptions cross them.
"""

from __future__ import annotations

import argparse
import itertools
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

# What the policy manylinux_2_28 of auditwheel allows, for x86_64 and aarch64.
NEWEST = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11), "GCC": (7, 0, 0)}

# glibc 2.34 put these into libc, where each of their symbols has its old version and a new one.
MOVED_WITH = "GLIBC_2.34"
MOVED = {"libdl.so.2": ("dl",), "libpthread.so.0": ("pthread_", "sem_")}


@dataclass(frozen=True)
class Symbol:
    name: str
    version: str
    kind: str  # FUNC or OBJECT
    address: str
    size: int
    moved: bool = False


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{shlex.join(map(str, command))}\n{done.stderr}")
    return done.stdout


def rank(version: str) -> tuple[int, ...] | None:
    """The numbers of a version that the policy allows; None for the others."""
    family, _, numbers = version.partition("_")
    if family not in NEWEST or not re.fullmatch(r"[0-9.]+", numbers):
        return None
    rank = tuple(map(int, numbers.split(".")))
    return rank if rank <= NEWEST[family] else None


def exported(readelf: str, library: Path) -> list[Symbol]:
    """Each name that the library exports, with its newest version that is allowed."""
    found: dict[str, tuple[tuple[int, ...], Symbol]] = {}
    versions: dict[str, set[str]] = {}
    for line in run(readelf, "-W", "--dyn-syms", library).splitlines():
        fields = line.split()
        if len(fields) < 8 or fields[3] not in ("FUNC", "OBJECT", "IFUNC", "NOTYPE"):
            continue
        address, size, kind, section, versioned = *fields[1:4], *fields[6:8]
        name, _, version = versioned.replace("@@", "@").partition("@")
        versions.setdefault(name, set()).add(version)
        if section in ("UND", "ABS") or (newness := rank(version)) is None:
            continue
        kind = "OBJECT" if kind == "OBJECT" else "FUNC"
        symbol = Symbol(name, version, kind, address, int(size, 0))
        if name not in found or found[name][0] < newness:
            found[name] = newness, symbol
    return [replace(symbol, moved=MOVED_WITH in versions[name])
            for name, (_, symbol) in found.items()]


def by_home(soname: str, symbols: list[Symbol]) -> dict[str, list[Symbol]]:
    """What a library exports, by the library in which it was before."""
    homes: dict[str, list[Symbol]] = {soname: []}
    for symbol in symbols:
        home = next((home for home, prefixes in MOVED.items()
                     if symbol.moved and symbol.name.startswith(prefixes)), soname)
        homes.setdefault(home, []).append(symbol)
    return homes


def label(symbol: Symbol) -> list[str]:
    kind = "function" if symbol.kind == "FUNC" else "object"
    return [f".globl {symbol.name}", f".type {symbol.name}, %{kind}",
            f".size {symbol.name}, {symbol.size or 1}", f"{symbol.name}:"]


def write_stub(compiler: str, soname: str, symbols: list[Symbol], folder: Path) -> Path:
    source, script = folder / f"{soname}.s", folder / f"{soname}.map"
    functions = [symbol for symbol in symbols if symbol.kind == "FUNC"]
    variables = [symbol for symbol in symbols if symbol.kind == "OBJECT"]
    lines = [".text"]
    for symbol in functions:
        lines += [*label(symbol), ".byte 0"]
    # An executable gets copies of variables: their size counts, and which are the same one.
    lines += [".bss"]
    variables.sort(key=lambda symbol: symbol.address)
    for _, same in itertools.groupby(variables, key=lambda symbol: symbol.address):
        names = list(same)
        lines += [".balign 64", *itertools.chain.from_iterable(map(label, names)),
                  f".zero {max(1, *(symbol.size for symbol in names))}"]
    source.write_text("\n".join([*lines, '.section .note.GNU-stack,"",%progbits', ""]))
    by_version: dict[str, list[str]] = {}
    for symbol in symbols:
        by_version.setdefault(symbol.version, []).append(symbol.name)
    script.write_text("".join(f"{version} {{ global: {' '.join(f'{name};' for name in names)} }};\n"
                              for version, names in by_version.items()))
    stub = folder / soname
    run(compiler, "-shared", "-nostdlib", f"-Wl,-soname,{soname}",
        f"-Wl,--version-script={script}", "-o", stub, source)
    source.unlink()
    script.unlink()
    return stub


def library_of(compiler: str, name: str) -> Path:
    path = Path(run(compiler, f"-print-file-name={name}").strip())
    if not path.is_absolute():
        sys.exit(f"{compiler} has no {name}")
    return path.resolve()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--compiler", default="gcc", metavar="GCC", help="default: %(default)s")
    options = parser.parse_args()
    compiler = options.compiler
    folder = options.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    machine = run(compiler, "-dumpmachine").strip()
    readelf = run(compiler, "-print-prog-name=readelf").strip()
    loader = {"x86_64": "ld-linux-x86-64.so.2", "aarch64": "ld-linux-aarch64.so.1"}.get(
        machine.split("-")[0])
    if loader is None:
        sys.exit(f"{machine}: the policy is written down here for x86_64 and aarch64 only")

    stubs = {}
    for soname in ("libc.so.6", "libm.so.6", "libstdc++.so.6", "libgcc_s.so.1", loader):
        library = library_of(compiler, soname)
        for home, symbols in by_home(soname, exported(readelf, library)).items():
            stubs[home] = write_stub(compiler, home, symbols, folder)
            print(f"{home}: {len(symbols)} symbols")

    older = folder / "old_glibc.o"
    run(compiler, "-O2", "-fPIC", "-fvisibility=hidden", "-ffunction-sections", "-Wall", "-Wextra",
        "-Werror", "-c", Path(__file__).with_suffix(".c"), "-o", older)
    archive = folder / "libold_glibc.a"
    archive.unlink(missing_ok=True)
    run(run(compiler, "-print-prog-name=ar").strip(), "rcs", archive, older)

    def script(name: str, *inputs: str | Path) -> None:
        (folder / name).write_text(f"GROUP ( {' '.join(map(str, inputs))} )\n")

    moved = [stubs[home] for home in MOVED if home in stubs]
    script("libc.so", stubs["libc.so.6"], *moved, archive, library_of(compiler, "libc_nonshared.a"),
           f"AS_NEEDED ( {stubs[loader]} )")
    script("libstdc++.so", stubs["libstdc++.so.6"], library_of(compiler, "libstdc++.a"))
    script("libgcc_s.so", stubs["libgcc_s.so.1"], "-lgcc")
    script("libm.so", stubs["libm.so.6"])
    print(f"LDFLAGS={shlex.quote(f'-L{folder} -Wl,--exclude-libs,ALL')}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
