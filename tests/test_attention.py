"""Attention of csrc/products beside ggml's: prompts alone, several in one batch, and beside running streams. In
subprocesses: the choice is a process's."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny

import kollama

TIMEOUT_S = 120
HEADS = {"each its own": (2, 2), "three to one": (6, 2), "all to one": (4, 1)}  # queries', and keys' and values'

ALONE = """
import json, sys
import kollama
with kollama.Model(sys.argv[1]) as model, model.context(n_ctx=1024, n_threads=2) as context:
    rows = []
    for reads in json.loads(sys.argv[2]):
        with context.sequence() as sequence:
            n = 0
            for read in reads:
                sequence.append([1 + (n + i) ** 2 % 250 for i in range(read)])
                n += read
                rows.append(sequence.logits.tolist())
print(json.dumps(rows))
"""

TOGETHER = """
import json, sys
import kollama
lengths = json.loads(sys.argv[2])
prompts = [[1 + (7 * length + i * i) % 250 for i in range(length)] for length in lengths]
options = {"temperature": 0, "ignore_eos": True, "logprobs": 20}
with kollama.LLM(sys.argv[1], n_ctx=512, n_parallel=len(lengths) + 3, n_threads=2) as llm:
    running = [llm.generate([9, 10, 11 + i], max_tokens=400, **options) for i in range(3)]
    for stream in running:
        next(stream)
    streams = [llm.generate(prompt, max_tokens=1, **options) for prompt in prompts]
    for stream in streams:
        stream.start()
    found = [dict(next(stream).top_logprobs) for stream in streams]
    for stream in running:
        stream.close()
print(json.dumps(found))
"""

# Of which each looks at the beginning's cells, which are more than a part, and at a few of its own.
ONE_BEGINNING = """
import json, sys
import kollama
beginning = [1 + i * i % 250 for i in range(300)]
prompts = [beginning + [5 + i] for i in range(json.loads(sys.argv[2]))]
options = {"max_tokens": 40, "temperature": 0, "ignore_eos": True, "logprobs": 5}
def told(tokens):
    return [[token.id, token.top_logprobs] for token in tokens]
with kollama.LLM(sys.argv[1], n_ctx=4096, n_parallel=len(prompts), n_threads=2) as llm:
    llm.complete(beginning, **options)
    alone = [told(llm.generate(prompt, **options)) for prompt in prompts]
    streams = [llm.generate(prompt, **options) for prompt in prompts]
    for stream in streams:
        stream.start()
    together = [[] for stream in streams]
    for _ in range(40):
        for stream, tokens in zip(streams, together):
            tokens.append(next(stream))
print(json.dumps([alone, [told(tokens) for tokens in together]]))
"""


def run(code: str, path: Path, lengths: object, products: str) -> list:
    done = subprocess.run([sys.executable, "-c", code, str(path), json.dumps(lengths)], capture_output=True, text=True,
                          timeout=TIMEOUT_S, check=False, env=os.environ | {"KOLLAMA_PRODUCTS": products})
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module", params=HEADS)
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    n_head, n_head_kv = HEADS[request.param]
    return tiny.write_llama(tmp_path_factory.mktemp("attention") / "tiny.gguf", n_embd=64 * n_head, n_head=n_head, n_head_kv=n_head_kv)


@pytest.fixture(scope="module", autouse=True)
def _needs_products() -> None:
    if [device.name for device in kollama.devices()] != ["kollama", "CPU"]:
        pytest.skip("this CPU has none of the instruction sets, or a GPU or a BLAS is there")


# Rows of one batch that fill no run, one and many; parts of the memory that are not full, and a second batch behind them.
@pytest.mark.parametrize("reads", [[64], [65, 64], [95, 97], [300, 70], [700, 65]], ids=str)
def test_one_prompt_is_as_ggml_computes_it(path: Path, reads: list[int]) -> None:
    theirs = run(ALONE, path, [reads], "0")
    for products in ("", "avx2"):
        ours = run(ALONE, path, [reads], products)
        assert ours != theirs, "ggml computed it"
        np.testing.assert_allclose(ours, theirs, atol=2e-4)  # of some 5


@pytest.mark.parametrize("products", ["", "avx2"])
def test_a_nan_is_seen(tmp_path: Path, products: str) -> None:
    path = tiny.write_llama(tmp_path / "tiny.gguf", n_embd=64, n_head=2)
    file = gguf.GGUFReader(path, "r+")
    next(tensor for tensor in file.tensors if tensor.name == "blk.0.attn_k.weight").data[:] = np.nan
    file.data.flush()
    assert np.isnan(run(ALONE, path, [[1], [100]], products)).all()  # few rows, and a prompt


# Up to 8 rows share out the parts of the memory, and read once what they have in common; more do not.
@pytest.mark.parametrize("n_rows", [2, 7, 12])
@pytest.mark.parametrize("products", ["", "avx2"])
def test_rows_with_one_beginning_are_as_each_alone(path: Path, tmp_path: Path, n_rows: int, products: str) -> None:
    quantized = tmp_path / "q8_0.gguf"  # ggml's own products, of f32, depend on how many rows there are
    kollama.quantize(path, quantized, "q8_0")
    alone, together = run(ONE_BEGINNING, quantized, n_rows, products)
    assert alone == together


# Shorter than a run may be, as long, and longer; with what others have between, in the memory and in the batch.
def test_several_prompts_beside_streams_are_as_ggml_computes_them(path: Path) -> None:
    lengths = [1, 2, 3, 4, 5, 64, 65, 100, 200, 3, 130]
    theirs = run(TOGETHER, path, lengths, "0")
    for products in ("", "avx2"):
        ours = run(TOGETHER, path, lengths, products)
        for a, b in zip(ours, theirs, strict=True):
            both = a.keys() & b.keys()
            assert len(both) >= 17  # of 20: the last may be as likely as the next
            assert all(abs(a[token] - b[token]) < 0.02 for token in both)  # of fewer rows ggml rounds the queries to 16 bits
