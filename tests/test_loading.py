"""Files that are no model: each its own exception, with a sentence that names the cause."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path

import pytest
import tiny

import kollama


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(kollama.ModelNotFoundError, match="there is no such file") as caught:
        kollama.Model(tmp_path / "없는 파일.gguf")
    assert isinstance(caught.value, FileNotFoundError)
    assert "없는 파일.gguf" in str(caught.value)


def test_directory(tmp_path: Path) -> None:
    with pytest.raises(kollama.ModelLoadError, match="is a directory"):
        kollama.Model(tmp_path)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        ("안녕하세요, 오늘은 날씨가 좋네요.".encode(), "neither a GGUF nor a GGML file of 2023: it begins with"),
        (b"GG", "neither a GGUF nor a GGML file of 2023"),
        (b"GGUF", "truncated at byte 4: the version"),
        (b"GGUF\x01\x00\x00\x00" + bytes(64), "GGUF version 1"),
        (b"GGUF\x03\x00\x00\x00" + b"\xff" * 16, "are the limit"),
        (b"algg\x01\x00\x00\x00" + bytes(64), "a LoRA adapter in the GGML format of 2023"),
    ],
    ids=["empty", "text", "two bytes", "magic only", "version 1", "huge counts", "LoRA"],
)
def test_not_a_model(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(content)
    with pytest.raises(kollama.FormatError, match=reason) as caught:
        kollama.Model(path)
    assert isinstance(caught.value, ValueError)
    assert str(path) in str(caught.value)


def test_truncated_anywhere(tiny_path: Path, tmp_path: Path) -> None:
    whole = tiny_path.read_bytes()
    path = tmp_path / "cut.gguf"
    for n_bytes in sorted(random.Random(0).sample(range(len(whole)), 60)) + [len(whole) - 1]:
        path.write_bytes(whole[:n_bytes])
        with pytest.raises(kollama.FormatError, match="truncated|empty|not a GGUF"):
            kollama.Model(path)


def test_unknown_architecture(tmp_path: Path) -> None:
    path = tiny.write_llama(tmp_path / "odd.gguf", architecture="hangeul")
    with pytest.raises(kollama.ModelLoadError, match="unknown model architecture: 'hangeul'"):
        kollama.Model(path)


def test_missing_tensor_is_named(tiny_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "renamed.gguf"
    path.write_bytes(tiny_path.read_bytes().replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_UP.weight"))
    with pytest.raises(kollama.ModelLoadError, match=r"blk\.1\.ffn_up\.weight"):
        kollama.Model(path)


def test_gpu_layers_without_a_gpu(tiny_path: Path) -> None:
    if any(device.type in ("gpu", "igpu") for device in kollama.devices()):
        pytest.skip("this machine has a GPU backend")
    with pytest.raises(kollama.ModelLoadError, match=r"pip install 'kollama\[cuda\]'"):
        kollama.Model(tiny_path, n_gpu_layers=10)
    with kollama.Model(tiny_path, n_gpu_layers="auto") as model:
        assert model.n_layer == 2


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"n_gpu_layers": 1.5}, TypeError),
        ({"n_gpu_layers": -2}, ValueError),
        ({"mmap": 1}, ValueError),
        ({"mlock": None}, TypeError),
        ({"vocab_only": "yes"}, TypeError),
        ({"progress": 3}, TypeError),
        ({"n_gpu_layer": 1}, TypeError),
    ],
)
def test_wrong_options(tiny_path: Path, options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        kollama.Model(tiny_path, **options)


def test_progress_runs_to_one_and_can_stop(tiny_path: Path) -> None:
    seen: list[float] = []
    kollama.Model(tiny_path, progress=seen.append).close()
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    with pytest.raises(kollama.AbortedError, match="stopped"):
        kollama.Model(tiny_path, progress=lambda done: False)


def test_exception_of_progress_comes_back(tiny_path: Path) -> None:
    def fail(done: float) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        kollama.Model(tiny_path, progress=fail)


def test_properties(model: kollama.Model, tiny_path: Path) -> None:
    pieces, _, _ = tiny.vocabulary()
    assert model.n_vocab == len(pieces) == len(model.tokenizer)
    assert (model.n_embd, model.n_layer, model.n_ctx_train) == (64, 2, 16384)
    assert model.format == "gguf"
    assert model.path == str(tiny_path)
    assert model.n_params * 4 == model.size
    assert model.metadata["general.architecture"] == "llama"
    with pytest.raises(TypeError):
        model.metadata["general.name"] = "other"  # type: ignore[index]
    assert model.tokenizer is model.tokenizer
    assert "tiny.gguf" in repr(model)


def test_mmap_choices_give_the_same_logits(tiny_path: Path) -> None:
    rows = []
    for mmap in (True, False, "auto"):
        with kollama.Model(tiny_path, mmap=mmap) as model, model.context(n_ctx=32, n_threads=1) as ctx:
            assert model.uses_mmap is (mmap is not False)  # float weights are never repacked
            seq = ctx.sequence()
            seq.append([tiny.BOS, 300])
            rows.append(seq.logits.tolist())
    assert rows[0] == rows[1] == rows[2]


def asked_for_large_pages() -> int:
    """Bytes of this process that the kernel was asked to hold in pages of 2 MB."""
    size = total = 0
    for line in Path("/proc/self/smaps").read_text("utf-8").splitlines():
        words = line.split()
        if words[0] == "Size:":
            size = int(words[1]) << 10
        elif words[0] == "VmFlags:" and "hg" in words:
            total += size
    return total


large_pages = pytest.mark.skipif(
    not Path("/sys/kernel/mm/transparent_hugepage").exists() or os.sysconf("SC_PAGESIZE") != 4096,
    reason="this kernel has no pages of 2 MB for who asks")


@large_pages
def test_large_buffers_lie_in_large_pages(model: kollama.Model) -> None:
    before = asked_for_large_pages()
    with model.context(n_ctx=32768, n_threads=1):
        assert asked_for_large_pages() - before >= 32768 * 512  # the K/V memory: 512 bytes a token


@large_pages
def test_a_mapped_file_lies_in_large_pages(tmp_path: Path) -> None:
    path = tiny.write_llama(tmp_path / "large.gguf", n_embd=512, n_head=8)
    before = asked_for_large_pages()
    with kollama.Model(path, mmap=True) as model:
        assert model.size > 4 << 20
        assert asked_for_large_pages() - before >= model.size


def test_split_model(tiny_path: Path, tmp_path: Path) -> None:
    parts = _split(tiny_path, tmp_path)
    rows = []
    for path in (tiny_path, parts[0], parts):
        with kollama.Model(path) as model, model.context(n_ctx=32, n_threads=1) as ctx:
            seq = ctx.sequence()
            seq.append([tiny.BOS, 280])
            rows.append(seq.logits.tolist())
    assert rows[0] == rows[1] == rows[2]
    parts[1].unlink()
    with pytest.raises(kollama.ModelLoadError):
        kollama.Model(parts[0])


def _split(source: Path, folder: Path) -> list[Path]:
    """The model in two files, as llama.cpp's gguf-split names and marks them."""
    import gguf

    reader = gguf.GGUFReader(source)
    half = len(reader.tensors) // 2
    groups = (reader.tensors[:half], reader.tensors[half:])
    paths = [folder / f"tiny-{i + 1:05d}-of-00002.gguf" for i in range(2)]
    for number, (path, tensors) in enumerate(zip(paths, groups, strict=True)):
        writer = gguf.GGUFWriter(str(path), "llama")
        for field in reader.fields.values() if number == 0 else ():
            if not field.name.startswith(("GGUF.", "general.architecture")):
                kind = field.types[0]
                sub = field.types[1] if len(field.types) > 1 else None
                writer.add_key_value(field.name, field.contents(), kind, sub)
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", 2)
        writer.add_int32("split.tensors.count", len(reader.tensors))
        for tensor in tensors:
            writer.add_tensor(tensor.name, tensor.data.copy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    return paths


def test_vocab_only_has_no_weights(tiny_path: Path) -> None:
    with kollama.Model(tiny_path, vocab_only=True) as model:
        assert len(model.tokenizer.encode("안녕하세요")) > 0
        with pytest.raises(kollama.StateError, match="vocab_only"):
            model.context(n_ctx=32, n_threads=1)


def test_path_with_hangul_and_bytes(tiny_path: Path, tmp_path: Path) -> None:
    path = tmp_path / "한국어 모델.gguf"
    shutil.copy(tiny_path, path)
    for given in (path, str(path), str(path).encode()):
        with kollama.Model(given) as model:
            assert model.path == str(path)


def test_inspect(tiny_path: Path, tmp_path: Path) -> None:
    info = kollama.inspect(tiny_path)
    assert info.architecture == "llama"
    assert info.format == "gguf v3"
    assert info.metadata["tokenizer.ggml.tokens"].startswith("[str x ")
    embedding = next(t for t in info.tensors if t.name == "token_embd.weight")
    assert embedding.shape == (len(tiny.vocabulary()[0]), 64)
    assert embedding.type == "f32"
    assert embedding.n_bytes == 4 * embedding.shape[0] * 64
    assert info.to_dict()["types"] == {"f32": sum(t.n_bytes for t in info.tensors)}
    with pytest.raises(kollama.ModelNotFoundError):
        kollama.inspect(tmp_path / "nothing")
    with pytest.raises(kollama.ModelLoadError, match="directory"):
        kollama.inspect(tmp_path)
