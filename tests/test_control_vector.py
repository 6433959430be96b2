"""Control vectors: added to what a layer gives; none gives the old logits back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from adapters import read_tensors, write_control_vector
from llama_reference import last_logits

import kollama

TOKENS = [1, 300, 270, 5, 9]


def logits(ctx: kollama.Context) -> np.ndarray:
    with ctx.sequence() as seq:
        seq.append(TOKENS)
        return seq.logits.copy()


def directions(model: kollama.Model, seed: int = 0) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(0, 1, (model.n_layer, model.n_embd)).astype(np.float32)
    rows[0] = 0
    return rows


def test_it_is_added_behind_its_layer(tiny_path: Path, model: kollama.Model) -> None:
    # Of two layers the last: what it gives goes into the last norm. A bias of its feed-forward, if it had one.
    weights = read_tensors(tiny_path)
    rows = directions(model)
    with model.context(n_ctx=64, n_threads=1, type_k="f32", type_v="f32", flash_attn=False) as ctx:
        before = logits(ctx)
        np.testing.assert_allclose(before, last_logits(weights, TOKENS, n_head=2, n_head_kv=2, n_layer=2), atol=2e-3)
        for scale in (1.0, -0.5):
            ctx.set_control_vector(rows, scale=scale)
            expected = last_logits(weights, TOKENS, n_head=2, n_head_kv=2, n_layer=2, added={1: scale * rows[1]})
            np.testing.assert_allclose(logits(ctx), expected, atol=2e-3)
            assert np.abs(expected - before).max() > 0.5
        ctx.set_control_vector(None)
        np.testing.assert_array_equal(logits(ctx), before)


def test_layers(tmp_path: Path) -> None:
    import tiny

    path = tiny.write_llama(tmp_path / "deep.gguf", n_layer=4)
    weights = read_tensors(path)
    with kollama.Model(path) as model, model.context(n_ctx=64, n_threads=1, type_k="f32", type_v="f32", flash_attn=False) as ctx:
        rows = directions(model)
        for first, last in ((1, 3), (1, 1), (2, 3), (3, 3)):
            ctx.set_control_vector(rows, layers=(first, last))
            added = {i: rows[i] for i in range(first, last + 1)}
            expected = last_logits(weights, TOKENS, n_head=2, n_head_kv=2, n_layer=4, added=added)
            np.testing.assert_allclose(logits(ctx), expected, atol=5e-3)


def test_files(model: kollama.Model, tmp_path: Path) -> None:
    rows = directions(model)
    path = write_control_vector(tmp_path / "방향.gguf", {1: rows[1]})
    np.testing.assert_array_equal(kollama.load_control_vector(path, model), rows)
    row = rows[1]
    for bad in ({0: row}, {2: row}, {"direction": row}, {"direction.x": row}, {"direction.-1": row}, {"other.1": row},
                {1: row[:-1]}, {1: row.astype(np.float16)}, {1: np.stack([row, row])}):
        with pytest.raises(kollama.FormatError, match=r"bad\.gguf: its tensor"):
            kollama.load_control_vector(write_control_vector(tmp_path / "bad.gguf", bad), model)
    with pytest.raises(kollama.FormatError, match="no direction"):
        kollama.load_control_vector(write_control_vector(tmp_path / "none.gguf", {}), model)
    with pytest.raises(kollama.ModelNotFoundError):
        kollama.load_control_vector(tmp_path / "missing.gguf", model)
    (tmp_path / "cut.gguf").write_bytes(path.read_bytes()[:-10])
    with pytest.raises(kollama.FormatError):
        kollama.load_control_vector(tmp_path / "cut.gguf", model)


@pytest.mark.parametrize(("options", "error"), [
    ({"vector": np.zeros((2, 63))}, ValueError), ({"vector": np.zeros(64)}, ValueError), ({"vector": np.zeros((3, 64))}, ValueError),
    ({"vector": np.ones((2, 64))}, ValueError), ({"vector": np.full((2, 64), np.nan)}, ValueError), ({"layers": (0, 1)}, ValueError),
    ({"layers": (1, 2)}, ValueError), ({"layers": (1.0, 1)}, TypeError), ({"scale": float("inf")}, ValueError), ({"scale": "x"}, TypeError),
    ({"vector": "text"}, ValueError)])
def test_wrong_arguments(model: kollama.Model, options: dict[str, Any], error: type[Exception]) -> None:
    with model.context(n_ctx=64, n_threads=1) as ctx:
        before = logits(ctx)
        with pytest.raises(error):
            ctx.set_control_vector(**({"vector": directions(model)} | options))
        np.testing.assert_array_equal(logits(ctx), before)


def test_llm(llm: kollama.LLM, model: kollama.Model, tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_tokens": 20, "temperature": 0, "ignore_eos": True}
    base = llm.complete(TOKENS, **options).text
    rows = 5 * directions(model)
    llm.set_control_vector(rows)
    steered = llm.complete(TOKENS, **options)
    assert (steered.text != base, steered.usage.reused_tokens) == (True, 0)
    vectors = llm.embed(["오늘"])
    llm.set_control_vector(None)
    again = llm.complete(TOKENS, **options)
    assert (again.text, again.usage.reused_tokens) == (base, 0)
    assert np.abs(llm.embed(["오늘"]) - vectors).max() > 0.01
    llm.set_control_vector(write_control_vector(tmp_path / "cv.gguf", {1: rows[1] / 2}), scale=2, layers=(1, 1))
    assert llm.complete(TOKENS, **options).text == steered.text
    with llm.generate(TOKENS) as stream:
        next(stream)
        with pytest.raises(kollama.BusyError):
            llm.set_control_vector(None)


def test_a_saved_sequence_tells_them_apart(model: kollama.Model) -> None:
    with model.context(n_ctx=64, n_threads=1) as ctx, ctx.sequence() as seq:
        seq.append(TOKENS)
        blob = seq.state()
        seq.clear()
        ctx.set_control_vector(directions(model))
        with pytest.raises(kollama.FormatError, match="another control vector"):
            seq.restore(blob)
        ctx.set_control_vector(None)
        seq.restore(blob)
