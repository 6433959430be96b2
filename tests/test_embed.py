"""Embeddings against the hidden states themselves, for any number and length of texts."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import pytest
import tiny

import kollama

TEXTS = ["대한민국의 수도는 서울이다.", "안녕하세요", "the", "오늘 날씨가 좋네요" * 4, "가"]
CLOSE = 5e-3  # K/V in f16, and batches differ


@pytest.fixture(scope="module")
def embedder(model: kollama.Model) -> Iterator[kollama.Context]:
    with model.context(n_ctx=128, n_seq_max=4, n_threads=1, embeddings=True) as ctx:
        yield ctx


def ids_of(model: kollama.Model) -> list[np.ndarray]:
    return [model.tokenizer.encode(text, add_bos=True) for text in TEXTS]


def test_the_hidden_states_give_the_logits(model: kollama.Model, tiny_path: Path) -> None:
    """The last one times the output matrix: independent of how they are pooled."""
    output = next(tensor.data for tensor in gguf.GGUFReader(tiny_path).tensors if tensor.name == "output.weight")
    with model.context(n_ctx=128, n_threads=1, embeddings=True, pooling="last") as last, model.context(n_ctx=128, n_threads=1) as plain:
        for ids, row in zip(ids_of(model), last.embed(ids_of(model)), strict=True):
            with plain.sequence() as seq:
                seq.append(ids)
                np.testing.assert_allclose(output @ row, seq.logits, atol=5e-2)


@pytest.mark.parametrize("options", [{}, {"n_batch": 5}, {"n_seq_max": 1}, {"n_seq_max": 7, "n_batch": 64, "n_ctx": 70}], ids=str)
def test_pooling(model: kollama.Model, options: dict[str, int]) -> None:
    ids = ids_of(model) * 3

    def embed(pooling: str | None) -> list[np.ndarray]:
        with model.context(**({"n_ctx": 128, "n_seq_max": 4, "n_threads": 1} | options), embeddings=True, pooling=pooling) as ctx:
            assert ctx.pooling == pooling or (pooling is None and ctx.pooling == "mean")
            return list(ctx.embed(ids))

    states = embed("none")
    assert [state.shape for state in states] == [(len(text), model.n_embd) for text in ids]
    np.testing.assert_allclose(embed("mean"), [state.mean(axis=0) for state in states], atol=CLOSE)
    np.testing.assert_allclose(embed(None), [state.mean(axis=0) for state in states], atol=CLOSE)
    np.testing.assert_allclose(embed("last"), [state[-1] for state in states], atol=CLOSE)
    np.testing.assert_allclose(embed("cls"), [state[0] for state in states], atol=CLOSE)
    with model.context(n_ctx=128, n_threads=1, embeddings=True, pooling="none") as alone:
        for text, state in zip(ids, states, strict=True):
            np.testing.assert_allclose(alone.embed([text])[0], state, atol=3e-2)


def test_llm_embed(llm: kollama.LLM) -> None:
    texts = TEXTS * 20
    before = llm.complete("오늘", max_tokens=10, temperature=0, ignore_eos=True)
    stream = llm.generate("오늘", max_tokens=10, temperature=0, ignore_eos=True)
    first = next(stream)
    rows = llm.embed(texts)
    assert rows.shape == (100, llm.model.n_embd)
    assert rows.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(rows[:5], rows[95:], atol=CLOSE)
    assert [first.id, *(token.id for token in stream)] == before.tokens.tolist()
    raw = llm.embed(texts[:5], normalize=False)
    np.testing.assert_allclose(raw / np.linalg.norm(raw, axis=1, keepdims=True), rows[:5], atol=CLOSE)
    np.testing.assert_allclose(llm.embed(TEXTS[0]), rows[:1], atol=CLOSE)
    ids = llm.tokenizer.encode(TEXTS[0], add_bos=True)
    np.testing.assert_allclose(llm.embed([ids, TEXTS[0].encode()]), rows[[0, 0]], atol=CLOSE)
    assert llm.embed([]).shape == (0, llm.model.n_embd)
    assert llm.embed([""]).shape == (1, llm.model.n_embd)  # its bos


def test_from_many_threads(llm: kollama.LLM) -> None:
    expected = llm.embed(TEXTS)
    wrong: list[object] = []

    def work() -> None:
        for _ in range(5):
            if np.abs(llm.embed(TEXTS) - expected).max() > CLOSE:
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_mistakes(llm: kollama.LLM, model: kollama.Model, embedder: kollama.Context) -> None:
    with pytest.raises(kollama.ContextFullError, match="text 1 has 602 tokens, n_ctx is 256"):
        llm.embed(["가", "가" * 600])
    with pytest.raises(kollama.ContextFullError, match="text 1 has 129 tokens, n_ctx is 128"):
        embedder.embed([[1], [1] * 129])
    for texts in ([[]], [[1], []]):
        with pytest.raises(kollama.ArgumentError, match="has no tokens"):
            embedder.embed(texts)
    for wrong in ([311], [-1]):
        with pytest.raises(kollama.TokenError):
            embedder.embed([wrong])
    for wrong_texts in (5, None, [5], [None], [["a"]]):
        with pytest.raises(TypeError):
            llm.embed(wrong_texts)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="normalize"):
        llm.embed("a", normalize=1)  # type: ignore[arg-type]
    with pytest.raises(kollama.ArgumentError, match="no sequences"):
        embedder.sequence()
    with pytest.raises(kollama.ArgumentError, match="embeddings=True"), model.context(n_ctx=32, n_threads=1) as plain:
        plain.embed([[1]])
    with pytest.raises(kollama.ArgumentError, match="embeddings=True"):
        model.context(pooling="mean")
    with pytest.raises(kollama.ArgumentError, match="pooling is 'max'"):
        model.context(embeddings=True, pooling="max")
    with pytest.raises(TypeError, match="embeddings"):
        model.context(embeddings=1)
    np.testing.assert_allclose(embedder.embed([[1, 5]]), embedder.embed([[1, 5]]))
    llm.close()
    with pytest.raises(kollama.ClosedError):
        llm.embed("a")


def test_more_sequences_than_a_batch_holds(model: kollama.Model) -> None:
    with model.context(n_ctx=64, n_seq_max=32, n_batch=2, n_threads=1, embeddings=True) as ctx:
        assert np.asarray(ctx.embed([[1, 5, 9]] * 40)).shape == (40, model.n_embd)


def test_a_recurrent_model(mamba_path: Path) -> None:
    with kollama.Model(mamba_path) as model, model.context(n_ctx=64, n_seq_max=3, n_threads=1, embeddings=True) as ctx:
        rows = np.asarray(ctx.embed([[1, 5, 9], [1, 7], [3]] * 3))
        np.testing.assert_allclose(rows[:3], rows[6:], atol=CLOSE)
        assert np.abs(rows[0] - rows[1]).max() > 0.1


def test_pooling_of_the_file(tmp_path: Path) -> None:
    path = tiny.write_llama(tmp_path / "last.gguf", pooling_type=3)
    with kollama.Model(path) as model, model.context(n_ctx=64, n_threads=1, embeddings=True) as ctx:
        assert ctx.pooling == "last"
