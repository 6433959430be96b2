"""Opens damaged files in a child process, which may die of them; the parent tells how each ended."""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutate_gguf
import mutate_legacy

TIME_LIMIT = 1.0  # seconds; more is a hang
TRIES = 3  # to open a file in that time: others may have the cores
WALL_LIMIT = 30.0  # seconds, after which a child is ended
SPARE_BYTES = 64 << 20  # of memory, beyond twice the file
ADDRESS_SPACE = 16 << 30

KINDS = ("gguf", *mutate_legacy.KINDS)

_seeds: dict[str, list[bytes]] = {}


def make(index: int, kind: str = "gguf") -> bytes:
    """File number index of a kind."""
    if kind not in _seeds:
        with tempfile.TemporaryDirectory() as folder:
            _seeds[kind] = mutate_gguf.seeds(Path(folder)) if kind == "gguf" else mutate_legacy.seeds(Path(folder), kind)
    seeds = _seeds[kind]
    if kind == "gguf":
        return mutate_gguf.damaged(seeds[0 if index % 8 else 1], index)
    return mutate_legacy.damaged(seeds[index % len(seeds)], index)


@dataclass
class Report:
    index: int
    outcome: str  # "loaded", the name of an exception, "crashed" or "hung"
    text: str = ""
    seconds: float = 0.0  # of the wall's clock, or of both threads' work where that is more
    memory: int = 0  # bytes beyond what the process had
    size: int = 0

    @property
    def fails(self) -> bool:
        expected = self.outcome in ("loaded", "FormatError", "ModelLoadError")
        return not expected or self.seconds > TIME_LIMIT or self.memory > 2 * self.size + SPARE_BYTES

    def describe(self) -> str:
        return f"{self.outcome}: {self.text.strip()} ({self.seconds:.2f} s, {self.memory >> 20} MB, file {self.size >> 10} KB)"


def open_all(folder: Path, first: int, count: int, kind: str = "gguf") -> Iterator[Report]:
    """One report for each of the files first to first + count."""
    at = first
    while at < first + count:
        with subprocess.Popen(
            [sys.executable, "-X", "faulthandler", __file__, str(folder), str(at), str(first + count - at), kind],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        ) as child:
            for report in _reports(child):
                at = report.index + 1
                yield report


def _reports(child: subprocess.Popen[str]) -> Iterator[Report]:
    assert child.stdout is not None and child.stderr is not None
    lines: queue.Queue[str | None] = queue.Queue()
    errors: list[str] = []
    threads = [threading.Thread(target=lambda: [*map(lines.put, child.stdout), lines.put(None)], daemon=True),
               threading.Thread(target=lambda: errors.extend(child.stderr), daemon=True)]
    for thread in threads:
        thread.start()
    begun: int | None = None
    while True:
        try:
            line = lines.get(timeout=WALL_LIMIT if begun is not None else 120)
        except queue.Empty:
            child.kill()
            child.wait()
            assert begun is not None, "the child never began"
            yield Report(begun, "hung")
            return
        if line is None:
            break
        found = json.loads(line)
        if "outcome" in found:
            begun = None
            yield Report(**found)
        else:
            begun = found["index"]
    for thread in threads:
        thread.join()
    if begun is not None:
        yield Report(begun, "crashed", f"status {child.wait()}: {''.join(errors)[:200]}")
    else:
        assert child.wait() == 0, "".join(errors)


# ---- the child -----------------------------------------------------------------------------------

def main(folder: Path, first: int, count: int, kind: str) -> None:
    import kollama

    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kollama.devices()  # what a process loads once is no file's
    path = folder / "damaged.gguf"
    _open(path, make(first, kind))
    for index in range(first, first + count):
        data = make(index, kind)
        print(json.dumps({"index": index}), flush=True)
        for _ in range(TRIES):
            report = _open(path, data)
            if report["seconds"] <= TIME_LIMIT:
                break
        print(json.dumps({"index": index, "size": len(data)} | report), flush=True)


def _open(path: Path, data: bytes) -> dict[str, Any]:
    import kollama

    path.write_bytes(data)
    before, begun, begun_work = _memory(reset=True), time.monotonic(), time.process_time()
    outcome, text = "loaded", ""
    for open_it in (lambda: kollama.Tokenizer.from_file(path), lambda: kollama.Model(path, vocab_only=True).close(),
                    lambda: kollama.Model(path).close()):
        try:
            open_it()
        except Exception as error:  # the parent judges
            outcome, text = type(error).__name__, str(error)[:300]
    seconds = max(time.monotonic() - begun, time.process_time() - begun_work)
    report = {"outcome": outcome, "text": text, "seconds": seconds, "memory": _memory() - before}
    if outcome == "loaded":
        _decode(path)
    return report


def _decode(path: Path) -> None:
    import kollama

    try:  # two threads: an assertion on any but the first ends the process
        with kollama.Model(path) as model, model.context(n_ctx=32, n_threads=2) as context:
            context.sequence().append([1, 2])
            model.tokenizer.decode(model.tokenizer.encode("안녕 hello\n"))
    except kollama.KollamaError:
        pass


def _memory(reset: bool = False) -> int:
    """The most bytes that were resident, since the last reset."""
    if sys.platform != "linux":
        return 0
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text()
    key = "VmRSS:" if reset else "VmHWM:"
    return int(status.split(key)[1].split()[0]) << 10


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
