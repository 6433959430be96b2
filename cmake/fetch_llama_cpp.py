"""Fill third_party/llama.cpp with the pinned commit, verified by git.

First the upstream repository that .gitmodules names. Where that cannot be reached: the sdist of
llama-cpp-python 0.3.36 on the Python package index carries the same commit as a git repository of
its own, and git checks every byte of it against the commit's id.

CMake runs this when the folder is empty; it can also be run by hand.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

COMMIT = "0c1e57098bba43ac29e6e3b677cdceebdd22334f"
UPSTREAM = "https://github.com/ggml-org/llama.cpp.git"
SDIST = "llama-cpp-python==0.3.36"
SDIST_SHA256 = "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
GIT_DIR_IN_SDIST = ".git/modules/vendor/llama.cpp"

ROOT = Path(__file__).resolve().parent.parent
SUBMODULE = Path("third_party/llama.cpp")
UPSTREAM_TIMEOUT_S = 600  # a shallow clone is about 40 MB


class FetchError(Exception):
    """The commit could not be had from one source; the text is the reason."""


def say(text: str) -> None:
    print(f"kollama: {text}", file=sys.stderr, flush=True)


def run(*command: str, timeout: float | None = None) -> str:
    try:
        done = subprocess.run(command, cwd=ROOT, text=True, timeout=timeout,
                              stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except FileNotFoundError:
        raise FetchError(f"{command[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise FetchError(f"no answer within {timeout:.0f} s") from None
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise FetchError(lines[-1] if lines else f"{command[0]} exited with {done.returncode}")
    return done.stdout.strip()


def git(*arguments: str, timeout: float | None = None) -> str:
    # GIT_TERMINAL_PROMPT is not needed: stdin is closed, so git cannot ask.
    return run("git", "-c", "advice.detachedHead=false", *arguments, timeout=timeout)


def is_submodule() -> bool:
    """Whether ROOT is a git work tree of its own that has the gitlink (not a ZIP of it)."""
    try:
        inside = Path(git("rev-parse", "--show-toplevel")).resolve() == ROOT
        return inside and git("ls-files", "--stage", str(SUBMODULE)).startswith("160000")
    except FetchError:
        return False


def checkout_from(source: str, timeout: float | None = None) -> None:
    """Take COMMIT from a git repository, as the submodule or, without one, as a plain clone."""
    if is_submodule():
        git("submodule", "--quiet", "init", str(SUBMODULE))
        # Another source is set for this call only: .git/config keeps the upstream address.
        git("-c", "protocol.file.allow=always", "-c", f"submodule.{SUBMODULE}.url={source}",
            "submodule", "update", "--init", "--depth", "1", str(SUBMODULE), timeout=timeout)
    else:
        folder = str(SUBMODULE)
        git("init", "--quiet", folder)
        git("-C", folder, "fetch", "--quiet", "--depth", "1", source, COMMIT, timeout=timeout)
        git("-C", folder, "checkout", "--quiet", "FETCH_HEAD")
    head = git("-C", str(SUBMODULE), "rev-parse", "HEAD")
    if head != COMMIT:
        raise FetchError(f"{source} gave commit {head}, not {COMMIT}")


def download_sdist(folder: Path) -> Path:
    # --no-build-isolation: pip asks the sdist's backend for its metadata, which needs nothing
    # beyond what this build already has, scikit-build-core.
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
           "--no-deps", "--no-binary", ":all:", "--dest", str(folder), SDIST]
    try:
        run(*pip, "--no-build-isolation")
    except FetchError:
        run(*pip)
    archive = next(folder.glob("llama_cpp_python-*.tar.gz"), None)
    if archive is None:
        raise FetchError(f"pip downloaded no sdist of {SDIST}")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SDIST_SHA256:
        raise FetchError(f"{archive.name} has sha256 {digest}, expected {SDIST_SHA256}")
    return archive


def checkout_from_sdist() -> None:
    with tempfile.TemporaryDirectory(prefix="kollama-") as scratch:
        folder = Path(scratch)
        archive = download_sdist(folder)
        with tarfile.open(archive) as tar:
            top = archive.name.removesuffix(".tar.gz")
            wanted = f"{top}/{GIT_DIR_IN_SDIST}"
            members = [m for m in tar if m.name.startswith(wanted) and (m.isfile() or m.isdir())]
            tar.extractall(folder, members)  # sha256 is checked: the content is known
        git_dir = folder / wanted
        (git_dir / "config").unlink()  # names a work tree that is not there
        git("-C", str(git_dir), "config", "core.bare", "true")
        checkout_from(str(git_dir))


def main() -> int:
    if (ROOT / SUBMODULE / "CMakeLists.txt").is_file():
        return 0
    reasons = []
    for name, fetch in (
        (UPSTREAM, lambda: checkout_from(UPSTREAM, UPSTREAM_TIMEOUT_S)),
        (f"the sdist of {SDIST}", checkout_from_sdist),
    ):
        try:
            fetch()
            say(f"llama.cpp {COMMIT[:12]} from {name}")
            return 0
        except FetchError as error:
            reasons.append(f"{name}: {error}")
    say(f"llama.cpp {COMMIT[:12]} is missing in {SUBMODULE} and neither source can be had "
        f"({'; '.join(reasons)}).")
    return 1


if __name__ == "__main__":
    sys.exit(main())
