"""The plugin kollama-blas: float weights by OpenBLAS, and nothing but those."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny

import kollama
from kollama._core.runtime import backend_loaded

pytestmark = pytest.mark.skipif(not backend_loaded("BLAS"), reason="the plugin kollama-blas is not installed: pip install 'kollama[blas]'")

LOGITS = """
import sys, numpy, kollama
with kollama.Model(sys.argv[1]) as model, model.context(n_ctx=256, n_threads=2) as ctx, ctx.sequence() as seq:
    seq.append([1, *range(3, 103)])
    numpy.save(sys.argv[2], seq.logits)
    print(*(device.name for device in kollama.devices()))
"""


def logits(model: Path, out: Path, plugins: str) -> np.ndarray:
    done = subprocess.run([sys.executable, "-c", LOGITS, str(model), str(out)], text=True, capture_output=True, timeout=120,
                          check=True, env=os.environ | {"KOLLAMA_PLUGINS": plugins})
    assert ("BLAS" in done.stdout) == (plugins == "blas")
    return np.load(out)


def test_it_is_an_accelerator() -> None:
    (found,) = (device for device in kollama.devices() if device.backend == "BLAS")
    assert (found.type, found.description) == ("accel", "OpenBLAS")


@pytest.mark.parametrize("kind", ["f32", "f16", "bf16", "q4_0", "q4_1", "q5_1", "q8_0", "q4_k_m", "q6_k"])
def test_prompts(tmp_path: Path, kind: str) -> None:
    path = tiny.write_llama(tmp_path / "f32.gguf", n_embd=256)
    if kind != "f32":
        kollama.quantize(path, tmp_path / f"{kind}.gguf", kind)
        path = tmp_path / f"{kind}.gguf"
    with_it, without = logits(path, tmp_path / "a.npy", "blas"), logits(path, tmp_path / "b.npy", "")
    if kind in ("f32", "f16", "bf16"):
        assert np.abs(with_it - without).max() < 0.03 * np.abs(without).max()
        assert (with_it != without).any(), "computed by somebody else"
    else:
        # The token embeddings of a few mixes are floats, but no product has them.
        assert (with_it == without).all(), "quantized weights are no business of a BLAS"
