"""Speed of kollama's tokenizer beside Hugging Face `tokenizers`, `sentencepiece` and llama.cpp.

All sides take turns in one process on one thread, and who goes first alternates. "new" is the
first text that an object just loaded ever sees, of the peers as well, as caches and what is made
only when it is needed count; "warm" is the median of three more times of the same text by the same
object. "one text" is a part of the corpus in one call, "lines" the same part in a call for each
line. Every call gets a str of its own: the UTF-8 that Python keeps with a str would favour whoever
comes second. An encoding ends with all ids in Python and a decoding starts from what the side's own
encoding gives: an int32 array with kollama, a list with the others. `tokenizers` is asked in the
faster of its two ways, without offsets; llama_cpp takes bytes; sentencepiece loads from memory.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib
import json
import os
import platform
import re
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from outcome import Outcome, heading, tell

import kollama
from kollama.demo import demo_model

ROOT = Path(__file__).resolve().parent.parent
SPM_VOCABULARY = ROOT / "third_party" / "llama.cpp" / "models" / "ggml-vocab-llama-spm.gguf"
PEERS = ("tokenizers", "sentencepiece", "llama_cpp")
PART_BYTES = 1_000_000  # of one measurement
DOCUMENT_BYTES = 64 << 10  # of encode_batch's larger texts
WARM = 3
REACH = {"one text, new, MB/s": 100.0, "decode, new, 1e6 tokens/s": 50.0}  # one thread
LOAD = "load, ms"

# The tests have the writer of SentencePiece's .model files: a GGUF's own .model is not at hand.
sys.path.append(str(ROOT / "tests"))

Work: TypeAlias = Sequence[bytes]  # UTF-8, one text for each call
Rates: TypeAlias = dict[str, dict[str, list[float]]]  # per second: by measure, by side


@dataclass(frozen=True)
class Side:
    """One way to use a vocabulary. What encoder and decoder return is what gets timed."""

    name: str
    load: Callable[[], Any]
    encoder: Callable[[Any], Callable[[Any], Any]] | None = None
    decoder: Callable[[Any], Callable[[Any], Any]] | None = None
    takes_bytes: bool = False
    shares_load: bool = False  # with the first side
    must_agree: bool = False

    def text(self, utf8: bytes) -> str | bytes:
        """As this side takes it, and never seen before."""
        return utf8 if self.takes_bytes else utf8.decode()


def main() -> None:
    args = arguments()
    # Read when the first of them is imported; every side gets one thread.
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "RAYON_NUM_THREADS": "1"}
    corpus = args.text.read_bytes()
    lines = [line for line in corpus.split(b"\n") if line]
    if not lines:
        raise SystemExit(f"{args.text.name} has no text")
    print("\n".join(header(args, corpus, lines)))
    outcomes = []
    gc.disable()  # as timeit does: no side pays for the garbage of another
    for path in ([args.json] if args.json else []) + (args.gguf or list(installed())):
        sides, notes = json_sides(path) if path == args.json else gguf_sides(path)
        notes += agreement(sides, corpus, path.name)
        rates = measure(sides, lines, args.pairs, path.name)
        batches = measure_batches(path, lines, args.pairs)
        print("\n".join(["", f"### {path.name}", "", *table(rates), "", *batches, "", *notes]))
        outcomes += [Outcome(f"{path.name}, {measure}", reach, tuple(rates[measure]["kollama"]),
                             digits=1) for measure, reach in REACH.items()]
    print(f"\n{tell(outcomes)}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("text", type=Path, metavar="TEXT", help="the corpus, in UTF-8")
    parser.add_argument("--json", type=Path, metavar="PATH", help="a tokenizer.json")
    parser.add_argument("--gguf", type=Path, metavar="PATH", action="append",
                        help="a GGUF vocabulary, any number of times; default: that of Llama 2 in "
                        "llama.cpp's sources, and kollama's demo model if it is installed")
    parser.add_argument("--pairs", type=int, default=10, help="default: %(default)s")
    args = parser.parse_args()
    if args.pairs < 1:
        parser.error("--pairs must be at least 1")
    return args


def installed() -> Iterable[Path]:
    """The vocabularies that need not be named."""
    if SPM_VOCABULARY.exists():
        yield SPM_VOCABULARY
    with contextlib.suppress(kollama.ModelNotFoundError):
        yield demo_model()


def optional(module: str) -> Any:
    """The module, or None where it is not installed."""
    with contextlib.suppress(ImportError):
        return importlib.import_module(module)
    return None


def n_cores() -> int:
    """Those this process may use, where the system tells."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def header(args: argparse.Namespace, corpus: bytes, lines: Work) -> list[str]:
    peers = [f"{name} {getattr(optional(name), '__version__', 'not installed')}" for name in PEERS]
    return [
        heading(*peers),
        f"- {platform.system()} {platform.machine()}, {n_cores()} cores, "
        f"Python {platform.python_version()}",
        f"- {args.text.name}: {len(corpus) / 1e6:.2f} MB (1e6 bytes of UTF-8) in {len(lines)} "
        f"lines; {args.pairs} pairs, each of a part of {PART_BYTES / 1e6:.1f} MB",
    ]


def our_sides(path: Path) -> list[Side]:
    """The first of them is what the others are compared with."""
    load = partial(kollama.Tokenizer.from_file, path)
    return [
        Side("kollama", load, lambda t: t.encode, lambda t: t.decode),
        Side("kollama, bytes", load, lambda t: t.encode, takes_bytes=True, shares_load=True,
             must_agree=True),
    ]


def json_sides(path: Path) -> tuple[list[Side], list[str]]:
    sides = our_sides(path)
    if hf := optional("tokenizers"):
        def load() -> Any:
            tokenizer = hf.Tokenizer.from_file(str(path))
            tokenizer.encode_special_tokens = True  # "</s>" in a text is text, as with kollama
            return tokenizer

        def encoder(t: Any) -> Callable[[str], list[int]]:
            return lambda text: t.encode_batch_fast([text], add_special_tokens=False)[0].ids

        sides.append(Side("tokenizers", load, encoder, must_agree=True,
                          decoder=lambda t: lambda ids: t.decode(ids, skip_special_tokens=False)))
    vocabulary = json.loads(path.read_text("utf-8"))["model"]["vocab"]
    if not isinstance(vocabulary, dict) or "<0x00>" not in vocabulary:
        return sides, ["- sentencepiece: has no such vocabulary"]
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    named = {"<unk>": 2, "<s>": 3, "</s>": 3}  # GGUF's types; a tokenizer.json does not say
    types = [6 if re.fullmatch(r"<0x[0-9A-F]{2}>", piece) else named.get(piece, 1)
             for piece in pieces]
    peer = sentencepiece_side(pieces, [259.0 - i for i in range(len(pieces))], types, prefix=True)
    note = "- sentencepiece: the same pieces with scores -(id - 259), the nearest thing"
    return sides + peer, [note] if peer else []


def gguf_sides(path: Path) -> tuple[list[Side], list[str]]:
    load_model = partial(kollama.Model, path, vocab_only=True)
    sides = [*our_sides(path), Side("kollama.Model", load_model)]
    notes = ["- kollama.Model: vocab_only=True, llama.cpp's own load and kollama's vocabulary too"]
    facts = load_model().metadata
    if facts.get("tokenizer.ggml.model") != "llama":
        notes.append("- sentencepiece: has no such vocabulary")
    elif reader := optional("gguf"):
        prefix = facts.get("tokenizer.ggml.add_space_prefix", "true") == "true"
        sides += sentencepiece_side(*gguf_pieces(reader, path), prefix=prefix, must_agree=True)
    else:
        notes.append("- sentencepiece: left out, as gguf is not installed")
    if module := optional("llama_cpp"):
        sides.append(Side(
            "llama_cpp", lambda: module.Llama(str(path), vocab_only=True, verbose=False),
            lambda t: lambda text: t.tokenize(text, add_bos=False, special=False),
            lambda t: lambda ids: t.detokenize(ids).decode("utf-8", "replace"), takes_bytes=True))
    return sides, notes


def gguf_pieces(reader: Any, path: Path) -> tuple[list[str], list[float], list[int]]:
    fields = reader.GGUFReader(path).fields
    pieces, scores, types = (fields[f"tokenizer.ggml.{key}"].contents()
                             for key in ("tokens", "scores", "token_type"))
    unknown = fields.get("tokenizer.ggml.unknown_token_id")
    if 2 not in types and unknown:  # SentencePiece insists on one; Gemma's is a control token here
        types[unknown.contents()] = 2
    # llama.cpp's converter made the "\u2581" of user-defined pieces spaces. SentencePiece looks for
    # them when the spaces of the text are "\u2581" already.
    restored = [piece.replace(" ", "\u2581") if kind == 4 else piece
                for piece, kind in zip(pieces, types, strict=True)]
    return restored, scores, types


def sentencepiece_side(
    pieces: list[str], scores: list[float], types: list[int], *,
    prefix: bool, must_agree: bool = False,
) -> list[Side]:
    if not (spm := optional("sentencepiece")):
        return []
    write = importlib.import_module("sentencepiece_model").write
    model = write(pieces, scores, types, add_dummy_prefix=prefix)
    return [Side("sentencepiece", lambda: spm.SentencePieceProcessor(model_proto=model),
                 lambda t: t.encode, lambda t: t.decode, must_agree=must_agree)]


def agreement(sides: list[Side], corpus: bytes, name: str) -> list[str]:
    """Says who gives the ids of the first side for the whole corpus; stops where one must."""
    notes = []
    ours: Any = None
    for side in sides:
        if side.encoder is None:
            continue
        progress(f"{name}: ids of {side.name}")
        theirs = np.asarray(side.encoder(side.load())(side.text(corpus)))
        if ours is None or np.array_equal(ours, theirs):
            ours = theirs
            notes.append(f"- {side.name}: {len(ours)} ids for the whole text, as kollama")
            continue
        shorter = min(len(ours), len(theirs))
        first = int(np.append(np.flatnonzero(ours[:shorter] != theirs[:shorter]), shorter)[0])
        notes.append(f"- {side.name}: {len(theirs)} ids for the whole text; from number {first} on "
                     f"{theirs[first:first + 4].tolist()}.. for {ours[first:first + 4].tolist()}..")
        if side.must_agree:
            raise SystemExit(f"\n{name}: nothing timed, as {side.name} and kollama do not give the "
                             "same ids\n" + "\n".join(notes))
    progress("")
    return notes[1:]


def measure(sides: list[Side], lines: Work, pairs: int, name: str) -> Rates:
    rates: Rates = defaultdict(lambda: defaultdict(list))
    parts = [part.split(b"\n") for part in joined(lines, PART_BYTES)]
    for index in range(pairs):
        progress(f"{name}: {index + 1}/{pairs}")
        part = parts[index % len(parts)]
        for side in sides if index % 2 == 0 else reversed(sides):
            tokenizer, seconds = timed(side.load)
            if not side.shares_load:
                rates[LOAD][side.name].append(1 / seconds)
            if side.encoder:
                whole = b"\n".join(part)
                measure_encode(side, tokenizer, [whole], "one text", rates)
                measure_encode(side, side.load(), part, "lines", rates)
            if side.encoder and side.decoder:
                ids = side.encoder(tokenizer)(side.text(whole))
                measure_decode(side, side.decoder(tokenizer), ids, rates)
    progress("")
    return rates


def measure_encode(side: Side, tokenizer: Any, work: Work, kind: str, rates: Rates) -> None:
    """Of an object that has seen no text yet."""
    assert side.encoder
    encode = side.encoder(tokenizer)

    def speed() -> float:
        texts = [side.text(text) for text in work]
        start = time.perf_counter()
        for text in texts:
            encode(text)
        return sum(map(len, work)) / 1e6 / (time.perf_counter() - start)

    record(rates, f"{kind}, {{}}, MB/s", side, speed)


def measure_decode(side: Side, decode: Callable[[Any], Any], ids: Any, rates: Rates) -> None:
    """Of an object that has decoded nothing yet."""
    record(rates, "decode, {}, 1e6 tokens/s", side,
           lambda: len(ids) / 1e6 / timed(partial(decode, ids))[1])


def record(rates: Rates, measure: str, side: Side, speed: Callable[[], float]) -> None:
    """The first time, and the median of those after it."""
    rates[measure.format("new")][side.name].append(speed())
    warm = statistics.median(speed() for _ in range(WARM))
    rates[measure.format("warm")][side.name].append(warm)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start


def joined(lines: Work, least: int) -> list[bytes]:
    """Whole lines put together, so many bytes at least; a shorter rest is left out."""
    parts: list[bytes] = []
    group: list[bytes] = []
    size = 0
    for line in lines:
        group.append(line)
        size += len(line) + 1
        if size > least:
            parts.append(b"\n".join(group))
            group, size = [], 0
    return parts or [b"\n".join(group)]


def measure_batches(path: Path, lines: Work, pairs: int) -> list[str]:
    """encode_batch of the whole corpus by a new tokenizer, for each number of threads."""
    rows = ["| measure | threads | MB/s, median | speed-up over 1 thread, median | min-max |",
            "|---|--:|--:|--:|--:|"]
    counts = sorted({1, 2, 4, 8, 16, 32, 64, n_cores()} & set(range(1, n_cores() + 1)))
    for what, work in (("lines", lines), ("texts of 64 KiB", joined(lines, DOCUMENT_BYTES))):
        rates: dict[int, list[float]] = {threads: [] for threads in counts}
        for index in range(pairs):
            progress(f"{path.name}: batch of {what} {index + 1}/{pairs}")
            for threads in counts if index % 2 == 0 else reversed(counts):
                tokenizer = kollama.Tokenizer.from_file(path)
                texts = [text.decode() for text in work]
                _, seconds = timed(partial(tokenizer.encode_batch, texts, threads=threads))
                rates[threads].append(sum(map(len, work)) / 1e6 / seconds)
        rows += [f"| encode_batch, {len(work)} {what}, new | {threads} "
                 f"| {statistics.median(rates[threads]):.1f} "
                 f"| {compared(rates[threads], rates[1])} |" for threads in counts]
    progress("")
    return rows


def table(rates: Rates) -> list[str]:
    """A row for each measure and side; above 1, kollama is the faster one."""
    rows = ["| measure | side | median | kollama's speed / its, median | min-max |",
            "|---|---|--:|--:|--:|"]
    for measure, sides in rates.items():
        ours = next(iter(sides.values()))
        for name, theirs in sides.items():
            median = statistics.median(theirs)
            shown = 1e3 / median if measure == LOAD else median
            ratio = f"{compared(ours, theirs)} |" if theirs is not ours else "| |"
            rows.append(f"| {measure} | {name} | {shown:.1f} | {ratio}")
    return rows


def compared(rates: list[float], others: list[float]) -> str:
    ratios = [one / other for one, other in zip(rates, others, strict=True)]
    return f"{statistics.median(ratios):.2f} | {min(ratios):.2f}-{max(ratios):.2f}"


def progress(text: str) -> None:
    """One line of stderr that is written over, so that stdout is nothing but the report."""
    sys.stderr.write(f"\r\x1b[K{text}")
    sys.stderr.flush()
