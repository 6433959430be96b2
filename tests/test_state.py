"""A sequence as bytes and as a file: the same again, or a refusal with the reason."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny
from test_process import run, silent

import kollama

TOKENS = [1, 300, 270, 5, 9, 11, 12]
HEADER = 240
MASK = 2**64 - 1


def checksum(data: bytes) -> int:
    """As csrc/state.cpp computes it."""
    h = (len(data) * 0x9E3779B97F4A7C15 + 1) & MASK
    whole = len(data) // 8 * 8
    for (word,) in struct.iter_unpack("<Q", data[:whole]):
        h = ((h ^ word) * 0x9E3779B97F4A7C15) & MASK
        h ^= h >> 29
    h = ((h ^ int.from_bytes(data[whole:], "little")) * 0xBF58476D1CE4E5B9) & MASK
    return h ^ (h >> 32)


def sealed(blob: bytes | bytearray) -> bytes:
    """With a checksum that is right."""
    return bytes(blob[:16]) + struct.pack("<Q", checksum(bytes(blob[24:]))) + bytes(blob[24:])


def continued(seq: kollama.Sequence, n: int = 12) -> list[int]:
    ids = [7]
    for _ in range(n):
        seq.append(ids[-1:])
        ids.append(int(seq.logits.argmax()))
    return ids


@pytest.mark.parametrize(
    ("name", "options"),
    [("tiny_path", {}), ("tiny_path", {"flash_attn": False}), ("mamba_path", {}),
     ("tiny_path", {"type_k": "q8_0", "type_v": "q8_0", "flash_attn": True})],
    ids=str)
def test_the_same_again(request: pytest.FixtureRequest, name: str, options: dict[str, object], tmp_path: Path) -> None:
    path = request.getfixturevalue(name)
    with kollama.Model(path) as model, model.context(n_ctx=128, n_seq_max=4, n_threads=1, **options) as ctx:
        seq, other = ctx.sequence(), ctx.sequence()
        other.append([1, 5, 5])
        seq.append(TOKENS)
        blob = seq.state()
        assert seq.state() == blob
        seq.save(tmp_path / "한국.seq")
        expected = continued(seq)
        again = ctx.sequence()
        again.append([1, 44, 45])
        for restore in (lambda: again.restore(blob), lambda: again.load(tmp_path / "한국.seq"),
                        lambda: again.restore(memoryview(bytearray(blob))), lambda: seq.restore(np.frombuffer(blob, np.uint8))):
            restore()
            target = again if len(again) == len(TOKENS) else seq
            assert target.tokens.tolist() == TOKENS
            with pytest.raises(kollama.StateError, match="append a token first"):
                _ = target.logits
            with pytest.raises(kollama.StateError):
                kollama.Sampler().sample(target)
            assert continued(target) == expected
        assert other.tokens.tolist() == [1, 5, 5]
        # In another context of the model, and of another size.
        with model.context(n_ctx=64, n_threads=1, **options) as small, small.sequence() as third:
            third.restore(blob)
            assert continued(third) == expected
        again.close()


def test_a_fork_saves_its_prefix_and_its_own(context: Callable[..., kollama.Context]) -> None:
    ctx = context(n_seq_max=3)
    seq = ctx.sequence()
    seq.append(TOKENS)
    fork = seq.fork()
    fork.append([33, 34])
    blob = fork.state()
    expected = continued(fork)
    fork.restore(blob)
    assert fork.tokens.tolist() == [*TOKENS, 33, 34]
    assert continued(fork) == expected
    assert seq.tokens.tolist() == TOKENS
    seq.append([5])


def test_only_what_is_used_is_stored(context: Callable[..., kollama.Context]) -> None:
    ctx = context(n_ctx=256, n_seq_max=2)
    ctx.sequence().append(range(3, 103))  # cells of others
    seq = ctx.sequence()
    sizes = []
    for n in range(1, 40):
        seq.append([n + 3])
        sizes.append(len(seq.state()))
    # An id, a cell, and a row of K and of V in each of 2 layers: 64 numbers of 16 bits.
    assert set(np.diff(sizes)) == {4 + 12 + 2 * 2 * 64 * 2}
    assert sizes[0] - HEADER < 800


def test_an_empty_sequence(context: Callable[..., kollama.Context]) -> None:
    seq = context().sequence()
    blob = seq.state()
    assert len(blob) == HEADER
    seq.append(TOKENS)
    seq.restore(blob)
    assert len(seq) == 0
    seq.append(TOKENS)


@pytest.fixture
def saved(context: Callable[..., kollama.Context]) -> Iterator[tuple[kollama.Sequence, bytes]]:
    with context(n_seq_max=2).sequence() as seq:
        seq.append(TOKENS)
        yield seq, seq.state()


def refused(seq: kollama.Sequence, blob: bytes, message: str, error: type[Exception] = kollama.FormatError) -> None:
    before, row = seq.tokens.tolist(), seq.logits.copy()
    with pytest.raises(error, match=message):
        seq.restore(blob)
    assert seq.tokens.tolist() == before
    np.testing.assert_array_equal(seq.logits, row)


def test_damage(saved: tuple[kollama.Sequence, bytes]) -> None:
    seq, blob = saved
    for length in [*range(0, HEADER + 40), len(blob) - 1]:
        refused(seq, blob[:length], "too few|truncated")
    refused(seq, blob + b"\0", "truncated or damaged")
    for place in [*range(HEADER), *range(HEADER, len(blob), 97)]:
        spoiled = bytearray(blob)
        spoiled[place] ^= 0x40
        refused(seq, bytes(spoiled), "is none|another version|truncated|damaged|another")
    refused(seq, b"GGUF" + blob[4:], "is none")


def test_others(saved: tuple[kollama.Sequence, bytes], model: kollama.Model, tmp_path: Path) -> None:
    seq, blob = saved

    def changed(place: int, data: bytes) -> bytes:
        return sealed(blob[:place] + data + blob[place + len(data) :])

    assert sealed(blob) == blob
    refused(seq, changed(24, b"0123456789"), "another build: its llama.cpp is 0123456789")
    refused(seq, changed(8, b"\x01"), "another version")
    refused(seq, changed(HEADER, struct.pack("<i", 311)), "outside the vocabulary", kollama.TokenError)
    refused(seq, changed(HEADER, struct.pack("<i", -1)), "outside the vocabulary", kollama.TokenError)
    for options, message in (({"seed": 4}, "another model.*with other weights"), ({"n_layer": 1}, "another model.*n_layer 1,.*; this is")):
        path = tiny.write_llama(tmp_path / f"{message[:5]}.gguf", **options)  # type: ignore[arg-type]
        with kollama.Model(path) as other, other.context(n_ctx=64, n_threads=1) as ctx:
            stranger = ctx.sequence()
            stranger.append(TOKENS)
            refused(seq, stranger.state(), message)
    with model.context(n_ctx=64, n_threads=1, type_k="q8_0") as ctx:
        stranger = ctx.sequence()
        stranger.append(TOKENS)
        refused(seq, stranger.state(), "K q8_0, V f16; this one has K f16, V f16")
    # A copy of the file is the same model.
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(Path(model.path).read_bytes())
    with kollama.Model(copy) as same, same.context(n_ctx=64, n_threads=1) as ctx:
        ctx.sequence().restore(blob)


def test_no_room(context: Callable[..., kollama.Context], model: kollama.Model) -> None:
    ctx = context(n_ctx=256, n_seq_max=2)
    a, b = ctx.sequence(), ctx.sequence()
    a.append([5] * 150)
    blob = a.state()
    a.append([6] * 50)
    b.append([1, 5])
    with pytest.raises(kollama.DecodeError, match="now empty"):
        b.restore(blob)
    assert (len(a), len(b)) == (200, 0)
    b.append([1, 5])
    a.append([7])
    with model.context(n_ctx=100, n_threads=1) as small:
        seq = small.sequence()
        seq.append([1])
        refused(seq, blob, "150 tokens, n_ctx is 100", kollama.ContextFullError)


def test_files(saved: tuple[kollama.Sequence, bytes], tmp_path: Path) -> None:
    seq, blob = saved
    seq.save(str(tmp_path / "a.seq"))
    seq.save(str(tmp_path / "a.seq").encode())
    assert (tmp_path / "a.seq").read_bytes() == blob
    assert [path.name for path in tmp_path.iterdir()] == ["a.seq"]
    with pytest.raises(kollama.WriteError, match="no-folder"):
        seq.save(tmp_path / "no-folder" / "a")
    with pytest.raises(OSError, match="folder"):
        seq.save(tmp_path)
    with pytest.raises(FileNotFoundError, match="b.seq"):
        seq.load(tmp_path / "b.seq")
    with pytest.raises(kollama.ModelLoadError, match="directory"):
        seq.load(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(kollama.FormatError, match="0 bytes"):
        seq.load(tmp_path / "empty")
    assert seq.tokens.tolist() == TOKENS
    for wrong in ("text", None, 5):
        with pytest.raises(TypeError):
            seq.restore(wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        seq.save(None)  # type: ignore[arg-type]


def test_closed_and_busy(context: Callable[..., kollama.Context]) -> None:
    from kollama._core.generation import TokenStream

    ctx = context()
    seq = ctx.sequence()
    seq.append(TOKENS)
    blob = seq.state()
    stream = TokenStream(seq, kollama.Sampler(seed=1), [1, 5], stop=[], ignore_eos=True)
    next(stream)
    for call in (seq.state, lambda: seq.restore(blob)):
        with pytest.raises(kollama.BusyError):
            call()
    stream.close()
    seq.close()
    for call in (seq.state, lambda: seq.restore(blob), lambda: seq.save("x")):
        with pytest.raises(kollama.ClosedError):
            call()


def test_hostile_data_with_the_right_checksum(tiny_path: Path, mamba_path: Path) -> None:
    code = """
    import random, sys
    sys.path.insert(0, sys.argv[2])
    import kollama
    from test_state import HEADER, TOKENS, sealed
    random.seed(1)
    with kollama.Model(sys.argv[1]) as model, model.context(n_ctx=64, n_seq_max=2, n_threads=1) as ctx:
        seq, other = ctx.sequence(), ctx.sequence()
        seq.append(TOKENS)
        other.append([1, 5])
        blob = seq.state()
        start = HEADER + 4 * len(TOKENS)
        read = refused = 0
        for i in range(600):
            spoiled = bytearray(blob)
            for _ in range(random.randint(1, 3)):
                # The first bytes are counts, positions and sizes; the rest is numbers.
                place = start + (i * 4 % 160 if i < 400 else random.randrange(len(blob) - start))
                value = random.choice([0, 1, 2, 3, 7, 64, 65, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**32 - 2])
                spoiled[place:place + 4] = value.to_bytes(4, "little")
            spoiled = spoiled[:len(blob)] + b"\\0" * (len(blob) - len(spoiled))
            try:
                seq.restore(sealed(spoiled))
                read += 1
                seq.append([9])
            except kollama.KollamaError as error:
                assert type(error) in (kollama.DecodeError, kollama.FormatError), repr(error)
                refused += 1
            seq.restore(blob)
        assert read > 50 and refused > 50, (read, refused)
        seq.restore(blob)
        seq.append([9])
        other.append([7])
        assert other.tokens.tolist() == [1, 5, 7]
    """
    for path in (tiny_path, mamba_path):
        done = run(code, path, Path(__file__).parent)
        assert silent(done), done
