"""GGML files of 2023: opened as they are, to the byte and to the logit."""

from __future__ import annotations

import hashlib
import json
import re
import struct
from pathlib import Path
from typing import Any

import gguf
import legacy_files
import llama_reference
import numpy as np
import pytest
import tokenizer_json
from legacy_files import Shape

import kollama
from kollama import legacy_cache
from kollama._core.legacy import convert_legacy

DATA = Path(__file__).resolve().parent / "data" / "legacy"
EXPECTED: dict[str, dict[str, Any]] = json.loads((DATA / "expected.json").read_text("utf-8"))
FORMATS = [("ggml", 0), ("ggmf", 1), ("ggjt", 1), ("ggjt", 2), ("ggjt", 3)]
PROMPT = [1, 260, 261, 270, 262, 265, 3, 40, 259, 261]


def name_of(kind: str, version: int) -> str:
    return kind if kind == "ggml" else f"{kind} v{version}"


def logits_of(path: Path, ids: list[int], **options: Any) -> np.ndarray:
    with kollama.Model(path, **options) as model, model.context(n_ctx=64, n_threads=1) as context:
        sequence = context.sequence()
        sequence.append(ids)
        return np.array(sequence.logits)


def rms(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sqrt(np.mean((a - b) ** 2)))


@pytest.mark.parametrize("name", EXPECTED)
def test_files_of_the_old_tools(name: str, tmp_path: Path) -> None:
    expected, source, out = EXPECTED[name], DATA / f"{name}.bin", tmp_path / "out.gguf"
    convert_legacy(source, out)
    found = {t.name: [t.tensor_type.name, [int(n) for n in t.shape], hashlib.sha256(t.data.tobytes()).hexdigest()]
             for t in gguf.GGUFReader(out).tensors}
    assert found == expected["tensors"]
    with kollama.Model(source) as model:
        assert model.format == expected["format"]
        assert model.metadata["llama.attention.head_count_kv"] == str(expected["n_head_kv"])
        assert model.metadata["llama.feed_forward_length"] == str(expected["n_ff"])
        assert not model.uses_mmap


def test_a_real_model_tells_its_story() -> None:
    with kollama.LLM(DATA / "s260k-v3-q4_0.bin", n_ctx=128, n_threads=1) as llm:
        text = llm.complete("Once upon a time", max_tokens=24, temperature=0).text
        assert text.startswith(", there was a little girl named Lily.")
        assert "".join(token.text for token in llm.generate("Once upon a time", max_tokens=24, temperature=0)) == text


@pytest.mark.parametrize(("kind", "version"), FORMATS)
@pytest.mark.parametrize("type_name", legacy_files.TYPES)
def test_every_format_and_type(kind: str, version: int, type_name: str, tmp_path: Path) -> None:
    made = legacy_files.write(tmp_path / "model.bin", kind=kind, version=version, type_name=type_name)
    convert_legacy(made.path, tmp_path / "out.gguf")
    for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors:
        assert tensor.data.tobytes() == made.data[tensor.name], tensor.name
    found = logits_of(made.path, PROMPT)
    assert np.array_equal(found, logits_of(tmp_path / "out.gguf", PROMPT))
    shape = Shape()
    expected = llama_reference.last_logits(made.weights, PROMPT, n_head=shape.n_head, n_head_kv=shape.n_head_kv,
                                           n_layer=shape.n_layer)
    # Activations are rounded: to f16 before a product with f16, to 8 bits before one with a quantized type.
    assert rms(found, expected) < {"f32": 0.002, "f16": 0.004}.get(type_name, 0.04) * np.std(expected)


@pytest.mark.parametrize("type_name", legacy_files.K_TYPES)
def test_k_quants_are_copied(type_name: str, tmp_path: Path) -> None:
    shape = Shape(n_embd=256, n_head=4, n_head_kv=4, n_layer=1, n_ff=256)
    made = legacy_files.write(tmp_path / "model.bin", type_name=type_name, shape=shape)
    convert_legacy(made.path, tmp_path / "out.gguf")
    for tensor in gguf.GGUFReader(tmp_path / "out.gguf").tensors:
        assert tensor.data.tobytes() == made.data[tensor.name], tensor.name
    with kollama.Model(made.path) as model:
        assert model.n_embd == 256


def test_output_of_another_type(tmp_path: Path) -> None:
    """quantize of June 2023 and later made output.weight q6_K where it fits, whatever was asked for."""
    shape = Shape(n_embd=256, n_head=4, n_head_kv=4, n_layer=1, n_ff=96)
    made = legacy_files.write(tmp_path / "model.bin", type_name="q4_1", shape=shape, output_type="q6_K")
    convert_legacy(made.path, tmp_path / "out.gguf")
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    assert types["output.weight"] == "Q6_K"
    assert types["token_embd.weight"] == "Q4_1"
    with kollama.Model(made.path) as model:
        assert model.size == sum(map(len, made.data.values()))


@pytest.mark.parametrize(("kind", "version"), [("ggml", 0), ("ggjt", 1), ("ggjt", 2)])
def test_scales_are_rounded_as_todays_are(kind: str, version: int, tmp_path: Path) -> None:
    """Scales were float32 before v3, and seldom ones that float16 has."""
    made = legacy_files.write(tmp_path / "model.bin", kind=kind, version=version, type_name="q8_0")
    blob = bytearray(made.path.read_bytes())
    block = 36
    at = blob.index(b"layers.1.feed_forward.w3.weight") + len("layers.1.feed_forward.w3.weight")
    at += -at % 32 if kind == "ggjt" else 0
    n_blocks = len(made.data["blk.1.ffn_up.weight"]) // 34
    scales = np.random.default_rng(5).normal(0, 3, n_blocks).astype(np.float32)
    for i, scale in enumerate(scales):
        struct.pack_into("<f", blob, at + i * block, scale)
    made.path.write_bytes(blob)
    convert_legacy(made.path, tmp_path / "out.gguf")
    data = next(t.data for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors if t.name == "blk.1.ffn_up.weight")
    found = np.frombuffer(data.tobytes(), np.uint8).reshape(-1, 34)[:, :2].copy().view(np.float16)[:, 0]
    assert np.array_equal(found, scales.astype(np.float16))


def test_rms_norm_eps(tmp_path: Path) -> None:
    made = legacy_files.write(tmp_path / "model.bin", type_name="f32")
    blob = made.path.read_bytes()
    small = made.weights["token_embd.weight"] * np.float32(0.003)  # so small that eps counts
    made.path.write_bytes(blob.replace(made.data["token_embd.weight"], small.tobytes()))
    made.weights["token_embd.weight"] = small
    for given, eps, n_ctx in [({}, 1e-5, 4096), ({"rms_norm_eps": 1e-6}, 1e-6, 2048), ({"rms_norm_eps": 1e-4}, 1e-4, 4096)]:
        expected = llama_reference.last_logits(made.weights, PROMPT, n_head=4, n_head_kv=2, n_layer=2, eps=eps)
        assert rms(logits_of(made.path, PROMPT, **given), expected) < 0.002 * np.std(expected)
        with kollama.Model(made.path, **given) as model:
            assert model.n_ctx_train == n_ctx


def test_vocabulary_and_added_tokens(tmp_path: Path) -> None:
    """Llama's pieces keep their scores; what added_tokens.json brought merges after them, in order of ids."""
    tokens = legacy_files.vocabulary()
    known = {text for text, _ in tokens}
    tokens += [(text, score) for text, score in [(b"  ", -1e9), ("구".encode(), -6.0), ("름".encode(), -7.0), (b" x", -8.0)]
               if text not in known]
    tokens += [(f"filler{i}".encode(), -9000.0 - i) for i in range(32000 - len(tokens))]
    tokens += [(text.encode(), -1000.0) for text in ("구름", "▁구름", "구름가", "▁구름가", "[PAD]")]
    made = legacy_files.write(tmp_path / "model.bin", type_name="q4_0", tokens=tokens)
    text = "a  구름 구름가  구름 [PAD] ▁구름"
    with kollama.Model(made.path, vocab_only=True) as model:
        tok = model.tokenizer
        assert tok.piece(32001) == "▁구름"
        assert [tok.piece(i) for i in tok.encode("구름가")] == ["▁구름가"]
        assert tok.decode([32001, 32002]) == "구름 구름가".replace(" ", "")
        # The run of spaces is Llama's own, with the least score of all, and still comes before what was added.
        assert [tok.piece(i) for i in tok.encode("a  구름")][-2:] == ["▁▁", "구름"]
        assert [tok.piece(i) for i in tok.encode("a  x")][-2:] == ["▁", "▁x"]
        ids = tok.encode(text).tolist()
    convert_legacy(made.path, tmp_path / "out.gguf")
    fields = gguf.GGUFReader(tmp_path / "out.gguf").fields
    assert fields["tokenizer.ggml.scores"].contents()[32000:] == [-31741.0 - i for i in range(5)]
    assert fields["tokenizer.ggml.scores"].contents()[:3] == [tokens[i][1] for i in range(3)]
    assert fields["tokenizer.ggml.token_type"].contents()[:4] == [2, 3, 3, 6]
    assert set(fields["tokenizer.ggml.token_type"].contents()[259:]) == {1}
    for path in (made.path, tmp_path / "out.gguf"):
        assert kollama.Tokenizer.from_file(path).encode(text).tolist() == ids


def test_marks_are_those_of_the_gguf(tmp_path: Path) -> None:
    """llama.cpp takes some pieces for marks by their text, whatever the file says of them."""
    tokens = [*legacy_files.vocabulary(), (b"[PAD]", -1000.0), (b"<|im_end|>", -1000.0), (b"<|user|>", -1000.0)]
    n = len(tokens)
    made = legacy_files.write(tmp_path / "model.bin", tokens=tokens)
    convert_legacy(made.path, tmp_path / "out.gguf")
    text = "a[PAD] b<|im_end|><|user|></s>"
    with kollama.Model(made.path) as legacy_model, kollama.Model(tmp_path / "out.gguf") as todays:
        for tok in (legacy_model.tokenizer, todays.tokenizer, kollama.Tokenizer.from_file(made.path),
                    kollama.Tokenizer.from_file(tmp_path / "out.gguf")):
            assert {n - 3, n - 2, 2} <= set(tok.encode(text, parse_special=True).tolist())
            assert not {n - 3, n - 2, 2} & set(tok.encode(text).tolist())
            assert n - 1 not in tok.encode(text, parse_special=True)
            assert [tok.is_eog(i) for i in (1, 2, n - 3, n - 2, n - 1)] == [False, True, True, True, False]
            assert tok.decode([n - 3, n - 2, n - 1]) == "[PAD]<|im_end|><|user|>"


def test_a_file_without_scores(tmp_path: Path) -> None:
    """The GGUF says what the file says, nothing; the tokenizer goes by the order of ids in both."""
    tokens = [(text, -float(i)) for i, (text, _) in enumerate(legacy_files.vocabulary())]
    ordered = legacy_files.write(tmp_path / "ordered.bin", tokens=tokens)
    made = legacy_files.write(tmp_path / "model.bin", kind="ggml", tokens=tokens)
    convert_legacy(made.path, tmp_path / "out.gguf")
    assert set(gguf.GGUFReader(tmp_path / "out.gguf").fields["tokenizer.ggml.scores"].contents()) == {0.0}
    expected = [ids.tolist() for ids in kollama.Tokenizer.from_file(ordered.path).encode_batch(tokenizer_json.SENTENCES.split("\n"))]
    assert len({len(ids) for ids in expected}) > 1
    for path in (made.path, tmp_path / "out.gguf"):
        with kollama.Model(path) as model:
            assert [model.tokenizer.encode(line).tolist() for line in tokenizer_json.SENTENCES.split("\n")] == expected


def tokens_of(data: dict[str, Any]) -> list[tuple[bytes, float]]:
    """The vocabulary of a tokenizer.json as convert.py of 2023 wrote it."""
    pieces = sorted(data["model"]["vocab"], key=data["model"]["vocab"].__getitem__)
    texts = [piece.replace("▁", " ").encode() for piece in pieces]
    texts[: 3 + 256] = [b"\xe2\x81\x87", b"", b""] + [bytes([byte]) for byte in range(256)]
    return [(text, -float(i)) for i, text in enumerate(texts)]


def test_a_tokenizer_json_settles_the_rest(tmp_path: Path) -> None:
    data = tokenizer_json.llama()
    path = tokenizer_json.write(tmp_path / "tokenizer.json", data)
    made = legacy_files.write(tmp_path / "model.bin", tokens=tokens_of(data))
    expected = [ids.tolist() for ids in kollama.Tokenizer.from_file(path).encode_batch(tokenizer_json.SENTENCES.split("\n"))]
    with kollama.Model(made.path, tokenizer=path) as model:
        assert [model.tokenizer.encode(line).tolist() for line in tokenizer_json.SENTENCES.split("\n")] == expected
    convert_legacy(made.path, tmp_path / "out.gguf", tokenizer=path)
    key = gguf.GGUFReader(tmp_path / "out.gguf").fields["tokenizer.huggingface.json"]
    assert key.contents() == path.read_text("utf-8")
    other = legacy_files.write(tmp_path / "other.bin", tokens=tokens_of(data)[:-1])
    with pytest.raises(kollama.FormatError, match=r"does not fit the model: the model has \d+ pieces, this tokenizer"):
        convert_legacy(other.path, tmp_path / "out.gguf", tokenizer=path)
    with pytest.raises(kollama.FormatError, match="is not a tokenizer.json"):
        convert_legacy(made.path, tmp_path / "out.gguf", tokenizer=made.path)


def test_nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    made = legacy_files.write(tmp_path / "model.bin")
    logits_of(made.path, PROMPT)
    assert [path.name for path in tmp_path.iterdir()] == ["model.bin"]


def test_where_streams_cannot_be_had(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows a GGUF is made in the user's cache, once for each state of the file."""
    made = legacy_files.write(tmp_path / "model.bin")
    expected = logits_of(made.path, PROMPT)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAPPDATA", str(tmp_path))
    monkeypatch.setattr(legacy_cache, "needs_cache", lambda: True)
    cache = tmp_path / "kollama" / "legacy"
    for _ in range(2):
        assert np.array_equal(logits_of(made.path, PROMPT), expected)
        (cached,) = cache.iterdir()
    with kollama.Model(made.path, mmap=True) as model:
        assert (model.format, model.path) == ("ggjt v3", str(made.path))
    first = cached.stat().st_mtime_ns
    logits_of(made.path, PROMPT, rms_norm_eps=1e-6)
    (other,) = cache.iterdir()
    assert other != cached and other.stat().st_mtime_ns > first
    made.path.write_bytes(made.path.read_bytes()[:-1])
    with pytest.raises(kollama.FormatError, match="truncated"):
        kollama.Model(made.path)


def test_progress_and_its_end(tmp_path: Path) -> None:
    made = legacy_files.write(tmp_path / "model.bin")
    seen: list[float] = []
    kollama.Model(made.path, progress=seen.append).close()
    assert seen == sorted(seen) and seen[-1] == 1.0 and len(seen) > 5
    with pytest.raises(kollama.AbortedError):
        kollama.Model(made.path, progress=lambda done: done < 0.5)
    with pytest.raises(kollama.AbortedError):
        convert_legacy(made.path, tmp_path / "out.gguf", progress=lambda done: False)
    with pytest.raises(KeyError):
        convert_legacy(made.path, tmp_path / "out.gguf", progress={}.__getitem__)


def test_options_that_do_not_fit(tmp_path: Path, tiny_path: Path) -> None:
    made = legacy_files.write(tmp_path / "model.bin")
    with pytest.raises(kollama.ArgumentError, match="cannot be mapped"):
        kollama.Model(made.path, mmap=True)
    with pytest.raises(kollama.ArgumentError, match="no further parts"):
        kollama.Model([made.path, made.path])
    with pytest.raises(kollama.ArgumentError, match="a GGUF has its own rms_norm_eps"):
        kollama.Model(tiny_path, rms_norm_eps=1e-6)
    with pytest.raises(kollama.ArgumentError, match="rms_norm_eps is 0"):
        kollama.Model(made.path, rms_norm_eps=0)
    with pytest.raises(kollama.FormatError, match="is a GGUF already"):
        convert_legacy(tiny_path, tmp_path / "out.gguf")
    with pytest.raises(kollama.WriteError, match="No such file"):
        convert_legacy(made.path, tmp_path / "nowhere" / "out.gguf")


def damaged(path: Path, change: Any) -> Path:
    blob = bytearray(path.read_bytes())
    path.write_bytes(change(blob) or blob)
    return path


def refused(path: Path) -> str:
    """What every reader of the file says."""
    with pytest.raises(kollama.FormatError) as caught:
        kollama.Model(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    with pytest.raises(kollama.FormatError) as again:
        kollama.inspect(path)
    assert str(again.value) == text
    return text.removeprefix(f"{path}: ")


def header_field(index: int, value: int) -> Any:
    return lambda blob: struct.pack_into("<I", blob, 8 + 4 * index, value)


@pytest.mark.parametrize(
    ("index", "value", "reason"),
    [
        (0, 2**32 - 1, "byte 8: the header claims 4294967295 tokens; a Llama of 2023 has 3 to 262144"),
        (0, 2, "byte 8: the header claims 2 tokens"),
        (0, 300, "byte .*: a token|byte .*: a tensor"),
        (1, 0, "byte 12: n_embd is 0"),
        (1, 2**31, "byte 12: n_embd is 2147483648"),
        (1, 66, "byte 12: n_embd 66 is not a multiple of n_head 4"),
        (3, 0, "byte 20: n_head is 0"),
        (3, 2**32 - 1, "byte 20: n_head is 4294967295"),
        (4, 0, "byte 24: n_layer is 0"),
        (4, 10**6, "byte 24: n_layer is 1000000"),
        (4, 1, "byte .*: 18368 bytes follow the last tensor"),
        (4, 3, "truncated at byte .*: tensor 'blk.2.attn_norm.weight' is missing"),
        (5, 15, "byte 28: n_rot is 15"),
        (5, 8, "byte 28: n_rot is 8"),
        (6, 5, "byte 32: its weights are q4_2"),
        (6, 6, "byte 32: its weights are q4_3"),
        (6, 99, "byte 32: ftype is 99"),
    ],
)
def test_a_header_that_lies(index: int, value: int, reason: str, tmp_path: Path) -> None:
    made = legacy_files.write(tmp_path / "model.bin")
    assert re.match(reason, refused(damaged(made.path, header_field(index, value))))


def test_q4_2_is_refused_by_name() -> None:
    assert refused(DATA / "mini-v1-q4_2.bin").startswith("byte 32: its weights are q4_2, a type that llama.cpp removed")


def test_every_truncation_is_seen(tmp_path: Path) -> None:
    made = legacy_files.write(tmp_path / "model.bin", type_name="q8_0", shape=Shape(n_layer=1))
    blob = made.path.read_bytes()
    cuts = sorted({*range(0, 60), *range(60, len(blob), 997), *(start + i for start in made.starts for i in (-1, 0, 3, 13, 40)),
                   len(blob) - 1})
    for cut in cuts:
        made.path.write_bytes(blob[:cut])
        assert "truncated" in (text := refused(made.path)) or cut < 4, (cut, text)


def record(made: legacy_files.Written, index: int, at: int, value: int) -> Any:
    return lambda blob: struct.pack_into("<I", blob, made.starts[index] + at, value)


@pytest.mark.parametrize(
    ("tensor", "at", "value", "reason"),
    [
        (0, 0, 3, "a tensor has 3 dimensions"),
        (0, 0, 0, "a tensor has 0 dimensions"),
        (0, 4, 0, "name claims a length of 0"),
        (0, 4, 2**31, "name claims a length of 2147483648"),
        (0, 8, 4, "'tok_embeddings.weight' is q4_2"),
        (0, 8, 9, "has the type 9, which ggjt v3 does not have"),
        (0, 8, 2**32 - 1, "has the type 4294967295"),
        (0, 12, 48, "has rows of 48, not a multiple of 32"),
        (0, 12, 0, "shape has 0"),
        (0, 12, 2**32 - 32, "shape has 4294967264"),
        (0, 16, 2**20, "truncated at byte .* tensor 'tok_embeddings.weight' needs"),
        (1, 8, 1, "a norm, and not f32|byte"),
    ],
)
def test_a_record_that_lies(tensor: int, at: int, value: int, reason: str, tmp_path: Path) -> None:
    made = legacy_files.write(tmp_path / "model.bin")
    text = refused(damaged(made.path, record(made, tensor, at, value)))
    assert re.search(reason, text), text


def test_what_else_is_refused(tmp_path: Path) -> None:
    made = legacy_files.write(tmp_path / "model.bin", kind="ggmf", version=1)  # without padding
    blob = made.path.read_bytes()
    norm = blob[made.starts[1] : made.starts[2]]
    assert "is there twice" in refused(damaged(made.path, lambda _: blob[: made.starts[-1]] + norm))
    part = legacy_files.write(tmp_path / "model.bin.1", shape=Shape(n_embd=32, n_head=2))
    whole = struct.pack("<4I", 64, 7, 4, 2)  # n_embd, n_mult, n_head, n_layer of the model that it is a part of
    damaged(part.path, lambda blob: blob[:12] + whole + blob[28:])
    assert "this is one of 2 parts of a model" in refused(part.path)
    made = legacy_files.write(tmp_path / "model.bin")
    blob = made.path.read_bytes()
    assert "bytes follow the last tensor" in refused(damaged(made.path, lambda _: blob + bytes(64)))
    assert "version 4 of this GGML format" in refused(damaged(made.path, lambda _: blob[:4] + b"\4" + blob[5:]))
    nan = struct.pack("<f", float("nan"))
    assert "score of token 0 is not a number" in refused(damaged(made.path, lambda _: blob[:45] + nan + blob[49:]))
    tokens = legacy_files.vocabulary()
    twice = legacy_files.write(tmp_path / "twice.bin", tokens=[*tokens, tokens[-1]])
    assert f"the tokens {len(tokens) - 1} and {len(tokens)} have the same text" in refused(twice.path)
    long = legacy_files.write(tmp_path / "long.bin", tokens=[*tokens, (b"a" * (1 << 21), -1.0)])
    assert f"token {len(tokens)}: a vocabulary of more than 2097152 bytes" in refused(long.path)
    nul = legacy_files.write(tmp_path / "nul.bin", tokens=[*tokens, (b"a\0b", -1.0)])
    assert f"token {len(tokens)} has a NUL" in refused(nul.path)


@pytest.mark.parametrize(
    ("name", "model"),
    [("gpt_neox.layers.0.attention.query_key_value.weight", "GPT-NeoX"), ("transformer.blocks.0.norm_1.weight", "MPT"),
     ("transformer.h.0.ln_1.weight", "GPT-J")],
)
def test_other_models_with_this_magic_are_named(name: str, model: str, tmp_path: Path) -> None:
    path = tmp_path / "model.bin"
    with path.open("wb") as file:
        legacy_files.write_header(file, "ggml", 0, legacy_files.vocabulary(), Shape(), 2)
        file.write(struct.pack("<3I", 1, len(name), 0) + struct.pack("<I", 64) + name.encode() + bytes(256))
    assert f"of another kind of model, {model}" in refused(path)
