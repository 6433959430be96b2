"""What `import kollama` costs beyond the import of NumPy, in processes of their own, in turns."""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import sys

import generate

import kollama

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
    print(f"- command: `python {shlex.join(sys.argv)}`\n- kollama {kollama.__version__}, "
          f"Python {sys.version.split()[0]}, {args.times} times each; to reach: {REACH_MS} ms\n\n"
          "| import, NumPy being there | ms, median (range) |\n|---|--:|")
    for name, times in found.items():
        print(f"| `{name}` | {statistics.median(times):.1f} ({min(times):.1f}-{max(times):.1f}) |")


if __name__ == "__main__":
    main()
