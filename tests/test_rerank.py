"""Reranking: the head's scores from the hidden states that `embed` gives, computed with NumPy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import tiny_rank

import kollama
from kollama.rerank import pair_ids

QUERY = "대한민국의 수도는"
DOCUMENTS = ["서울이다.", "오늘 날씨가 좋네요.", "the a b c", "한국어"]


def hidden(model: kollama.Model, pooling: Any, texts: list[Any]) -> np.ndarray:
    with model.context(n_ctx=64, n_threads=1, embeddings=True, pooling=pooling) as ctx:
        rows = ctx.embed(texts)
        assert isinstance(rows, np.ndarray)
        return rows


@pytest.mark.parametrize("options", [{}, {"n_ctx": 64}])
def test_qwen3(tmp_path: Path, options: dict[str, Any]) -> None:
    weights = tiny_rank.write(tmp_path / "rank.gguf", "qwen3", labels=["yes", "no", "네"])
    with kollama.LLM(tmp_path / "rank.gguf", **({"n_ctx": 256, "n_threads": 1} | options)) as llm:
        scores = llm.rerank(QUERY, DOCUMENTS * 10)
        pairs = [pair_ids(llm.model, QUERY, document) for document in DOCUMENTS]
        logits = hidden(llm.model, "last", pairs) @ weights["cls.output.weight"].T
        expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, np.tile(expected[:, 0], 10), atol=0.01)
        assert np.ptp(scores) > 0.05
        encode = llm.tokenizer.encode
        assert pairs[0].tolist() == [tiny.BOS, *encode(QUERY), *encode(DOCUMENTS[0])]
        assert llm.rerank(QUERY, []).shape == (0,)
        with llm.model.context(n_ctx=64, n_threads=1, embeddings=True, pooling="rank") as ctx:
            rows = ctx.embed(pairs)
        assert isinstance(rows, np.ndarray)
        np.testing.assert_allclose(rows, expected, atol=0.01)


def test_bert(tmp_path: Path) -> None:
    weights = tiny_rank.write(tmp_path / "rank.gguf", "bert")
    with kollama.Model(tmp_path / "rank.gguf") as model:
        pairs = [pair_ids(model, QUERY, document) for document in DOCUMENTS]
        head = np.tanh(hidden(model, "cls", pairs) @ weights["cls.weight"].T + weights["cls.bias"])
        expected = head @ weights["cls.output.weight"].T + weights["cls.output.bias"]
        with model.context(n_ctx=256, n_seq_max=4, n_threads=1, embeddings=True, pooling="rank") as ctx:
            rows = ctx.embed(pairs)
            assert isinstance(rows, np.ndarray)
            np.testing.assert_allclose(rows, expected, atol=0.01)
            # It has 64 places: beyond them llama.cpp would read what is not there.
            with pytest.raises(kollama.ContextFullError, match="text 0 has 65 tokens, n_ctx is 64"):
                ctx.embed([[5] * 65])
            assert np.isfinite(ctx.embed([[5] * 64])).all()


def test_a_prompt_of_the_file(tmp_path: Path) -> None:
    tiny_rank.write(tmp_path / "rank.gguf", "qwen3", labels=["yes", "no"], prompt="<s>Q: {query} D: {document}</s>")
    with kollama.Model(tmp_path / "rank.gguf") as model:
        def ids(text: str) -> list[int]:
            return model.tokenizer.encode(text, parse_special=True).tolist()

        assert pair_ids(model, "가", "나").tolist() == ids("<s>Q: 가 D: 나</s>")
        # What a text holds is not taken for a place to fill.
        assert pair_ids(model, "{document}", "{query}").tolist() == ids("<s>Q: {document} D: {query}</s>")


def test_models_without_a_head(llm: kollama.LLM, tmp_path: Path) -> None:
    with pytest.raises(kollama.ArgumentError, match=r"has no classification head \(cls\.output\.weight\)"):
        llm.rerank(QUERY, DOCUMENTS)
    with pytest.raises(kollama.ArgumentError, match="no classification head"):
        llm.rerank(QUERY, [])
    with pytest.raises(kollama.ArgumentError, match="no classification head"):
        llm.model.context(embeddings=True, pooling="rank")
    tiny_rank.write(tmp_path / "headless.gguf", "qwen3", with_head=False)
    with kollama.Model(tmp_path / "headless.gguf") as model, pytest.raises(kollama.ArgumentError, match="no classification head"):
        model.rank_head()


def test_wrong_arguments(tmp_path: Path) -> None:
    tiny_rank.write(tmp_path / "rank.gguf", "qwen3", labels=["yes", "no"])
    with kollama.LLM(tmp_path / "rank.gguf", n_ctx=64, n_threads=1) as llm:
        for query, documents, error in (("", DOCUMENTS, ValueError), (QUERY, [""], ValueError), (QUERY, "text", TypeError), (3, DOCUMENTS, TypeError),
                                        (QUERY, [3], TypeError), (QUERY, 3, TypeError)):
            with pytest.raises(error):
                llm.rerank(query, documents)  # type: ignore[arg-type]
        with pytest.raises(kollama.ContextFullError):
            llm.rerank(QUERY, ["한국어 " * 100])
        with pytest.raises(kollama.DeadlineError):
            llm.rerank(QUERY, DOCUMENTS * 100, timeout=1e-3)
        assert len(llm.rerank(QUERY, DOCUMENTS)) == len(DOCUMENTS)
