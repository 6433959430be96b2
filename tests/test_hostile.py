"""Damaged and hostile model files: an error that says what is wrong, never the end of the process."""

from __future__ import annotations

import re
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import hostile
import legacy_files
import mutate_gguf
import numpy as np
import pytest
import tiny
from conftest import limits_memory
from mutate_gguf import ARRAY, STRING, Gguf

import kollama

COUNT = 300
U32, I32, F32 = 4, 5, 6


@limits_memory
@pytest.mark.parametrize("kind", hostile.KINDS)
def test_damaged_files(kind: str, tmp_path: Path) -> None:
    """scripts/mutate.py does this by the ten thousand."""
    reports = list(hostile.open_all(tmp_path, 0, COUNT, kind))
    assert [report.index for report in reports] == list(range(COUNT))
    # Time is the script's to judge: here others may have the cores.
    assert [report.describe() for report in reports if report.fails and report.seconds < 10 * hostile.TIME_LIMIT] == []
    outcomes = {report.outcome for report in reports}
    assert {"loaded", "FormatError"} <= outcomes <= {"loaded", "FormatError", "ModelLoadError"}


def reports_with(fault: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[hostile.Report]:
    """Of three files, while a fault is in the reader of the second."""
    script = folder / "child.py"
    before = '    outcome, text = "loaded", ""\n'
    text = Path(hostile.__file__).read_text("utf-8")
    assert text.count(before) == 1
    script.write_text(text.replace(before, f"{before}    if data == make(3):\n        {fault}\n"), "utf-8")
    monkeypatch.setenv("PYTHONPATH", str(Path(hostile.__file__).parent))
    monkeypatch.setattr(hostile, "__file__", str(script))
    return list(hostile.open_all(folder, 2, 3))


@limits_memory
@pytest.mark.parametrize(
    ("fault", "outcome"),
    [
        ("import os; os.abort()", "crashed"),
        ("time.sleep(60)", "hung"),
        ("time.sleep(1.1)", "FormatError"),
        ('b"x" * (200 << 20)', "FormatError"),
        ("raise MemoryError", "crashed"),
    ],
)
def test_a_fault_is_seen(fault: str, outcome: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The harness itself: what the reader does wrong is the file's report, and the next files are opened."""
    if "200 << 20" in fault and sys.platform != "linux":
        pytest.skip("memory is measured on Linux")
    if outcome == "hung":
        monkeypatch.setattr(hostile, "WALL_LIMIT", 8.0)
    reports = reports_with(fault, tmp_path, monkeypatch)
    assert [report.index for report in reports] == [2, 3, 4]
    assert [report.fails for report in reports] == [False, True, False]
    assert reports[1].outcome == outcome


@pytest.fixture
def model(tmp_path: Path) -> Gguf:
    return mutate_gguf.parse(tiny.write_llama(tmp_path / "sound.gguf", n_layer=1, n_embd=32).read_bytes())


def reason(model: Gguf, path: Path) -> str:
    path.write_bytes(model.pack())
    with pytest.raises(kollama.FormatError) as caught:
        kollama.Model(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    return text.removeprefix(f"{path}: ")


def rename(model: Gguf, name: str) -> None:
    """Makes it one of another architecture."""
    model.entries = [(key.replace(b"llama.", name.encode() + b"."), kind, value) for key, kind, value in model.entries]
    mutate_gguf._set(model, b"general.architecture", STRING, name.encode())


def set_key(key: str, kind: int, value: object, architecture: str = "llama") -> Callable[[Gguf], None]:
    def change(model: Gguf) -> None:
        if architecture != "llama":
            rename(model, architecture)
        mutate_gguf._set(model, f"{architecture}.{key}".encode(), kind, value)

    return change


def set_tensor(name: str, kind: int, n_bytes: int) -> Callable[[Gguf], None]:
    def change(model: Gguf) -> None:
        model.tensors = [(found, shape, kind, bytes(n_bytes)) if found == name.encode() else (found, shape, old, data)
                         for found, shape, old, data in model.tensors]

    return change


def twice(what: str) -> Callable[[Gguf], None]:
    return lambda model: getattr(model, what).append(getattr(model, what)[-1])


def without_vocabulary(model: Gguf) -> None:
    mutate_gguf._set(model, b"tokenizer.ggml.model", STRING, b"none")
    mutate_gguf._set(model, b"llama.vocab_size", U32, 2**32 - 1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (twice("entries"), "key 'tokenizer.ggml.add_space_prefix' occurs twice"),
        (twice("tensors"), "tensor 'blk.0.ffn_down.weight' occurs twice"),
        (without_vocabulary, "a vocabulary of 4294967295 tokens"),
        (set_key("attention.layer_norm_rms_epsilon", F32, -1.0), "llama.attention.layer_norm_rms_epsilon is -1"),
        (set_key("attention.layer_norm_rms_epsilon", F32, float("nan")), "llama.attention.layer_norm_rms_epsilon is"),
        (set_key("attention.head_count", U32, 0, "olmo2"), "olmo2.attention.head_count is missing or 0"),
        (set_key("attention.head_count", ARRAY, (I32, [0, 2]), "phimoe"), "phimoe.attention.head_count is missing or 0"),
        (set_key("expert_count", U32, 0, "qwen3next"), "qwen3next.expert_used_count is missing or 0"),
        (set_key("ssm.group_count", U32, 0, "mamba2"), "mamba2.ssm.group_count is 0"),
        (set_key("wkv.head_size", U32, 0, "rwkv6"), "rwkv6.wkv.head_size is 0"),
        (set_key("rope.dimension_count", U32, 15), "llama.rope.dimension_count is 15, in heads of 16"),
        (set_key("rope.dimension_count", U32, 64), "llama.rope.dimension_count is 64, in heads of 16"),
        (set_key("expert_count", U32, 0, "paddleocr"), "paddleocr.rope.dimension_sections has no section"),
        (set_key("rope.dimension_sections", ARRAY, (I32, [0, -1, 0, 5])), "llama.rope.dimension_sections has no section"),
        (set_tensor("blk.0.attn_q.weight", 26, 4096), "tensor 'blk.0.attn_q.weight' is of type i32"),
        (set_tensor("blk.0.attn_q.weight", 9, 1152), "tensor 'blk.0.attn_q.weight' is of type q8_1"),
        (set_tensor("output_norm.weight", 8, 34), "tensor 'output_norm.weight' is of type q8_0"),
    ],
)
def test_what_a_header_may_not_say(change: Callable[[Gguf], None], expected: str, model: Gguf, tmp_path: Path) -> None:
    change(model)
    assert re.match(expected, reason(model, tmp_path / "bad.gguf"))


def test_a_long_piece_costs_no_time(model: Gguf, tmp_path: Path) -> None:
    """Reading was quadratic in the length of a piece: this one took minutes."""
    kind, items = next(value for key, _, value in model.entries if key == b"tokenizer.ggml.tokens")
    mutate_gguf._set(model, b"tokenizer.ggml.tokens", ARRAY, (kind, [*items[:-1], b"a" * 2_000_000]))
    path = tmp_path / "long.gguf"
    path.write_bytes(model.pack())
    assert kollama.Tokenizer.from_file(path).piece(len(items) - 1) == "a" * 2_000_000


def test_pieces_of_pieces_cost_no_time(model: Gguf, tmp_path: Path) -> None:
    """Every part of every piece is one, too: four million merges of a 3 MB file, which took seconds and 200 MB."""
    runs = ["▁".encode() * n for n in range(2, 1000)]
    for key, of, fill in (("tokens", STRING, runs), ("scores", F32, [-1.0] * len(runs)), ("token_type", I32, [1] * len(runs))):
        old = next(value for found, _, value in model.entries if found == f"tokenizer.ggml.{key}".encode())
        mutate_gguf._set(model, f"tokenizer.ggml.{key}".encode(), ARRAY, (of, [*old[1], *fill]))
    path = tmp_path / "runs.gguf"
    path.write_bytes(model.pack())
    made = legacy_files.write(tmp_path / "runs.bin", tokens=[*legacy_files.vocabulary(), *((b" " * n, -1.0) for n in range(2, 1000))])
    for file in (path, made.path):
        with pytest.raises(kollama.FormatError, match="are made of others in more ways than any tokenizer's"):
            kollama.Tokenizer.from_file(file)


def test_claims_cost_no_memory(tmp_path: Path) -> None:
    """Counts and lengths are compared with the file before anything is allocated for them."""
    path = tmp_path / "claims.gguf"
    for claim in (2**20, 2**31, 2**40, 2**63, 2**64 - 1):
        header = b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 1) + b"k"
        for value in (struct.pack("<IQ", STRING, claim), struct.pack("<IIQ", ARRAY, STRING, claim), struct.pack("<IIQ", ARRAY, U32, claim)):
            path.write_bytes(header + value + np.zeros(100, np.uint8).tobytes())
            with pytest.raises(kollama.FormatError, match="byte|claims|truncated"):
                kollama.Model(path)
