"""Text <-> tokens: the reference's ids, whole syllables, and clear errors."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

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
        (lambda t: t.encode(b"\xed\x95"), kollama.TokenError, "not UTF-8"),
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
