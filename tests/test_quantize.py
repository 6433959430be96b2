"""Quantization: the same file as llama.cpp's own, whole or not at all, and nothing ends the process."""

from __future__ import annotations

import ctypes
import json
import signal
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny
from gguf import quants

import kollama
from kollama.cli import main
from kollama.imatrix import read_importance
from kollama.quantization import type_names

N_EMBD = 256  # a block of the K-quants
NEED_IMATRIX = {"iq1_s", "iq1_m", "iq2_xxs", "iq2_xs", "iq2_s", "iq2_m", "iq3_xs", "iq3_xxs", "q2_k_s"}
LLAMA_FTYPES = {"f32": 0, "f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9, "q2_k": 10, "q3_k_s": 11,
                "q3_k_m": 12, "q3_k_l": 13, "q4_k_s": 14, "q4_k_m": 15, "q5_k_s": 16, "q5_k_m": 17, "q6_k": 18,
                "iq2_xxs": 19, "iq2_xs": 20, "q2_k_s": 21, "iq3_xs": 22, "iq3_xxs": 23, "iq1_s": 24, "iq4_nl": 25,
                "iq3_s": 26, "iq3_m": 27, "iq2_s": 28, "iq2_m": 29, "iq4_xs": 30, "iq1_m": 31, "bf16": 32, "tq1_0": 36,
                "tq2_0": 37, "mxfp4_moe": 38, "q1_0": 40, "q2_0": 41}
ALIASES = {"q3_k": "q3_k_m", "q4_k": "q4_k_m", "q5_k": "q5_k_m", "mxfp4": "mxfp4_moe"}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_llama(tmp_path_factory.mktemp("quantize") / "f32.gguf", n_embd=N_EMBD, n_layer=1)


@pytest.fixture(scope="module")
def importance(source: Path) -> dict[str, np.ndarray]:
    """An importance matrix for all weights of the layers."""
    random = np.random.default_rng(1)
    return {tensor.name: random.uniform(0.1, 3, tensor.shape[-1]).astype(np.float32)
            for tensor in kollama.inspect(source).tensors if tensor.name.startswith("blk") and len(tensor.shape) == 2}


def quantize(src: Path, dst: Path | None, kind: str, **options: object) -> kollama.Quantization:
    return kollama.quantize(src, dst, kind, n_threads=1, **options)  # type: ignore[arg-type]


# ---- llama.cpp's own -------------------------------------------------------------------------------

class ImatrixData(ctypes.Structure):
    _fields_ = [("name", ctypes.c_char_p), ("data", ctypes.POINTER(ctypes.c_float)), ("size", ctypes.c_size_t)]


class TensorOverride(ctypes.Structure):
    _fields_ = [("pattern", ctypes.c_char_p), ("type", ctypes.c_int)]


class QuantizeParams(ctypes.Structure):
    _fields_ = [
        ("nthread", ctypes.c_int32), ("ftype", ctypes.c_int), ("output_type", ctypes.c_int), ("embedding_type", ctypes.c_int),
        *((name, ctypes.c_bool) for name in ("allow_requantize", "quantize_output", "only_copy", "pure", "keep_split", "dry_run")),
        ("imatrix", ctypes.POINTER(ImatrixData)), ("kv_overrides", ctypes.c_void_p),
        ("overrides", ctypes.POINTER(TensorOverride)), ("prune_layers", ctypes.c_void_p), ("max_buf_size", ctypes.c_size_t),
    ]


def llama_quantize(src: Path, dst: Path, kind: str, importance: dict[str, np.ndarray] | None = None,
                   overrides: dict[str, int] | None = None, **options: object) -> None:
    folder = Path(kollama.__file__).parent / "lib"
    library = ctypes.CDLL(str(next(path for path in folder.iterdir() if "kollama-llama." in path.name)))
    library.llama_model_quantize_default_params.restype = QuantizeParams
    params = library.llama_model_quantize_default_params()
    params.nthread = 1
    params.ftype = LLAMA_FTYPES[ALIASES.get(kind, kind)]
    for name, value in options.items():
        setattr(params, name, value)
    if importance is not None:
        entries = [(name.encode(), values.ctypes.data_as(ctypes.POINTER(ctypes.c_float)), values.size)
                   for name, values in importance.items()]
        params.imatrix = (ImatrixData * (len(entries) + 1))(*(ImatrixData(*entry) for entry in entries))
    if overrides is not None:
        params.overrides = (TensorOverride * (len(overrides) + 1))(*(
            TensorOverride(pattern.encode(), kind) for pattern, kind in overrides.items()))
    assert library.llama_model_quantize(str(src).encode(), str(dst).encode(), ctypes.byref(params)) == 0


def test_the_types_are_those_of_llama_quantize() -> None:
    assert set(type_names()) == {*LLAMA_FTYPES, *ALIASES, "copy"}


@pytest.mark.parametrize("kind", sorted({*LLAMA_FTYPES, *ALIASES}))
def test_equals_llama_quantize(kind: str, source: Path, importance: dict[str, np.ndarray], tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    planned = quantize(source, None, kind.upper(), dry_run=True)
    assert planned.needs_imatrix is (kind in NEED_IMATRIX)
    assert list(tmp_path.iterdir()) == []
    if planned.needs_imatrix:
        with pytest.raises(kollama.ArgumentError, match="needs an importance matrix"):
            quantize(source, ours, kind)
        done = quantize(source, ours, kind, imatrix=importance)
        llama_quantize(source, theirs, kind, importance)
        keys = kollama.inspect(ours).metadata
        assert keys.pop("quantize.imatrix.entries_count") == str(len(importance))
        assert keys == kollama.inspect(theirs).metadata
        assert weights(ours) == weights(theirs)
    else:
        done = quantize(source, ours, kind)
        llama_quantize(source, theirs, kind)
        assert ours.read_bytes() == theirs.read_bytes()
        assert (planned.size_after, planned.tensors) == (done.size_after, done.tensors)
    assert done.size_after == ours.stat().st_size
    assert done.size_before == source.stat().st_size
    assert sum(done.types.values()) == len(done.tensors) == len(kollama.inspect(ours).tensors)
    with kollama.Model(ours) as model:
        assert model.n_layer == 1


def weights(path: Path) -> dict[str, tuple[object, bytes]]:
    return {tensor.name: (tensor.tensor_type, tensor.data.tobytes()) for tensor in gguf.GGUFReader(path).tensors}


@pytest.mark.parametrize(("kind", "quants_type"), [("q4_0", "Q4_0"), ("q8_0", "Q8_0")])
def test_equals_the_formula(kind: str, quants_type: str, source: Path, tmp_path: Path) -> None:
    quantize(source, tmp_path / "out.gguf", kind, pure=True)
    before = {tensor.name: tensor.data for tensor in gguf.GGUFReader(source).tensors}
    checked = 0
    for name, (found, data) in weights(tmp_path / "out.gguf").items():
        if found is gguf.GGMLQuantizationType[quants_type]:
            assert quants.quantize(before[name], found).tobytes() == data
            checked += 1
    assert checked == 9


def test_options_are_llama_cpps(source: Path, importance: dict[str, np.ndarray], tmp_path: Path) -> None:
    ours, theirs = tmp_path / "ours.gguf", tmp_path / "theirs.gguf"
    done = quantize(source, ours, "q4_k_m", output_type="Q8_0", embedding_type="f16",
                    tensor_types={r"ffn_(up|down)": "q5_1", "attn_q": "Q3_K"})
    llama_quantize(source, theirs, "q4_k_m", output_type=8, embedding_type=1,
                   overrides={r"ffn_(up|down)": 7, "attn_q": 11})
    assert ours.read_bytes() == theirs.read_bytes()
    found = {tensor.name: tensor.type for tensor in done.tensors}
    assert (found["output.weight"], found["token_embd.weight"]) == ("q8_0", "f16")
    assert (found["blk.0.ffn_up.weight"], found["blk.0.attn_q.weight"]) == ("q5_1", "q3_k")
    for options, other in (({"pure": True}, {"pure": True}), ({"leave_output": True}, {"quantize_output": False})):
        quantize(source, ours, "q3_k_l", **options)
        llama_quantize(source, theirs, "q3_k_l", **other)
        assert ours.read_bytes() == theirs.read_bytes()
    quantize(ours, tmp_path / "again.gguf", "q4_0", allow_requantize=True)
    llama_quantize(ours, theirs, "q4_0", allow_requantize=True)
    assert (tmp_path / "again.gguf").read_bytes() == theirs.read_bytes()


def test_threads_change_nothing(source: Path, tmp_path: Path) -> None:
    for n_threads in (1, 3, 1024):
        kollama.quantize(source, tmp_path / f"{n_threads}.gguf", "q4_k_m", n_threads=n_threads)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_experts_have_their_own_importance(tmp_path: Path) -> None:
    src = write_mixture(tmp_path / "mixture.gguf")
    values = {"blk.0.ffn_up_exps.weight": np.random.default_rng(0).uniform(0, 2, 3 * 256).astype(np.float32)}
    quantize(src, tmp_path / "ours.gguf", "q4_k_s", imatrix=values, pure=True)
    llama_quantize(src, tmp_path / "theirs.gguf", "q4_k_s", values, pure=True)
    assert weights(tmp_path / "ours.gguf") == weights(tmp_path / "theirs.gguf")
    quantize(src, tmp_path / "none.gguf", "q4_k_s", pure=True)
    assert weights(tmp_path / "ours.gguf") != weights(tmp_path / "none.gguf")


def write_mixture(path: Path) -> Path:
    """Not a whole model, but what quantizing takes for one: three experts of 40 rows."""
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(64)
    writer.add_embedding_length(256)
    writer.add_block_count(1)
    writer.add_feed_forward_length(40)
    writer.add_head_count(2)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_expert_count(3)
    writer.add_expert_used_count(2)
    writer.add_tensor("blk.0.ffn_up_exps.weight", random.normal(0, 1, (3, 40, 256)).astype(np.float32))
    writer.add_tensor("blk.0.ffn_gate_tid2eid.weight", np.arange(64, dtype=np.int32).reshape(2, 32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_split_source_becomes_one_file(source: Path, tmp_path: Path) -> None:
    from test_loading import _split

    parts = _split(source, tmp_path)
    done = quantize(parts[0], tmp_path / "copy.gguf", "COPY")
    assert done.size_before == sum(part.stat().st_size for part in parts)
    assert weights(tmp_path / "copy.gguf") == weights(source)
    assert "split.count" not in kollama.inspect(tmp_path / "copy.gguf").metadata
    for part in parts:
        before = part.read_bytes()
        with pytest.raises(kollama.ArgumentError, match="source itself"):
            quantize(parts[0], part, "q8_0")
        assert part.read_bytes() == before
    parts[1].unlink()
    with pytest.raises(kollama.ModelLoadError, match="00002-of-00002"):
        quantize(parts[0], tmp_path / "out.gguf", "q8_0")
    renamed = parts[0].rename(tmp_path / "first.gguf")
    with pytest.raises(kollama.FormatError, match="does not end in -00001-of-00002"):
        quantize(renamed, tmp_path / "out.gguf", "q8_0")


# ---- importance matrices ---------------------------------------------------------------------------

def write_dat(path: Path, values: dict[str, np.ndarray], n_calls: int = 4) -> Path:
    data = struct.pack("<i", len(values))
    for name, array in values.items():
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", n_calls, array.size)
        data += (array * np.float32(n_calls)).tobytes()
    path.write_bytes(data + struct.pack("<ii", 17, 8) + b"text.txt")
    return path


def write_imatrix_gguf(path: Path, values: dict[str, np.ndarray], count: int = 8, kind: str = "imatrix") -> Path:
    writer = gguf.GGUFWriter(str(path), "")
    writer.add_string("general.type", kind)
    writer.add_array("imatrix.datasets", ["text.txt"])
    writer.add_uint32("imatrix.chunk_count", 17)
    writer.add_uint32("imatrix.chunk_size", 512)
    for name, array in values.items():
        writer.add_tensor(name + ".in_sum2", (array * np.float32(count)).reshape(1, -1))
        writer.add_tensor(name + ".counts", np.full((1, 1), count, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_every_form_of_importance_matrix(source: Path, importance: dict[str, np.ndarray], tmp_path: Path) -> None:
    np.savez(tmp_path / "imatrix.npz", **importance)
    forms: list[object] = [importance, write_dat(tmp_path / "imatrix.dat", importance),
                           write_imatrix_gguf(tmp_path / "imatrix.gguf", importance), str(tmp_path / "imatrix.npz")]
    found = []
    for i, form in enumerate(forms):
        quantize(source, tmp_path / f"{i}.out", "iq2_xs", imatrix=form)
        found.append(weights(tmp_path / f"{i}.out"))
    assert all(form == found[0] for form in found)
    keys = kollama.inspect(tmp_path / "1.out").metadata
    assert keys["quantize.imatrix.file"] == "imatrix.dat"
    assert keys["quantize.imatrix.dataset"] == "text.txt"
    assert keys["quantize.imatrix.chunks_count"] == kollama.inspect(tmp_path / "2.out").metadata["quantize.imatrix.chunks_count"] == "17"


def test_counts_of_experts(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "imatrix.gguf"), "")
    writer.add_string("general.type", "imatrix")
    writer.add_tensor("a.in_sum2", np.array([[2, 4], [9, 9], [3, 6]], np.float32))
    writer.add_tensor("a.counts", np.array([[2], [0], [3]], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_importance(tmp_path / "imatrix.gguf").values["a"].tolist() == [1, 2, 1, 1, 1, 2]


@pytest.mark.parametrize("n_bytes", [0, 3, 4, 7, 20, 60, 200, -3, -9])
def test_truncated_dat(n_bytes: int, importance: dict[str, np.ndarray], tmp_path: Path) -> None:
    path = write_dat(tmp_path / "imatrix.dat", importance)
    path.write_bytes(path.read_bytes()[:n_bytes])
    with pytest.raises(kollama.FormatError, match=r"imatrix\.dat"):
        read_importance(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda array: array[:-1], "255 values for blk.0.ffn_up.weight, which needs 256"),
        (lambda array: -array, "finite and at least 0"),
        (lambda array: array * np.float32("nan"), "finite and at least 0"),
        (lambda array: array * np.float32("inf"), "finite and at least 0"),
        (lambda array: [], "finite and at least 0"),
        (lambda array: ["no"], "no numbers"),
    ],
)
def test_importance_that_does_not_fit(change: Callable[[np.ndarray], object], reason: str, source: Path,
                                      importance: dict[str, np.ndarray], tmp_path: Path) -> None:
    values = importance | {"blk.0.ffn_up.weight": change(importance["blk.0.ffn_up.weight"])}
    with pytest.raises(kollama.ArgumentError, match=reason):
        quantize(source, tmp_path / "out.gguf", "iq2_xs", imatrix=values)
    assert list(tmp_path.iterdir()) == []


def test_files_that_are_no_importance_matrix(source: Path, importance: dict[str, np.ndarray], tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    with pytest.raises(kollama.FormatError, match="no importance matrix"):
        quantize(source, out, "q4_k", imatrix=source)
    with pytest.raises(kollama.ModelNotFoundError):
        quantize(source, out, "q4_k", imatrix=tmp_path / "nothing")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04" + bytes(90))
    with pytest.raises(kollama.FormatError, match="bad.npz"):
        quantize(source, out, "q4_k", imatrix=tmp_path / "bad.npz")
    np.savez(tmp_path / "objects.npz", a=np.array([{}], object))
    with pytest.raises(kollama.FormatError, match="objects.npz"):
        quantize(source, out, "q4_k", imatrix=tmp_path / "objects.npz")


# ---- what cannot be done ---------------------------------------------------------------------------

@pytest.mark.parametrize(
    ("kind", "options", "error", "reason"),
    [
        ("q4_2", {}, ValueError, "type is 'q4_2'; it can be f32, f16"),
        ("q8_k", {}, ValueError, "type is 'q8_k'"),
        ("q4_0\0", {}, ValueError, "type is"),
        (4, {}, TypeError, "type must be the name"),
        ("q4_0", {"output_type": "i32"}, ValueError, "output_type is 'i32'"),
        ("q4_0", {"embedding_type": "q8_1"}, ValueError, "embedding_type is 'q8_1'"),
        ("q4_0", {"embedding_type": "iq2_xxs"}, ValueError, "token_embd.weight as iq2_xxs needs an importance matrix"),
        ("q4_0", {"output_type": "iq1_s"}, ValueError, "output.weight as iq1_s needs an importance matrix"),
        ("q4_0", {"tensor_types": {"ffn_up": "iq2_xs"}}, ValueError, "needs an importance matrix"),
        ("q4_0", {"tensor_types": {"ffn_up": "copy"}}, ValueError, "tensor_types"),
        ("q4_0", {"tensor_types": {"nowhere": "q8_0"}}, ValueError, "found in the name of no tensor"),
        ("q4_0", {"tensor_types": {"(": "q8_0"}}, ValueError, "no regular expression"),
        ("q4_0", {"tensor_types": {"(" * 5000 + ")" * 5000: "q8_0"}}, ValueError, "tensor_types"),
        ("f16", {"tensor_types": {"ffn_up": "q8_0"}}, ValueError, "tensor_types: has no meaning with the type f16"),
        ("copy", {"pure": True, "output_type": "q8_0"}, ValueError, "output_type, pure: has no meaning"),
        ("q4_0", {"leave_output": True, "output_type": "q8_0"}, ValueError, "exclude"),
        ("q4_0", {"n_threads": 0}, ValueError, "n_threads"),
        ("q4_0", {"n_threads": 10**9}, ValueError, "n_threads"),
        ("q4_0", {"pure": 1}, TypeError, "pure"),
        ("q4_0", {"progress": 1}, TypeError, "progress"),
        ("q4_0", {"prune_layers": [0]}, TypeError, "prune_layers"),
    ],
)
def test_refused(kind: str, options: dict[str, object], error: type[Exception], reason: str, source: Path, tmp_path: Path) -> None:
    with pytest.raises(error, match=reason):
        kollama.quantize(source, tmp_path / "out.gguf", kind, **options)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_sources_that_cannot_be_quantized(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    with pytest.raises(kollama.ModelNotFoundError):
        quantize(tmp_path / "nothing", out, "q4_0")
    with pytest.raises(kollama.ModelLoadError, match="directory"):
        quantize(tmp_path, out, "q4_0")
    with pytest.raises(kollama.FormatError, match="2023"):
        quantize(tiny.write_legacy_vocabulary(tmp_path / "old.bin"), out, "q4_0")
    (tmp_path / "cut.gguf").write_bytes(source.read_bytes()[:-5])
    with pytest.raises(kollama.FormatError, match="truncated"):
        quantize(tmp_path / "cut.gguf", out, "q4_0")
    with pytest.raises(kollama.ModelLoadError, match="unknown model architecture"):
        quantize(tiny.write_llama(tmp_path / "odd.gguf", architecture="hangeul"), out, "q4_0")
    quantize(source, tmp_path / "q8.gguf", "q8_0")
    with pytest.raises(kollama.ArgumentError, match="q8_0 already"):
        quantize(tmp_path / "q8.gguf", out, "q4_0")
    with pytest.raises(kollama.ArgumentError, match="dry run"):
        quantize(source, None, "q4_0")
    assert not out.exists()


def test_odd_rows_fall_back_as_in_llama_cpp(tmp_path: Path) -> None:
    src = tiny.write_llama(tmp_path / "f32.gguf", n_embd=96)  # no multiple of 256; n_ff is 192
    done = quantize(src, tmp_path / "out.gguf", "q4_k_m")
    assert set(done.types) == {"f32", "q5_0", "q8_0"}
    with pytest.raises(kollama.ArgumentError, match="rows of 96 weights, which q6_K does not fit"):
        quantize(src, tmp_path / "out.gguf", "q4_k_m", output_type="q6_k")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
@pytest.mark.parametrize("where", ["blk.0.ffn_down.weight", "output_norm.weight"])
def test_weight_that_is_no_number(value: str, where: str, source: Path, tmp_path: Path) -> None:
    src = changed(source, tmp_path / "src.gguf", where, lambda array: array.__setitem__(-1, float(value)))
    for kind in ("q4_k_m", "copy"):
        with pytest.raises(kollama.FormatError, match=f"'{where}' holds a weight that is no finite number"):
            quantize(src, tmp_path / "out.gguf", kind)
    assert not (tmp_path / "out.gguf").exists()


def changed(source: Path, path: Path, name: str, change: Callable[[np.ndarray], object]) -> Path:
    path.write_bytes(source.read_bytes())
    reader = gguf.GGUFReader(path, "r+")
    change(next(tensor for tensor in reader.tensors if tensor.name == name).data.reshape(-1))
    reader.data.flush()
    return path


def test_wild_numbers_end_no_process(source: Path, importance: dict[str, np.ndarray], tmp_path: Path) -> None:
    """Huge, tiny and zero weights and importances: a file or an error, for every type."""
    def spoil(array: np.ndarray) -> None:
        array[:] = np.resize(np.float32([1e38, -1e38, 1e-45, 0, 1e-38, -3e38, 1, 65504, 1e5]), array.size)

    huge = {name: np.resize(np.float32([3e38, 0, 1e-45, 1]), values.size) for name, values in importance.items()}
    spoilt = changed(source, tmp_path / "spoilt.gguf", "blk.0.attn_q.weight", spoil)
    tame = {name: np.full(values.size, np.float32(1e-30)) for name, values in importance.items()}
    for kind in [kind for kind in LLAMA_FTYPES if kind not in ("f32", "f16", "bf16")]:
        for src, values in ((spoilt, huge), (source, huge), (spoilt, tame)):
            reason = failure_of(src, tmp_path / "out.gguf", kind, values)
            assert reason is None or "too large" in reason or "ASSERT" in reason or "fatal" in reason


def failure_of(src: Path, dst: Path, kind: str, values: dict[str, np.ndarray]) -> str | None:
    try:
        quantize(src, dst, kind, imatrix=values)
    except (kollama.FormatError, kollama.EngineError) as error:
        return str(error)
    return None


# ---- whole or not at all ---------------------------------------------------------------------------

def test_a_file_from_before_stays_until_the_end(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    out.write_bytes(b"before")
    seen: list[bytes] = []
    with pytest.raises(kollama.AbortedError, match="stopped"):
        quantize(source, out, "q4_0", progress=lambda done: seen.append(out.read_bytes()) or done < 0.5)
    assert set(seen) == {b"before"}
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]
    before = source.read_bytes()
    with pytest.raises(kollama.ArgumentError, match="source itself"):
        quantize(source, source, "q4_0")
    assert source.read_bytes() == before


def test_progress(source: Path, tmp_path: Path) -> None:
    seen: list[float] = []
    quantize(source, tmp_path / "out.gguf", "q4_0", progress=seen.append)
    assert seen == sorted(set(seen))
    assert seen[0] == 0 and seen[-1] == 1 and len(seen) >= 8

    def fail(done: float) -> None:
        raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine"):
        quantize(source, tmp_path / "failed.gguf", "q4_0", progress=fail)
    assert [path.name for path in tmp_path.iterdir()] == ["out.gguf"]


def run(code: str, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code), *map(str, arguments)],
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(sys.platform == "win32", reason="limits of a process are POSIX's")
def test_full_disk(source: Path, tmp_path: Path) -> None:
    code = """
    import resource, sys, kollama
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000)) # Python ignores SIGXFSZ
    try:
        kollama.quantize(sys.argv[1], sys.argv[2], "q8_0", n_threads=1)
    except kollama.WriteError as error:
        print(error)
    """
    child = run(code, source, tmp_path / "out.gguf")
    text, errors = child.communicate(timeout=120)
    assert (text, errors) == (f"{tmp_path / 'out.gguf'}: cannot be written: File too large\n", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_without_threads(source: Path, tmp_path: Path) -> None:
    """Where no thread can be had, the calling one does the work."""
    code = """
    import resource, sys, kollama

    def starve(done):
        if done > 0:
            return
        with open("/proc/self/statm") as file:
            pages = int(file.read().split()[0])
        size = pages * resource.getpagesize() + (6 << 20) # less than the stack of a thread
        resource.setrlimit(resource.RLIMIT_AS, (size, size))

    kollama.quantize(sys.argv[1], sys.argv[2], "q4_0", n_threads=4, progress=starve)
    """
    child = run(code, source, tmp_path / "starved.gguf")
    assert child.communicate(timeout=120) == ("", "")
    quantize(source, tmp_path / "out.gguf", "q4_0")
    assert (tmp_path / "starved.gguf").read_bytes() == (tmp_path / "out.gguf").read_bytes()


SLOW = """
import sys, kollama
print("begun", flush=True)
kollama.quantize(sys.argv[1], sys.argv[2], sys.argv[4], n_threads=1, imatrix=sys.argv[3])
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A source, with its importance matrix, whose quantization takes longer than a test waits."""
    folder = tmp_path_factory.mktemp("large")
    src = tiny.write_llama(folder / "f32.gguf", n_embd=1024)
    values = {tensor.name: np.ones(tensor.shape[-1], np.float32)
              for tensor in kollama.inspect(src).tensors if len(tensor.shape) == 2}
    return src, write_dat(folder / "imatrix.dat", values)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(
    ("number", "kind"),  # iq1_m: in the middle of making its tables, too
    [(signal.SIGINT, "q2_k_s"), (signal.SIGINT, "iq1_m"), (signal.SIGKILL, "q2_k_s")])
def test_signals(number: signal.Signals, kind: str, large: tuple[Path, Path], tmp_path: Path) -> None:
    child = run(SLOW, large[0], tmp_path / "out.gguf", large[1], kind)
    assert child.stdout is not None and child.stdout.readline() == "begun\n"
    deadline = time.monotonic() + 60
    while not any(path.stat().st_size for path in tmp_path.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(number)
    sent = time.monotonic()
    _, errors = child.communicate(timeout=60)
    assert time.monotonic() - sent < 5
    left = [path.name for path in tmp_path.iterdir()]
    if number == signal.SIGKILL:
        assert child.returncode == -signal.SIGKILL
        assert [name.endswith(".part") for name in left] == [True]
    else:
        assert errors.rstrip().endswith("KeyboardInterrupt")
        assert left == []


def test_cancelling_waits_for_no_tensor(large: tuple[Path, Path], tmp_path: Path) -> None:
    """The bytes are counted while a tensor is under way, and the interpreter runs meanwhile."""
    seen: list[float] = []
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    with pytest.raises(kollama.AbortedError):
        quantize(large[0], tmp_path / "out.gguf", "q2_k_s", imatrix=large[1],
                 progress=lambda done: seen.append(done) or not stop.is_set())
    assert len(seen) > 3


# ---- command line ----------------------------------------------------------------------------------

def test_command(source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.gguf"
    flags = ["--n-threads", "1", "--tensor-type", "ffn_up=q8_0", "--output-type", "Q5_0"]
    assert main(["quantize", str(source), str(out), "Q4_0", *flags]) == 0
    assert f"file         {out}" in capsys.readouterr().out
    assert main(["quantize", "--dry-run", "--json", str(source), "q4_0", *flags]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["size_after"] == out.stat().st_size
    assert {tensor["type"] for tensor in found["tensors"]} == {"f32", "q4_0", "q5_0", "q8_0"}
    assert main(["quantize", str(source), str(out), "q4_9"]) == 1
    assert capsys.readouterr().err.startswith("kollama: type is 'q4_9'; it can be")
    assert main(["quantize", "--dry-run", str(source), "iq1_s"]) == 0
    assert "needs an importance matrix" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [out]
