"""The vocabulary that a folder becomes: ids against `tokenizers` and SentencePiece, and what a GGUF says."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import hf_folder
import numpy as np
import pytest
import tiny
import tokenizer_json as tj
from converted import key, sentencepiece_folder, vocabulary

import kollama
from kollama import FormatError, Tokenizer, convert

# ---- the vocabulary ------------------------------------------------------------------------------

CHATML = "{% for m in messages %}{{ m['content'] }}{% endfor %}"


def with_korean(n_added: int = 3) -> tj.Json:
    """Llama's structure, and after it what a model of chats adds."""
    data = tj.llama()
    n = len(data["model"]["vocab"])
    data["added_tokens"] += [tj.added(n, "<|끝|>"), tj.added(n + 1, "[질문▁칸]", special=False), tj.added(n + 2, "<pad>")]
    return data


TEXTS = [*tj.SENTENCES.splitlines(), "", " ", "  두  칸", "줄\n바꿈", "👨‍👩‍👧 이모지", "각", "<|끝|> [질문▁칸] </s>", "ㅋㅋㅋㅋㅋ"]


@pytest.mark.parametrize("name", ["llama", "added", "metaspace first", "gemma", "pieces over words", "merges as text"])
def test_ids_are_those_of_tokenizers(name: str, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers", reason="the reference for tokenizer.json")
    data = with_korean() if name == "added" else tj.VARIANTS[name]()
    n = max([*data["model"]["vocab"].values(), *(token["id"] for token in data["added_tokens"])]) + 1
    folder = hf_folder.llama(tokenizer=data, n_vocab=n + 7, num_hidden_layers=1).write(tmp_path / "hf")
    convert(folder, tmp_path / "out.gguf")
    reference = tokenizers.Tokenizer.from_str(json.dumps(data))
    with kollama.Model(tmp_path / "out.gguf", vocab_only=True) as model:
        for tok in (model.tokenizer, Tokenizer.from_file(tmp_path / "out.gguf")):
            assert len(tok) == n + 7
            for special in (False, True):
                reference.encode_special_tokens = not special
                for text in TEXTS:
                    ids = tok.encode(text, parse_special=special).tolist()
                    assert ids == reference.encode(text, add_special_tokens=False).ids, text
                    assert tok.decode(ids) == reference.decode(ids, skip_special_tokens=False)
            assert tok.piece(n) == f"[PAD{n}]" and tok.decode([n]) == ""
            assert (tok.bos, tok.eos, tok.is_eog(tj.EOS)) == (tj.BOS, tj.EOS, True)
        assert model.metadata["tokenizer.huggingface.json"].startswith("[json, ")
    assert kollama.inspect(tmp_path / "out.gguf").metadata["tokenizer.huggingface.json"].startswith("[json, ")
    assert json.loads(key(tmp_path / "out.gguf", "tokenizer.huggingface.json")) == data


def test_pieces_types_and_scores(tmp_path: Path) -> None:
    data = with_korean()
    n = len(data["model"]["vocab"])
    data["model"]["vocab"]["홀로"] = n + 3  # a piece that no merge makes
    convert(hf_folder.llama(tokenizer=data, n_vocab=n + 6, num_hidden_layers=1).write(tmp_path / "hf"), tmp_path / "out.gguf")
    pieces, scores, types = vocabulary(tmp_path / "out.gguf")
    kinds = gguf.TokenType
    assert types[:4] == [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, kinds.BYTE]
    assert pieces[n:] == ["<|끝|>", "[질문 칸]", "<pad>", "홀로", f"[PAD{n + 4}]", f"[PAD{n + 5}]"]
    assert types[n:] == [kinds.CONTROL, kinds.USER_DEFINED, kinds.CONTROL, kinds.NORMAL, kinds.UNUSED, kinds.UNUSED]
    first: dict[str, int] = {}
    for rank, (left, right) in enumerate(data["model"]["merges"]):
        first.setdefault(left + right, rank)
    for piece, score, kind in zip(pieces, scores, types, strict=True):
        if piece in first:
            assert score == -first[piece]
        elif kind in (kinds.NORMAL, kinds.USER_DEFINED, kinds.UNUSED):
            assert score < -max(first.values())  # what is never merged comes last


def scores_only(path: Path, out: Path) -> Path:
    """The vocabulary of a GGUF as llama.cpp reads it."""
    pieces, scores, types = vocabulary(path)
    writer = gguf.GGUFWriter(out, "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(pieces)
    writer.add_token_scores(scores)
    writer.add_token_types(types)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    return out


def test_scores_come_near_the_merges(tmp_path: Path) -> None:
    """What llama.cpp makes of the file, which does not look at the merges."""
    convert(hf_folder.llama(num_hidden_layers=1).write(tmp_path / "hf"), tmp_path / "out.gguf")
    exact = Tokenizer.from_file(tmp_path / "out.gguf")
    by_score = Tokenizer.from_file(scores_only(tmp_path / "out.gguf", tmp_path / "scores.gguf"))
    lines = tj.SENTENCES.splitlines()
    same = sum(by_score.encode(line).tolist() == exact.encode(line).tolist() for line in lines)
    assert same >= len(lines) - 1


@pytest.mark.parametrize(("settings", "files", "expected"), [
    ({}, {}, (1, 2, True)),
    ({"add_bos_token": False}, {}, (1, 2, False)),
    ({"bos_token": "</s>", "eos_token": {"content": "<|끝|>"}}, {}, (2, 889, True)),
    ({"tokenizer_class": "PreTrainedTokenizerFast"}, {}, (1, 2, True)),  # the file's own template has it
    ({}, {"special_tokens_map.json": {"eos_token": "<|끝|>"}}, (1, 889, True)),
    ({"eos_token": "<no such>"}, {"generation_config.json": {"eos_token_id": [889, 2]}}, (1, 2, True)),
])
def test_ends(settings: tj.Json, files: tj.Json, expected: tuple[int, int, bool], tmp_path: Path) -> None:
    folder = hf_folder.llama(tokenizer=with_korean(), n_vocab=892, num_hidden_layers=1)
    folder.files |= files | {"tokenizer_config.json": settings}
    convert(folder.write(tmp_path / "hf"), tmp_path / "out.gguf")
    with kollama.Model(tmp_path / "out.gguf", vocab_only=True) as model:
        for tok in (model.tokenizer, Tokenizer.from_file(tmp_path / "out.gguf")):
            assert (tok.bos, tok.eos, tok.add_bos) == expected
            if "generation_config.json" in files:
                assert tok.is_eog(889)


def test_other_ids_and_the_chat_template(tmp_path: Path) -> None:
    folder = hf_folder.llama(tokenizer=with_korean(), n_vocab=892, num_hidden_layers=1)
    folder.files["tokenizer_config.json"] = {"pad_token": "<pad>", "unk_token": "<unk>", "add_eos_token": True,
                                             "chat_template": [{"name": "rag", "template": "x"},
                                                               {"name": "default", "template": CHATML}]}
    path = tmp_path / "out.gguf"
    convert(folder.write(tmp_path / "hf"), path)
    assert key(path, "tokenizer.ggml.padding_token_id") == 891
    assert key(path, "tokenizer.ggml.unknown_token_id") == 0
    assert key(path, "tokenizer.ggml.add_eos_token") is True
    assert key(path, "tokenizer.chat_template") == CHATML
    assert key(path, "general.name") == "hf"
    (tmp_path / "hf" / "chat_template.jinja").write_text("{# 다른 것 #}", encoding="utf-8")
    convert(tmp_path / "hf", path)
    assert key(path, "tokenizer.chat_template") == "{# 다른 것 #}"


def broken(path: Path, old: str, new: str) -> Path:
    """The GGUF with another text of the same length in its tokenizer.json."""
    data = path.read_bytes()
    assert len(old) == len(new) and data.count(old.encode()) == 1
    path.write_bytes(data.replace(old.encode(), new.encode()))
    return path


@pytest.mark.parametrize(("old", "new", "reason"), [
    ('"type": "BPE"', '"type": "XPE"', "'XPE'"),
    ('{"version"', '["version"', "tokenizer.huggingface.json"),
    ('"<0x00>": 3, "<0x01>": 4', '"<0x01>": 3, "<0x00>": 4', "piece 3 is '<0x00>' in the model and '<0x01>'"),
])
def test_a_tokenizer_json_inside_that_is_wrong(old: str, new: str, reason: str, tmp_path: Path) -> None:
    folder = hf_folder.llama(num_hidden_layers=1).write(tmp_path / "hf")
    convert(folder, tmp_path / "out.gguf")
    path = broken(tmp_path / "out.gguf", old, new)
    for read in (kollama.Model, Tokenizer.from_file):
        with pytest.raises(FormatError, match=reason) as error:
            read(path)  # type: ignore[operator]
        assert str(path) in str(error.value)
    with kollama.Model(path, tokenizer=folder / "tokenizer.json") as model:  # a way past it
        assert model.tokenizer.encode("안녕하세요").tolist() == \
            Tokenizer.from_file(folder / "tokenizer.json").encode("안녕하세요").tolist()


def test_another_tokenizer_json(tmp_path: Path) -> None:
    """In place of the folder's; and where the embeddings are padded, in place of the model's."""
    folder = hf_folder.llama(n_vocab=900, num_hidden_layers=1).write(tmp_path / "hf")
    moved = tmp_path / "moved.json"
    (folder / "tokenizer.json").rename(moved)
    with pytest.raises(kollama.ModelNotFoundError, match=r"no tokenizer\.json and no tokenizer\.model"):
        convert(folder, tmp_path / "out.gguf")
    convert(folder, tmp_path / "out.gguf", tokenizer=moved)
    with kollama.Model(tmp_path / "out.gguf", tokenizer=moved) as model:
        assert len(model.tokenizer) == 900
        assert model.tokenizer.encode("안녕").tolist() == Tokenizer.from_file(moved).encode("안녕").tolist()


# ---- byte-level BPE ------------------------------------------------------------------------------


def byte_level() -> tj.Json:
    """A small tokenizer.json of Llama 3's kind, learnt by `tokenizers`."""
    tokenizers = pytest.importorskip("tokenizers", reason="the reference for tokenizer.json")
    pre = tokenizers.pre_tokenizers
    made = tokenizers.Tokenizer(tokenizers.models.BPE(ignore_merges=True))
    made.pre_tokenizer = pre.Sequence([pre.Split(tokenizers.Regex(importlib.import_module("kollama.convert.byte_level").CUTS), "isolated"),
                                       pre.ByteLevel(add_prefix_space=False, use_regex=False)])
    made.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=700, show_progress=False, initial_alphabet=pre.ByteLevel.alphabet())
    made.train_from_iterator(tj.SENTENCES.splitlines(), trainer)
    made.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"])
    made.add_tokens(["[칸]"])
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|begin_of_text|> $A", special_tokens=[("<|begin_of_text|>", made.token_to_id("<|begin_of_text|>"))])
    data: tj.Json = json.loads(made.to_str())
    return data


def test_byte_level_bpe_of_llama_3(tmp_path: Path) -> None:
    data = byte_level()
    tokenizers = pytest.importorskip("tokenizers", reason="the reference for tokenizer.json")
    reference = tokenizers.Tokenizer.from_str(json.dumps(data))
    n = reference.get_vocab_size()
    folder = hf_folder.llama(tokenizer=data, n_vocab=n + 2, num_hidden_layers=1)
    folder.files["tokenizer_config.json"] = {"bos_token": "<|begin_of_text|>", "eos_token": "<|end_of_text|>"}
    convert(folder.write(tmp_path / "hf"), tmp_path / "out.gguf")
    with kollama.Model(tmp_path / "out.gguf") as model:
        tok = model.tokenizer
        assert (tok.bos, tok.eos, tok.add_bos) == (n - 4, n - 3, True)
        assert tok.is_eog(n - 2) and tok.piece(n) == f"[PAD{n}]"
        for text in [*TEXTS, "I'll 12345 가나다라  ", "<|eot_id|>[칸]가"]:
            for special in (False, True):
                reference.encode_special_tokens = not special
                ids = tok.encode(text, parse_special=special).tolist()
                assert ids == reference.encode(text, add_special_tokens=False).ids, text


@pytest.mark.parametrize("change", [
    lambda d: d["model"].update(ignore_merges=False),
    lambda d: d.update(normalizer={"type": "NFC"}),
    lambda d: d["pre_tokenizer"]["pretokenizers"][0].update(pattern={"Regex": "x"}),
    lambda d: d["pre_tokenizer"].update(pretokenizers=[]),
    lambda d: d["model"]["merges"].append(["a"]),
    lambda d: d["model"]["merges"].append(3),
    lambda d: d["model"].update(vocab={"a": 10**9}),
    lambda d: d["model"].update(vocab={"a": "b"}),
])
def test_byte_level_bpe_that_is_not(change: Callable[[tj.Json], object], tmp_path: Path) -> None:
    data = byte_level()
    change(data)
    folder = hf_folder.llama(tokenizer=data, n_vocab=704, num_hidden_layers=1).write(tmp_path / "hf")
    with pytest.raises(FormatError, match=r"tokenizer\.json: .*(Llama 3|damaged)"):
        convert(folder, tmp_path / "out.gguf")


# ---- tokenizer.model -----------------------------------------------------------------------------


def test_a_sentencepiece_model(tmp_path: Path) -> None:
    sentencepiece = pytest.importorskip("sentencepiece", reason="the reference for tokenizer.model")
    for prefix in (True, False):
        folder = sentencepiece_folder(tmp_path / str(prefix), add_dummy_prefix=prefix)
        convert(folder, tmp_path / "out.gguf")
        assert vocabulary(tmp_path / "out.gguf") == tuple(map(list, tiny.vocabulary()))
        assert key(tmp_path / "out.gguf", "tokenizer.huggingface.json") is None
        reference = sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))
        with kollama.Model(tmp_path / "out.gguf") as model:
            for text in ("대한민국의 수도는 서울이다.", "안녕하세요 오늘 날씨가 좋네요", "the 뷁 a\nb", ""):
                assert model.tokenizer.encode(text).tolist() == reference.encode(text)
                assert model.tokenizer.add_bos


def test_added_tokens(tmp_path: Path) -> None:
    """Korean pieces that were added to a vocabulary merge in it; marks that were added do not."""
    n = len(tiny.vocabulary()[0])
    added = {"▁대한민국": n, "▁안녕하세요": n + 1, "뷁": n + 2, "<|끝|>": n + 3, "[질문▁칸]": n + 4, "<pad>": n + 5}
    folder = sentencepiece_folder(tmp_path / "hf", added=added, n_vocab=n + 8, pad_token="<pad>", added_tokens_decoder={
        "1": {"content": "<s>", "special": True}, str(n + 3): {"content": "<|끝|>", "special": True}})
    convert(folder, tmp_path / "out.gguf")
    pieces, scores, types = vocabulary(tmp_path / "out.gguf")
    kinds = gguf.TokenType
    assert pieces[n:] == ["▁대한민국", "▁안녕하세요", "뷁", "<|끝|>", "[질문 칸]", "<pad>", f"[PAD{n + 6}]", f"[PAD{n + 7}]"]
    assert types[n:] == [*[kinds.NORMAL] * 3, kinds.CONTROL, kinds.USER_DEFINED, kinds.CONTROL, *[kinds.UNUSED] * 2]
    assert scores[n:n + 6] == [-float(i - 259) for i in range(n, n + 6)]
    assert key(tmp_path / "out.gguf", "kollama.tokenizer.first_added") == n  # whatever their scores, they merge last
    with kollama.Model(tmp_path / "out.gguf") as model:
        tok = model.tokenizer
        assert [tok.piece(i) for i in tok.encode("대한민국 뷁[질문 칸]")] == ["▁대한민국", "▁", "뷁", "[질문 칸]"]


@pytest.mark.parametrize(("added", "settings", "reason"), [
    ({"가나": 5}, {}, "has id 5, which in tokenizer.model is '<0x02>'"),
    ({"가나": "x"}, {}, "the id 'x'"),
    ({"가나": 2**30}, {}, "far beyond"),
    ({"▁the": len(tiny.vocabulary()[0])}, {}, "'▁the' is the piece of the ids"),
    ({}, {"added_tokens_decoder": {"x": {"content": "가"}}}, "added_tokens_decoder"),
])
def test_added_tokens_that_are_wrong(added: dict[str, Any], settings: tj.Json, reason: str, tmp_path: Path) -> None:
    folder = sentencepiece_folder(tmp_path / "hf", added=added, **settings)
    with pytest.raises(FormatError, match=reason):
        convert(folder, tmp_path / "out.gguf")


def refusal_of(folder: Path, out: Path) -> str | None:
    """The text of the FormatError, None where the damage did no harm. Any other error fails the test."""
    try:
        convert(folder, out)
    except FormatError as error:
        return str(error)
    out.unlink()
    return None


def test_damaged_sentencepiece_models(tmp_path: Path) -> None:
    folder = sentencepiece_folder(tmp_path / "hf")
    good = (folder / "tokenizer.model").read_bytes()
    unigram = good.replace(b"\x18\x02\x20", b"\x18\x01\x20")
    assert unigram != good
    random = np.random.default_rng(0)
    cases = [b"", unigram, *(good[:n] for n in random.integers(1, len(good), 30))]
    for _ in range(60):
        data = np.frombuffer(good, np.uint8).copy()
        data[random.integers(0, len(data), 3)] = random.integers(0, 256, 3)
        cases.append(data.tobytes())
    for data in cases:
        (folder / "tokenizer.model").write_bytes(data)
        reason = refusal_of(folder, tmp_path / "out.gguf")
        assert reason is None or str(folder) in reason
        assert data != unigram or "byte-pair" in str(reason)
        assert [path.name for path in tmp_path.iterdir()] == ["hf"]
