"""Folders of Hugging Face -> GGUF: what comes out, and what is refused."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import hf_folder
import numpy as np
import pytest
import sentencepiece_model
import tiny
import tokenizer_json as tj
from gguf import quants

import kollama
from kollama import FormatError, Tokenizer, convert
from kollama._core.quants import quantize_rows, row_bytes
from kollama.cli import main

PROMPT = "안녕하세요, 오늘은 날씨가 참 좋네요. 대한민국의 수도는"
TYPES = ["f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"]


def read(path: Path) -> dict[str, gguf.ReaderTensor]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def key(path: Path, name: str) -> Any:
    field = gguf.GGUFReader(path).get_field(name)
    return None if field is None else field.contents()


def rms(a: Any, b: Any) -> float:
    return float(np.sqrt(np.mean((np.asarray(a, np.float64) - b) ** 2)))


# ---- what it computes ----------------------------------------------------------------------------

LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 256}
SHAPES: dict[str, tuple[dict[str, Any], int]] = {
    "gqa": ({}, 1),
    "shards": ({}, 3),
    "bf16": ({"dtype": "bfloat16"}, 2),
    "f16": ({"dtype": "float16"}, 1),
    "all heads": ({"num_key_value_heads": 4}, 1),
    "tied": ({"tie_word_embeddings": True}, 1),
    "head_dim": ({"head_dim": 32}, 1),
    "biases": ({"attention_bias": True, "mlp_bias": True}, 1),
    "theta": ({"rope_theta": 500.0}, 1),
    "linear": ({"rope_scaling": {"type": "linear", "factor": 4.0}}, 1),
    "llama3": ({"rope_theta": 50000.0, "rope_scaling": LLAMA3}, 1),
    "eps": ({"rms_norm_eps": 0.05}, 1),
    "padded": ({"n_vocab": 1024}, 1),
    "mistral": ({"architectures": ["MistralForCausalLM"], "sliding_window": None}, 1),
}


@pytest.mark.parametrize("name", SHAPES)
def test_logits(name: str, tmp_path: Path) -> None:
    """Of the weights as llama.cpp reads them, against NumPy in float64 of the folder's."""
    options, shards = SHAPES[name]
    folder = hf_folder.llama(**options)
    convert(folder.write(tmp_path / "hf", shards=shards), tmp_path / "out.gguf", type="f32")
    with kollama.Model(tmp_path / "out.gguf") as model:
        ids = model.tokenizer.encode(PROMPT, add_bos=True)
        assert len(ids) > 10
        with model.context(n_ctx=128, n_threads=1, type_k="f32", type_v="f32", flash_attn=False) as ctx:
            seq = ctx.sequence()
            seq.append(ids)
            got = seq.logits.copy()
    expected = hf_folder.logits(folder, ids.tolist())
    # float32 against float64 gives 3e-7 of the spread; a wrong rule of any kind gives 1e-2 and more.
    assert rms(got, expected) < 2e-6 * expected.std()


def test_the_reference_tells_rules_apart() -> None:
    """Were two of these models the same to it, agreeing with it would say nothing."""
    ids = list(range(5, 25))
    plain = hf_folder.logits(hf_folder.llama(), ids)
    for name in ("theta", "linear", "llama3", "eps", "biases", "tied"):
        other = hf_folder.llama(**SHAPES[name][0])
        if name not in ("biases", "tied"):  # those have other tensors
            assert other.tensors.keys() == hf_folder.llama().tensors.keys()
        assert rms(hf_folder.logits(other, ids), plain) > 1e-2 * plain.std(), name


def test_newer_files_have_their_rope_in_one_object(tmp_path: Path) -> None:
    old = hf_folder.llama(rope_theta=50000.0, rope_scaling=LLAMA3)
    new = hf_folder.llama(rope_parameters=LLAMA3 | {"rope_theta": 50000.0})
    del new.config["rope_theta"]
    for name, folder in (("old", old), ("new", new)):
        convert(folder.write(tmp_path / name), tmp_path / f"{name}.gguf")
    a, b = read(tmp_path / "old.gguf"), read(tmp_path / "new.gguf")
    assert a["rope_freqs.weight"].data.tolist() == b["rope_freqs.weight"].data.tolist()
    assert max(a["rope_freqs.weight"].data) == 8
    assert key(tmp_path / "old.gguf", "llama.rope.freq_base") == key(tmp_path / "new.gguf", "llama.rope.freq_base") == 50000


# ---- bytes and types -----------------------------------------------------------------------------


def in_order_of_llama(values: np.ndarray, n_heads: int) -> np.ndarray:
    """Row 2i + j of a head there is row i + j * half here."""
    rows = np.arange(len(values)).reshape(n_heads, -1)
    half = rows.shape[1] // 2
    order = [head[i + j * half] for head in rows for i in range(half) for j in range(2)]
    return values[order]


def sources(folder: hf_folder.Folder) -> dict[str, np.ndarray]:
    """What the file's tensors should be, by GGUF's names, as float32."""
    names = {"self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
             "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
             "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm"}
    found = {}
    for name in folder.tensors:
        values = folder.value(name).astype(np.float32)
        parts = name.split(".")
        if parts[1] == "layers":
            own = f"blk.{parts[2]}.{names['.'.join(parts[3:-1])]}.{parts[-1]}"
            heads = {"attn_q": "num_attention_heads", "attn_k": "num_key_value_heads"}
            if (which := own.split(".")[2]) in heads:
                values = in_order_of_llama(values, folder.config[heads[which]])
        else:
            own = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
                   "lm_head.weight": "output.weight"}[name]
        found[own] = values
    return found


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("kind", [None, *TYPES])
def test_bytes(kind: str | None, dtype: str, tmp_path: Path) -> None:
    """Every tensor, as gguf's own code makes it, which gives ggml's bytes for all but K-quants."""
    folder = hf_folder.llama(hidden_size=256, intermediate_size=288, num_hidden_layers=1, dtype=dtype)
    convert(folder.write(tmp_path / "hf", shards=2), tmp_path / "out.gguf", type=kind)
    wanted = kind or {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}[dtype]
    assert key(tmp_path / "out.gguf", "general.file_type") == gguf.LlamaFileType[
        "ALL_F32" if wanted == "f32" else f"MOSTLY_{wanted.upper()}"]
    tensors = read(tmp_path / "out.gguf")
    expected = sources(folder)
    assert tensors.keys() == expected.keys()
    for name, values in expected.items():
        tensor = tensors[name]
        own = "f32" if values.ndim == 1 else \
            "q6_K" if name == "output.weight" and wanted in ("q4_0", "q4_1", "q5_0", "q5_1") else wanted
        assert tensor.tensor_type.name.lower() == own.lower(), name
        assert tuple(reversed(tensor.shape.tolist())) == values.shape
        if own == "q6_K":
            # By 6 bits of the largest of 16 values, whose scale has 8 bits; worse were a wrong row.
            again = quants.dequantize(tensor.data, tensor.tensor_type).reshape(values.shape)
            assert rms(again, values) < 0.03 * values.std()
            assert tensor.data.tobytes() == quantize_rows(values, "q6_K").tobytes()
        else:
            assert tensor.data.tobytes() == quants.quantize(values, tensor.tensor_type).tobytes(), name


def types_of(path: Path) -> dict[str, str]:
    return {name: tensor.tensor_type.name for name, tensor in read(path).items() if len(tensor.shape) > 1}


def test_types_where_blocks_do_not_fit(tmp_path: Path) -> None:
    """As llama_model_quantize falls back."""
    folder = hf_folder.llama(hidden_size=64, intermediate_size=80, num_hidden_layers=1)
    convert(folder.write(tmp_path / "hf"), tmp_path / "out.gguf", type="q4_0")
    types = types_of(tmp_path / "out.gguf")
    assert types["output.weight"] == "Q8_0"  # 64 is not a multiple of q6_K's 256
    assert types["blk.0.ffn_down.weight"] == "F16"  # nor 80 of 32
    assert types["blk.0.ffn_up.weight"] == types["token_embd.weight"] == "Q4_0"
    tied = hf_folder.llama(hidden_size=256, num_hidden_layers=1, tie_word_embeddings=True)
    convert(tied.write(tmp_path / "tied"), tmp_path / "tied.gguf", type="q5_1")
    assert types_of(tmp_path / "tied.gguf")["token_embd.weight"] == "Q6_K"
    assert "output.weight" not in read(tmp_path / "tied.gguf")
    for name in ("out", "tied"):
        kollama.Model(tmp_path / f"{name}.gguf").close()


def test_a_large_tensor_goes_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("kollama.convert.folder")
    folder = hf_folder.llama(num_hidden_layers=1).write(tmp_path / "hf")
    convert(folder, tmp_path / "whole.gguf", type="q4_0")
    monkeypatch.setattr(module, "SLICE", 700)
    seen: list[float] = []
    convert(folder, tmp_path / "slices.gguf", type="q4_0", progress=seen.append)
    assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "slices.gguf").read_bytes()
    assert len(seen) > 100 and seen == sorted(seen) and seen[-1] == 1


def test_memory_is_that_of_a_slice(tmp_path: Path) -> None:
    """A model of 300 MB in a process that may not have 200 MB more than it starts with."""
    folder = hf_folder.llama(hidden_size=512, intermediate_size=16384, num_hidden_layers=3, dtype="float32")
    folder.write(tmp_path / "hf")
    code = (
        "import gguf, importlib, resource, sys, kollama\n"
        "importlib.import_module('kollama.convert.folder').default_threads = lambda: 1\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)\n"
        "kollama.convert(sys.argv[1], sys.argv[2], type='q8_0')\n")
    assert (tmp_path / "hf" / "model.safetensors").stat().st_size > 300 << 20
    if sys.platform != "linux":
        pytest.skip("counts memory as Linux does")
    subprocess.run([sys.executable, "-c", code, tmp_path / "hf", tmp_path / "out.gguf"], check=True, timeout=300)
    assert types_of(tmp_path / "out.gguf")["blk.0.attn_q.weight"] == "Q8_0"


# ---- rows ----------------------------------------------------------------------------------------


def test_quantize_rows() -> None:
    rows = np.random.default_rng(0).normal(size=(7, 64)).astype(np.float32)
    for kind in ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16", "bf16", "f32"):
        blocks = quantize_rows(rows, kind)
        assert blocks.shape == (7, row_bytes(kind, 64))
        assert blocks.tobytes() == quants.quantize(rows, gguf.GGMLQuantizationType[kind.upper()]).tobytes()
    assert quantize_rows(rows[:0], "q4_0").shape == (0, 36)


@pytest.mark.parametrize("kind", ["q4_9", "", "i32", "q8_1", "q8_K", "iq2_xxs", "f64"])
def test_types_that_floats_do_not_make(kind: str) -> None:
    with pytest.raises(kollama.ArgumentError, match="type"):
        quantize_rows(np.zeros((1, 256), np.float32), kind)


def test_rows_that_do_not_fit() -> None:
    with pytest.raises(kollama.ArgumentError, match="33 values cannot be q4_0, which comes in blocks of 32"):
        quantize_rows(np.zeros((2, 33), np.float32), "q4_0")
    with pytest.raises(kollama.ArgumentError):
        row_bytes("q4_0", 0)
    rows = np.ones((2, 32), np.float32)
    for value, kind, reason in ((np.nan, "q4_0", "not a number"), (-np.inf, "q8_0", "infinite"), (1e30, "f16", "too large for f16"),
                                (1e30, "q4_0", "too large for q4_0")):
        rows[1, 7] = value
        with pytest.raises(FormatError, match=reason):
            quantize_rows(rows, kind)


# ---- the vocabulary ------------------------------------------------------------------------------

CHATML = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def vocabulary(path: Path) -> tuple[list[str], list[float], list[int]]:
    names = ("tokens", "scores", "token_type")
    return tuple(key(path, f"tokenizer.ggml.{name}") for name in names)  # type: ignore[return-value]


def with_korean(n_added: int = 3) -> tj.Json:
    """Llama's structure, and after it what a model of chats adds."""
    data = tj.llama()
    n = len(data["model"]["vocab"])
    data["added_tokens"] += [tj.added(n, "<|끝|>"), tj.added(n + 1, "[질문▁칸]", special=False), tj.added(n + 2, "<pad>")]
    return data


TEXTS = [*tj.SENTENCES.splitlines(), "", " ", "  두  칸", "줄\n바꿈", "👨‍👩‍👧 이모지", "각", "<|끝|> [질문▁칸] </s>", "ㅋㅋㅋㅋㅋ"]


@pytest.mark.parametrize("name", ["llama", "added", "metaspace first", "gemma", "pieces over words", "merges as text"])
def test_ids_are_those_of_tokenizers(name: str, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="the reference for tokenizer.json")
    data = with_korean() if name == "added" else tj.VARIANTS[name]()
    n = max([*data["model"]["vocab"].values(), *(token["id"] for token in data["added_tokens"])]) + 1
    folder = hf_folder.llama(tokenizer=data, n_vocab=n + 7, num_hidden_layers=1).write(tmp_path / "hf")
    convert(folder, tmp_path / "out.gguf")
    reference = tokenizers.Tokenizer.from_str(json.dumps(data))
    with kollama.Model(tmp_path / "out.gguf", vocab_only=True) as model:
        for tok in (model.tokenizer, Tokenizer.from_file(tmp_path / "out.gguf")):
            assert len(tok) == n + 7
            for special in (False, True):
                reference.encode_special_tokens = not special
                for text in TEXTS:
                    ids = tok.encode(text, parse_special=special).tolist()
                    assert ids == reference.encode(text, add_special_tokens=False).ids, text
                    assert tok.decode(ids) == reference.decode(ids, skip_special_tokens=False)
            assert tok.piece(n) == f"[PAD{n}]" and tok.decode([n]) == ""
            assert (tok.bos, tok.eos, tok.is_eog(tj.EOS)) == (tj.BOS, tj.EOS, True)
        assert model.metadata["tokenizer.huggingface.json"].startswith("[json, ")
    assert kollama.inspect(tmp_path / "out.gguf").metadata["tokenizer.huggingface.json"].startswith("[json, ")
    assert json.loads(key(tmp_path / "out.gguf", "tokenizer.huggingface.json")) == data


def test_pieces_types_and_scores(tmp_path: Path) -> None:
    data = with_korean()
    n = len(data["model"]["vocab"])
    data["model"]["vocab"]["홀로"] = n + 3  # a piece that no merge makes
    convert(hf_folder.llama(tokenizer=data, n_vocab=n + 6, num_hidden_layers=1).write(tmp_path / "hf"), tmp_path / "out.gguf")
    pieces, scores, types = vocabulary(tmp_path / "out.gguf")
    kinds = gguf.TokenType
    assert types[:4] == [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, kinds.BYTE]
    assert pieces[n:] == ["<|끝|>", "[질문 칸]", "<pad>", "홀로", f"[PAD{n + 4}]", f"[PAD{n + 5}]"]
    assert types[n:] == [kinds.CONTROL, kinds.USER_DEFINED, kinds.CONTROL, kinds.NORMAL, kinds.UNUSED, kinds.UNUSED]
    first: dict[str, int] = {}
    for rank, (left, right) in enumerate(data["model"]["merges"]):
        first.setdefault(left + right, rank)
    for piece, score, kind in zip(pieces, scores, types, strict=True):
        if piece in first:
            assert score == -first[piece]
        elif kind in (kinds.NORMAL, kinds.USER_DEFINED, kinds.UNUSED):
            assert score < -max(first.values())  # what is never merged comes last


def scores_only(path: Path, out: Path) -> Path:
    """The vocabulary of a GGUF as llama.cpp reads it."""
    pieces, scores, types = vocabulary(path)
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return out


def test_scores_come_near_the_merges(tmp_path: Path) -> None:
    """What llama.cpp makes of the file, which does not look at the merges."""
    convert(hf_folder.llama(num_hidden_layers=1).write(tmp_path / "hf"), tmp_path / "out.gguf")
    exact = Tokenizer.from_file(tmp_path / "out.gguf")
    by_score = Tokenizer.from_file(scores_only(tmp_path / "out.gguf", tmp_path / "scores.gguf"))
    lines = tj.SENTENCES.splitlines()
    same = sum(by_score.encode(line).tolist() == exact.encode(line).tolist() for line in lines)
    assert same >= len(lines) - 1


@pytest.mark.parametrize(("settings", "files", "expected"), [
    ({}, {}, (1, 2, True)),
    ({"add_bos_token": False}, {}, (1, 2, False)),
    ({"bos_token": "</s>", "eos_token": {"content": "<|끝|>"}}, {}, (2, 889, True)),
    ({"tokenizer_class": "PreTrainedTokenizerFast"}, {}, (1, 2, True)),  # the file's own template has it
    ({}, {"special_tokens_map.json": {"eos_token": "<|끝|>"}}, (1, 889, True)),
    ({"eos_token": "<no such>"}, {"generation_config.json": {"eos_token_id": [889, 2]}}, (1, 2, True)),
])
def test_ends(settings: tj.Json, files: tj.Json, expected: tuple[int, int, bool], tmp_path: Path) -> None:
    folder = hf_folder.llama(tokenizer=with_korean(), n_vocab=892, num_hidden_layers=1)
    folder.files |= files | {"tokenizer_config.json": settings}
    convert(folder.write(tmp_path / "hf"), tmp_path / "out.gguf")
    with kollama.Model(tmp_path / "out.gguf", vocab_only=True) as model:
        for tok in (model.tokenizer, Tokenizer.from_file(tmp_path / "out.gguf")):
            assert (tok.bos, tok.eos, tok.add_bos) == expected
            if "generation_config.json" in files:
                assert tok.is_eog(889)


def test_other_ids_and_the_chat_template(tmp_path: Path) -> None:
    folder = hf_folder.llama(tokenizer=with_korean(), n_vocab=892, num_hidden_layers=1)
    folder.files["tokenizer_config.json"] = {"pad_token": "<pad>", "unk_token": "<unk>", "add_eos_token": True,
                                             "chat_template": [{"name": "rag", "template": "x"},
                                                               {"name": "default", "template": CHATML}]}
    path = tmp_path / "out.gguf"
    convert(folder.write(tmp_path / "hf"), path)
    assert key(path, "tokenizer.ggml.padding_token_id") == 891
    assert key(path, "tokenizer.ggml.unknown_token_id") == 0
    assert key(path, "tokenizer.ggml.add_eos_token") is True
    assert key(path, "tokenizer.chat_template") == CHATML
    assert key(path, "general.name") == "hf"
    (tmp_path / "hf" / "chat_template.jinja").write_text("{# 다른 것 #}", encoding="utf-8")
    convert(tmp_path / "hf", path)
    assert key(path, "tokenizer.chat_template") == "{# 다른 것 #}"


def broken(path: Path, old: str, new: str) -> Path:
    """The GGUF with another text of the same length in its tokenizer.json."""
    data = path.read_bytes()
    assert len(old) == len(new) and data.count(old.encode()) == 1
    path.write_bytes(data.replace(old.encode(), new.encode()))
    return path


@pytest.mark.parametrize(("old", "new", "reason"), [
    ('"type": "BPE"', '"type": "XPE"', "'XPE'"),
    ('{"version"', '["version"', "tokenizer.huggingface.json"),
    ('"<0x00>": 3, "<0x01>": 4', '"<0x01>": 3, "<0x00>": 4', "piece 3 is '<0x00>' in the model and '<0x01>'"),
])
def test_a_tokenizer_json_inside_that_is_wrong(old: str, new: str, reason: str, tmp_path: Path) -> None:
    folder = hf_folder.llama(num_hidden_layers=1).write(tmp_path / "hf")
    convert(folder, tmp_path / "out.gguf")
    path = broken(tmp_path / "out.gguf", old, new)
    for read in (kollama.Model, Tokenizer.from_file):
        with pytest.raises(FormatError, match=reason) as error:
            read(path)  # type: ignore[operator]
        assert str(path) in str(error.value)
    with kollama.Model(path, tokenizer=folder / "tokenizer.json") as model:  # a way past it
        assert model.tokenizer.encode("안녕하세요").tolist() == \
            Tokenizer.from_file(folder / "tokenizer.json").encode("안녕하세요").tolist()


def test_another_tokenizer_json(tmp_path: Path) -> None:
    """In place of the folder's; and where the embeddings are padded, in place of the model's."""
    folder = hf_folder.llama(n_vocab=900, num_hidden_layers=1).write(tmp_path / "hf")
    moved = tmp_path / "moved.json"
    (folder / "tokenizer.json").rename(moved)
    with pytest.raises(kollama.ModelNotFoundError, match=r"no tokenizer\.json and no tokenizer\.model"):
        convert(folder, tmp_path / "out.gguf")
    convert(folder, tmp_path / "out.gguf", tokenizer=moved)
    with kollama.Model(tmp_path / "out.gguf", tokenizer=moved) as model:
        assert len(model.tokenizer) == 900
        assert model.tokenizer.encode("안녕").tolist() == Tokenizer.from_file(moved).encode("안녕").tolist()


# ---- tokenizer.model -----------------------------------------------------------------------------


def sentencepiece_folder(path: Path, *, add_dummy_prefix: bool = True, added: dict[str, int] | None = None,
                         n_vocab: int | None = None, **settings: Any) -> Path:
    pieces, scores, types = tiny.vocabulary()
    n = n_vocab or len(pieces) + len(added or {})
    folder = hf_folder.llama(tokenizer="model", n_vocab=n, num_hidden_layers=1)
    folder.files["tokenizer.model"] = sentencepiece_model.write(pieces, scores, types, add_dummy_prefix=add_dummy_prefix)
    if added is not None:
        folder.files["added_tokens.json"] = added
    folder.files["tokenizer_config.json"] = settings
    return folder.write(path)


def test_a_sentencepiece_model(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="the reference for tokenizer.model")
    for prefix in (True, False):
        folder = sentencepiece_folder(tmp_path / str(prefix), add_dummy_prefix=prefix)
        convert(folder, tmp_path / "out.gguf")
        assert vocabulary(tmp_path / "out.gguf") == tuple(map(list, tiny.vocabulary()))
        assert key(tmp_path / "out.gguf", "tokenizer.huggingface.json") is None
        reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        with kollama.Model(tmp_path / "out.gguf") as model:
            for text in ("대한민국의 수도는 서울이다.", "안녕하세요 오늘 날씨가 좋네요", "the 뷁 a\nb", ""):
                assert model.tokenizer.encode(text).tolist() == reference.encode(text)
                assert model.tokenizer.add_bos


def test_added_tokens(tmp_path: Path) -> None:
    """Korean pieces that were added to a vocabulary merge in it; marks that were added do not."""
    n = len(tiny.vocabulary()[0])
    added = {"▁대한민국": n, "▁안녕하세요": n + 1, "뷁": n + 2, "<|끝|>": n + 3, "[질문▁칸]": n + 4, "<pad>": n + 5}
    folder = sentencepiece_folder(tmp_path / "hf", added=added, n_vocab=n + 8, pad_token="<pad>", added_tokens_decoder={
        "1": {"content": "<s>", "special": True}, str(n + 3): {"content": "<|끝|>", "special": True}})
    convert(folder, tmp_path / "out.gguf")
    pieces, scores, types = vocabulary(tmp_path / "out.gguf")
    kinds = gguf.TokenType
    assert pieces[n:] == ["▁대한민국", "▁안녕하세요", "뷁", "<|끝|>", "[질문 칸]", "<pad>", f"[PAD{n + 6}]", f"[PAD{n + 7}]"]
    assert types[n:] == [*[kinds.NORMAL] * 3, kinds.CONTROL, kinds.USER_DEFINED, kinds.CONTROL, *[kinds.UNUSED] * 2]
    assert scores[n:n + 6] == [-float(i - 259) for i in range(n, n + 6)]
    with kollama.Model(tmp_path / "out.gguf") as model:
        tok = model.tokenizer
        assert [tok.piece(i) for i in tok.encode("대한민국 뷁[질문 칸]")] == ["▁대한민국", "▁", "뷁", "[질문 칸]"]


@pytest.mark.parametrize(("added", "settings", "reason"), [
    ({"가나": 5}, {}, "has id 5, which in tokenizer.model is '<0x02>'"),
    ({"가나": "x"}, {}, "the id 'x'"),
    ({"가나": 2**30}, {}, "far beyond"),
    ({}, {"added_tokens_decoder": {"x": {"content": "가"}}}, "added_tokens_decoder"),
])
def test_added_tokens_that_are_wrong(added: dict[str, Any], settings: tj.Json, reason: str, tmp_path: Path) -> None:
    folder = sentencepiece_folder(tmp_path / "hf", added=added, **settings)
    with pytest.raises(FormatError, match=reason):
        convert(folder, tmp_path / "out.gguf")


def refusal_of(folder: Path, out: Path) -> str | None:
    """The text of the FormatError, None where the damage did no harm. Any other error fails the test."""
    try:
        convert(folder, out)
    except FormatError as error:
        return str(error)
    out.unlink()
    return None


def test_damaged_sentencepiece_models(tmp_path: Path) -> None:
    folder = sentencepiece_folder(tmp_path / "hf")
    good = (folder / "tokenizer.model").read_bytes()
    unigram = good.replace(b"\x18\x02\x20", b"\x18\x01\x20")
    assert unigram != good
    random = np.random.default_rng(0)
    cases = [b"", unigram, *(good[:n] for n in random.integers(1, len(good), 30))]
    for _ in range(60):
        data = np.frombuffer(good, np.uint8).copy()
        data[random.integers(0, len(data), 3)] = random.integers(0, 256, 3)
        cases.append(data.tobytes())
    for data in cases:
        (folder / "tokenizer.model").write_bytes(data)
        reason = refusal_of(folder, tmp_path / "out.gguf")
        assert reason is None or str(folder) in reason
        assert data != unigram or "byte-pair" in str(reason)
        assert [path.name for path in tmp_path.iterdir()] == ["hf"]


# ---- folders that are refused --------------------------------------------------------------------


def config(**values: Any) -> Callable[[hf_folder.Folder], object]:
    return lambda folder: folder.config.update(values)


def without(name: str) -> Callable[[hf_folder.Folder], object]:
    return lambda folder: folder.tensors.pop(name)


def tensor(name: str, *shape: int) -> Callable[[hf_folder.Folder], object]:
    return lambda folder: folder.tensors.update({name: np.zeros(shape, np.float32)})


def drop(name: str) -> Callable[[hf_folder.Folder], object]:
    return lambda folder: folder.config.pop(name)


def tokenizer(change: Callable[[tj.Json], object]) -> Callable[[hf_folder.Folder], object]:
    return lambda folder: change(folder.files["tokenizer.json"])


Q = "model.layers.0.self_attn.q_proj"
REFUSED: list[tuple[str, Callable[[hf_folder.Folder], object], str]] = [
    ("another architecture", config(architectures=["Qwen2ForCausalLM"]), "'Qwen2ForCausalLM'"),
    ("no architecture", config(architectures=[], model_type="gpt2"), "'gpt2'"),
    ("a window", config(architectures=["MistralForCausalLM"], sliding_window=4096), "sliding_window is 4096"),
    ("another activation", config(hidden_act="gelu"), "hidden_act is 'gelu'"),
    ("quantised", config(quantization_config={"bits": 4}), "quantization_config is set"),
    ("dynamic rope", config(rope_scaling={"type": "dynamic", "factor": 2.0}), "'dynamic'"),
    ("yarn", config(rope_scaling={"rope_type": "yarn", "factor": 2.0}), "'yarn'"),
    ("a rope without its factor", config(rope_scaling={"type": "linear"}), "factor is None"),
    ("a rope of text", config(rope_scaling="linear"), "rope_scaling is no object"),
    ("turned frequencies", config(rope_scaling=LLAMA3 | {"high_freq_factor": 0.5}), "high_freq_factor"),
    ("a part of the head", config(partial_rotary_factor=0.5), "partial_rotary_factor"),
    ("no layers", config(num_hidden_layers=0), "num_hidden_layers is 0"),
    ("layers of text", config(num_hidden_layers="2"), "num_hidden_layers is '2'"),
    ("no eps", drop("rms_norm_eps"), "rms_norm_eps is None"),
    ("eps below 0", config(rms_norm_eps=-1), "rms_norm_eps is -1"),
    ("heads that do not divide", config(num_attention_heads=3), "no multiple of 3 heads"),
    ("heads that cannot share", config(num_key_value_heads=3), "4 heads cannot share 3"),
    ("an odd head", config(head_dim=15), "15 dimensions"),
    ("a flag of text", config(tie_word_embeddings="no"), "tie_word_embeddings is 'no'"),
    ("no tensor", without(f"{Q}.weight"), f"the tensor '{Q}.weight' is missing"),
    ("no bias", config(attention_bias=True), f"the tensor '{Q}.bias' is missing"),
    ("an unknown tensor", tensor("model.layers.0.mlp.router.weight", 4, 64), "'model.layers.0.mlp.router.weight' is not part"),
    ("a bias too many", tensor(f"{Q}.bias", 64), f"'{Q}.bias' is not part"),
    ("another shape", tensor(f"{Q}.weight", 32, 64), r"has the shape \(32, 64\); by config.json it is \(64, 64\)"),
    ("fewer embeddings", config(vocab_size=888), "vocab_size|model.embed_tokens.weight"),
    ("more pieces than embeddings", tokenizer(lambda d: d["added_tokens"].append(tj.added(889, "<pad>"))), "890 pieces, more than the model's 889"),
    ("a tokenizer of another kind", tokenizer(lambda d: d["model"].update(type="Unigram")), "'Unigram'"),
    ("byte-level BPE", tokenizer(lambda d: d.update(decoder={"type": "ByteLevel"})), "byte-level BPE"),
]


@pytest.mark.parametrize(("change", "reason"), [case[1:] for case in REFUSED], ids=[case[0] for case in REFUSED])
def test_refused(change: Callable[[hf_folder.Folder], object], reason: str, tmp_path: Path) -> None:
    folder = hf_folder.llama(num_hidden_layers=1)
    change(folder)
    with pytest.raises(FormatError, match=reason) as error:
        convert(folder.write(tmp_path / "hf"), tmp_path / "out.gguf")
    assert str(tmp_path / "hf") in str(error.value) and "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_what_is_there_and_not_needed(tmp_path: Path) -> None:
    folder = hf_folder.llama(num_hidden_layers=1, tie_word_embeddings=True)
    folder.tensors["lm_head.weight"] = folder.tensors["model.embed_tokens.weight"]
    folder.tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    convert(folder.write(tmp_path / "hf"), tmp_path / "out.gguf")
    assert "output.weight" not in read(tmp_path / "out.gguf")


def damage(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Changes the header of a safetensors file."""
    data = path.read_bytes()
    n = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + n])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + n:])


NAME = "model.norm.weight"
DAMAGED: list[tuple[str, Callable[[Path], object], str]] = [
    ("empty", lambda p: p.write_bytes(b""), "no safetensors file, or truncated"),
    ("a few bytes", lambda p: p.write_bytes(b"abc"), "no safetensors file, or truncated"),
    ("other bytes", lambda p: p.write_bytes(b"GGUF" * 100), "no safetensors file, or truncated"),
    ("no JSON", lambda p: p.write_bytes((4).to_bytes(8, "little") + b"{x}}"), "not JSON"),
    ("a list", lambda p: p.write_bytes((2).to_bytes(8, "little") + b"[]"), "no JSON object"),
    ("truncated header", lambda p: p.write_bytes(p.read_bytes()[:100]), "truncated"),
    ("truncated data", lambda p: p.write_bytes(p.read_bytes()[:-1]), "truncated: tensor .* the file has"),
    ("dtype", lambda p: damage(p, lambda h: h[NAME].update(dtype="F8_E4M3")), "'model.norm.weight' has the dtype F8_E4M3"),
    ("shape", lambda p: damage(p, lambda h: h[NAME].update(shape=[63])), r"256 bytes for the shape \(63,\)"),
    ("shape of text", lambda p: damage(p, lambda h: h[NAME].update(shape="64")), "entry of 'model.norm.weight' is damaged"),
    ("below 0", lambda p: damage(p, lambda h: h[NAME].update(shape=[-64])), "damaged"),
    ("no offsets", lambda p: damage(p, lambda h: h[NAME].pop("data_offsets")), "damaged"),
    ("an entry of text", lambda p: damage(p, lambda h: h.update({NAME: "F32"})), "damaged"),
]


@pytest.mark.parametrize(("change", "reason"), [case[1:] for case in DAMAGED], ids=[case[0] for case in DAMAGED])
def test_damaged_safetensors(change: Callable[[Path], object], reason: str, tmp_path: Path) -> None:
    folder = hf_folder.llama(num_hidden_layers=1).write(tmp_path / "hf")
    change(folder / "model.safetensors")
    with pytest.raises(FormatError, match=reason) as error:
        convert(folder, tmp_path / "out.gguf")
    assert str(folder / "model.safetensors") in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_shards(tmp_path: Path) -> None:
    folder = hf_folder.llama(num_hidden_layers=1).write(tmp_path / "hf", shards=3)
    index = folder / "model.safetensors.index.json"
    good = index.read_text()
    second = folder / "model-00002-of-00003.safetensors"

    def refused(kind: type[Exception], reason: str) -> None:
        with pytest.raises(kind, match=reason):
            convert(folder, tmp_path / "out.gguf")
        assert not (tmp_path / "out.gguf").exists()

    second.rename(folder / "elsewhere")
    refused(kollama.ModelNotFoundError, "model-00002-of-00003.safetensors: the shard is missing")
    shutil.copy(folder / "model-00001-of-00003.safetensors", second)
    refused(FormatError, "is in another shard too")
    (folder / "elsewhere").replace(second)
    index.write_text(good.replace("00002-of", "00001-of"))
    refused(FormatError, "has no tensor .* says so|is missing")
    for text, reason in (("{}", "has no weight_map"), ("x", "is not JSON"), ('{"weight_map": {"a": "../b"}}', "no file of this folder"),
                         ('{"weight_map": {"a": 1}}', "no file of this folder")):
        index.write_text(text)
        refused(FormatError, reason)
    index.unlink()
    refused(kollama.ModelNotFoundError, "3 shards that need it")
    index.write_text(good)
    convert(folder, tmp_path / "out.gguf")


def test_folders_without(tmp_path: Path) -> None:
    folder = hf_folder.llama(num_hidden_layers=1).write(tmp_path / "hf")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(kollama.ModelNotFoundError, match=r"no \*\.safetensors in it. It has pytorch_model"):
        convert(folder, tmp_path / "out.gguf")
    for text, reason in (("[]", "no JSON object"), ("{", "not JSON"), ("\x00", "not JSON")):
        (folder / "config.json").write_text(text)
        with pytest.raises(FormatError, match=reason):
            convert(folder, tmp_path / "out.gguf")
    (folder / "config.json").unlink()
    with pytest.raises(kollama.ModelNotFoundError, match="config.json: there is no such file"):
        convert(folder, tmp_path / "out.gguf")


def test_values_that_a_type_cannot_hold(tmp_path: Path) -> None:
    folder = hf_folder.llama(num_hidden_layers=1)
    folder.tensors[f"{Q}.weight"][3, 3] = 1e6
    convert(folder.write(tmp_path / "hf"), tmp_path / "out.gguf")
    before = (tmp_path / "out.gguf").read_bytes()
    with pytest.raises(FormatError, match=f"tensor '{Q}.weight' has values too large for f16"):
        convert(tmp_path / "hf", tmp_path / "out.gguf", type="f16")
    assert (tmp_path / "out.gguf").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "out.gguf"]


# ---- arguments, progress, and ends in the middle -------------------------------------------------


def test_arguments(tmp_path: Path) -> None:
    folder = hf_folder.llama(num_hidden_layers=1).write(tmp_path / "hf")
    out = tmp_path / "out.gguf"
    with pytest.raises(kollama.ModelNotFoundError):
        convert(tmp_path / "nothing", out)
    with pytest.raises(kollama.ArgumentError, match="type is 'q4_K'; it can be bf16, f16"):
        convert(folder, out, type="q4_K")
    with pytest.raises(kollama.ArgumentError, match="config.json has it"):
        convert(folder, out, rms_norm_eps=1e-5)
    with pytest.raises(TypeError, match="progress"):
        convert(folder, out, progress=3)  # type: ignore[arg-type]
    with pytest.raises(kollama.ArgumentError, match="legacy file keeps its types"):
        convert(tiny.write_legacy_vocabulary(tmp_path / "old.bin"), out, type="f16")
    with pytest.raises(kollama.ModelNotFoundError):
        convert(folder, out, tokenizer=tmp_path / "nothing.json")
    with pytest.raises(kollama.WriteError):
        convert(folder, tmp_path / "nowhere" / "out.gguf")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "old.bin"]


def test_progress_stops(tmp_path: Path) -> None:
    folder = hf_folder.llama(num_hidden_layers=1).write(tmp_path / "hf")
    seen: list[float] = []

    def stop(done: float) -> bool:
        seen.append(done)
        return len(seen) < 5

    with pytest.raises(kollama.AbortedError):
        convert(folder, tmp_path / "out.gguf", progress=stop)
    assert len(seen) == 5 and 0 < seen[0] < seen[-1] < 1

    def fail(done: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert(folder, tmp_path / "out.gguf", progress=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


SLOW = """
import sys, time, kollama
kollama.convert(sys.argv[1], sys.argv[2], type="q4_0", progress=lambda done: print(done, flush=True) or time.sleep(0.2))
"""


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize("how", ["SIGKILL", "SIGINT"])
def test_killed_in_the_middle(how: str, tmp_path: Path) -> None:
    folder = hf_folder.llama().write(tmp_path / "hf")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    out = tmp_path / "out.gguf"
    out.write_bytes(b"what was there")
    child = subprocess.Popen([sys.executable, "-c", SLOW, folder, out], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert child.stdout is not None
    for _ in range(4):
        assert float(child.stdout.readline()) < 1
    child.send_signal(getattr(signal, how))
    assert child.wait(60) != 0
    child.stdout.close()
    assert out.read_bytes() == b"what was there"
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    left = [path.name for path in tmp_path.iterdir() if path.name not in ("hf", "out.gguf")]
    assert left == ([f"out.gguf.{child.pid}.part"] if how == "SIGKILL" else [])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux's limit on the size of files")
def test_a_full_disk(tmp_path: Path) -> None:
    folder = hf_folder.llama().write(tmp_path / "hf")
    code = ("import resource, signal, sys\nfrom kollama.cli import main\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
            "sys.exit(main(['convert', *sys.argv[1:]]))\n")
    done = subprocess.run([sys.executable, "-c", code, folder, tmp_path / "out.gguf"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr == f"kollama: {tmp_path / 'out.gguf'}: cannot be written: File too large\n"
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = hf_folder.llama(hidden_size=256, num_hidden_layers=1).write(tmp_path / "hf")
    assert main(["convert", str(folder), str(tmp_path / "out.gguf"), "--type", "q5_0"]) == 0
    assert types_of(tmp_path / "out.gguf")["blk.0.ffn_up.weight"] == "Q5_0"
    assert main(["run", str(tmp_path / "out.gguf"), "안녕", "--max-tokens", "3", "--n-threads", "1", "--n-ctx", "64"]) == 0
    assert main(["convert", str(folder), str(tmp_path / "out.gguf"), "--type", "q9"]) == 1
    assert capsys.readouterr().err.splitlines()[-1].startswith("kollama: type is 'q9'")


def test_without_the_package_gguf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(kollama.KollamaError, match=r"pip install 'kollama\[convert\]'"):
        convert(hf_folder.llama(num_hidden_layers=1).write(tmp_path / "hf"), tmp_path / "out.gguf")
