"""Checks a built wheel: what is in it (content.py), and that it runs under several Pythons.

    python wheels/check.py kollama-*.whl [PYTHON ...]

The interpreter that runs this needs the `test` extra, for the tiny model of the smoke test. Each
PYTHON is a command such as python3.12; one that is not there is named and counted as left out.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import content

ROOT = Path(__file__).resolve().parent.parent
SMOKE = ROOT / "wheels" / "smoke.py"
sys.path.insert(0, str(ROOT / "tests"))

import tiny  # noqa: E402


def environment(python: str, folder: Path, *packages: str | Path) -> Path:
    """The interpreter of a new environment in that folder, with those packages."""
    subprocess.run([python, "-m", "venv", folder], check=True)
    inside = folder / ("Scripts" if sys.platform == "win32" else "bin") / "python"
    subprocess.run([inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
                    *packages], check=True)
    return inside


def run(*command: str | Path) -> tuple[str, str]:
    """(stdout, stderr) of a program; how it failed, with all that it printed."""
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, f"exit status {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout.strip(), done.stderr.strip()


def run_under(python: str, wheel: Path, model: Path) -> tuple[str, str]:
    """The tokens of the smoke test in a new environment of that Python, and the CPU library."""
    with tempfile.TemporaryDirectory() as folder:
        tokens, library = run(environment(python, Path(folder), wheel), SMOKE, model)
        assert "\n" not in library, f"something was printed: {library}"
        return tokens, library


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON")
    options = parser.parse_args()
    wheel = options.wheel.resolve()
    content.check(wheel)
    left_out = 0
    with tempfile.TemporaryDirectory() as folder:
        model = tiny.write_llama(Path(folder) / "tiny.gguf")
        seen = set()
        for python in options.pythons or [sys.executable]:
            if shutil.which(python) is None or subprocess.run(
                    [python, "--version"], capture_output=True, check=False).returncode:
                print(f"  {python}: not here, left out")
                left_out += 1
                continue
            tokens, library = run_under(python, wheel, model)
            seen.add(tokens)
            print(f"  {python}: runs, with {library}")
    assert len(seen) <= 1, f"the Pythons disagree: {seen}"
    print(f"wheel checked, {left_out} Pythons left out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
