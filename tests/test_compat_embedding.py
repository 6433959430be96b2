"""kollama.compat: embed and create_embedding."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kollama
from kollama.compat import (
    LLAMA_POOLING_TYPE_LAST,
    LLAMA_POOLING_TYPE_MEAN,
    LLAMA_POOLING_TYPE_NONE,
    Llama,
)

TEXTS = ["대한민국의 수도는", "오늘 날씨가 좋네요.", "대한민국의 수도는"]


@pytest.fixture
def llama(tiny_path: Path) -> Iterator[Llama]:
    with Llama(str(tiny_path), n_ctx=64, n_threads=1, embedding=True, pooling_type=LLAMA_POOLING_TYPE_MEAN) as opened:
        yield opened


def test_texts_are_rows(llama: Llama, model: kollama.Model) -> None:
    rows, count = llama.embed(TEXTS, return_count=True)
    ids = [llama.tokenize(text.encode()) for text in TEXTS]
    assert count == sum(map(len, ids))
    assert [len(row) for row in rows] == [llama.n_embd()] * 3
    assert type(rows[0][0]) is float
    with model.context(n_ctx=64, n_threads=1, embeddings=True, pooling="mean") as context:
        np.testing.assert_allclose(rows, context.embed(ids), atol=1e-3)
    np.testing.assert_allclose(llama.embed(TEXTS[1]), rows[1], atol=1e-3)
    np.testing.assert_allclose(rows[0], rows[2], atol=1e-3)
    assert llama.embed([]) == []
    unit = np.array(llama.embed(TEXTS[0], normalize=True))
    assert np.linalg.norm(unit) == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(unit * np.linalg.norm(rows[0]), rows[0], atol=1e-3)


def test_pooling(tiny_path: Path) -> None:
    found = {}
    for kind in (-1, LLAMA_POOLING_TYPE_NONE, LLAMA_POOLING_TYPE_MEAN, LLAMA_POOLING_TYPE_LAST):
        with Llama(str(tiny_path), n_ctx=64, n_threads=1, embedding=True, pooling_type=kind) as llama:
            assert llama.pooling_type() == max(kind, 0)  # the file names none
            found[kind] = np.array(llama.embed(TEXTS[0]))
            n_tokens = len(llama.tokenize(TEXTS[0].encode()))
            if kind <= 0:
                assert np.linalg.norm(llama.embed(TEXTS[0], normalize=True), axis=1) == pytest.approx(np.ones(n_tokens), abs=1e-5)
    assert found[-1].shape == found[0].shape == (n_tokens, found[1].size)
    np.testing.assert_allclose(found[0].mean(axis=0), found[1], atol=1e-3)
    np.testing.assert_allclose(found[0][-1], found[3], atol=1e-3)


def test_create_embedding(llama: Llama) -> None:
    result: Any = llama.create_embedding(TEXTS)
    assert set(result) == {"object", "data", "model", "usage"}
    assert (result["object"], result["model"]) == ("list", llama.model_path)
    assert [(item["object"], item["index"], set(item)) for item in result["data"]] == [
        ("embedding", i, {"object", "index", "embedding"}) for i in range(3)]
    _, count = llama.embed(TEXTS, return_count=True)
    assert result["usage"] == {"prompt_tokens": count, "total_tokens": count}
    single: Any = llama.create_embedding(TEXTS[0], model="이름")
    assert (len(single["data"]), single["model"]) == (1, "이름")


def test_long_texts(tiny_path: Path) -> None:
    with Llama(str(tiny_path), n_ctx=64, n_batch=8, n_threads=1, embedding=True, pooling_type=LLAMA_POOLING_TYPE_MEAN) as llama:
        cut, count = llama.embed("서울" * 30, return_count=True)
        assert (len(cut), count) == (llama.n_embd(), 8)
        with pytest.raises(ValueError, match="exceed batch size of 8"):
            llama.embed("서울" * 30, truncate=False)


def test_generation_goes_on_beside(llama: Llama, tiny_path: Path) -> None:
    greedy: dict[str, Any] = {"max_tokens": 6, "temperature": 0.0}
    first: Any = llama(TEXTS[0], **greedy)
    n_tokens = llama.n_tokens
    llama.embed(TEXTS)
    assert llama.n_tokens == n_tokens
    again: Any = llama(TEXTS[0], **greedy)
    assert again["choices"][0]["text"] == first["choices"][0]["text"]


def test_refusals(tiny_path: Path) -> None:
    with Llama(str(tiny_path), n_ctx=64, n_threads=1) as llama:
        for call in (llama.embed, llama.create_embedding):
            with pytest.raises(RuntimeError, match="must be created with embedding=True"):
                call("안녕")
    with pytest.raises(kollama.ArgumentError, match="pooling_type is 4; it can be 0"):
        Llama(str(tiny_path), n_ctx=64, n_threads=1, embedding=True, pooling_type=4)
    with pytest.raises(kollama.ArgumentError, match="only with embedding=True"):
        Llama(str(tiny_path), n_ctx=64, n_threads=1, pooling_type=1)
