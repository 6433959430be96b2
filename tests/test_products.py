"""The products of csrc/products beside those of ggml's CPU backend. In subprocesses: the choice is a
process's."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny

import kollama

TIMEOUT_S = 120
LENGTHS = [1, 2, 3, 4, 5, 8, 9, 16, 17, 63, 64, 100]
TYPES = ["q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "f16", "q6_k"]
FEW = 8  # csrc/products/product.h
IN_FEW_COLUMNS_ONLY = "q6_k"  # and with AVX-512 alone: else ggml computes it

CODE = """
import json, logging, sys
import kollama
logging.basicConfig(stream=sys.stderr, level=logging.INFO)
model = kollama.Model(sys.argv[1])
rows = []
with model, model.context(n_ctx=1024, n_seq_max=6, n_threads=int(sys.argv[2])) as context:
    for length in json.loads(sys.argv[3]):
        with context.sequence() as sequence:
            sequence.append([1] + [3 + 7 * i % 250 for i in range(length - 1)])
            rows.append(sequence.logits.tolist())
with kollama.LLM(sys.argv[1], n_ctx=1024, n_parallel=5, n_threads=int(sys.argv[2])) as llm:
    # five at a time: the output's odd number of rows, times five columns
    streams = [llm.generate(text, max_tokens=2, temperature=0, logprobs=20, ignore_eos=True)
               for text in ("a", "b", "c", "가", "나")]
    for stream in streams:
        stream.start()
    firsts = [dict(next(stream).top_logprobs) for stream in streams]
print(json.dumps([rows, firsts, [device.name for device in kollama.devices()]]))
"""


@dataclass
class Outcome:
    rows: list[list[float]]  # logits after prompts of LENGTHS
    firsts: list[dict[str, float]]  # logprobs by token, after five texts at a time
    devices: list[str]
    splits: int  # of a graph, between backends


def run(path: Path, products: str, threads: int = 2) -> Outcome:
    command = [sys.executable, "-c", CODE, str(path), str(threads), json.dumps(LENGTHS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False,
                          env=os.environ | {"KOLLAMA_PRODUCTS": products})
    assert done.returncode == 0, done.stderr
    splits = re.search(r"splits = (\d+)", done.stderr)
    assert splits is not None
    return Outcome(*json.loads(done.stdout), int(splits[1]))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("products")
    plain = tiny.write_llama(folder / "plain.gguf", n_embd=160, n_head=5)
    wide = tiny.write_llama(folder / "wide.gguf", n_embd=256, n_head=8)  # a block of Q6_K
    paths = {}
    for name in TYPES:
        paths[name] = folder / f"{name}.gguf"
        kollama.quantize(wide if name == IN_FEW_COLUMNS_ONLY else plain, paths[name], name, pure=True)
    return paths


def distance(a: list[float], b: list[float]) -> float:
    return float(np.sqrt(np.mean(np.subtract(a, b) ** 2)) / np.std(b))


@pytest.fixture(scope="module")
def has_products() -> bool:
    return [device.name for device in kollama.devices()] == ["kollama", "CPU"]


def has_avx512() -> bool:
    cpu = Path("/proc/cpuinfo")
    return cpu.exists() and "avx512_vnni" in cpu.read_text()


@pytest.mark.parametrize("name", TYPES)
def test_as_ggml_computes_them(models: dict[str, Path], has_products: bool, name: str) -> None:
    theirs = run(models[name], "0")
    assert "kollama" not in theirs.devices
    if not has_products:
        pytest.skip("this CPU has none of the instruction sets, or a GPU or a BLAS is there")
    for products, threads in (("", 3), ("avx2", 2)):
        ours = run(models[name], products, threads)
        assert ours.devices == ["kollama", "CPU"]
        assert ours.splits == theirs.splits == 1  # a graph is handed over whole
        for length, a, b in zip(LENGTHS, ours.rows, theirs.rows, strict=True):
            # The order of a sum can turn the rounding of an activation, once in thousands; a weight
            # in a wrong place gives 1.4.
            assert distance(a, b) < 0.05, (products, threads, length)
            if name != IN_FEW_COLUMNS_ONLY or (length <= FEW and products == "" and has_avx512()):
                assert a != b, "ggml computed it"
        for first, other in zip(ours.firsts, theirs.firsts, strict=True):
            both = first.keys() & other.keys()
            assert len(both) >= 18  # of 20: the last may be as likely as the next
            assert all(abs(first[token] - other[token]) < 0.2 for token in both)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("n_read", [1, 700])
def test_few_columns_are_what_one_is(models: dict[str, Path], has_products: bool, name: str, n_read: int) -> None:
    """Logits do not depend on how many tokens are read at a time, up to FEW: what drafting rests on.

    With quantized weights up to 63: from 64 on ggml's own attention takes them. From 512 tokens on
    it reads the K/V memory of a single row in parts.
    """
    if not has_products:
        pytest.skip("this CPU has none of the instruction sets")
    tokens = [1] + [3 + 7 * i % 250 for i in range(n_read + 47)]
    rows = []
    with (kollama.Model(models[name]) as model,
          model.context(n_ctx=1024, n_threads=1) as context):  # pace may change how many there are
        few_only = name in {"f16", IN_FEW_COLUMNS_ONLY}
        for n in (1, 2, 3, FEW) if few_only else (1, 2, 3, FEW, 12, 24):
            with context.sequence() as sequence:
                sequence.append(tokens[:n_read])
                for first in range(n_read, len(tokens), n):
                    sequence.append(tokens[first:first + n])
                    if first + n - n_read in (24, 48):
                        rows.append(np.array(sequence.logits))
    assert len(rows) == (8 if few_only else 12)
    for here, there in zip(rows[2:], rows[:2] * (len(rows) // 2 - 1), strict=True):
        np.testing.assert_array_equal(here, there)


@pytest.mark.parametrize("name", TYPES)
def test_threads_do_not_change_a_row(models: dict[str, Path], has_products: bool, name: str) -> None:
    """However many share the rows of one product: also more than it has groups of rows."""
    if not has_products:
        pytest.skip("this CPU has none of the instruction sets")
    rows = []
    with kollama.Model(models[name]) as model:
        for n_threads in (1, 2, 3, 7, 48):
            with model.context(n_ctx=64, n_threads=n_threads) as context, context.sequence() as sequence:
                for token in (1, 10, 100, 200):
                    sequence.append([token])
                rows.append(np.array(sequence.logits))
    for row in rows[1:]:
        np.testing.assert_array_equal(row, rows[0])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_no_number_stays_none(models: dict[str, Path], has_products: bool, tmp_path: Path, value: float) -> None:
    """One such activation, in the product that gives the logits: none of them may look like a number."""
    if not (has_products and has_avx512()):
        pytest.skip("ggml computes it, and has numbers")
    path = Path(shutil.copy(models[IN_FEW_COLUMNS_ONLY], tmp_path))
    (norm,) = (t for t in gguf.GGUFReader(path, "r+").tensors if t.name == "output_norm.weight")
    norm.data[3] = value
    norm.data.base.flush()
    with kollama.Model(path) as model, model.context(n_ctx=16, n_threads=1) as context, context.sequence() as sequence:
        sequence.append([1, 77])
        assert not np.isfinite(sequence.logits).any()


def test_q4_0_stays_as_it_lies(models: dict[str, Path], has_products: bool) -> None:
    if not has_products:
        pytest.skip("this CPU has none of the instruction sets")
    with kollama.Model(models["q4_0"]) as model:
        assert model.uses_mmap


def test_rows_that_fill_no_panel(tmp_path: Path, has_products: bool) -> None:
    if not has_products:
        pytest.skip("this CPU has none of the instruction sets")
    plain = tiny.write_llama(tmp_path / "plain.gguf", n_embd=160, n_head=5, n_layer=1)
    path = tmp_path / "q4_1.gguf"
    kollama.quantize(plain, path, "q4_1", pure=True)
    theirs = run(path, "0")
    for products in ("", "avx2"):
        ours = run(path, products)
        assert ours.rows != theirs.rows
        assert max(map(distance, ours.rows, theirs.rows)) < 0.05
