"""Generation while other processes want the cores: fewer threads compute, steps are given up and done again."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import kollama

BUSY_S = 2.0  # of generation beside the neighbours


@contextmanager
def neighbours() -> Iterator[None]:
    code = "import time; end = time.time() + 60\nwhile time.time() < end: pass"  # in case nobody ends it
    busy = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(os.cpu_count() or 1)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def test_text_beside_busy_neighbours(tiny_path: Path) -> None:
    n_threads = max(2, kollama.default_threads())
    with kollama.LLM(tiny_path, n_ctx=128, n_threads=n_threads) as llm, llm.model.context(n_threads=n_threads) as context:
        text = llm.complete("대한민국", max_tokens=100, temperature=0, ignore_eos=True).text
        sequence = context.sequence()
        tokens = llm.tokenizer.encode("대한민국의 수도는 서울이다.")
        rows = []
        for token in tokens:
            sequence.append([token])
            rows.append(sequence.logits.copy())
        with neighbours():
            end = time.monotonic() + BUSY_S
            while time.monotonic() < end:
                assert llm.complete("대한민국", max_tokens=100, temperature=0, ignore_eos=True).text == text
                sequence.clear()
                for i, token in enumerate(tokens):
                    sequence.append([token])
                    assert len(sequence) == i + 1
                    assert (sequence.logits == rows[i]).all()
        assert llm.complete("대한민국", max_tokens=100, temperature=0, ignore_eos=True).text == text
