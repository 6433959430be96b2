"""Ids, offsets and text against the references: `tokenizers`, llama.cpp, and SentencePiece."""

from __future__ import annotations

import ctypes
import functools
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sentencepiece_model
import tokenizer_json as tj
from conftest import VOCABULARIES
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

import kollama

quick = settings(
    deadline=None, max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])

# ---- texts ---------------------------------------------------------------------------------------

ANY = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
SYLLABLES = st.text(st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3), max_size=12)
JAMO = st.text(st.one_of(st.characters(min_codepoint=0x1100, max_codepoint=0x11FF),
                         st.characters(min_codepoint=0x3131, max_codepoint=0x318E),
                         st.characters(min_codepoint=0xA960, max_codepoint=0xA97C)), max_size=8)
WORDS = st.sampled_from(tj.SENTENCES.split())
SENTENCES = st.sampled_from(tj.SENTENCES.splitlines())
SPACES = st.sampled_from([" ", "  ", "   ", " " * 17, "▁", "▁▁", " ▁ ", "\n", "\n\n", "\t", "\r\n", "\u00a0", "\u3000"])
AWKWARD = st.sampled_from([
    "👨‍👩‍👧‍👦", "👍🏽", "🇰🇷", "각", "한국어", "ﬁ", "é", "\0", "\ufeff", "\ufffd", "\U0010ffff", "뷁", "㈜", "ㅋㅋㅋ",
    "...", "....", "<0xEA>", "<0x41>", "<unk>", "<s>", "</s>", "</s", "s>", "<s></s>", "<|사용자|>", "<|사용자|>님", "<mask>",
    "<끝>", "낱말", "두 낱말", "정규", "[한]", "대한민국", "민국", "다. ", "는 서",
])
TEXTS = st.lists(st.one_of(ANY, SYLLABLES, JAMO, WORDS, SENTENCES, SPACES, AWKWARD), max_size=6).map("".join)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


# ---- tokenizers ----------------------------------------------------------------------------------


class Both:
    """The same tokenizer.json in kollama and in tokenizers."""

    def __init__(self, data: tj.Json, path: Path) -> None:
        tokenizers = pytest.importorskip("tokenizers", reason="the reference for tokenizer.json")
        self.own = kollama.Tokenizer.from_file(tj.write(path, data))
        self.reference = tokenizers.Tokenizer.from_str(json.dumps(data))
        self._data = data

    @functools.cached_property
    def is_first_only_at_the_start(self) -> bool:
        """Whether U+2581 goes in front of a text's first word alone, and a normaliser may change that."""
        return (self._data["pre_tokenizer"] or {}).get("prepend_scheme") == "first" and self._shifts

    @functools.cached_property
    def _miscounts(self) -> bool:
        """Whether characters may have no token of their own: tokenizers' offsets are off behind those."""
        model = self._data["model"]
        if model["byte_fallback"]:
            return not model["vocab"].keys() >= set(tj.BYTES)
        return model["unk_token"] is None

    @functools.cached_property
    def _replaces_several(self) -> bool:
        """Whether a normaliser replaces several characters: tokenizers' offsets name the last of them."""
        return any(len(step["pattern"]["String"]) > 1 for step in self._replacements)

    @functools.cached_property
    def _shifts(self) -> bool:
        return any(len(step["pattern"]["String"]) != len(step["content"]) for step in self._replacements)

    @functools.cached_property
    def _replacements(self) -> list[tj.Json]:
        steps = [self._data["normalizer"]]
        for step in steps:
            steps += step.get("normalizers", []) if step else []
        return [step for step in steps if step and step["type"] == "Replace"]

    def _check_offsets(self, own: list[list[int]], expected: list[tuple[int, int]], text: str) -> None:
        if self._miscounts:
            assert all(0 <= first <= last <= len(text) for first, last in own)
        elif self._replaces_several:
            assert all(a[0] <= b[0] and b[1] <= a[1] for a, b in zip(own, expected, strict=True))
        else:
            assert [tuple(pair) for pair in own] == expected

    def encoding(self, text: str, parse_special: bool, add_bos: bool = False) -> Any:
        self.reference.encode_special_tokens = not parse_special
        return self.reference.encode(text, add_special_tokens=add_bos)

    def check_encode(self, text: str) -> None:
        for parse_special in (True, False):
            expected = self.encoding(text, parse_special)
            ids, offsets = self.own.encode_with_offsets(text, parse_special=parse_special)
            assert ids.tolist() == expected.ids, (text, parse_special)
            assert self.own.encode(text, parse_special=parse_special).tolist() == expected.ids
            self._check_offsets(offsets.tolist(), expected.offsets, text)

    def check_decode(self, ids: Sequence[int]) -> None:
        # tokenizers tells special tokens by their normalised text when it decodes: it does not know one that its
        # normaliser changes, and takes a plain token for one whose normalised text is a special token's own.
        special = {self.own.piece(i) for i in self._special_ids}
        hidden = any((i in self._special_ids) != (self.reference.id_to_token(i) in special) for i in ids)
        for skip in (True, False):
            text = self.own.decode(ids, skip_special=skip)
            decoder = self.own.decoder(skip_special=skip)
            assert "".join([decoder.push(i) for i in ids] + [decoder.flush()]) == text
            if not (skip and hidden) and not self._runs_are_mixed(ids, skip):
                assert text == self.reference.decode(list(ids), skip_special_tokens=skip), list(ids)

    def _runs_are_mixed(self, ids: Sequence[int], skip: bool) -> bool:
        """Whether a run of byte tokens has both characters and bytes that are part of none.

        There tokenizers replaces each byte of the run, kollama those alone that are no character.
        """
        pieces = [self.reference.id_to_token(i) for i in ids
                  if not (skip and i in self._special_ids)]
        for is_byte, run in itertools.groupby(pieces, _is_byte):
            if is_byte and (data := _bytes_of(run)):
                broken = data.decode("utf-8", "surrogateescape")
                surrogates = sum("\ud800" <= char <= "\udfff" for char in broken)
                if 0 < surrogates < len(broken):
                    return True
        return False

    @functools.cached_property
    def _special_ids(self) -> set[int]:
        return {i for i, token in self.reference.get_added_tokens_decoder().items() if token.special}


def _is_byte(piece: str) -> bool:
    return re.fullmatch("<0x[0-9A-Fa-f]{2}>", piece) is not None


def _bytes_of(run: Iterable[str]) -> bytes:
    return bytes(int(piece[3:5], 16) for piece in run)


@pytest.fixture(scope="module", params=list(tj.VARIANTS))
def both(request: pytest.FixtureRequest, folder: Path) -> Both:
    return Both(tj.VARIANTS[request.param](), folder / "tokenizer.json")


@quick
@example("", [])
@example(" ", [])
@example("▁", [])
@example("<s>안녕</s>  <mask>  낱말 낱말이 두 낱말 <끝> 정규 [한] <|사용자|>님", [])
@example("안녕하세요, 오늘은 날씨가 참 좋네요.", [])
@example("이것은... 무엇일까요?\n\n\tㅋㅋㅋㅋ 👍🏽", [])
@given(TEXTS, st.lists(st.integers(0, 1000) | st.integers(tj.FIRST_BYTE, tj.FIRST_BYTE + 255), max_size=16))
def test_encodes_and_decodes_as_tokenizers(both: Both, text: str, ids: list[int]) -> None:
    if both.is_first_only_at_the_start:
        text = "가" + text  # test_a_replacement_at_the_start
    both.check_encode(text)
    for parse_special in (True, False):
        both.check_decode(both.encoding(text, parse_special).ids)
    both.check_decode([i for i in ids if both.reference.id_to_token(i) is not None])


def test_the_same_pieces_as_tokenizers(folder: Path) -> None:
    for name, make in tj.VARIANTS.items():
        both = Both(make(), folder / "pieces.json")
        vocab = both.reference.get_vocab(with_added_tokens=True)
        assert len(both.own) == max(vocab.values()) + 1, name
        assert all(both.own.piece(i) == piece and both.own.id(piece) == i for piece, i in vocab.items()), name
        for i in set(range(len(both.own))) - set(vocab.values()):
            for call in (both.own.piece, both.own.decoder().push, lambda i, own=both.own: own.decode([i])):
                with pytest.raises(kollama.TokenError):
                    call(i)


def test_bos_as_the_template_says(folder: Path) -> None:
    both = Both(tj.llama(), folder / "bos.json")
    assert (both.own.bos, both.own.eos, both.own.add_bos) == (tj.BOS, tj.EOS, True)
    assert both.own.native and both.own.is_eog(tj.EOS) and not both.own.is_eog(tj.BOS)
    for text in ("", "안녕하세요", "<s>"):
        expected = both.encoding(text, parse_special=True, add_bos=True)
        ids, offsets = both.own.encode_with_offsets(text, parse_special=True, add_bos=True)
        assert ids.tolist() == expected.ids
        assert [tuple(pair) for pair in offsets.tolist()] == expected.offsets


def kept(data: bytes) -> str:
    """data as text, U+FFFD for each byte that is part of no character."""
    text = data.decode("utf-8", "surrogateescape")
    return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)


def expected_text(vocab: dict[int, str], ids: Sequence[int]) -> str:
    """What Llama-2's decoder should give: its steps, but whole characters of a run of bytes are kept."""
    out = ""
    for is_byte, group in itertools.groupby((vocab[i] for i in ids), _is_byte):
        run = list(group)
        out += kept(_bytes_of(run)) if is_byte else "".join(run).replace(tj.MARK, " ")
    return out.removeprefix(" ")


@pytest.fixture(scope="module")
def llama(folder: Path) -> kollama.Tokenizer:
    return kollama.Tokenizer.from_file(tj.write(folder / "llama.json", tj.llama()))


@quick
@example([0xEA, 0xB0, 0x80, 0xEA])  # a syllable, and the first byte of another
@example([0xEA, 0xB0, 0x41])
@given(st.lists(st.one_of(st.integers(0, 255), st.sampled_from([0xEA, 0xB0, 0x80, 0xED, 0xF0, 0x9F])), max_size=12))
def test_a_mixed_run_keeps_its_characters(llama: kollama.Tokenizer, data: list[int]) -> None:
    vocab = {i: piece for piece, i in tj.llama()["model"]["vocab"].items()}
    ids = [tj.FIRST_BYTE + byte for byte in data]
    for around in (ids, [llama.id("가"), *ids], [*ids, llama.id("▁대한민국"), *ids]):
        assert llama.decode(around) == expected_text(vocab, around)


@quick
@given(st.data())
def test_any_ids_decode_to_what_their_pieces_say(llama: kollama.Tokenizer, data: st.DataObject) -> None:
    vocab = {i: piece for piece, i in tj.llama()["model"]["vocab"].items()}
    ids = data.draw(st.lists(st.integers(0, len(vocab) - 1) | st.integers(3, 258), max_size=20))
    assert llama.decode(ids) == expected_text(vocab, ids)


@pytest.fixture(scope="module", params=tj.REVERSIBLE)
def reversible(request: pytest.FixtureRequest, folder: Path) -> kollama.Tokenizer:
    return kollama.Tokenizer.from_file(tj.write(folder / "reversible.json", tj.VARIANTS[request.param]()))


@quick
@given(TEXTS.filter(lambda text: tj.MARK not in text))  # a literal mark comes back as a space
def test_round_trip(reversible: kollama.Tokenizer, text: str) -> None:
    ids = reversible.encode(text)
    decoder = reversible.decoder()
    assert reversible.decode(ids) == text
    assert reversible.decode_bytes(ids) == text.encode()
    assert "".join([decoder.push(i) for i in ids] + [decoder.flush()]) == text


# ---- added tokens, in any combination ------------------------------------------------------------

CONTENTS = ["<a>", "<a><a>", "a", "ab", "가", "가가", "한국", "<a> 가", " ", "  ", "▁", "\n", "a▁b", "b ", " c", "</s>가", "국어"]
FLAGS = st.fixed_dictionaries({name: st.booleans() for name in ("lstrip", "rstrip", "single_word", "normalized", "special")})
NORMALIZERS = [
    tj.NORMALIZER, None, tj.replace(" ", tj.MARK), tj.sequence("normalizers", tj.replace("가가", "나"), tj.prepend()),
    tj.sequence("normalizers", tj.replace("b", ""), tj.replace("c", "  "), tj.prepend(), tj.replace(" ", tj.MARK)),
]
PRE_TOKENIZERS = [None, *(tj.metaspace(scheme, split) for scheme in ("always", "first", "never") for split in (True, False))]
PARTS = [*CONTENTS, "나", "b", "c", "<", ">", " <a> ", "_", "1", "é", "\u3000", "한", "<s>", "</s>"]


@st.composite
def changes(draw: st.DrawFn) -> tj.Json:
    """What is put into tj.mini(), which is too long to be shown with each failure."""
    model = {name: draw(st.booleans()) for name in ("byte_fallback", "ignore_merges", "fuse_unk")}
    vocab = tj.mini()["model"]["vocab"]
    tokens, fresh = [], len(vocab)
    for content in draw(st.lists(st.sampled_from(CONTENTS), min_size=1, max_size=5, unique=True)):
        tokens.append(tj.added(vocab.get(content, fresh), content, **draw(FLAGS)))
        fresh += content not in vocab
    return {"model": model, "added_tokens": tokens, "normalizer": draw(st.sampled_from(NORMALIZERS)),
            "pre_tokenizer": draw(st.sampled_from(PRE_TOKENIZERS))}


@settings(quick, max_examples=400)
@given(changes(), st.lists(st.lists(st.sampled_from(PARTS), max_size=8).map("".join), min_size=1, max_size=6))
def test_added_tokens_as_tokenizers(folder: Path, changed: tj.Json, texts: list[str]) -> None:
    data = tj.mini(**changed["model"]) | {name: changed[name] for name in ("normalizer", "pre_tokenizer")}
    data["added_tokens"] += changed["added_tokens"]
    both = Both(data, folder / "added.json")
    # Of two tokens that are found by the same text tokenizers takes either, by chance.
    found_by = [both.reference.normalizer.normalize_str(token["content"])
                for token in changed["added_tokens"] if token["normalized"] and both.reference.normalizer]
    assume(len(set(found_by)) == len(found_by))
    for text in texts:
        if both.is_first_only_at_the_start:
            text = "_" + text
        both.check_encode(text)
        both.check_decode(both.encoding(text, parse_special=True).ids)


def with_added(folder: Path, *tokens: tj.Json, **parts: Any) -> Both:
    """mini() with added tokens that have ids behind its own, 284 first."""
    data = tj.mini() | parts
    data["added_tokens"] += tokens
    return Both(data, folder / "few.json")


def test_a_plain_token_that_normalises_to_a_special_one(folder: Path) -> None:
    both = with_added(folder, tj.added(276, tj.MARK, special=True), tj.added(284, " ", normalized=True, special=False),
                      tj.added(285, "<a>", special=False), normalizer=tj.replace(" ", tj.MARK), pre_tokenizer=None)
    ids = both.encoding(" <a> ", parse_special=True).ids
    assert ids == [284, 285, 284]
    both.check_decode(ids)
    assert both.own.decode(ids, skip_special=True) == "<a> "
    assert both.reference.decode(ids, skip_special_tokens=True) == "<a>"  # without the tokens that it was not asked to skip


def test_a_normalized_added_token_decodes_as_it_was_found(folder: Path) -> None:
    both = with_added(folder, tj.added(284, "<a>", normalized=True, special=False))
    ids = both.own.encode("가 <a> 나", parse_special=True)
    assert 284 in ids
    assert both.reference.decode(ids.tolist(), skip_special_tokens=False) == "가 <a> 나"
    assert both.own.decode(ids) == "가 <a> 나"


def test_metaspace_keeps_a_literal_space_of_the_first_token(folder: Path) -> None:
    both = with_added(folder, tj.added(284, "두 낱말", special=False), normalizer=None,
                      pre_tokenizer=tj.metaspace(), decoder=tj.metaspace())
    assert both.reference.decode([284]) == "두 낱말"
    assert both.own.decode([284]) == "두 낱말"
    assert both.own.decoder().push(284) == "두 낱말"


def test_white_space_that_is_taken_already(folder: Path) -> None:
    both = with_added(folder, tj.added(284, "<a>", rstrip=True), tj.added(285, " ", lstrip=True))
    both.check_encode("<a> ")  # the space is part of <a>: nothing is left for its own token


def test_a_mark_in_front_of_a_space(folder: Path) -> None:
    # The normalizer puts U+2581 in front of the one that was a space, and each is a word.
    both = Both(tj.mini(ignore_merges=True) | {"pre_tokenizer": tj.metaspace("never")}, folder / "twice.json")
    assert [both.own.piece(i) for i in both.own.encode(" 가")] == ["▁", "▁가"]
    both.check_encode(" 가")


def _pieces_at_the_start(folder: Path, pattern: str, text: str) -> tuple[list[str], list[str]]:
    data = tj.mini() | {"normalizer": tj.replace(pattern, "나"), "pre_tokenizer": tj.metaspace("first")}
    both = Both(data, folder / "start.json")
    return [both.own.piece(i) for i in both.own.encode(text)], both.encoding(text, parse_special=False).tokens


@pytest.mark.xfail(strict=True, reason="tokenizers counts from the last character that was replaced: that is not the first")
def test_a_replacement_at_the_start(folder: Path) -> None:
    own, expected = _pieces_at_the_start(folder, "가가", "가가다")
    assert own == expected == ["나", "다"]


def test_neighbours_of_what_has_no_token_merge(folder: Path) -> None:
    both = Both(tj.mini(byte_fallback=False, unk_token=None), folder / "none.json")
    both.check_encode("뷁 ")  # U+2581, a character that is nothing, U+2581: ▁▁


# ---- llama.cpp -----------------------------------------------------------------------------------


class _ModelParams(ctypes.Structure):
    """struct llama_model_params of the submodule's llama.h."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("devices", "tensor_buft_overrides")),
        *((name, ctypes.c_int32) for name in ("n_gpu_layers", "split_mode", "load_mode", "lazy_mode", "main_gpu")),
        *((name, ctypes.c_void_p) for name in (
            "tensor_split", "progress_callback", "progress_callback_user_data", "kv_overrides")),
        *((name, ctypes.c_bool) for name in (
            "vocab_only", "check_tensors", "use_extra_bufts", "no_host", "no_alloc", "load_mtp")),
    ]


def _library() -> ctypes.CDLL:
    """llama.cpp as kollama has it in this process."""
    header = VOCABULARIES.parent / "include" / "llama.h"
    if not header.exists():
        pytest.skip("the submodule is not checked out")
    body = header.read_text().split("struct llama_model_params {")[1].split("};")[0]
    names = re.findall(r"(\w+);", re.sub("//.*", "", body))
    assert names == [field[0] for field in _ModelParams._fields_], "llama.h has changed: change _ModelParams with it"
    found = sorted((Path(kollama.__file__).parent / "lib").glob("*kollama-llama.*"))
    if not found:
        pytest.skip("the installed package has no lib folder with llama.cpp in it")
    kollama.Tokenizer.from_file(VOCABULARIES / "ggml-vocab-llama-spm.gguf")  # loads what it depends on
    library = ctypes.CDLL(str(found[0]))
    library.llama_model_default_params.restype = _ModelParams
    library.llama_model_load_from_file.restype = ctypes.c_void_p
    library.llama_model_load_from_file.argtypes = [ctypes.c_char_p, _ModelParams]
    library.llama_model_get_vocab.restype = ctypes.c_void_p
    library.llama_model_get_vocab.argtypes = [ctypes.c_void_p]
    library.llama_model_free.argtypes = [ctypes.c_void_p]
    library.llama_tokenize.argtypes = [
        ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int32, ctypes.POINTER(ctypes.c_int32), ctypes.c_int32,
        ctypes.c_bool, ctypes.c_bool]
    return library


class LlamaCpp:
    def __init__(self, path: Path) -> None:
        self._library = _library()
        self._library.llama_backend_init()
        params = self._library.llama_model_default_params()
        params.vocab_only = True
        self._model = self._library.llama_model_load_from_file(str(path).encode(), params)
        assert self._model
        self._vocab = self._library.llama_model_get_vocab(self._model)

    def encode(self, text: str, parse_special: bool) -> list[int]:
        data = text.encode()
        room = len(data) + 8
        ids = (ctypes.c_int32 * room)()
        n = self._library.llama_tokenize(self._vocab, data, len(data), ids, room, False, parse_special)
        assert n >= 0
        return ids[:n]

    def close(self) -> None:
        self._library.llama_model_free(self._model)


GGUFS = ["llama-spm", "phi-3", "baichuan"]
GGUF_SPECIALS = st.sampled_from([
    "<s>", "</s>", "<unk>", "<|endoftext|>", "<|user|>", "<|end|>", " <|end|> ", "<|assistant|>\n", "<|end", "<reserved_106>",
    "<|endoftext|>  </s>", "<0x0A>", "</s>", "<s", "▁▁▁"])
GGUF_TEXTS = st.lists(st.one_of(TEXTS, GGUF_SPECIALS), max_size=5).map("".join)


def beside_llama_cpp(name: str) -> Iterator[tuple[kollama.Tokenizer, LlamaCpp]]:
    """A vocabulary of the submodule, in kollama and in llama.cpp."""
    path = VOCABULARIES / f"ggml-vocab-{name}.gguf"
    if not path.exists():
        pytest.skip("the submodule is not checked out")
    reference = LlamaCpp(path)
    yield kollama.Tokenizer.from_file(path), reference
    reference.close()


@pytest.fixture(scope="module", params=GGUFS)
def with_llama_cpp(request: pytest.FixtureRequest) -> Iterator[tuple[kollama.Tokenizer, LlamaCpp]]:
    yield from beside_llama_cpp(request.param)


@settings(quick, max_examples=300)
@example("")
@example(" ")
@example("안녕하세요, 오늘은 날씨가 참 좋네요.</s> 또 봐요")
@given(GGUF_TEXTS)
def test_encodes_as_llama_cpp(with_llama_cpp: tuple[kollama.Tokenizer, LlamaCpp], text: str) -> None:
    own, reference = with_llama_cpp
    assert own.native
    for parse_special in (True, False):
        ids = reference.encode(text, parse_special)
        assert own.encode(text, parse_special=parse_special).tolist() == ids
        assert own.encode_with_offsets(text, parse_special=parse_special)[0].tolist() == ids


@quick
@given(TEXTS.filter(lambda text: tj.MARK not in text))
def test_gguf_round_trip(with_llama_cpp: tuple[kollama.Tokenizer, LlamaCpp], text: str) -> None:
    own, _ = with_llama_cpp
    ids, offsets = own.encode_with_offsets(text)
    decoder = own.decoder()
    assert own.decode(ids) == text
    assert "".join([decoder.push(i) for i in ids] + [decoder.flush()]) == text
    # Tokens stand for stretches in order, and leave nothing out.
    assert all(a[0] <= b[0] <= a[1] <= b[1] for a, b in itertools.pairwise(offsets.tolist()))
    assert not text or (offsets[0, 0] == 0 and offsets[-1, 1] == len(text))


# ---- byte-level BPE: llama.cpp's own tokenizer, but what came before is not read again -------------

BPE_GGUFS = ["llama-bpe", "qwen2", "gpt-2", "command-r", "deepseek-llm", "mpt", "gemma-4"]
BPE_SPECIALS = st.sampled_from([
    "<|begin_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|im_start|>", "<|im_end|>\n", "<|endoftext|>", "<|endoftext|><|im",
    "<|END_OF_TURN_TOKEN|>", "<|begin|>", "<｜end▁of▁sentence｜>", "<|endoftext", "|>", "  ", "        ", "<pad>", "<0x0A>", "\n\n"])
BPE_TEXTS = st.lists(st.one_of(TEXTS, BPE_SPECIALS), max_size=6).map("".join)


@pytest.fixture(scope="module", params=BPE_GGUFS)
def bpe_with_llama_cpp(request: pytest.FixtureRequest) -> Iterator[tuple[kollama.Tokenizer, LlamaCpp]]:
    yield from beside_llama_cpp(request.param)


@settings(quick, max_examples=150)
@example(["<|im_start|>user\n안녕하세요<|im_end|>\n", "<|im_start|>user\n안녕하세요<|im_end|>\n<|im_start|>assistant\n네, 반갑습니다."])
@given(st.lists(BPE_TEXTS, max_size=3))
def test_texts_that_come_again(bpe_with_llama_cpp: tuple[kollama.Tokenizer, LlamaCpp], texts: list[str]) -> None:
    own, reference = bpe_with_llama_cpp
    assert not own.native
    for text in (*texts, *texts, "".join(texts)):
        for parse_special in (True, False):
            assert own.encode(text, parse_special=parse_special).tolist() == reference.encode(text, parse_special)


def test_a_chat_longer_than_what_is_kept(bpe_with_llama_cpp: tuple[kollama.Tokenizer, LlamaCpp]) -> None:
    own, reference = bpe_with_llama_cpp
    turns = [f"{i}번째 말: " + "가나다라 마바사. " * 500 for i in range(100)]  # 1.2 MB, and more of ids: 2 MB are kept
    specials = [text for text in ("<|im_end|>", "<|eot_id|>", "<|END_OF_TURN_TOKEN|>", "<|endoftext|>", "<｜end▁of▁sentence｜>", "<eos>")
                if len(reference.encode(text, True)) == 1]
    expected = [token for turn in turns for token in (*reference.encode(turn, True), *reference.encode(specials[0], True))]
    chat = "".join(turn + specials[0] for turn in turns)
    for _ in range(2):
        assert own.encode(chat, parse_special=True).tolist() == expected


# ---- SentencePiece -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama_spm() -> tuple[kollama.Tokenizer, Any]:
    """The vocabulary of Llama-2 in kollama and in SentencePiece."""
    sentencepiece = pytest.importorskip("sentencepiece", reason="the reference for a vocabulary with scores")
    gguf = pytest.importorskip("gguf", reason="reads the scores")
    path = VOCABULARIES / "ggml-vocab-llama-spm.gguf"
    if not path.exists():
        pytest.skip("the submodule is not checked out")
    fields = gguf.GGUFReader(path).fields
    pieces, scores, types = (fields[f"tokenizer.ggml.{name}"] for name in ("tokens", "scores", "token_type"))
    model = sentencepiece_model.write(
        [bytes(pieces.parts[i]).decode() for i in pieces.data], [float(scores.parts[i][0]) for i in scores.data],
        [int(types.parts[i][0]) for i in types.data], add_dummy_prefix=True)
    own, reference = kollama.Tokenizer.from_file(path), sentencepiece.SentencePieceProcessor(model_proto=model)
    assert len(own) == reference.get_piece_size()
    return own, reference


@settings(quick, max_examples=200)
@given(TEXTS)
def test_encodes_as_sentencepiece(llama_spm: tuple[kollama.Tokenizer, Any], text: str) -> None:
    own, reference = llama_spm
    # With parse_special=False both read "</s>" as the characters it is. A NUL ends SentencePiece's text.
    text = text.replace("\0", "")
    assert own.encode(text).tolist() == reference.encode(text)
