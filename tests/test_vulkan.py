"""The plugin kollama-vulkan, on whatever Vulkan there is: Mesa's software driver will do."""

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

pytestmark = pytest.mark.skipif(not backend_loaded("Vulkan"), reason="the plugin kollama-vulkan is not installed: pip install 'kollama[vulkan]'")

# ggml leaves software drivers out unless they are named.
ENVIRONMENT = os.environ | {"GGML_VK_VISIBLE_DEVICES": "0", "KOLLAMA_PLUGINS": "vulkan"}

LOGITS = """
import sys, numpy, kollama
if not any(device.backend == "Vulkan" for device in kollama.devices()):
    sys.exit("no device")
with kollama.Model(sys.argv[1], n_gpu_layers="auto") as model, model.context(n_ctx=128, n_threads=1) as ctx, ctx.sequence() as seq:
    assert model.n_gpu_layers == model.n_layer + 1
    seq.append([1, *range(3, 43)])
    prompt = seq.logits.copy()
    for token in (50, 60, 70):
        seq.append([token])
    numpy.save(sys.argv[2], [prompt, seq.logits])
"""


@pytest.mark.parametrize("kind", ["f16", "q4_0"])  # a minute each on a software driver
def test_logits_are_those_of_the_cpu(tmp_path: Path, kind: str) -> None:
    tiny.write_llama(tmp_path / "f32.gguf", n_embd=256)
    kollama.quantize(tmp_path / "f32.gguf", path := tmp_path / f"{kind}.gguf", kind)
    done = subprocess.run([sys.executable, "-c", LOGITS, str(path), str(tmp_path / "logits.npy")], text=True,
                          capture_output=True, timeout=300, check=False, env=ENVIRONMENT)
    if "no device" in done.stderr:
        pytest.skip("no Vulkan driver here (Debian: mesa-vulkan-drivers)")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    prompt, steps = np.load(tmp_path / "logits.npy")
    with kollama.Model(path) as model, model.context(n_ctx=128, n_threads=1) as ctx, ctx.sequence() as seq:
        seq.append([1, *range(3, 43)])
        assert np.abs(seq.logits - prompt).max() < 0.05 * np.abs(prompt).max()
        for token in (50, 60, 70):
            seq.append([token])
        assert np.abs(seq.logits - steps).max() < 0.05 * np.abs(steps).max()
