"""What `import kollama` costs beyond the import of NumPy, in processes of their own, in turns."""

from __future__ import annotations

import argparse
import subprocess
import sys

import generate
from outcome import Outcome, heading, tell

REACH_MS = 30
CODE = """
import sys, time
import numpy
start = time.perf_counter()
__import__(sys.argv[1])
print(1000 * (time.perf_counter() - start))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("modules", nargs="*", default=["kollama"], metavar="MODULE",
                        help="default: kollama; others that are installed, to compare with")
    parser.add_argument("--times", type=generate.at_least(1), default=20, help="default: 20")
    args = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in args.modules}
    for index in range(-1, args.times):  # the first fills the page cache
        for name, times in found.items():
            done = subprocess.run([sys.executable, "-c", CODE, name], capture_output=True,
                                  text=True, check=True)
            if index >= 0:
                times.append(float(done.stdout))
    print(heading(f"Python {sys.version.split()[0]}, {args.times} times each"))
    print("\n| import, NumPy being there | ms, median (range) |\n|---|--:|")
    outcomes = [Outcome(f"import {name}, ms beyond NumPy's", REACH_MS, tuple(times), at_most=True,
                        digits=1) for name, times in found.items()]
    for name, outcome in zip(found, outcomes, strict=True):
        print(f"| `{name}` | {outcome.spread()} |")
    print(f"\n{tell(outcomes)}")


if __name__ == "__main__":
    main()
