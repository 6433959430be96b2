#!/usr/bin/env python3
"""Opens damaged model files by the thousand and says which crash, hang or eat memory.

    python scripts/mutate.py [--kind gguf] [--count 20000] [--first 0] [--keep FOLDER]

Each file is opened as a model, as a vocabulary alone and as a tokenizer, in child processes; one
that loads decodes two tokens. File i of a seed is the same in every run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests"
sys.path.insert(0, str(TESTS))


def main() -> int:
    import hostile

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", choices=hostile.KINDS, default="gguf")
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="where to put the files that fail")
    options = parser.parse_args()
    outcomes: Counter[str] = Counter()
    failures = 0
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for report in hostile.open_all(Path(folder), options.first, options.count, options.kind):
            outcomes[report.outcome] += 1
            if sum(outcomes.values()) % 1000 == 0:
                print(f"{sum(outcomes.values())} of {options.count}", file=sys.stderr)
            if report.fails:
                failures += 1
                print(f"{report.index}: {report.describe()}", flush=True)
                if options.keep:
                    options.keep.mkdir(parents=True, exist_ok=True)
                    data = hostile.make(report.index, options.kind)
                    (options.keep / f"{options.kind}-{report.index}").write_bytes(data)
    print(json.dumps(outcomes.most_common(), indent=1))
    print(f"{options.count} files in {time.monotonic() - begun:.0f} s, {failures} failed")
    return failures > 0


if __name__ == "__main__":
    sys.exit(main())
