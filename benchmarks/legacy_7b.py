"""A Llama-2-ko-7B-shaped q4_0 file of 2023 side by side with the equal GGUF.

Writes both (3.9 GB each, random weights), then runs each in processes of its own: time to open,
speed of a prompt and of generation, resident memory, and what was written meanwhile. Last, the
legacy file once more in a control group of 7 GB, or under `ulimit -v` where none can be had.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gguf
import numpy as np
from outcome import Outcome, heading, tell

import kollama

ROOT = Path(__file__).resolve().parent.parent
SPM = ROOT / "third_party" / "llama.cpp" / "models" / "ggml-vocab-llama-spm.gguf"
N_VOCAB, N_EMBD, N_FF, N_HEAD, N_LAYER = 46336, 4096, 11008, 32, 32
Q4_0, Q6_K, F32 = 2, 14, 0
FTYPE_Q4_0 = 2
LIMIT_BYTES = 7 * 10**9
GB = 1e9
REACH_GB = 0.8


def vocabulary() -> list[tuple[bytes, float]]:
    """Llama-2's 32,000 pieces as convert.py wrote them, and 14,336 of Hangul as added tokens."""
    fields = gguf.GGUFReader(SPM).fields
    scores = fields["tokenizer.ggml.scores"].contents()
    out = []
    for i, piece in enumerate(fields["tokenizer.ggml.tokens"].contents()):
        text = b"" if i < 3 else bytes([i - 3]) if i < 259 else piece.replace("▁", " ").encode()
        out.append((text, scores[i]))
    known = {text for text, _ in out}
    syllables = [chr(c) for c in range(0xAC00, 0xD7A4) if chr(c).encode() not in known]
    words = [*syllables, *("▁" + s for s in syllables)][: N_VOCAB - len(out)]
    return out + [(word.encode(), -1000.0) for word in words]


def blocks(random: np.random.Generator, type_id: int, n: int) -> bytes:
    """Random weights of about 1/sqrt(N_EMBD), in blocks that are not all the same."""
    if type_id == F32:
        return np.ones(n, np.float32).tobytes()
    if type_id == Q4_0:
        out = random.integers(0, 256, (n // 32, 18), np.uint8)
        out[:, :2] = np.array([0.003], np.float16).view(np.uint8)
        return out.tobytes()
    out = random.integers(0, 256, (n // 256, 210), np.uint8)
    out[:, 192:208] = 8  # scales, int8
    out[:, 208:] = np.array([0.0001], np.float16).view(np.uint8)
    return out.tobytes()


def tensors() -> list[tuple[str, tuple[int, ...], int]]:
    """(name, columns and rows, type) in the order of convert.py."""
    out: list[tuple[str, tuple[int, ...], int]] = [
        ("tok_embeddings", (N_EMBD, N_VOCAB), Q4_0),
        ("norm", (N_EMBD,), F32),
        ("output", (N_EMBD, N_VOCAB), Q6_K),
    ]
    of_layer = [
        *((f"attention.w{part}", (N_EMBD, N_EMBD)) for part in "qkvo"),
        ("attention_norm", (N_EMBD,)),
        ("feed_forward.w1", (N_EMBD, N_FF)),
        ("feed_forward.w2", (N_FF, N_EMBD)),
        ("feed_forward.w3", (N_EMBD, N_FF)),
        ("ffn_norm", (N_EMBD,)),
    ]
    for i in range(N_LAYER):
        for name, size in of_layer:
            out.append((f"layers.{i}.{name}", size, Q4_0 if len(size) > 1 else F32))
    return out


def write(path: Path) -> None:
    random = np.random.default_rng(0)
    with path.open("wb") as file:
        tokens = vocabulary()
        header = (3, len(tokens), N_EMBD, 256, N_HEAD, N_LAYER, N_EMBD // N_HEAD, FTYPE_Q4_0)
        file.write(b"tjgg" + struct.pack("<8I", *header))
        for text, score in tokens:
            file.write(struct.pack("<I", len(text)) + text + struct.pack("<f", score))
        for name, size, type_id in tensors():
            full = f"{name}.weight".encode()
            file.write(struct.pack("<3I", len(size), len(full), type_id))
            file.write(struct.pack(f"<{len(size)}I", *size) + full)
            file.write(bytes(-file.tell() % 32))
            file.write(blocks(random, type_id, int(np.prod(size))))


def status(key: str) -> int:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


def measure(path: str, n_prompt: int, n_tokens: int) -> dict[str, float]:
    """One run, in this process."""
    start, work = time.perf_counter(), time.process_time()
    model = kollama.Model(path)
    opened, work = time.perf_counter(), time.process_time() - work
    with model, model.context(n_ctx=1024) as context:
        sequence = context.sequence()
        sequence.append([1])  # the first graph allocates
        ids = np.random.default_rng(1).integers(300, N_VOCAB, n_prompt)
        begin = time.perf_counter()
        sequence.append(ids)
        read = time.perf_counter()
        for _ in range(n_tokens):
            sequence.append([int(sequence.logits.argmax())])
        end = time.perf_counter()
        return {
            "open_s": opened - start,
            "open_cpu_s": work,
            "prompt_tps": n_prompt / (read - begin),
            "generate_tps": n_tokens / (end - read),
            "resident": status("VmRSS"),
            "peak": status("VmHWM"),
        }


def written_bytes() -> int:
    lines = Path("/proc/self/io").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("wchar"))


def child(arguments: argparse.Namespace) -> None:
    if arguments.cgroup:
        Path(arguments.cgroup, "cgroup.procs").write_text(str(os.getpid()), "utf-8")
    if arguments.address_space:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES))
    before = written_bytes()
    result = measure(arguments.measure, arguments.prompt, arguments.tokens)
    print(json.dumps(result | {"written": written_bytes() - before}))


def run(path: Path, arguments: argparse.Namespace, *flags: str) -> dict[str, float]:
    """One run in a process of its own, whose working, temporary and cache folders are watched."""
    command = [sys.executable, str(Path(__file__).resolve()), "--measure", str(path.resolve()),
               "--prompt", str(arguments.prompt), "--tokens", str(arguments.tokens), *flags]
    with tempfile.TemporaryDirectory() as folder:
        homes = {"TMPDIR": folder, "HOME": folder, "XDG_CACHE_HOME": folder}
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder,
                              env=os.environ | homes)
        large = [file for file in Path(folder).rglob("*") if file.stat().st_size > 1 << 20]
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\n{done.stderr}")
    result: dict[str, float] = json.loads(done.stdout)
    return result | {"large_files": len(large)}


def make_cgroup() -> str | None:
    """A control group below our own that may hold LIMIT_BYTES; None: not allowed here."""
    for line in Path("/proc/self/cgroup").read_text("utf-8").splitlines():
        _, kinds, path = line.split(":", 2)
        if kinds not in ("", "memory"):
            continue
        base = "/sys/fs/cgroup" + ("/memory" if kinds else "")
        limit = "memory.limit_in_bytes" if kinds else "memory.max"
        group = Path(base + path, f"kollama-{os.getpid()}")
        try:
            group.mkdir()
            (group / limit).write_text(str(LIMIT_BYTES), "utf-8")
            return str(group)
        except OSError:
            if group.is_dir():
                group.rmdir()
    return None


def compare(arguments: argparse.Namespace) -> None:
    legacy = arguments.folder / "llama-2-ko-7b-q4_0.bin"
    todays = legacy.with_suffix(".gguf")
    if not legacy.exists():
        write(legacy)
    if not todays.exists():
        kollama.convert(legacy, todays, progress=True)
    for path in (legacy, todays):  # into the page cache, as far as memory goes
        run(path, arguments)
    pairs = [(run(legacy, arguments), run(todays, arguments)) for _ in range(arguments.pairs)]
    report(legacy, pairs)
    group = make_cgroup()
    try:
        limited = run(legacy, arguments, *(["--cgroup", group] if group else ["--address-space"]))
    finally:
        if group:
            Path(group).rmdir()
    how = "in a control group" if group else "under ulimit -v"
    print(f"\n{how} of {LIMIT_BYTES / GB:.0f} GB: opened in {limited['open_s']:.1f} s, "
          f"{limited['prompt_tps']:.1f} and {limited['generate_tps']:.2f} tokens/s, "
          f"{limited['resident'] / GB:.2f} GB resident")
    found = Outcome("7B q4_0 of 2023, n_ctx 1024: resident beyond its file, GB", REACH_GB,
                    beyond(legacy, pairs), at_most=True)
    print(f"\n{tell([found])}")


ROWS = {
    "open_s": "open, s",
    "open_cpu_s": "open, s of CPU time",
    "prompt_tps": "prompt, tokens/s",
    "generate_tps": "generation, tokens/s",
    "resident": "resident, GB",
    "peak": "peak resident, GB",
}


def beyond(
    legacy: Path, pairs: list[tuple[dict[str, float], dict[str, float]]],
) -> tuple[float, ...]:
    """GB resident beyond the legacy file, of each pair."""
    return tuple((ours["resident"] - legacy.stat().st_size) / GB for ours, _ in pairs)


def report(legacy: Path, pairs: list[tuple[dict[str, float], dict[str, float]]]) -> None:
    size = legacy.stat().st_size
    print(heading(f"{legacy.name}: {size / GB:.2f} GB, {len(pairs)} pairs, "
                  f"{kollama.default_threads()} threads"))
    print("\n| | ggjt v3 | GGUF | median of ratios | range |\n|---|---|---|---|---|")
    for key, title in ROWS.items():
        scale = GB if title.endswith("GB") else 1
        ours, theirs = (statistics.median(pair[i][key] for pair in pairs) / scale for i in (0, 1))
        ratios = sorted(a[key] / b[key] for a, b in pairs)
        print(f"| {title} | {ours:.2f} | {theirs:.2f} | {statistics.median(ratios):.3f} "
              f"| {ratios[0]:.3f}-{ratios[-1]:.3f} |")
    written = max(ours["written"] for ours, _ in pairs)
    files = max(ours["large_files"] for ours, _ in pairs)
    print(f"\nggjt v3: {max(beyond(legacy, pairs)):.2f} GB resident beyond the file at the most; "
          f"{written:.0f} bytes written by the process, {files:.0f} files above 1 MB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path("build/legacy-7b"),
                        help="for the two files (default: %(default)s)")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--prompt", type=int, default=128, help="tokens of prompt")
    parser.add_argument("--tokens", type=int, default=16, help="tokens to generate")
    for name, kind in [("--measure", str), ("--cgroup", str)]:
        parser.add_argument(name, type=kind, help=argparse.SUPPRESS)
    parser.add_argument("--address-space", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        child(arguments)
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    compare(arguments)


if __name__ == "__main__":
    main()
