"""Folders that are not converted, and why."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hf_folder
import numpy as np
import pytest
import tiny
import tokenizer_json as tj
from converted import LLAMA3, read, sentencepiece_folder

import kollama
from kollama import FormatError, convert

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
    ("byte-level BPE", tokenizer(lambda d: d.update(decoder={"type": "ByteLevel"})), "byte-level BPE, but does not cut text as Llama 3"),
    ("a tokenizer that is no JSON", lambda folder: folder.files.update({"tokenizer.json": b"{"}), "is not JSON"),
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


def values_of(data: Any) -> list[tuple[Any, Any]]:
    """(container, key) of every value in it."""
    inside = list(data.items()) if isinstance(data, dict) else list(enumerate(data)) if isinstance(data, list) else []
    return [(data, key) for key, _ in inside] + [pair for _, value in inside for pair in values_of(value)]


@pytest.mark.parametrize("with_json", [True, False])
def test_files_with_anything_in_them(with_json: bool, tmp_path: Path) -> None:
    """Whatever stands in a JSON file of the folder, it is converted, or refused with a KollamaError."""
    settings = {"bos_token": {"content": "<s>"}, "eos_token": "</s>", "add_bos_token": True, "chat_template": [{"name": "default", "template": "x"}],
                "additional_special_tokens": ["<s>"], "added_tokens_decoder": {"1": {"content": "<s>", "special": True}}}
    n = len(tiny.vocabulary()[0])
    if with_json:
        folder = hf_folder.llama(num_hidden_layers=1, hidden_size=32, tokenizer=tj.mini(), rope_scaling=LLAMA3).write(tmp_path / "hf", shards=2)
    else:
        folder = sentencepiece_folder(tmp_path / "hf", added={"가나다": n}, n_vocab=n + 1)
    for name, content in (("tokenizer_config.json", settings), ("special_tokens_map.json", {"eos_token": {"content": "</s>"}}),
                          ("generation_config.json", {"eos_token_id": [2, 3], "bos_token_id": 1})):
        (folder / name).write_text(json.dumps(content))
    convert(folder, tmp_path / "out.gguf")
    random = np.random.default_rng(1)
    others = [None, True, -1, 0, 2, 10**30, 1e400, "", "x", "</s>", "\ud800", [], [[]], {}, {"content": 3}, ["a", None]]
    n_refused = 0
    for path in sorted(folder.glob("*.json")):
        good = path.read_text()
        for _ in range(25):
            data = json.loads(good)
            place, at = (places := values_of(data))[random.integers(len(places))]
            place[at] = others[random.integers(len(others))]
            path.write_text(json.dumps(data))
            try:
                convert(folder, tmp_path / "out.gguf")
            except kollama.KollamaError:
                n_refused += 1
        path.write_text(good)
    assert n_refused > 20
    convert(folder, tmp_path / "out.gguf")
