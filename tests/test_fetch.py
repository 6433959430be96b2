"""The script that fills the submodule: one pin everywhere, one sentence where nothing can be had."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import types
from pathlib import Path

import pytest
from conftest import ROOT

import kollama


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """cmake/fetch_llama_cpp.py, at work in an empty folder."""
    spec = importlib.util.spec_from_file_location("fetch", ROOT / "cmake" / "fetch_llama_cpp.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    return module


def upstream(folder: Path) -> str:
    """A git repository with one commit; returns the commit."""
    (folder / "CMakeLists.txt").write_text("# llama.cpp\n")
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "one"]):
        subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *command], cwd=folder, check=True)
    return subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_one_pin_everywhere(fetch: types.ModuleType) -> None:
    assert fetch.COMMIT[:12] in kollama.llama_version()
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(["git", "ls-files", "--stage", "third_party/llama.cpp"], cwd=ROOT, check=True,
                            capture_output=True, text=True).stdout
    assert listed.startswith(f"160000 {fetch.COMMIT}")
    assert fetch.UPSTREAM in (ROOT / ".gitmodules").read_text()


def test_a_filled_folder_is_left_alone(fetch: types.ModuleType, tmp_path: Path) -> None:
    folder = tmp_path / "third_party" / "llama.cpp"
    folder.mkdir(parents=True)
    (folder / "CMakeLists.txt").touch()
    fetch.checkout_from = fetch.checkout_from_sdist = None  # not to be called
    assert fetch.main() == 0


def test_one_sentence_where_nothing_can_be_had(
    fetch: types.ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    def no(*arguments: object) -> None:
        raise fetch.FetchError("no route to host")

    fetch.checkout_from = fetch.checkout_from_sdist = no
    assert fetch.main() == 1
    text = capsys.readouterr().err
    assert text.count("\n") == 1
    assert "is missing in third_party/llama.cpp and neither source can be had" in text
    assert text.count("no route to host") == 2


def test_outside_a_checkout_it_makes_a_plain_clone(fetch: types.ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    fetch.COMMIT = upstream(source)
    fetch.checkout_from(str(source))
    assert (tmp_path / "third_party" / "llama.cpp" / "CMakeLists.txt").read_text() == "# llama.cpp\n"


def test_another_commit_is_refused(fetch: types.ModuleType, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    upstream(source)
    with pytest.raises(fetch.FetchError):
        fetch.checkout_from(str(source))


def test_a_changed_archive_is_refused(
    fetch: types.ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def download(*command: str) -> str:
        folder = Path(command[command.index("--dest") + 1])
        (folder / "llama_cpp_python-0.3.36.tar.gz").write_bytes(b"something else")
        return ""

    monkeypatch.setattr(fetch, "run", download)
    with pytest.raises(fetch.FetchError, match="sha256"):
        fetch.download_sdist(tmp_path)
