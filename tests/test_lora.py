"""LoRA adapters: the logits of merged weights; several, scaled, changed while the model is open."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import legacy_files
import numpy as np
import pytest
from adapters import merged, random_pairs, write_lora

import kollama

TOKENS = [1, 300, 270, 5, 9]
NAMES = ["blk.0.attn_q.weight", "blk.0.attn_v.weight", "blk.1.attn_k.weight", "blk.1.attn_output.weight", "blk.1.ffn_down.weight",
         "blk.0.ffn_gate.weight", "blk.0.ffn_up.weight", "output.weight", "token_embd.weight"]


def logits(ctx: kollama.Context, ids: list[int] = TOKENS) -> np.ndarray:
    with ctx.sequence() as seq:
        seq.append(ids)
        return seq.logits.copy()


def logits_of(path: Path) -> np.ndarray:
    with kollama.Model(path) as model, model.context(n_ctx=64, n_threads=1) as ctx:
        return logits(ctx)


@pytest.fixture(scope="module")
def pairs(tiny_path: Path) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    return random_pairs(tiny_path, NAMES)


@pytest.fixture(scope="module")
def lora_path(pairs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_lora(tmp_path_factory.mktemp("lora") / "한국.gguf", pairs)


@pytest.mark.parametrize("name", [*NAMES, "all"])
def test_logits_are_those_of_merged_weights(tiny_path: Path, model: kollama.Model, tmp_path: Path, name: str) -> None:
    pairs = random_pairs(tiny_path, NAMES if name == "all" else [name], seed=3)
    path = write_lora(tmp_path / "lora.gguf", pairs, alpha=8)
    expected = logits_of(merged(tiny_path, tmp_path / "merged.gguf", [(pairs, 0.7 * 8 / 4)]))
    with model.lora(path) as lora, model.context(n_ctx=64, n_threads=1) as ctx:
        before = logits(ctx)
        ctx.set_lora([(lora, 0.7)])
        assert ctx.lora == ((lora, 0.7),)
        np.testing.assert_allclose(logits(ctx), expected, atol=0.05)
        assert np.abs(expected - before).max() > 0.3
        ctx.set_lora([])
        np.testing.assert_array_equal(logits(ctx), before)


def test_several_scaled_and_changed(tiny_path: Path, model: kollama.Model, tmp_path: Path) -> None:
    pairs = [random_pairs(tiny_path, NAMES[i:], seed=i, rank=2 + i) for i in range(3)]
    loras = [model.lora(write_lora(tmp_path / f"{i}.gguf", each, alpha=None)) for i, each in enumerate(pairs)]
    with model.context(n_ctx=64, n_threads=1) as ctx, model.context(n_ctx=64, n_threads=1) as other:
        before = logits(ctx)
        for scales in ((0.5, -0.25, 0.1), (0, 1, 0), (1e-3, 0.2, 0.3)):
            ctx.set_lora(list(zip(loras, scales, strict=True)))
            path = merged(tiny_path, tmp_path / "merged.gguf", zip(pairs, scales, strict=True))
            np.testing.assert_allclose(logits(ctx), logits_of(path), atol=0.05)
            np.testing.assert_array_equal(logits(other), before)
        ctx.set_lora([loras[1], loras[0]])
        for lora in loras:
            lora.close()
            lora.close()
            assert lora.closed
        assert np.abs(logits(ctx) - before).max() > 0.3  # in use until the context lets go
        with pytest.raises(kollama.ClosedError, match="adapter is closed"):
            ctx.set_lora([loras[0]])
    assert logits_of(tiny_path).tolist() == before.tolist()


def test_what_it_says(model: kollama.Model, lora_path: Path) -> None:
    with model.lora(lora_path) as lora:
        assert (lora.path, lora.alpha, lora.model) == (str(lora_path), 8.0, model)
        assert lora.metadata["adapter.type"] == "lora"
        assert "한국.gguf" in repr(lora)
    assert "closed" in repr(lora)


def test_tokens_in_memory_were_computed_without(model: kollama.Model, lora_path: Path) -> None:
    with model.lora(lora_path) as lora, model.context(n_ctx=64, n_seq_max=2, n_threads=1) as ctx:
        seq, other = ctx.sequence(), ctx.sequence()
        seq.append(TOKENS)
        before, blob = seq.logits.copy(), seq.state()
        for change in (lambda: ctx.set_lora([lora]), lambda: ctx.set_control_vector(None)):
            with pytest.raises(kollama.StateError, match="1 sequence of this context holds tokens"):
                change()
        np.testing.assert_array_equal(seq.logits, before)
        seq.clear()
        ctx.set_lora([lora])
        with pytest.raises(kollama.FormatError, match="other LoRA adapters"):
            seq.restore(blob)
        other.append(TOKENS)
        adapted = other.state()
        seq.restore(adapted)
        seq.clear()
        other.clear()
        ctx.set_lora([(lora, 0.5)])
        with pytest.raises(kollama.FormatError, match="other LoRA adapters"):
            seq.restore(adapted)
        ctx.set_lora([])
        seq.restore(blob)


def test_ownership(tiny_path: Path, lora_path: Path) -> None:
    model = kollama.Model(tiny_path)
    lora = model.lora(lora_path)
    with pytest.raises(kollama.BusyError, match="1 LoRA adapter of this model is open"):
        model.close()
    ctx = model.context(n_ctx=64, n_threads=1)
    ctx.set_lora([lora])
    lora.close()
    with pytest.raises(kollama.BusyError, match="1 context"):
        model.close()
    ctx.close()
    model.close()
    with pytest.raises(kollama.ClosedError):
        model.lora(lora_path)
    with pytest.raises(kollama.ClosedError):
        ctx.set_lora([])


@pytest.mark.parametrize("wrong", [
    (lambda m, lora: [lora, (lora, 0.5)], ValueError, "twice"), (lambda m, lora: [(lora, float("nan"))], ValueError, "scale"),
    (lambda m, lora: [(lora, "x")], TypeError, "scale"), (lambda m, lora: [3], TypeError, "Lora"), (lambda m, lora: lora, TypeError, "iterable"),
    (lambda m, lora: ["a path"], TypeError, "Lora")], ids=range(6))
def test_wrong_lists(model: kollama.Model, lora_path: Path, wrong: tuple[Callable[..., Any], type[Exception], str]) -> None:
    make, error, message = wrong
    with model.lora(lora_path) as lora, model.context(n_ctx=64, n_threads=1) as ctx:
        before = logits(ctx)
        with pytest.raises(error, match=message):
            ctx.set_lora(make(model, lora))
        assert ctx.lora == ()
        np.testing.assert_array_equal(logits(ctx), before)


def test_an_adapter_of_another_model_object(model: kollama.Model, tiny_path: Path, lora_path: Path) -> None:
    with kollama.Model(tiny_path) as twin, twin.lora(lora_path) as lora, model.context(n_ctx=64, n_threads=1) as ctx, pytest.raises(
            kollama.ArgumentError, match="adapter 0 was loaded for another model"):
        ctx.set_lora([lora])


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


Q = "blk.0.attn_q.weight"
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "type": ({"general_type": "model"}, "is no LoRA adapter: general.type is 'model'"),
    "kind": ({"adapter_type": "control"}, "adapter.type 'control'"),
    "architecture": ({"architecture": "gemma"}, "is an adapter of gemma models; this one is of llama"),
    "alora": ({"invocation": [1, 2]}, "aLoRA"),
    "empty": ({"pairs": {}}, "has no tensors"),
    "half": ({"pairs": {}, "tensors": {f"{Q}.lora_a": ones(4, 64)}}, "without its .lora_b"),
    "other half": ({"pairs": {}, "tensors": {f"{Q}.lora_b": ones(64, 4)}}, "no pair of"),
    "stranger": ({"tensors": {"x": ones(4)}}, "tensor 'x', which is no pair"),
    "no such tensor": ({"pairs": {"blk.7.attn_q.weight": (ones(4, 64), ones(64, 4))}}, "there is no tensor 'blk.7.attn_q.weight'"),
    "width": ({"pairs": {Q: (ones(4, 32), ones(64, 4))}}, "is 64 x 64 in this one, and the adapter's halves are 4 x 32 and 64 x 4"),
    "height": ({"pairs": {Q: (ones(4, 64), ones(32, 4))}}, "of another model"),
    "ranks": ({"pairs": {Q: (ones(4, 64), ones(64, 3))}}, "of another model"),
    "dimensions": ({"pairs": {Q: (ones(3, 4, 64), ones(3, 64, 4))}}, "halves are 3 x 4 x 64"),
    "embeddings": ({"pairs": {}, "tensors": {"token_embd.weight.lora_a": ones(311, 4), "token_embd.weight.lora_b": ones(64, 3)}},
                   "of another model"),
    "integers": ({"pairs": {Q: (np.ones((4, 64), np.int32), np.ones((64, 4), np.int32))}}, "is of type i32"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_refused(model: kollama.Model, pairs: Any, tmp_path: Path, name: str) -> None:
    options, message = BAD[name]
    path = write_lora(tmp_path / "bad.gguf", options.get("pairs", pairs), **{k: v for k, v in options.items() if k != "pairs"})
    with pytest.raises(kollama.FormatError, match=r"bad\.gguf: .*") as caught:
        model.lora(path)
    assert message in str(caught.value)


def test_damaged_files(model: kollama.Model, lora_path: Path, tiny_path: Path, tmp_path: Path) -> None:
    whole = lora_path.read_bytes()
    for n in (0, 3, 40, 300, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.gguf").write_bytes(whole[:n])
        with pytest.raises(kollama.FormatError, match=r"cut\.gguf"):
            model.lora(tmp_path / "cut.gguf")
    with pytest.raises(kollama.FormatError, match="is no LoRA adapter"):
        model.lora(tiny_path)
    with pytest.raises(kollama.ModelNotFoundError):
        model.lora(tmp_path / "none.gguf")
    with pytest.raises(kollama.ModelLoadError):
        model.lora(tmp_path)
    alpha = whole.replace(b"adapter.lora.alpha\x06\0\0\0", b"adapter.lora.alpha\x04\0\0\0")  # an int
    assert alpha != whole
    (tmp_path / "alpha.gguf").write_bytes(alpha)
    with pytest.raises(kollama.ModelLoadError, match=r"alpha\.gguf: llama\.cpp cannot read"):
        model.lora(tmp_path / "alpha.gguf")
    with pytest.raises(kollama.FormatError, match="alpha is inf"):
        model.lora(write_lora(tmp_path / "inf.gguf", {Q: (ones(4, 64), ones(64, 4))}, alpha=float("inf")))


def test_a_model_without_weights(tiny_path: Path, lora_path: Path) -> None:
    with kollama.Model(tiny_path, vocab_only=True) as model, pytest.raises(kollama.StateError, match="vocab_only"):
        model.lora(lora_path)


def test_tied_embeddings(tiny_path: Path, tmp_path: Path) -> None:
    tied = merged(tiny_path, tmp_path / "tied.gguf", [], leave_out="output.weight")
    path = write_lora(tmp_path / "lora.gguf", random_pairs(tiny_path, ["token_embd.weight"]))
    with kollama.Model(tied) as model, pytest.raises(kollama.FormatError, match="is the output matrix too"):
        model.lora(path)


def test_a_file_of_2023(tmp_path: Path) -> None:
    legacy_files.write(tmp_path / "old.bin", type_name="f32")
    kollama.convert(tmp_path / "old.bin", tmp_path / "new.gguf")
    names = [name for name in NAMES if name.endswith(("attn_q.weight", "attn_k.weight", "ffn_down.weight", "output.weight"))]
    pairs = random_pairs(tmp_path / "new.gguf", names)
    expected = logits_of(merged(tmp_path / "new.gguf", tmp_path / "merged.gguf", [(pairs, 2.0)]))
    with kollama.Model(tmp_path / "old.bin") as model, model.lora(write_lora(tmp_path / "lora.gguf", pairs)) as lora, model.context(
            n_ctx=64, n_threads=1) as ctx:
        before = logits(ctx)
        ctx.set_lora([lora])
        np.testing.assert_allclose(logits(ctx), expected, atol=0.05)
        assert np.abs(expected - before).max() > 0.3


# ---- LLM -----------------------------------------------------------------------------------------


def test_llm(tiny_path: Path, pairs: Any, lora_path: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_tokens": 20, "temperature": 0, "ignore_eos": True}
    strong = merged(tiny_path, tmp_path / "merged.gguf", [(pairs, 2.0)])
    with kollama.LLM(tiny_path, n_ctx=64, n_threads=1) as plain, kollama.LLM(strong, n_ctx=64, n_threads=1) as other:
        base, expected = plain.complete(TOKENS, **options), other.complete(TOKENS, **options)
        vectors, expected_vectors = plain.embed(["오늘 날씨"]), other.embed(["오늘 날씨"])
    assert base.text != expected.text
    with kollama.LLM(tiny_path, n_ctx=64, n_threads=1, lora=lora_path) as llm:
        assert [scale for _, scale in llm.lora] == [1.0]
        assert llm.complete(TOKENS, **options).text == expected.text
        np.testing.assert_allclose(llm.embed(["오늘 날씨"]), expected_vectors, atol=0.01)
        llm.set_lora(None)
        done = llm.complete(TOKENS, **options)
        assert (done.text, done.usage.reused_tokens) == (base.text, 0)  # nothing stale
        np.testing.assert_allclose(llm.embed(["오늘 날씨"]), vectors, atol=1e-6)
        llm.set_lora([(str(lora_path), 1.0)])
        assert llm.complete(TOKENS, **options).text == expected.text
        with llm.generate(TOKENS, **options) as stream:
            next(stream)
            with pytest.raises(kollama.BusyError, match="unfinished"):
                llm.set_lora([])
        own = llm.lora[0][0]
        for wrong, error in ((["none.gguf"], FileNotFoundError), (3, TypeError), ([(lora_path, "x")], TypeError), ([tiny_path], ValueError)):
            with pytest.raises(error):
                llm.set_lora(wrong)
        assert llm.lora == [(own, 1.0)]
        assert not own.closed
        assert llm.complete(TOKENS, **options).text == expected.text
        with llm.model.lora(lora_path) as mine:
            llm.set_lora([(mine, 0.0)])
            assert own.closed
            assert llm.complete(TOKENS, **options).text == base.text
            llm.set_lora(mine)
            assert llm.complete(TOKENS, **options).text == expected.text
        llm.set_lora((lora_path, 0.5))
        assert [scale for _, scale in llm.lora] == [0.5]
