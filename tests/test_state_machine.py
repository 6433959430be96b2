"""Random calls beside a model of what they must do, and memory over many loads: machine.py, in slices.

KOLLAMA_MACHINE_SECONDS makes the slice longer: 3600 is an hour's worth.
"""

from __future__ import annotations

import os
from pathlib import Path

import machine
import pytest
from test_process import run, silent

SLICE_S = 20


def test_random_calls_do_what_their_model_says(tiny_path: Path) -> None:
    calls = machine.run_for(float(os.environ.get("KOLLAMA_MACHINE_SECONDS", SLICE_S)), tiny_path)
    print(f"{calls.total()} calls")
    assert calls.total() > 100


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.skipif("sanitize" in os.environ.get("PYTHONPATH", ""), reason="a sanitizer keeps freed memory for a while")
def test_memory_stays_flat(tiny_path: Path) -> None:
    code = """
    import gc, os, sys, kollama
    from kollama._core.runtime import live_handles

    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def cycle(i):
        llm = kollama.LLM(sys.argv[1], n_ctx=64, n_parallel=2, n_threads=2 if i % 50 == 0 else 1)
        llm.complete("대한민국", max_tokens=3, ignore_eos=True, logprobs=2, grammar="root ::= .*")
        stream = llm.generate("a")
        next(stream)
        ctx = llm.model.context(n_ctx=32, n_threads=1)
        seq = ctx.sequence()
        seq.append([1, 5])
        row = seq.logits
        seq.restore(seq.state())
        if i % 2:  # by hand, or by collection
            stream.close(); ctx.close(); llm.close()

    for i in range(100):
        cycle(i)
    gc.collect()
    before = resident()
    for i in range(500):
        cycle(i)
    gc.collect()
    grown = resident() - before
    assert grown < 4 << 20, f"{grown} bytes more after 500 cycles"
    assert not any(live_handles().values()), live_handles()
    """
    done = run(code, tiny_path)
    assert silent(done), done
