"""Every mistake gets its exception, and the process goes on: each row of misuses.py in a process of its own."""

from __future__ import annotations

import subprocess
import textwrap
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import misuses
import pytest
import tiny
from conftest import limits_memory
from test_process import run

CODE = """
try:
{code}
except BaseException as error:
    caught = error.__class__
    del error
    gc.collect()
else:
    caught = None
expected = {expected!r}
assert (caught.__name__ if caught else "") in expected.split("|"), f"{{caught}} where {{expected or 'nothing'}} was due"
if caught and caught.__module__.startswith("kollama"):
    assert issubclass(caught, kollama.KollamaError)
"""

Outcomes = Callable[[str], subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest, tiny_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Outcomes]:
    """By row, of those that were asked for. They run two at a time, since most of a row's time is an interpreter's start."""
    other = tiny.write_llama(tmp_path_factory.mktemp("other") / "other.gguf", n_embd=32)

    def go(expected: str, code: str) -> subprocess.CompletedProcess[str]:
        body = CODE.format(code=textwrap.indent(code.strip(), "    "), expected=expected)
        return run(misuses.SETUP + body + misuses.STILL_WORKS, tiny_path, other)

    wanted = {item.callspec.params.get("name") for item in request.session.items if hasattr(item, "callspec")}
    with ThreadPoolExecutor(2) as pool:
        futures: dict[str, Future[subprocess.CompletedProcess[str]]] = {
            name: pool.submit(go, expected, code) for name, expected, code in misuses.ROWS if name in wanted}
        yield lambda name: futures[name].result()


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=limits_memory) if "RLIMIT_AS" in code or name == "n_ctx beyond memory" else name
    for name, _, code in misuses.ROWS])
def test_misuse(outcomes: Outcomes, name: str) -> None:
    done = outcomes(name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", ""), done.stderr[-2000:] or done


def test_the_table_is_long_and_its_names_differ() -> None:
    assert len({name for name, _, _ in misuses.ROWS}) == len(misuses.ROWS) >= 60
