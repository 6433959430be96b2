"""Text <-> tokens: the reference's ids, whole syllables, and clear errors."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random

import gguf
import numpy as np
import pytest
import tiny
from conftest import VOCABULARIES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kollama

KOREAN = "안녕하세요, 오늘은 날씨가 좋네요."
fixture_ok = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@pytest.fixture(scope="module")
def tok(model: kollama.Model) -> kollama.Tokenizer:
    return model.tokenizer


def test_pieces_and_ids(tok: kollama.Tokenizer) -> None:
    pieces, _, _ = tiny.vocabulary()
    assert [tok.piece(i) for i in range(len(tok))] == pieces
    assert all(tok.id(tok.piece(i)) == pieces.index(tok.piece(i)) for i in range(len(tok)))
    assert (tok.bos, tok.eos, tok.add_bos) == (tiny.BOS, tiny.EOS, True)
    assert [i for i in range(len(tok)) if tok.is_eog(i)] == [tiny.EOS]


def test_korean_pieces(tok: kollama.Tokenizer) -> None:
    ids = tok.encode("대한민국의 수도는")
    assert ids.dtype == np.int32
    assert [tok.piece(i) for i in ids] == ["▁대한", "민국", "의", "▁수도", "는"]
    assert tok.decode(ids) == "대한민국의 수도는"
    assert tok.encode("대한민국의 수도는".encode()).tolist() == ids.tolist()


def test_bos_and_special_tokens(tok: kollama.Tokenizer) -> None:
    assert tok.encode("가", add_bos=True)[0] == tiny.BOS
    assert tiny.EOS not in tok.encode("</s>")
    assert tok.encode("</s>", parse_special=True).tolist() == [tiny.EOS]
    ids = [tiny.BOS, *tok.encode("가"), tiny.EOS]
    assert tok.decode(ids) == "<s> 가</s>"
    assert tok.decode(ids, skip_special=True) == "가"


def test_a_syllable_of_byte_tokens(tok: kollama.Tokenizer) -> None:
    decoder = tok.decoder()
    pushed = [decoder.push(tiny.FIRST_BYTE + byte) for byte in "뷁".encode()]
    assert pushed == ["", "", "뷁"]
    assert decoder.flush() == ""


def test_an_unfinished_character_is_reported_at_the_end(tok: kollama.Tokenizer) -> None:
    decoder = tok.decoder()
    text = "".join(decoder.push(tiny.FIRST_BYTE + byte) for byte in "가뷁".encode()[:-1])
    assert text == "가"
    assert decoder.flush() == "\ufffd\ufffd"  # one for each byte
    assert decoder.flush() == ""


@fixture_ok
@given(st.text())
def test_round_trip(tok: kollama.Tokenizer, text: str) -> None:
    ids = tok.encode(text)
    assert tok.decode(ids) == text
    assert tok.decode_bytes(ids) == text.encode()


@fixture_ok
@given(st.data())
def test_decoder_gives_what_decode_gives(tok: kollama.Tokenizer, data: st.DataObject) -> None:
    ids = data.draw(st.lists(st.integers(0, len(tok) - 1), max_size=40))
    decoder = tok.decoder()
    assert "".join([decoder.push(i) for i in ids] + [decoder.flush()]) == tok.decode(ids)


@fixture_ok
@given(st.binary(max_size=24))
def test_each_byte_that_is_no_character_becomes_one_replacement(tok: kollama.Tokenizer, data: bytes) -> None:
    ids = [tiny.FIRST_BYTE + byte for byte in b"x" + data]
    decoder = tok.decoder()
    expected = tiny.replace_each_byte(b"x" + data)
    assert tok.decode(ids) == expected
    assert "".join([decoder.push(i) for i in ids] + [decoder.flush()]) == expected


@pytest.mark.parametrize("bad", [-1, 10**6, 2**31 - 1])
def test_id_outside_the_vocabulary(tok: kollama.Tokenizer, bad: int) -> None:
    for call in (lambda: tok.decode([bad]), lambda: tok.piece(bad), lambda: tok.decoder().push(bad)):
        with pytest.raises(kollama.TokenError, match="outside the vocabulary"):
            call()
    assert tok.is_eog(bad) is False


@pytest.mark.parametrize(
    ("call", "error", "reason"),
    [
        (lambda t: t.encode("가\ud800"), kollama.TokenError, "lone surrogate at character 1"),
        (lambda t: t.encode(b"\xed\x95"), kollama.TokenError, "not UTF-8: byte 0"),
        (lambda t: t.encode(3), TypeError, "str or bytes"),
        (lambda t: t.encode("가", add_bos=1), TypeError, "add_bos"),
        (lambda t: t.encode("가", parse_special=None), TypeError, "parse_special"),
        (lambda t: t.decode("가"), TypeError, "integers"),
        (lambda t: t.decode([1.5]), TypeError, "integers"),
        (lambda t: t.decode([[1, 2]]), ValueError, "one dimension"),
        (lambda t: t.decode([2**40]), kollama.TokenError, "32 bits"),
        (lambda t: t.id("없는 조각"), kollama.TokenError, "no token has the piece"),
        (lambda t: t.piece("가"), TypeError, "token"),
        (lambda t: type(t)(), TypeError, "model.tokenizer"),
    ],
)
def test_wrong_arguments(tok: kollama.Tokenizer, call: object, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        call(tok)  # type: ignore[operator]


def test_empty(tok: kollama.Tokenizer) -> None:
    assert tok.encode("").tolist() == []
    assert tok.decode([]) == ""
    assert tok.decode(np.empty(0, np.int32)) == ""


def test_nul_and_long_text(tok: kollama.Tokenizer) -> None:
    for text in ("가\0나", "대한민국의 수도는 " * 2000):
        assert tok.decode(tok.encode(text)) == text


def test_any_integers_are_ids(tok: kollama.Tokenizer) -> None:
    ids = tok.encode(KOREAN)
    for given_ids in (ids.tolist(), tuple(ids.tolist()), ids.astype(np.int64), ids[::-1][::-1], iter(ids.tolist())):
        assert tok.decode(given_ids) == KOREAN


def test_from_a_file_without_a_model(tok: kollama.Tokenizer, tiny_path: Path) -> None:
    alone = kollama.Tokenizer.from_file(tiny_path)
    assert alone.native and alone.path == str(tiny_path)
    assert alone.encode(KOREAN).tolist() == tok.encode(KOREAN).tolist()
    assert (len(alone), alone.bos, alone.eos, alone.add_bos) == (len(tok), tok.bos, tok.eos, tok.add_bos)
    assert [alone.piece(i) for i in range(len(alone))] == [tok.piece(i) for i in range(len(tok))]
    assert [alone.is_eog(i) for i in range(len(alone))] == [tok.is_eog(i) for i in range(len(tok))]


@pytest.mark.parametrize(("magic", "version"), [(b"tjgg", 3), (b"tjgg", 1), (b"fmgg", 1), (b"lmgg", None)])
def test_a_file_of_2023(tok: kollama.Tokenizer, tmp_path: Path, magic: bytes, version: int | None) -> None:
    path = tiny.write_legacy_vocabulary(tmp_path / "model.bin", magic, version)
    old = kollama.Tokenizer.from_file(path)
    assert [old.piece(i) for i in range(len(old))] == [tok.piece(i) for i in range(len(tok))]
    assert (old.bos, old.eos, old.add_bos) == (1, 2, True)
    for text in (KOREAN, "대한민국의 수도는  서울이다.", "뷁\n abc", ""):
        assert old.encode(text).tolist() == tok.encode(text).tolist()
        assert old.decode(old.encode(text)) == text
    data = path.read_bytes()
    for cut in (3, 7, 20, 50, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(kollama.FormatError, match=r"model\.bin"):
            kollama.Tokenizer.from_file(path)


def test_offsets_are_characters_of_the_text(tok: kollama.Tokenizer) -> None:
    text = "대한민국의 뷁 수도는"
    ids, offsets = tok.encode_with_offsets(text)
    assert ids.tolist() == tok.encode(text).tolist()
    assert ids.dtype == offsets.dtype == np.int32 and offsets.shape == (len(ids), 2)
    spelled = [offsets[i].tolist() for i, t in enumerate(ids) if tok.piece(t).startswith("<0x")]
    assert spelled == [[6, 7]] * 3  # 뷁, in three bytes
    assert "".join(text[a:b] for a, b in dict.fromkeys(map(tuple, offsets.tolist()))) == text
    bos_ids, bos_offsets = tok.encode_with_offsets(text, add_bos=True)
    assert bos_ids[0] == tok.bos and bos_offsets[0].tolist() == [0, 0] and bos_offsets[1:].tolist() == offsets.tolist()


def test_decomposed_hangul_is_composed_where_asked(tok: kollama.Tokenizer) -> None:
    composed = "대한민국의 수도는 서울이다."
    decomposed = unicodedata.normalize("NFD", composed)
    ids, offsets = tok.encode_with_offsets(decomposed, normalize="NFC")
    assert ids.tolist() == tok.encode(composed).tolist() == tok.encode(decomposed, normalize="NFC").tolist()
    assert len(tok.encode(decomposed)) > 3 * len(ids)
    assert [unicodedata.normalize("NFC", decomposed[a:b]) for a, b in offsets] == [
        composed[a:b] for a, b in tok.encode_with_offsets(composed)[1]]
    assert tok.encode(decomposed.encode(), normalize="NFC").tolist() == ids.tolist()
    with pytest.raises(kollama.ArgumentError, match="normalize"):
        tok.encode(composed, normalize="NFKC")  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [None, 1, 2, 9])
def test_batch(tok: kollama.Tokenizer, threads: int | None) -> None:
    texts: list[str | bytes] = [KOREAN * i for i in range(300)] + [b"", KOREAN.encode(), "뷁" * 5000]
    batch = tok.encode_batch(texts, threads=threads, add_bos=True)
    assert [ids.tolist() for ids in batch] == [tok.encode(text, add_bos=True).tolist() for text in texts]
    assert tok.encode_batch([], threads=threads) == []
    with pytest.raises(kollama.TokenError, match="text 300: .*lone surrogate"):
        tok.encode_batch(texts[:300] + ["\ud800"], threads=threads)
    with pytest.raises(kollama.TokenError, match="text 1: .*not UTF-8"):
        tok.encode_batch(["가", b"\xed\x95"], threads=threads)
    with pytest.raises(TypeError, match="list of texts"):
        tok.encode_batch(KOREAN, threads=threads)


def test_threads_share_a_tokenizer(tok: kollama.Tokenizer) -> None:
    texts = [KOREAN * (i + 1) + "뷁" * i for i in range(40)]
    expected = [tok.encode(text).tolist() for text in texts]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda text: tok.encode(text).tolist(), texts * 10))
    assert found == expected * 10


def test_closed_model(tiny_path: Path) -> None:
    model = kollama.Model(tiny_path)
    tok = model.tokenizer
    decoder = tok.decoder()
    model.close()
    for call in (lambda: tok.encode("가"), lambda: tok.decode([3]), lambda: len(tok), lambda: decoder.push(3),
                 lambda: model.tokenizer, lambda: model.n_vocab):
        with pytest.raises(kollama.ClosedError):
            call()
    assert model.closed
    model.close()


# ---- the submodule's vocabularies: texts and ids as llama.cpp's own tests have them ---------------


def _cases(name: str) -> Iterator[tuple[str, list[int]]]:
    stem = VOCABULARIES / f"ggml-vocab-{name}.gguf"
    mark = "\n__ggml_vocab_test__\n"
    texts = Path(f"{stem}.inp").read_bytes().decode().removesuffix(mark).split(mark)
    lines = Path(f"{stem}.out").read_text().split("\n")[:-1]
    for text, line in zip(texts, lines, strict=True):
        yield text, [int(word) for word in line.split()]


@pytest.mark.parametrize("name", ["llama-spm", "phi-3", "gemma-4", "llama-bpe", "gpt-2", "qwen2", "command-r"])
def test_submodule_vocabulary(name: str) -> None:
    if not (VOCABULARIES / f"ggml-vocab-{name}.gguf.inp").exists():
        pytest.skip(f"the submodule is not checked out, or has no cases for {name}")
    with kollama.Model(VOCABULARIES / f"ggml-vocab-{name}.gguf", vocab_only=True) as model:
        for text, ids in _cases(name):
            assert model.tokenizer.encode(text).tolist() == ids, repr(text)


def merged(text: str, scores: dict[str, float]) -> list[str]:
    """SentencePiece's BPE by its definition: the best pair first, of equal ones the leftmost."""
    parts = list("▁" + text.replace(" ", "▁"))
    while pairs := [(-scores[a + b], i) for i, (a, b) in enumerate(itertools.pairwise(parts)) if a + b in scores]:
        i = min(pairs)[1]
        parts[i : i + 2] = ["".join(parts[i : i + 2])]
    return parts


@pytest.mark.parametrize("n_ranks", [1, 2, 3, 40])
def test_pieces_that_share_a_score(tmp_path: Path, n_ranks: int) -> None:
    random = Random(n_ranks)
    letters = "▁가나다라마"
    longer = ["".join(random.choices(letters, k=k)) for k in (2, 2, 3, 4) for _ in range(40)]
    words = [*letters, *dict.fromkeys(longer)]
    scores = {word: -float(random.randrange(n_ranks)) for word in words}
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    kinds = gguf.TokenType
    writer = gguf.GGUFWriter(tmp_path / "vocabulary.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(["<unk>", *bytes_, *words])
    writer.add_token_scores([0.0] * 257 + list(scores.values()))
    writer.add_token_types([kinds.UNKNOWN] + [kinds.BYTE] * 256 + [kinds.NORMAL] * len(words))
    writer.add_unk_token_id(0)
    writer.add_add_space_prefix(True)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    tokenizer = kollama.Tokenizer.from_file(tmp_path / "vocabulary.gguf")
    for _ in range(300):
        text = "".join(random.choices(letters.replace("▁", " "), k=random.randrange(1, 60)))
        ids = tokenizer.encode(text, add_bos=False)
        assert [tokenizer.piece(int(i)) for i in ids] == merged(text, scores), text
