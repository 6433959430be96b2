"""Folders of Hugging Face -> GGUF: what comes out, and what is left where it ends in the middle."""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import gguf
import hf_folder
import numpy as np
import pytest
import tiny
from conftest import limits_memory
from converted import LLAMA3, key, read, rms, types_of
from gguf import quants

import kollama
from kollama import FormatError, convert
from kollama._core.quants import quantize_rows, row_bytes
from kollama.cli import main

PROMPT = "안녕하세요, 오늘은 날씨가 참 좋네요. 대한민국의 수도는"
TYPES = ["f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0"]

# ---- what it computes ----------------------------------------------------------------------------

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


@pytest.mark.parametrize("kind", TYPES[1:])
@pytest.mark.parametrize("options", [
    {"hidden_size": 256, "intermediate_size": 288}, {"hidden_size": 64, "intermediate_size": 80}, {"hidden_size": 48, "head_dim": 16},
    {"hidden_size": 512, "tie_word_embeddings": True}], ids=["256", "64", "48", "tied"])
def test_types_and_bytes_are_those_of_quantize(options: dict[str, Any], kind: str, tmp_path: Path) -> None:
    """In one step, what f32 and llama_model_quantize after it make in two."""
    folder = hf_folder.llama(num_hidden_layers=2, **options).write(tmp_path / "hf")
    convert(folder, tmp_path / "f32.gguf", type="f32")
    convert(folder, tmp_path / "one.gguf", type=kind)
    kollama.quantize(tmp_path / "f32.gguf", tmp_path / "two.gguf", kind)
    one, two = ({name: (tensor.tensor_type, tensor.data.tobytes()) for name, tensor in read(tmp_path / name_).items()}
                for name_ in ("one.gguf", "two.gguf"))
    assert one == two
    assert key(tmp_path / "one.gguf", "general.file_type") == key(tmp_path / "two.gguf", "general.file_type")


def test_a_large_tensor_goes_in_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("kollama.convert.folder")
    folder = hf_folder.llama(num_hidden_layers=1).write(tmp_path / "hf")
    convert(folder, tmp_path / "whole.gguf", type="q4_0")
    monkeypatch.setattr(module, "SLICE", 700)
    seen: list[float] = []
    convert(folder, tmp_path / "slices.gguf", type="q4_0", progress=seen.append)
    assert (tmp_path / "whole.gguf").read_bytes() == (tmp_path / "slices.gguf").read_bytes()
    assert len(seen) > 100 and seen == sorted(seen) and seen[-1] == 1


@limits_memory
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
    assert left == ([f"out.gguf.{child.pid}.0.part"] if how == "SIGKILL" else [])


@pytest.mark.skipif(sys.platform != "linux", reason="needs a limit on the size of files, and its words")
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
