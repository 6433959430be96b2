"""kollama.convert of GGML files of 2023: whole or not at all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import gguf
import legacy_files
import pytest

import kollama
from kollama.cli import main

# Stops for a while after each line: time to be killed in.
SLOW = """\
import sys, time, kollama
def show(done):
    print(done, flush=True)
    time.sleep(0.2 if done < 0.3 else 30)
kollama.convert(sys.argv[1], sys.argv[2], progress=show)
"""


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """16 MB: several chunks."""
    shape = legacy_files.Shape(n_embd=512, n_head=8, n_head_kv=8, n_ff=1024)
    return legacy_files.write(tmp_path / "large.bin", type_name="f32", shape=shape).path


def test_convert(tmp_path: Path) -> None:
    made = legacy_files.write(tmp_path / "model.bin", kind="ggjt", version=1, type_name="q4_1")
    kollama.convert(made.path, tmp_path / "out.gguf", rms_norm_eps=1e-6)
    reader = gguf.GGUFReader(tmp_path / "out.gguf")
    assert {t.name: t.data.tobytes() for t in reader.tensors} == made.data
    assert reader.fields["llama.attention.layer_norm_rms_epsilon"].contents() == pytest.approx(1e-6)
    assert reader.fields["kollama.source_format"].contents() == "ggjt v1"
    assert main(["convert", str(made.path), str(tmp_path / "again.gguf"), "--rms-norm-eps", "1e-6"]) == 0
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "out.gguf").read_bytes()


def test_arguments(tmp_path: Path, tiny_path: Path) -> None:
    made = legacy_files.write(tmp_path / "model.bin")
    before = made.path.read_bytes()
    with pytest.raises(kollama.ArgumentError, match="a legacy file keeps its types"):
        kollama.convert(made.path, tmp_path / "out.gguf", type="q8_0")
    with pytest.raises(kollama.ArgumentError, match="is the source itself"):
        kollama.convert(made.path, made.path)
    with pytest.raises(kollama.FormatError, match="is a GGUF already"):
        kollama.convert(tiny_path, tmp_path / "out.gguf")
    with pytest.raises(kollama.WriteError, match="No such file"):
        kollama.convert(made.path, tmp_path / "nowhere" / "out.gguf")
    with pytest.raises(kollama.WriteError, match="is a folder"):
        kollama.convert(made.path, tmp_path)
    with pytest.raises(kollama.AbortedError):
        kollama.convert(made.path, tmp_path / "out.gguf", progress=lambda done: False)
    made.path.write_bytes(before[:-100])
    with pytest.raises(kollama.FormatError, match="truncated at byte"):
        kollama.convert(made.path, tmp_path / "out.gguf")
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_killed_in_the_middle(how: str, large: Path, tmp_path: Path) -> None:
    before, out = large.read_bytes(), tmp_path / "out.gguf"
    out.write_bytes(b"what was there")
    child = subprocess.Popen([sys.executable, "-c", SLOW, large, out], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout is not None
    while float(child.stdout.readline()) < 0.3:
        pass
    (scratch,) = tmp_path.glob("*.part")
    assert 0 < scratch.stat().st_size < len(before)
    child.send_signal(getattr(signal, how))
    assert child.wait(60) != 0
    child.stdout.close()
    assert out.read_bytes() == b"what was there"
    assert large.read_bytes() == before
    assert scratch.exists() is (how == "SIGKILL")
    # The next one to write that file removes what was left of it, and nothing else.
    others = [tmp_path / name for name in ("out.gguf.x.part", "other.gguf.1.0.part", "out.gguf.part")]
    for other in others:
        other.write_bytes(b"of somebody")
    kollama.convert(large, out)
    assert sorted(tmp_path.glob("*.part")) == sorted(others)
    assert gguf.GGUFReader(out).tensors


def test_two_at_once(large: Path, tmp_path: Path) -> None:
    """Neither takes the other's temporary file for one that was left, nor writes to it."""
    out = tmp_path / "out.gguf"
    kollama.convert(large, tmp_path / "alone.gguf")
    inner = []

    def second(done: float) -> None:
        if done > 0.3 and not inner:
            inner.append(kollama.convert(large, out))

    kollama.convert(large, out, progress=second)
    assert inner and out.read_bytes() == (tmp_path / "alone.gguf").read_bytes()
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's limit on the size of files")
def test_a_full_disk(large: Path, tmp_path: Path) -> None:
    code = ("import resource, signal, sys\nfrom kollama.cli import main\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))\n"
            "sys.exit(main(['convert', *sys.argv[1:]]))\n")
    out = tmp_path / "out.gguf"
    done = subprocess.run([sys.executable, "-c", code, large, out], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == f"kollama: {out}: cannot be written: File too large\n"
    assert [path.name for path in tmp_path.iterdir()] == ["large.bin"]
