"""Small tokenizer.json files of Llama-2's structure, learnt here from a few Korean and English sentences.

Nothing is downloaded and no tokenizer library is needed to write one, so that the tests of errors
run everywhere. What the files should mean is asked of `tokenizers` in test_tokenizer_reference.py.
"""

from __future__ import annotations

import copy
import functools
import itertools
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

Json = dict[str, Any]

MARK = "▁"
UNK, BOS, EOS = 0, 1, 2
FIRST_BYTE = 3
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]

SENTENCES = """\
안녕하세요, 오늘은 날씨가 참 좋네요.
대한민국의 수도는 서울이다.
대한민국은 민주공화국이다.
대한민국의 주권은 국민에게 있고, 모든 권력은 국민으로부터 나온다.
나랏말싸미 듕귁에 달아 문자와로 서르 사맛디 아니할쎄
하늘을 우러러 한 점 부끄럼이 없기를
잎새에 이는 바람에도 나는 괴로워했다.
오늘 밤에도 별이 바람에 스치운다.
나 보기가 역겨워 가실 때에는 말없이 고이 보내 드리오리다.
한국어 문장을 조각으로 나누는 일은 생각보다 어렵습니다.
한국어는 교착어라서 조사와 어미가 붙습니다.
저는 학교에 갑니다. 저는 집에 갑니다. 저는 서울에 삽니다.
감사합니다. 고맙습니다. 죄송합니다. 반갑습니다.
ㅋㅋㅋㅋ 진짜 웃기다 ㅋㅋㅋ ㅎㅎ ㅠㅠ
가격은 12,000원이고 할인하면 9,900원입니다.
2023년 7월 18일에 공개되었습니다.
모델의 크기는 7B, 13B, 70B입니다.
이것은... 무엇일까요? 그것은... 모르겠어요!
서울특별시 강남구 테헤란로 123
파이썬으로 작성된 코드입니다: def main(): return 0
The quick brown fox jumps over the lazy dog.
The capital of Korea is Seoul, and the language is Korean.
Tokenizers turn text into pieces, and pieces into text.
There is no place like home; there is no time like now.
in the beginning the letters are merged two by two
for i in range(10): print(i, end=' ')
"""
# Learnt as words of their own: what indentation and empty lines are made of, in Llama-2 too.
RUNS = [MARK * 16, "\n\n", "ㅋㅋㅋㅋ", "...", "====", "각", "👨‍👩"]


def learn(words: Counter[str], n_merges: int) -> list[tuple[str, str]]:
    """Byte-pair encoding's merges, best first: the most frequent pair each time."""
    split = {word: list(word) for word in words}
    merges: list[tuple[str, str]] = []
    while len(merges) < n_merges:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, parts in split.items():
            for pair in itertools.pairwise(parts):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for parts in split.values():
            at = 0
            while at + 1 < len(parts):
                if (parts[at], parts[at + 1]) == best:
                    parts[at:at + 2] = ["".join(best)]
                at += 1
    return merges


@functools.cache
def _learnt() -> tuple[tuple[str, str], ...]:
    words = Counter(MARK + word for word in SENTENCES.split())
    words.update(dict.fromkeys(RUNS, 3))
    return tuple(learn(words, 420))


def vocab_of(merges: list[tuple[str, str]], characters: str) -> dict[str, int]:
    """Pieces and ids in Llama-2's order: special ones, bytes, what merges make, characters."""
    made = [left + right for left, right in merges]
    alone = sorted((set(characters) | set("".join(made))) - {" "})
    pieces = dict.fromkeys(["<unk>", "<s>", "</s>", *BYTES, *made, *alone])
    return {piece: i for i, piece in enumerate(pieces)}


def added(index: int, content: str, **flags: bool) -> Json:
    known = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    assert flags.keys() <= known.keys()
    return {"id": index, "content": content} | known | flags


SPECIALS = [added(UNK, "<unk>"), added(BOS, "<s>"), added(EOS, "</s>")]


def replace(pattern: str, content: str) -> Json:
    return {"type": "Replace", "pattern": {"String": pattern}, "content": content}


def sequence(kind: str, *parts: Json) -> Json:
    return {"type": "Sequence", kind: list(parts)}


def prepend(text: str = MARK) -> Json:
    return {"type": "Prepend", "prepend": text}


def metaspace(scheme: str = "always", split: bool = True) -> Json:
    return {"type": "Metaspace", "replacement": MARK, "prepend_scheme": scheme, "split": split}


NORMALIZER = sequence("normalizers", prepend(), replace(" ", MARK))
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
DECODER = sequence("decoders", replace(MARK, " "), {"type": "ByteFallback"}, {"type": "Fuse"}, STRIP)
DECODER_WITHOUT_STRIP = sequence("decoders", replace(MARK, " "), {"type": "ByteFallback"}, {"type": "Fuse"})
TEMPLATE = {
    "type": "TemplateProcessing",
    "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
    "pair": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
             {"SpecialToken": {"id": "<s>", "type_id": 1}}, {"Sequence": {"id": "B", "type_id": 1}}],
    "special_tokens": {"<s>": {"id": "<s>", "ids": [BOS], "tokens": ["<s>"]}},
}


def file_of(vocab: dict[str, int], merges: list[Any], **model: Any) -> Json:
    """A whole tokenizer.json, as Llama-2's is."""
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": copy.deepcopy(SPECIALS),
        "normalizer": copy.deepcopy(NORMALIZER),
        "pre_tokenizer": None,
        "post_processor": copy.deepcopy(TEMPLATE),
        "decoder": copy.deepcopy(DECODER),
        "model": {
            "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
            "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False,
            "vocab": vocab, "merges": merges,
        } | model,
    }


def llama(**model: Any) -> Json:
    """About a thousand pieces; the arguments replace fields of the model."""
    merges = list(_learnt())
    vocab = vocab_of(merges, SENTENCES.replace("\n", "") + "\n\tㅏㅓᄀ…♥")
    return file_of(vocab, [list(pair) for pair in merges], **model)


def mini(**model: Any) -> Json:
    """A few pieces: quick to write and to read hundreds of times."""
    merges = [("한", "국"), (MARK, "한국"), ("어", "는"), (MARK, "가"), ("가", "가"), ("a", "b"), (MARK, MARK)]
    vocab = vocab_of(merges, "한국어는가나다abc<>s/[]\n" + MARK)
    return file_of(vocab, [list(pair) for pair in merges], **model)


def _with(data: Json, **parts: Any) -> Json:
    assert parts.keys() <= data.keys()
    return data | parts


def _metaspace(scheme: str, split: bool, **model: Any) -> Json:
    decoder = DECODER if scheme != "never" else DECODER_WITHOUT_STRIP
    return _with(llama(**model), normalizer=None, pre_tokenizer=metaspace(scheme, split), decoder=decoder)


def _many_added() -> Json:
    data = llama()
    n = len(data["model"]["vocab"])
    data["added_tokens"] += [
        added(n, "<|사용자|>", normalized=False), added(n + 1, "<|사용자|>님", special=False),
        added(n + 2, "<mask>", lstrip=True), added(n + 3, "<끝>", rstrip=True, special=False),
        added(n + 4, "낱말", single_word=True, special=False), added(n + 5, "두 낱말", special=False),
        added(n + 6, "정규", normalized=True, special=False), added(n + 7, "[한]", normalized=True),
        added(n + 8, "  ", special=False),
        added(data["model"]["vocab"]["민"], "민", special=False, single_word=True),
    ]
    return data


def _without_bytes() -> Json:
    """Of some bytes there is no token: their characters are unknown."""
    data = llama()
    del data["model"]["vocab"]["<0xEB>"], data["model"]["vocab"]["<0x41>"]
    return data


def _merged_bytes() -> Json:
    """Byte tokens that merge, with each other and with characters."""
    data = llama()
    vocab = data["model"]["vocab"]
    pairs = [["<0xF0>", "<0x9F>"], ["<0xF0><0x9F>", "<0x98>"], ["<0x80>", "가"], ["는", "<0xEB>"]]
    for pair in pairs:
        vocab["".join(pair)] = len(vocab)
    data["model"]["merges"] = pairs + data["model"]["merges"]
    return data


def _merged_unknown() -> Json:
    """The unknown token merges: tokenizers looks at ids alone."""
    data = llama(byte_fallback=False, fuse_unk=False)
    vocab = data["model"]["vocab"]
    for pair in (["<unk>", "<unk>"], ["가", "<unk>"]):
        vocab["".join(pair)] = len(vocab)
        data["model"]["merges"].insert(0, pair)
    return data


def _crossing() -> Json:
    """Pieces that run over U+2581, so that words cannot be cut apart there."""
    data = llama()
    vocab, merges = data["model"]["vocab"], data["model"]["merges"]
    for pair in (["다", ".▁"], [".", MARK], ["는", MARK], ["는▁", "서"], ["e", "▁t"]):
        if all(part in vocab for part in pair):
            vocab.setdefault("".join(pair), len(vocab))
            merges.insert(0, pair)
    return data


def _space() -> Json:
    """Nothing is done to spaces, and they are pieces."""
    data = _with(llama(), normalizer=None, decoder=DECODER_WITHOUT_STRIP)
    vocab = data["model"]["vocab"]
    for piece in (" ", "  ", " 이"):
        vocab[piece] = len(vocab)
    data["model"]["merges"] += [[" ", " "], [" ", "이"]]
    return data


def _as_text() -> Json:
    data = llama()
    data["model"]["merges"] = [" ".join(pair) for pair in data["model"]["merges"]]
    return data


VARIANTS: dict[str, Callable[[], Json]] = {
    "llama": llama,
    "merges as text": _as_text,
    "ignore_merges": lambda: llama(ignore_merges=True),
    "fuse_unk false": lambda: llama(fuse_unk=False),
    "no bytes": lambda: llama(byte_fallback=False),
    "no bytes, no fuse": lambda: llama(byte_fallback=False, fuse_unk=False),
    "no unk": lambda: llama(byte_fallback=False, unk_token=None),
    "no unk, bytes": lambda: llama(unk_token=None),
    "bytes missing": _without_bytes,
    "bytes merge": _merged_bytes,
    "unknown merges": _merged_unknown,
    "pieces over words": _crossing,
    "added": _many_added,
    "metaspace always": lambda: _metaspace("always", True),
    "metaspace first": lambda: _metaspace("first", True),
    "metaspace never": lambda: _metaspace("never", True),
    "metaspace always, whole": lambda: _metaspace("always", False),
    "metaspace first, whole": lambda: _metaspace("first", False),
    "metaspace never, whole": lambda: _metaspace("never", False),
    "metaspace, ignore_merges": lambda: _metaspace("always", True, ignore_merges=True),
    "metaspace, no bytes": lambda: _metaspace("first", True, byte_fallback=False),
    "metaspace decoder": lambda: _with(_metaspace("always", True), decoder=metaspace()),
    "metaspace decoder and bytes": lambda: _with(
        _metaspace("first", True), decoder=sequence("decoders", {"type": "ByteFallback"}, metaspace("first"))),
    "metaspace with replace": lambda: _with(_metaspace("first", True), normalizer=replace("...", "…")),
    "metaspace and added": lambda: _with(
        _many_added(), normalizer=None, pre_tokenizer=metaspace("first")),
    "replace": lambda: _with(llama(), normalizer=sequence(
        "normalizers", replace("...", "…"), prepend(), replace(" ", MARK), replace("ㅋㅋ", "ㅋ"), replace("\t", ""))),
    "replace the mark": lambda: _with(llama(), normalizer=sequence(
        "normalizers", replace(MARK, "_"), prepend(), replace(" ", MARK))),
    "replace first": lambda: _with(llama(), normalizer=sequence("normalizers", replace(" ", MARK), prepend())),
    "prepend other": lambda: _with(llama(), normalizer=sequence("normalizers", prepend("가▁"), replace(" ", MARK))),
    "no normalizer": lambda: _with(llama(), normalizer=None, decoder=DECODER_WITHOUT_STRIP),
    "no normalizer, a space": _space,
    "gemma": lambda: _with(
        llama(), normalizer=replace(" ", MARK), decoder=DECODER_WITHOUT_STRIP,
        pre_tokenizer={"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}),
}
# Where a text's tokens are all of it, and decode to it.
REVERSIBLE = ["llama", "merges as text", "ignore_merges", "fuse_unk false", "no unk, bytes", "pieces over words",
              "metaspace never", "no normalizer", "gemma"]


def write(path: Path, data: object) -> Path:
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    return path
