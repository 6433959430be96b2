"""Leaks of kollama's own among those that LeakSanitizer reported: `python scripts/leaks.py REPORT`.

An interpreter that ends leaves much behind, so what counts is who allocated: a block is ours where
a library of kollama stands in the stack before any frame of the interpreter that called it.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

FRAME = re.compile(r"^\s+#\d+ 0x[0-9a-f]+ (?:in )?(.*)$")
OURS = re.compile(r"/kollama/(?:lib|_core)/")
INTERPRETER = re.compile(r"/(?:lib)?python3[^/]*(?:\+|:|\))")


def blocks(text: str) -> Iterator[tuple[str, list[str]]]:
    """(first line, frames) of each leak in a report."""
    for part in re.split(r"\n(?=(?:Direct|Indirect) leak of )", text)[1:]:
        first, _, rest = part.partition("\n")
        frames = []
        for line in rest.splitlines():
            found = FRAME.match(line)
            if not found:
                break
            frames.append(found[1])
        yield first, frames


def is_ours(frames: list[str]) -> bool:
    for frame in frames:
        if OURS.search(frame):
            return True
        if INTERPRETER.search(frame):
            return False
    return False


def main() -> int:
    report = Path(sys.argv[1])
    text = report.read_text("utf-8", "replace") if report.exists() else ""
    seen: Counter[str] = Counter()
    n_blocks = 0
    for first, frames in blocks(text):
        n_blocks += 1
        if is_ours(frames):
            short = (re.sub(r"\+0x[0-9a-f]+|\(BuildId.*", "", frame) for frame in frames[:8])
            seen["\n    ".join([first, *short])] += 1
    for stack, count in seen.most_common():
        print(f"{count} times: {stack}")
    print(f"{n_blocks} blocks left behind, {sum(seen.values())} of them kollama's")
    return 1 if seen else 0


if __name__ == "__main__":
    sys.exit(main())
