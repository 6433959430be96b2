"""What inspect says of a file, as values, as a table and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import legacy_files
import pytest
import tiny

import kollama
from kollama.cli import main

SHAPE = legacy_files.Shape()


@pytest.fixture
def legacy_path(tmp_path: Path) -> Path:
    return legacy_files.write(tmp_path / "model.bin", version=2, type_name="q5_1").path


def test_a_legacy_file(legacy_path: Path) -> None:
    info = kollama.inspect(legacy_path)
    assert (info.format, info.architecture, info.file_size) == ("ggjt v2", "llama", legacy_path.stat().st_size)
    assert info.hyperparameters["attention.head_count_kv"] == "2"
    assert info.hyperparameters["attention.layer_norm_rms_epsilon"] == "1e-05"
    assert set(info.assumed) == {"llama.context_length", "llama.attention.layer_norm_rms_epsilon", "llama.rope.freq_base"}
    assert set(info.types) == {"q5_1", "f32"}
    assert {tensor.name: tensor.shape for tensor in info.tensors} == {
        name: shape for _, name, shape in SHAPE.tensors(len(legacy_files.vocabulary()))}


def test_the_vocabulary(legacy_path: Path, tiny_path: Path) -> None:
    for path in (legacy_path, tiny_path):
        vocabulary = kollama.inspect(path).vocabulary
        assert vocabulary is not None
        pieces = tiny.vocabulary()[0]
        korean = [piece for piece in pieces if any("가" <= char <= "힣" for char in piece)]
        assert (vocabulary.n_tokens, vocabulary.n_korean) == (len(pieces), len(korean))
        assert (vocabulary.bos, vocabulary.eos) == ("<s>", "</s>")
        assert {"대한", "하세요"} & {piece.strip() for piece in vocabulary.korean_samples}
        assert len(vocabulary.korean_samples) <= 16


def test_memory(legacy_path: Path, mamba_path: Path) -> None:
    info = kollama.inspect(legacy_path)
    weights = sum(tensor.n_bytes for tensor in info.tensors)
    a_token = SHAPE.n_layer * SHAPE.n_head_kv * (SHAPE.n_embd // SHAPE.n_head)
    assert info.memory(1000) == weights + 1000 * a_token * 4
    assert info.memory(1000, type_k="q8_0", type_v="f32") == weights + 1000 * a_token * (34 / 32 + 4)
    assert kollama.inspect(mamba_path).memory() is None
    with pytest.raises(kollama.ArgumentError, match="n_ctx is 0"):
        info.memory(0)
    with pytest.raises(kollama.ArgumentError, match="type_k is 'q2_K'"):
        info.memory(1, type_k="q2_K")


def test_the_table(legacy_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(legacy_path), "--tensors", "--n-ctx", "512"]) == 0
    table = capsys.readouterr().out
    for line in ("ggjt v2", "at 512 tokens of context", "of them Korean", "대한", "(assumed: the file does not say)",
                 "blk.1.ffn_up.weight"):
        assert line in table


def test_json(legacy_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(legacy_path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    info = kollama.inspect(legacy_path)
    assert found["memory"] == {"n_ctx": 4096, "bytes": info.memory(4096)}
    assert found["format"] == "ggjt v2"
    assert found["vocabulary"]["n_tokens"] == len(tiny.vocabulary()[0])
    assert len(found["tensors"]) == len(info.tensors)


def test_a_damaged_file(legacy_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    legacy_path.write_bytes(legacy_path.read_bytes()[:20000])
    assert main(["inspect", str(legacy_path)]) == 1
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith(f"kollama: {legacy_path}: truncated at byte ")
    assert streams.err.count("\n") == 1
