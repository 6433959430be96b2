"""Runs the smoke test of a Linux wheel on a CPU that is not there, under qemu-user.

    python wheels/emulated.py kollama-*_x86_64.whl --cpu Nehalem SandyBridge Haswell
    python wheels/emulated.py kollama-*_aarch64.whl --root build/wheels/root-arm64

A CPU model that lacks AVX ends a program that uses it with an illegal instruction, as the real one
does. --refused names models for which the wheel has no CPU library: an error that says so, no more.
For another architecture --root names a folder with its Python 3.11 and libraries; where that is not
there, Debian's packages are unpacked into it (ROOT_PACKAGES; needs apt-get and dpkg-deb).

The interpreter that runs this needs the `test` extra, for the tiny model of the smoke test.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from check import SMOKE, tiny

DEBIAN = {"x86_64": "amd64", "aarch64": "arm64"}
ROOT_PACKAGES = ("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6",
                 "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libbz2-1.0", "liblzma5",
                 "libffi8", "libssl3", "libuuid1")
REFUSAL = "ModelLoadError: none of the"


def make_root(root: Path, architecture: str) -> None:
    """Debian's Python for that architecture, unpacked: this machine's own packages stay."""
    print(f"{root}: unpacking Debian's Python for {architecture}")
    debian = DEBIAN[architecture]
    with tempfile.TemporaryDirectory() as scratch:
        state, debs = Path(scratch) / "state", Path(scratch) / "debs"
        for folder in (state / "lists/partial", state / "archives/partial", debs):
            folder.mkdir(parents=True)
        (state / "status").touch()
        apt = ["apt-get", "-qq"]
        for option in ("APT::Sandbox::User=root", f"APT::Architecture={debian}",
                       f"APT::Architectures={debian}", f"Dir::State={state}",
                       f"Dir::State::Lists={state}/lists", f"Dir::State::status={state}/status",
                       f"Dir::Cache={state}"):
            apt += ["-o", option]
        subprocess.run([*apt, "update"], check=True)
        subprocess.run([*apt, "download", *ROOT_PACKAGES], check=True, cwd=debs)
        for deb in sorted(debs.glob("*.deb")):
            subprocess.run(["dpkg-deb", "-x", deb, root], check=True)


def install(wheel: Path, architecture: str, python: str, folder: Path) -> None:
    """The wheel and what it needs, as that architecture's pip would choose them."""
    tags = [f"manylinux_2_{minor}" for minor in range(28, 16, -1)] + ["manylinux2014", "linux"]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--target", folder,
                    "--disable-pip-version-check", "--only-binary", ":all:",
                    "--implementation", "cp", "--python-version", python,
                    *(f"--platform={tag}_{architecture}" for tag in tags), wheel], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--cpu", nargs="*", default=["max"], metavar="MODEL", help="of qemu")
    parser.add_argument("--refused", nargs="*", default=[], metavar="MODEL", help="of qemu")
    parser.add_argument("--root", type=Path, help="a folder with that architecture's Python 3.11")
    options = parser.parse_args()
    wheel = options.wheel.resolve()
    architecture = next(each for each in DEBIAN if wheel.stem.endswith(each))
    qemu = shutil.which(f"qemu-{architecture}")
    if qemu is None:
        print(f"  qemu-{architecture} is not here (qemu-user): left out")
        return 0
    emulator, python, version = [qemu], Path(sys.executable).resolve(), sys.version_info[:2]
    if options.root:
        python, version = options.root / "usr/bin/python3.11", (3, 11)
        if not python.exists():
            make_root(options.root, architecture)
        emulator += ["-L", str(options.root)]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "packages"
        install(wheel, architecture, ".".join(map(str, version)), folder)
        model = tiny.write_llama(Path(scratch) / "tiny.gguf")

        def start(cpu: str) -> tuple[int, str, str]:
            done = subprocess.run([*emulator, "-cpu", cpu, "-E", f"PYTHONPATH={folder}", python,
                                   "-S", SMOKE, model],
                                  capture_output=True, text=True, encoding="utf-8", check=False)
            said = [line for line in done.stderr.splitlines() if not line.startswith("qemu-")]
            return done.returncode, done.stdout.strip(), "\n".join(said)

        for cpu in options.cpu:
            status, tokens, library = start(cpu)
            assert status == 0, f"{cpu}: exit status {status}\n{library}"
            print(f"  {architecture} {cpu}: runs, with {library}; tokens {tokens}")
        for cpu in options.refused:
            status, _, text = start(cpu)
            error = text.rpartition("\n")[2]
            assert status == 1, f"{cpu}: exit status {status}\n{text}"
            assert REFUSAL in error, f"{cpu}: {text}"
            print(f"  {architecture} {cpu}: refused. {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
