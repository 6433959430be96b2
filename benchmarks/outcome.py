"""What a script measured beside what is to be reached: the same words from all of them."""

from __future__ import annotations

import json
import os
import shlex
import statistics
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import kollama

# report.py names a file here for what it puts together.
FILE = os.environ.get("KOLLAMA_OUTCOMES")


@dataclass(frozen=True)
class Outcome:
    """One row of what is to be reached. What counts is the median of the values."""

    what: str
    reach: float
    values: tuple[float, ...]  # one for each pair, or each measurement
    at_most: bool = False  # reach is not to be exceeded
    digits: int = 2

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def reached(self) -> bool:
        return self.median <= self.reach if self.at_most else self.median >= self.reach

    def spread(self) -> str:
        return spread(self.values, self.digits)

    def goal(self) -> str:
        return f"{'≤' if self.at_most else '≥'} {self.reach:g}"


def spread(values: Iterable[float], digits: int = 2) -> str:
    """Median (range)."""
    found = sorted(values)
    middle = statistics.median(found)
    return f"{middle:.{digits}f} ({found[0]:.{digits}f}-{found[-1]:.{digits}f})"


def heading(*facts: str) -> str:
    """How a report begins: what was called, of which versions, and more facts."""
    versions = f"kollama {kollama.__version__}, llama.cpp {kollama.llama_version()}"
    return "\n".join([f"- command: `python {shlex.join(sys.argv)}`",
                      f"- {'; '.join([versions, *facts])}"])


def tell(outcomes: Iterable[Outcome]) -> str:
    """A line on what was reached, to print last; the numbers go to report.py where it asks."""
    outcomes = list(outcomes)
    if FILE:
        with Path(FILE).open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in outcomes)
    missed = [f"{one.what} ({one.median:.{one.digits + 1}f}, to reach {one.goal()})"
              for one in outcomes if not one.reached]
    return f"Not reached: {'; '.join(missed)}." if missed else "All that is to be reached was."


def read(path: Path) -> list[Outcome]:
    """What `tell` left there."""
    lines = path.read_text("utf-8").splitlines() if path.exists() else []
    return [Outcome(**{key: tuple(value) if key == "values" else value
                       for key, value in json.loads(line).items()}) for line in lines]
