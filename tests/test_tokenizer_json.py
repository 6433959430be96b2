"""tokenizer.json files: what is refused and how, hostile texts, many texts at a time, and a model's own."""

from __future__ import annotations

import itertools
import json
import random
import re
import subprocess
import sys
import time
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tokenizer_json as tj
from conftest import limits_memory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import kollama
from kollama import Tokenizer

quick = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("json")


@pytest.fixture(scope="module")
def tok(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(tj.write(folder / "llama.json", tj.llama()))


def load(folder: Path, content: object) -> Tokenizer:
    """Of a dict, or of text that is no JSON."""
    path = folder / "given.json"
    path.write_bytes(content) if isinstance(content, bytes) else tj.write(path, content)
    return Tokenizer.from_file(path)


# ---- files that are refused ----------------------------------------------------------------------


def changed(change: Callable[[tj.Json], object]) -> tj.Json:
    data = tj.mini()
    change(data)
    return data


def model(**fields: Any) -> Callable[[tj.Json], object]:
    return lambda data: data["model"].update(fields)


def part(**fields: Any) -> Callable[[tj.Json], object]:
    return lambda data: data.update(fields)


WITH = {"add_prefix_space": True, "trim_offsets": True, "use_regex": True}
REFUSED: list[tuple[str, Callable[[tj.Json], object], str]] = [
    ("unigram", model(type="Unigram"), "'Unigram'"),
    ("wordpiece", model(type="WordPiece"), "'WordPiece'"),
    ("wordlevel", model(type="WordLevel"), "'WordLevel'"),
    ("unigram's vocabulary", model(vocab=[["가", -1.0]]), "not an object"),
    ("dropout", model(dropout=0.1), "dropout"),
    ("prefix", model(continuing_subword_prefix="##"), "continuing_subword_prefix"),
    ("suffix", model(end_of_word_suffix="</w>"), "end_of_word_suffix"),
    ("two pieces, one id", lambda d: d["model"]["vocab"].update({"뷁": d["model"]["vocab"]["한"]}), "both have id"),
    ("no such piece", lambda d: d["model"]["merges"].append(["뷁", "한"]), "'뷁'"),
    ("no such result", lambda d: d["model"]["merges"].append(["한", "한"]), "'한한'"),
    ("a merge of none", lambda d: d["model"]["merges"].append([]), "two pieces"),
    ("a merge of one", lambda d: d["model"]["merges"].append(["한"]), "two pieces"),
    ("a merge of three", lambda d: d["model"]["merges"].append(["한", "국", "어"]), "two pieces"),
    ("a merge without a space", lambda d: d["model"]["merges"].append("한국"), "two pieces"),
    ("a merge with two spaces", lambda d: d["model"]["merges"].append("한 국 어"), "two pieces"),
    ("no vocabulary", lambda d: d["model"].pop("vocab"), "no model with a vocabulary"),
    ("an empty vocabulary", model(vocab={}, merges=[]), "no model with a vocabulary"),
    ("no model", lambda d: d.pop("model"), "no model with a vocabulary"),
    ("an unknown unk", model(unk_token="<모름>"), "'<모름>' is not in the vocabulary"),
    ("a negative id", lambda d: d["model"]["vocab"].update({"뷁": -1}), "byte"),
    ("half an id", lambda d: d["model"]["vocab"].update({"뷁": 300.5}), "byte"),
    ("an id of 32 bits", lambda d: d["model"]["vocab"].update({"뷁": 2**32}), "byte"),
    ("a far id", lambda d: d["model"]["vocab"].update({"뷁": 2**31 - 1}), "byte"),
    ("an added token without id", lambda d: d["added_tokens"].append({"content": "<a>"}), "without an id"),
    ("an added token on another's id", lambda d: d["added_tokens"].append(tj.added(tj.FIRST_BYTE, "<a>")), "another piece's"),
    ("a piece added with another id", lambda d: d["added_tokens"].append(tj.added(999, "한국")), "another piece's"),
    ("two added tokens, one id", lambda d: d["added_tokens"].extend([tj.added(284, "<a>"), tj.added(284, "<b>")]), "another piece's"),
    ("two added tokens, one text", lambda d: d["added_tokens"].extend([tj.added(284, "<a>"), tj.added(285, "<a>")]), "'<a>'"),
    ("byte level", part(pre_tokenizer={"type": "ByteLevel"} | WITH), "Byte-level BPE is read from a GGUF"),
    ("a sequence with byte level", part(pre_tokenizer=tj.sequence(
        "pretokenizers", {"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"} | WITH)), "Byte-level"),
    ("another pre-tokenizer", part(pre_tokenizer={"type": "Whitespace"}), "'Whitespace'"),
    ("a split at spaces that are there", lambda d: d.update(normalizer=None, pre_tokenizer={
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}), "'Split'"),
    ("another mark", part(pre_tokenizer=tj.metaspace() | {"replacement": "_"}), "only U\\+2581"),
    ("another scheme", part(pre_tokenizer=tj.metaspace("last")), "'last'"),
    ("a normalizer", part(normalizer={"type": "NFC"}), "'NFC'"),
    ("a normalizer inside", part(normalizer=tj.sequence("normalizers", tj.prepend(), {"type": "Lowercase"})), "'Lowercase'"),
    ("a regular expression", part(normalizer={"type": "Replace", "pattern": {"Regex": " +"}, "content": "▁"}), "regular expression"),
    ("a decoder", part(decoder={"type": "WordPiece", "prefix": "##", "cleanup": True}), "'WordPiece'"),
    ("a decoder inside", part(decoder=tj.sequence("decoders", {"type": "Fuse"}, {"type": "ByteFallback"})), "'ByteFallback'"),
    ("a type that is a number", model(type=3), "byte"),
    ("merges that are an object", model(merges={}), "byte"),
    ("NaN", lambda d: d["model"]["vocab"].update({"뷁": float("nan")}), "byte"),
    ("infinity", part(version=float("inf")), "byte"),
]


def test_refused(folder: Path) -> None:
    for name, change, reason in REFUSED:
        with pytest.raises(kollama.FormatError) as caught:
            load(folder, changed(change))
        assert re.search(reason, str(caught.value)), (name, str(caught.value))
        assert "given.json" in str(caught.value), name


def test_mini_itself_is_read(folder: Path) -> None:
    tok = load(folder, tj.mini())
    assert [tok.piece(i) for i in tok.encode("한국어는 가나")] == ["▁한국", "어는", "▁가", "나"]
    assert load(folder, b"\xef\xbb\xbf \n" + json.dumps(tj.mini()).encode()).id("한국") == tok.id("한국")


def test_a_piece_twice(folder: Path) -> None:
    text = json.dumps(tj.mini(), ensure_ascii=False).replace('"한국": 259', '"한국": 259, "한국": 284')
    with pytest.raises(kollama.FormatError, match=r"given\.json: the vocabulary has the piece '한국' twice"):
        load(folder, text.encode())


NO_JSON = [
    b"", b" ", b"\n\n\n", b"{", b"{}", b"{}{}", b"null", b"[]", b'"text"', b"\0", b"\xff\xfe{\0}\0", b"{\xff}", b'{"model": {"vocab": {"\xed\xa0\x80": 0}}}',
    b"{" * 100_000, b'{"a": ' + b"[" * 100_000, b'{"normalizer": ' * 50_000, b'{"a": nan}', b'{"a": 01}', b'{"a": 1e999}', b'{"a": "\\ud800"}',
    b'{"a": "\\x"}', b'{"a": "\n"}', b"{'a': 1}", b'{"a": 1,}', b'{"a" 1}', b'{a: 1}', b'{"a": tru}', b"\xef\xbb\xbf", b"lmgg", b"GGUF", b"GGUF\3\0\0\0",
    "한국어".encode(), '{"한국어": "'.encode()[:-5],
]


def test_no_tokenizer_json(folder: Path) -> None:
    for content in NO_JSON:
        with pytest.raises(kollama.FormatError) as caught:
            load(folder, content)
        assert "given.json" in str(caught.value), content[:40]


def test_cut_anywhere(folder: Path) -> None:
    whole = json.dumps(tj.mini(), ensure_ascii=False).encode()
    path = folder / "given.json"
    load(folder, whole)
    for size in {*range(0, len(whole), 37), *range(len(whole) - 40, len(whole))}:
        path.write_bytes(whole[:size])
        with pytest.raises(kollama.FormatError) as caught:
            Tokenizer.from_file(path)
        assert str(path) in str(caught.value), size


def test_no_file(folder: Path) -> None:
    for path in (folder / "없는.json", str(folder / "없는.json"), str(folder / "없는.json").encode()):
        with pytest.raises(FileNotFoundError, match="없는"):
            Tokenizer.from_file(path)
    with pytest.raises(kollama.KollamaError):
        Tokenizer.from_file(folder)
    with pytest.raises(TypeError):
        Tokenizer.from_file(None)


def test_a_korean_path(folder: Path) -> None:
    path = tj.write(folder / "토크나이저 파일.json", tj.mini())
    assert Tokenizer.from_file(str(path)).encode("한국").tolist() == Tokenizer.from_file(path).encode("한국").tolist()


JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-3, 300), st.integers(), st.floats(), st.sampled_from(
        ["", "가", "▁", " ", "<a>", "BPE", "Sequence", "Metaspace", "never", "<0xEA>", "한 국"]), st.text(max_size=4)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["type", "content", "pattern", "String", "id", "한", "normalizers"]), inner, max_size=3),
    max_leaves=5)


def nodes(value: object, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of each value inside; of long lists and dicts the first few and the last."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    keys = keys if len(keys) <= 12 else [*keys[:6], *keys[-6:]]
    return [path, *(found for key in keys for found in nodes(value[key], (*path, key)))]  # type: ignore[index]


MUTABLE = [tj.mini(), tj._with(tj.mini(), normalizer=None, pre_tokenizer=tj.metaspace("first"), decoder=tj.metaspace())]


@settings(quick, max_examples=400)
@given(st.data())
def test_any_other_json(folder: Path, data: st.DataObject) -> None:
    """Whatever stands in place of a part: it is read, or refused by name; and what is read works."""
    which = data.draw(st.sampled_from(range(len(MUTABLE))))
    whole: Any = json.loads(json.dumps(MUTABLE[which]))
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from([found for found in nodes(whole) if found] or [None]))
        value = data.draw(JSON_VALUES)
        if path is None:
            break
        inside = whole
        for key in path[:-1]:
            inside = inside[key]
        if data.draw(st.integers(0, 4)) == 0 and isinstance(inside, dict):
            del inside[path[-1]]
        else:
            inside[path[-1]] = value
    file = folder / "mutated.json"
    file.write_text(json.dumps(whole), encoding="utf-8")
    try:
        tok = Tokenizer.from_file(file)
    except kollama.FormatError as error:
        reason = str(error)
    else:
        reason = ""
    assert not reason or "mutated.json" in reason
    if reason:
        return
    for text in ("", "한국어는 가나 ab</s>", "뷁 \0\n"):
        for parse_special in (True, False):
            ids, offsets = tok.encode_with_offsets(text, parse_special=parse_special)
            assert ids.tolist() == tok.encode(text, parse_special=parse_special).tolist()
            assert all(0 <= a <= b <= len(text) for a, b in offsets.tolist())
            decoder = tok.decoder()
            assert "".join([decoder.push(i) for i in ids] + [decoder.flush()]) == tok.decode(ids)


EMPTIED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
resource.setrlimit(resource.RLIMIT_CPU, (30, 30))
import kollama
try:
    tokenizer = kollama.Tokenizer.from_file(sys.argv[1])
except kollama.FormatError:
    sys.exit()
print(tokenizer.encode("<ab", parse_special=True).tolist())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits the memory of a process")
@limits_memory
def test_an_added_token_that_normalizes_to_nothing(folder: Path) -> None:
    data = tj.mini() | {"normalizer": tj.replace("X", "")}
    data["added_tokens"] += [tj.added(284, "X", normalized=True, special=False),
                             tj.added(285, "<a>", normalized=True, special=False)]
    path = tj.write(folder / "emptied.json", data)
    done = subprocess.run([sys.executable, "-c", EMPTIED, str(path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


# ---- texts that are refused ----------------------------------------------------------------------


def test_lone_surrogate(tok: Tokenizer) -> None:
    for text, at in [("\ud800", 0), ("가\udc00", 1), ("가나다\ud83d라", 3), ("👍\udfff", 1)]:
        for call in (tok.encode, tok.encode_with_offsets):
            with pytest.raises(kollama.TokenError, match=f"lone surrogate at character {at}"):
                call(text)


NO_UTF8 = [
    (b"\xff", 0), ("가".encode() + b"\x80", 3), ("가나".encode()[:-1], 3), (b"a\xed\xa0\x80", 1), (b"\xc0\xaf", 0),
    (b"ab\xf4\x90\x80\x80", 2), (b"</s>\xfe", 4), (b" \xe0\x80\x80", 1),
]


def test_bytes_that_are_not_utf8(tok: Tokenizer) -> None:
    for (data, at), kind, parse_special in itertools.product(NO_UTF8, (bytes, bytearray, memoryview), (True, False)):
        with pytest.raises(kollama.TokenError, match=f"UTF-8.*{at}"):
            tok.encode(kind(data), parse_special=parse_special)


@quick
@given(st.binary(max_size=40) | st.text(max_size=10).map(lambda text: text.encode("utf-8", "surrogatepass") + b"\xea"))
def test_any_bytes(tok: Tokenizer, data: bytes) -> None:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        for options in ({}, {"parse_special": True}, {"normalize": "NFC"}):
            with pytest.raises(kollama.TokenError, match=f"\\b{error.start}\\b"):
                tok.encode(data, **options)
        return
    assert tok.encode(data).tolist() == tok.encode(text).tolist()


CHARACTERS = [st.characters(max_codepoint=0x7F), st.characters(max_codepoint=0xFF),
              st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3),
              st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]),
              st.characters(min_codepoint=0x10000), st.sampled_from(" \x7f\x80\u07ff\u0800\uffff\U00010000")]


@quick
@given(st.lists(st.one_of([st.text(some, min_size=1, max_size=20) for some in CHARACTERS]), min_size=1, max_size=8),
       st.integers(4000, 4200))
def test_a_long_str_is_its_utf8(tok: Tokenizer, parts: list[str], length: int) -> None:
    # from 4,096 characters on it comes as UTF-16, whatever it is in memory
    part = "".join(parts)
    text = (part * (length // len(part) + 1))[:length]
    ids = tok.encode(text.encode()).tolist()
    assert tok.encode(text).tolist() == ids
    assert [batch.tolist() for batch in tok.encode_batch([text, text[1:], text], threads=1)] == [
        ids, tok.encode(text[1:].encode()).tolist(), ids]
    again, offsets = tok.encode_with_offsets(text)
    assert again.tolist() == ids
    assert offsets.tolist() == tok.encode_with_offsets(text.encode())[1].tolist()


def test_lone_surrogate_in_a_long_str(tok: Tokenizer) -> None:
    for text in ("가" * 5000 + "\ud800", "\udc00" + "é" * 5000, "👍" * 5000 + "\udfff" + "👍" * 5000):
        at = next(i for i, char in enumerate(text) if "\ud800" <= char <= "\udfff")
        for call in (tok.encode, tok.encode_with_offsets):
            with pytest.raises(kollama.TokenError, match=f"lone surrogate at character {at}"):
                call(text)
        with pytest.raises(kollama.TokenError, match="text 1: .*lone surrogate"):
            tok.encode_batch(["가", text])


def test_wrong_arguments(tok: Tokenizer) -> None:
    for options in ({"normalize": "NFD"}, {"normalize": True}):
        with pytest.raises((kollama.ArgumentError, TypeError)):
            tok.encode("가", **options)
    for texts in ("가", b"a", None, 3):
        with pytest.raises(TypeError):
            tok.encode_batch(texts)
    for threads in (0, -1, 2000):
        with pytest.raises(kollama.ArgumentError, match="threads"):
            tok.encode_batch(["가"], threads=threads)


# ---- hostile texts -------------------------------------------------------------------------------

MEGABYTE = 2**20
_random = random.Random(0)
HOSTILE: dict[str, Callable[[int], str]] = {
    "가": lambda n: "가" * (n // 3),
    "space": lambda n: " " * n,
    "mark": lambda n: "▁" * (n // 3),
    "a": lambda n: "a" * n,
    "line feed": lambda n: "\n" * n,
    "ㅋ": lambda n: "ㅋ" * (n // 3),
    "</s>": lambda n: "</s>" * (n // 4),
    "</s": lambda n: "</s" * (n // 3),
    "hangul": lambda n: "".join(_random.choices([chr(c) for c in range(0xAC00, 0xD7A4)], k=n // 3)),
    "words, no space": lambda n: "대한민국의수도는서울입니다" * (n // 39),
    "unknown": lambda n: "𝕏\U000e0041" * (n // 8),
    "jamo": lambda n: unicodedata.normalize("NFD", "각") * (n // 9),
    "joiners": lambda n: "👨\u200d" * (n // 7),
}


@pytest.mark.parametrize("variant", ["llama", "metaspace never, whole", "pieces over words"])
def test_hostile_text(folder: Path, variant: str) -> None:
    tok = load(folder, tj.VARIANTS[variant]())
    for name, make in HOSTILE.items():
        text = make(MEGABYTE)
        begun = time.monotonic()
        ids = tok.encode(text, parse_special=True)
        back = tok.decode(ids)
        # What takes quadratic time takes minutes here.
        assert time.monotonic() - begun < 20, name
        assert back == (text.replace(tj.MARK, " ") if name == "mark" else text), name


def test_hostile_text_with_offsets(tok: Tokenizer) -> None:
    for name, make in HOSTILE.items():
        text = make(MEGABYTE)
        begun = time.monotonic()
        ids, offsets = tok.encode_with_offsets(text, parse_special=True)
        assert time.monotonic() - begun < 20, name
        assert np.array_equal(ids, tok.encode(text, parse_special=True)), name
        assert (offsets[0, 0], offsets[-1, 1]) == (0, len(text)), name
        assert (np.diff(offsets[:, 0]) >= 0).all() and (offsets[:, 0] <= offsets[:, 1]).all(), name


@pytest.mark.parametrize("variant", ["llama", "metaspace never, whole", "pieces over words", "no bytes"])
def test_hostile_text_as_tokenizers(folder: Path, variant: str) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="the reference for tokenizer.json")
    data = tj.VARIANTS[variant]()
    tok, reference = load(folder, data), tokenizers.Tokenizer.from_str(json.dumps(data))
    for name, make in HOSTILE.items():
        text = make(20_000)
        expected = reference.encode(text, add_special_tokens=False).ids
        assert tok.encode(text, parse_special=True).tolist() == expected, name


# ---- many texts ----------------------------------------------------------------------------------

TEXTS = [*tj.SENTENCES.splitlines(), "", " ", "▁", "</s>", "뷁", "\n", "가" * 3000]


THREADS = [None, 1, 2, 7]


@pytest.mark.parametrize("options", [{}, {"add_bos": True}, {"parse_special": True}, {"normalize": "NFC"}], ids=str)
def test_batch(tok: Tokenizer, options: dict[str, Any]) -> None:
    texts = [text.encode() if i % 3 == 0 else text for i, text in enumerate(TEXTS * 5)]
    expected = [tok.encode(text, **options).tolist() for text in texts]
    for threads in THREADS:
        batch = tok.encode_batch(iter(texts), threads=threads, **options)
        assert [ids.tolist() for ids in batch] == expected, threads
        assert all(ids.dtype == np.int32 for ids in batch)


def test_batch_of_nothing(tok: Tokenizer) -> None:
    for threads in THREADS:
        assert tok.encode_batch([], threads=threads) == []
        assert [ids.tolist() for ids in tok.encode_batch(["", b"", ""], threads=threads)] == [[], [], []]
        assert [ids.tolist() for ids in tok.encode_batch([""], threads=threads, add_bos=True)] == [[tj.BOS]]


@pytest.mark.parametrize(("bad", "error"), [
    ("가\ud800", kollama.TokenError), (b"\xff", kollama.TokenError), (3, TypeError), (None, TypeError)], ids=ascii)
def test_batch_names_the_text(tok: Tokenizer, bad: object, error: type[Exception]) -> None:
    for threads in THREADS:
        with pytest.raises(error, match="text 40:"):
            tok.encode_batch(["가나다"] * 40 + [bad] + ["라"] * 50, threads=threads)
        assert tok.encode_batch(["가"], threads=threads)[0].tolist() == tok.encode("가").tolist()


@pytest.mark.parametrize(("bad", "error"), [(b"\xff", kollama.TokenError), (3, TypeError)], ids=ascii)
def test_batch_names_the_text_that_it_cannot_compose(tok: Tokenizer, bad: object, error: type[Exception]) -> None:
    with pytest.raises(error, match="text 1:"):
        tok.encode_batch(["가", bad], normalize="NFC")


@quick
@given(st.lists(st.text(max_size=12), max_size=12), st.sampled_from([1, 2, 7]))
def test_batch_of_any_texts(tok: Tokenizer, texts: list[str], threads: int) -> None:
    batch = tok.encode_batch(texts, threads=threads)
    assert [ids.tolist() for ids in batch] == [tok.encode(text).tolist() for text in texts]


# ---- normalize -----------------------------------------------------------------------------------

DECOMPOSED = st.lists(st.one_of(
    st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), max_size=4).map(lambda t: unicodedata.normalize("NFD", t)),
    st.text(st.sampled_from("\u1100\u1161\u11a8\u0301\u0323 가각e한👍\u0344\u2126\u09c7\u09be"), max_size=6), st.text(max_size=4)), max_size=4).map("".join)


@settings(quick, max_examples=300)
@given(DECOMPOSED)
def test_composes_first(tok: Tokenizer, text: str) -> None:
    composed = unicodedata.normalize("NFC", text)
    ids, offsets = tok.encode_with_offsets(text, normalize="NFC")
    assert ids.tolist() == tok.encode(text, normalize="NFC").tolist() == tok.encode(composed).tolist()
    assert tok.encode(text.encode(), normalize="NFC").tolist() == ids.tolist()
    # What a token stands for in the caller's text composes to what it stands for in the composed one.
    plain = tok.encode_with_offsets(composed)[1]
    for (first, last), (a, b) in zip(offsets.tolist(), plain.tolist(), strict=True):
        assert composed[a:b] in unicodedata.normalize("NFC", text[first:last])
    assert not ids.size or (offsets[0, 0] == 0 and offsets[-1, 1] == len(text))


def test_offsets_of_decomposed_hangul(tok: Tokenizer) -> None:
    text = unicodedata.normalize("NFD", "대한민국은 나는")
    ids, offsets = tok.encode_with_offsets(text, normalize="NFC")
    spans = [(tok.piece(i), unicodedata.normalize("NFC", text[a:b])) for i, (a, b) in zip(ids, offsets, strict=True)]
    assert spans == [("▁대한민국은", "대한민국은"), ("▁나는", " 나는")]
    assert text[offsets[0, 0]:offsets[0, 1]] == unicodedata.normalize("NFD", "대한민국은")


# ---- the tokenizer of a model --------------------------------------------------------------------


def of_tiny(merged: bool = True) -> tj.Json:
    """A tokenizer.json with the pieces of tiny's GGUF; without merges each character stays alone."""
    pieces = tiny.vocabulary()[0]
    vocab = {piece: i for i, piece in enumerate(pieces)}
    words = sorted((piece for piece in pieces[tiny.FIRST_BYTE + 256:] if len(piece) > 1), key=len)
    return tj.file_of(vocab, [[word[:-1], word[-1]] for word in words] if merged else [])


@pytest.mark.parametrize("vocab_only", [True, False])
def test_a_model_goes_by_the_json(tiny_path: Path, folder: Path, vocab_only: bool) -> None:
    text = "대한민국의 수도는 서울이다. </s>뷁"
    for merged in (True, False):
        path = tj.write(folder / "tiny.json", of_tiny(merged))
        with kollama.Model(tiny_path, tokenizer=path, vocab_only=vocab_only) as model, kollama.Model(tiny_path, vocab_only=True) as plain:
            ids = model.tokenizer.encode(text)
            assert ids.tolist() == Tokenizer.from_file(path).encode(text).tolist()
            assert (ids.tolist() != plain.tokenizer.encode(text).tolist()) or merged
            assert model.tokenizer.decode(ids) == text
            assert (model.tokenizer.bos, model.tokenizer.eos) == (tiny.BOS, tiny.EOS)
            assert len(model.tokenizer) == len(plain.tokenizer) == model.n_vocab


def test_a_model_runs_with_the_json(tiny_path: Path, folder: Path) -> None:
    path = tj.write(folder / "tiny.json", of_tiny(merged=False))
    with kollama.Model(tiny_path, tokenizer=path) as model:
        assert [model.tokenizer.piece(i) for i in model.tokenizer.encode("대한")] == ["▁", "대", "한"]
        with kollama.LLM(model, n_ctx=64, n_parallel=1, n_threads=1) as llm:
            done = llm.complete("대한민국", max_tokens=4, temperature=0)
            assert model.tokenizer.decode(done.tokens) == done.text or done.finish_reason != "length"


def rename(data: tj.Json, old: str, new: str) -> None:
    data["model"]["vocab"] = {new if piece == old else piece: i for piece, i in data["model"]["vocab"].items()}
    data["model"]["merges"] = []


@pytest.mark.parametrize(("change", "reason"), [
    (lambda d: d["model"]["vocab"].update({"뷁": len(d["model"]["vocab"])}), r"the model has \d+ pieces, this tokenizer \d+"),
    (lambda d: d["added_tokens"].append(tj.added(5000, "<a>")), r"the model has \d+ pieces, this tokenizer 5001"),
    (lambda d: rename(d, "민국", "민구"), "piece .* is '민국' in the model and '민구' in this tokenizer"),
    (lambda d: (rename(d, "민국", "민구"), rename(d, "\n", "뷁")), "'민국' in the model and '민구' in this tokenizer"),
    (lambda d: d["model"].update(type="Unigram"), "Unigram"),
])
def test_a_model_refuses_other_pieces(tiny_path: Path, folder: Path, change: Callable[[tj.Json], object], reason: str) -> None:
    data = of_tiny()
    change(data)
    with pytest.raises(kollama.FormatError, match=reason) as caught:
        kollama.Model(tiny_path, tokenizer=tj.write(folder / "other.json", data))
    assert "other.json" in str(caught.value)


def test_a_model_without_the_json_it_names(tiny_path: Path, folder: Path) -> None:
    with pytest.raises(FileNotFoundError, match="없음"):
        kollama.Model(tiny_path, tokenizer=folder / "없음.json")
    with pytest.raises(TypeError):
        kollama.Model(tiny_path, tokenizer=3)
