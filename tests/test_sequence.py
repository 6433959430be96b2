"""Token by token: memory of a sequence and its logits."""

from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny

import kollama

MakeContext = Callable[..., kollama.Context]
IDS = [tiny.BOS, 300, 10, 270, 265, 280, 281]


def test_append_and_tokens(context: MakeContext) -> None:
    seq = context().sequence()
    assert len(seq) == 0
    seq.append(IDS[:3])
    seq.append(np.array(IDS[3:], np.int32))
    assert seq.tokens.tolist() == IDS
    assert seq.tokens.dtype == np.int32
    assert len(seq) == len(IDS)


def test_logits_do_not_depend_on_how_the_tokens_came(context: MakeContext) -> None:
    rows = []
    for n_batch, pieces in ((256, [IDS]), (2, [IDS]), (256, [[i] for i in IDS])):
        seq = context(n_batch=n_batch).sequence()
        for piece in pieces:
            seq.append(piece)
        rows.append(seq.logits.copy())
    np.testing.assert_allclose(rows[1], rows[0], atol=2e-2)  # K/V in f16
    np.testing.assert_allclose(rows[2], rows[0], atol=2e-2)


def test_logits_are_the_sequences_own_memory(context: MakeContext, model: kollama.Model) -> None:
    seq = context(n_seq_max=2).sequence()
    seq.append(IDS)
    first, second = seq.logits, seq.logits
    assert first.shape == (model.n_vocab,)
    assert first.dtype == np.float32
    assert np.shares_memory(first, second)
    assert first.flags.writeable
    first[:] = -1
    first[7] = 5
    assert second[7] == 5
    assert kollama.Sampler(temperature=0).sample(seq) == 7
    first.shape = (1, -1)  # an array of one's own over it
    second.flags.writeable = False
    assert seq.logits.shape == (model.n_vocab,)
    assert seq.logits.flags.writeable


def test_logits_change_with_their_own_append_alone(context: MakeContext) -> None:
    ctx = context(n_seq_max=2)
    seq, other = ctx.sequence(), ctx.sequence()
    seq.append(IDS)
    row, before = seq.logits, seq.logits.copy()
    other.append([5, 6, 7])
    assert not np.shares_memory(row, other.logits)
    np.testing.assert_array_equal(row, before)
    seq.append([9])
    assert not np.array_equal(row, before)
    np.testing.assert_array_equal(row, seq.logits)


def test_logits_outlive_everything(tiny_path: Path) -> None:
    model = kollama.Model(tiny_path)
    ctx = model.context(n_ctx=256, n_threads=1)
    seq = ctx.sequence()
    seq.append(IDS)
    row = seq.logits
    for i in range(100):
        seq.append([i])
    last = row.copy()
    seq.close()
    ctx.close()
    model.close()
    del seq, ctx, model
    gc.collect()
    row += 1
    np.testing.assert_array_equal(row, last + 1)


@pytest.mark.parametrize("drop", ["rewind", "clear"])
def test_logits_need_an_append(context: MakeContext, drop: str) -> None:
    seq = context().sequence()
    with pytest.raises(kollama.StateError, match="append a token first"):
        _ = seq.logits
    seq.append(IDS)
    if drop == "clear":
        seq.clear()
    else:
        seq.rewind(3)
    with pytest.raises(kollama.StateError):
        _ = seq.logits
    seq.append([300])
    assert np.isfinite(seq.logits).all()


def test_rewind_is_exact(context: MakeContext) -> None:
    seq = context().sequence()
    seq.append(IDS)
    expected = seq.logits.copy()
    seq.append([11, 12, 13])
    seq.rewind(len(IDS) - 1)
    assert seq.tokens.tolist() == IDS[:-1]
    seq.append(IDS[-1:])
    np.testing.assert_allclose(seq.logits, expected, atol=2e-2)
    seq.rewind(len(IDS))  # keeps all
    assert len(seq) == len(IDS)


def test_fork(context: MakeContext) -> None:
    seq = context(n_seq_max=2).sequence()
    seq.append(IDS)
    twin = seq.fork()
    assert twin.tokens.tolist() == IDS
    assert not np.shares_memory(twin.logits, seq.logits)
    np.testing.assert_array_equal(twin.logits, seq.logits)
    twin.append([20])
    seq.append([20])
    np.testing.assert_allclose(twin.logits, seq.logits, atol=2e-2)
    seq.append([21])
    assert len(twin) == len(IDS) + 1


def test_slots_are_counted_and_given_back(context: MakeContext) -> None:
    ctx = context(n_seq_max=2)
    first, second = ctx.sequence(), ctx.sequence()
    first.append(IDS)
    with pytest.raises(kollama.ArgumentError, match="n_seq_max"):
        ctx.sequence()
    with pytest.raises(kollama.ArgumentError, match="n_seq_max"):
        first.fork()
    first.close()
    third = ctx.sequence()  # on the memory that the first had
    assert len(third) == 0
    third.append([tiny.BOS])
    del second
    gc.collect()
    ctx.sequence()


def test_sequences_share_the_context(context: MakeContext) -> None:
    ctx = context(n_ctx=256, n_seq_max=2)
    first, second = ctx.sequence(), ctx.sequence()
    first.append([5] * 200)
    with pytest.raises(kollama.ContextFullError, match="share n_ctx=256"):
        second.append([6] * 100)
    assert len(second) == 0
    second.append([6] * 50)
    assert len(second) == 50


@pytest.mark.parametrize(
    ("ids", "error", "reason"),
    [
        ([], ValueError, "no token to append"),
        ([-1], kollama.TokenError, "outside the vocabulary"),
        ([10**6], kollama.TokenError, "outside the vocabulary"),
        ([2**40], kollama.TokenError, "32 bits"),
        ([0] * 257, kollama.ContextFullError, "n_ctx=256"),
        ("대한민국", TypeError, "encode it first"),
        ([1.0], TypeError, "integers"),
        ([[1]], ValueError, "one dimension"),
        (None, TypeError, "integers, not NoneType"),
        ([None], TypeError, "integers"),
        ([True], TypeError, "integers"),
    ],
)
def test_wrong_tokens_leave_the_sequence_as_it_was(
    context: MakeContext, ids: object, error: type[Exception], reason: str
) -> None:
    seq = context().sequence()
    seq.append(IDS)
    before = seq.logits.copy()
    with pytest.raises(error, match=reason):
        seq.append(ids)  # type: ignore[arg-type]
    assert seq.tokens.tolist() == IDS
    np.testing.assert_array_equal(seq.logits, before)


@pytest.mark.parametrize("n", [-1, 8, 2**40])
def test_rewind_out_of_range(context: MakeContext, n: int) -> None:
    seq = context().sequence()
    seq.append(IDS)
    with pytest.raises(ValueError, match=r"keep|n is"):
        seq.rewind(n)
    assert seq.tokens.tolist() == IDS


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"n_ctx": 0}, ValueError),
        ({"n_ctx": -4}, ValueError),
        ({"n_ctx": 2**31}, ValueError),
        ({"n_ctx": "512"}, TypeError),
        ({"n_ctx": True}, TypeError),
        ({"n_batch": 0}, ValueError),
        ({"n_threads": 0}, ValueError),
        ({"n_threads": -1}, ValueError),
        ({"n_seq_max": 0}, ValueError),
        ({"n_seq_max": 10_000}, ValueError),
        ({"type_k": 9999}, TypeError),
        ({"type_k": "f17"}, ValueError),
        ({"type_v": "q2_K"}, ValueError),
        ({"flash_attn": "yes"}, ValueError),
        ({"flash_attn": 1}, ValueError),
        ({"swa_full": 0}, TypeError),
        ({"n_ctxx": 1}, TypeError),
    ],
)
def test_wrong_context_options(model: kollama.Model, options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        model.context(**options)


def test_context_full_is_exact(context: MakeContext) -> None:
    seq = context(n_ctx=10).sequence()  # llama.cpp rounds up; the caller's number holds
    seq.append([5] * 10)
    with pytest.raises(kollama.ContextFullError, match="n_ctx=10"):
        seq.append([5])
    assert len(seq) == 10


@pytest.mark.parametrize("kind", ["q8_0", "f32", "bf16"])
def test_kv_types(context: MakeContext, kind: str) -> None:
    rows = []
    for name in ("f16", kind):
        seq = context(type_k=name, type_v=name, flash_attn=True).sequence()
        seq.append(IDS)
        rows.append(seq.logits.copy())
    assert np.abs(rows[0] - rows[1]).max() < 2


def test_closed(model: kollama.Model) -> None:
    ctx = model.context(n_ctx=32, n_threads=1)
    seq = ctx.sequence()
    seq.append(IDS)
    ctx.close()
    ctx.close()
    assert ctx.closed
    assert seq.closed
    for call in (lambda: seq.append([1]), lambda: len(seq), lambda: seq.tokens, lambda: seq.logits, seq.fork,
                 seq.clear, ctx.sequence, lambda: kollama.Sampler().sample(seq)):
        with pytest.raises(kollama.ClosedError, match="closed"):
            call()
    seq.close()
    seq.close()


def test_model_refuses_to_close_under_a_context(tiny_path: Path) -> None:
    model = kollama.Model(tiny_path)
    with model.context(n_ctx=32, n_threads=1), pytest.raises(kollama.BusyError, match="1 context of this model is open"):
        model.close()
    assert not model.closed
    model.close()


def test_recurrent_memory(mamba_path: Path) -> None:
    with kollama.Model(mamba_path) as model, model.context(n_ctx=64, n_threads=1) as ctx:
        seq = ctx.sequence()
        seq.append(IDS)
        first = seq.logits.copy()
        with pytest.raises(kollama.DecodeError, match="cannot drop its last tokens"):
            seq.rewind(3)
        assert len(seq) == 0
        seq.append(IDS)
        np.testing.assert_allclose(seq.logits, first, atol=1e-4)
        seq.clear()
        seq.append(IDS)
        np.testing.assert_allclose(seq.logits, first, atol=1e-4)
