"""Checks a built wheel: its tag, what it puts where, and that it runs under several Pythons.

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
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import tiny  # noqa: E402

TAG = "cp311-abi3"

SMOKE = """
import sys, kollama
assert any(device.type == "cpu" for device in kollama.devices())
with kollama.LLM(sys.argv[1], n_ctx=64) as llm:
    text = "대한민국의 수도는"
    assert llm.tokenizer.decode(llm.tokenizer.encode(text)) == text
    done = llm.complete(text, max_tokens=8, ignore_eos=True, temperature=0)
print(*done.tokens)
"""


def check_content(wheel: Path) -> None:
    """One top-level package and its dist-info; libraries under names of our own, each once."""
    name, version, *tag = wheel.stem.split("-")
    assert "-".join(tag[:2]) == TAG, f"{wheel.name} is not tagged {TAG}"
    with zipfile.ZipFile(wheel) as archive:
        files = archive.namelist()
    tops = {file.split("/")[0] for file in files}
    assert tops == {"kollama", f"{name}-{version}.dist-info"}, f"top-level entries: {tops}"
    libraries = [Path(file).name for file in files if file.startswith("kollama/lib/")]
    assert all(library.startswith(("libkollama", "kollama")) for library in libraries), libraries
    assert not any(".so." in library for library in libraries), f"versioned copies: {libraries}"
    modules = [file for file in files if file.startswith("kollama/_core/") and file.endswith(".so")]
    assert all(".abi3." in module for module in modules), modules
    for needed in ("kollama/py.typed", "kollama/_core/model.pyi"):
        assert needed in files, f"{needed} is missing"
    licences = [file for file in files if ".dist-info/licenses/" in file]
    assert any("llama.cpp" in file for file in licences), licences
    size = wheel.stat().st_size / 2**20
    print(f"{wheel.name}: {size:.1f} MiB, {len(libraries)} libraries, {len(modules)} modules")


def run_under(python: str, wheel: Path, model: Path) -> str:
    """The tokens of the smoke test in a new environment of that Python."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([python, "-m", "venv", folder], check=True)
        inside = Path(folder) / ("Scripts" if sys.platform == "win32" else "bin") / "python"
        subprocess.run([inside, "-m", "pip", "install", "--quiet", wheel], check=True)
        done = subprocess.run([inside, "-c", SMOKE, model], check=True, cwd=folder,
                              capture_output=True, text=True)
        assert done.stderr == "", done.stderr
        return done.stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("wheel", type=Path)
    parser.add_argument("pythons", nargs="*", metavar="PYTHON")
    options = parser.parse_args()
    wheel = options.wheel.resolve()
    check_content(wheel)
    left_out = 0
    with tempfile.TemporaryDirectory() as folder:
        model = tiny.write_llama(Path(folder) / "tiny.gguf")
        seen = set()
        for python in options.pythons or [sys.executable]:
            if shutil.which(python) is None or subprocess.run(
                    [python, "--version"], capture_output=True, check=False).returncode:
                print(f"{python}: not here, left out")
                left_out += 1
                continue
            seen.add(run_under(python, wheel, model))
            print(f"{python}: runs")
    assert len(seen) <= 1, f"the Pythons disagree: {seen}"
    print(f"wheel checked, {left_out} Pythons left out")
    return 0


if __name__ == "__main__":
    sys.exit(main())
