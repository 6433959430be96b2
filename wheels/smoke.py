"""What every installed wheel must do: devices, Korean text to tokens and back, one generation.

    python wheels/smoke.py [MODEL]

Prints the tokens, and on stderr which CPU library was loaded, where that can be known. Without a
MODEL tests/tiny.py makes one, which needs the gguf package; else no more than kollama is needed.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

import kollama


def cpu_library() -> str:
    maps = Path("/proc/self/maps")
    text = maps.read_text(errors="replace") if maps.exists() else ""
    return ", ".join(sorted(set(re.findall(r"kollama-(ggml-cpu[^/]*)\.so", text)))) or "unknown"


def try_with(model: str | Path) -> None:
    assert any(device.type == "cpu" for device in kollama.devices())
    with kollama.LLM(model, n_ctx=64, n_threads=2) as llm:
        text = "대한민국의 수도는"
        assert llm.tokenizer.decode(llm.tokenizer.encode(text)) == text
        done = llm.complete(text, max_tokens=8, ignore_eos=True, temperature=0)
    assert len(done.tokens) == 8
    print(*done.tokens)
    print(cpu_library(), file=sys.stderr)


def main() -> int:
    if len(sys.argv) > 1:
        try_with(sys.argv[1])
        return 0
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
    import tiny

    with tempfile.TemporaryDirectory() as folder:
        try_with(tiny.write_llama(Path(folder) / "tiny.gguf"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
