"""Sampling: the meaning of llama.cpp's chain, and reproducible."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from llama_samplers import LlamaSamplers

import kollama

N_DRAWS = 20_000


@pytest.fixture
def seq(context: Callable[..., kollama.Context]) -> Iterator[kollama.Sequence]:
    with context().sequence() as sequence:
        sequence.append([1, 300])
        yield sequence


def reference(logits: np.ndarray, temperature: float, top_k: int, top_p: float, min_p: float) -> np.ndarray:
    """Probabilities after top-k, top-p, min-p and temperature, in that order, in float64."""
    logits = logits.astype(np.float64)
    order = np.argsort(-logits, kind="stable")
    kept = order[: top_k or len(order)]
    p = np.exp(logits[kept] - logits[kept].max())
    p /= p.sum()
    if top_p < 1:
        kept = kept[: np.searchsorted(np.cumsum(p), top_p) + 1]
    if min_p > 0:
        kept = kept[logits[kept] >= logits[order[0]] + np.log(min_p)]
    out = np.zeros(len(logits))
    out[kept] = np.exp((logits[kept] - logits[order[0]]) / temperature)
    return out / out.sum()


@pytest.mark.parametrize(
    ("temperature", "top_k", "top_p", "min_p"),
    [
        (0.8, 40, 0.95, 0.05),
        (1.0, 0, 1.0, 0.0),
        (1.5, 5, 1.0, 0.0),
        (0.7, 0, 0.9, 0.0),
        (1.0, 0, 1.0, 0.2),
        (2.0, 1000, 0.5, 0.01),
        (1.0, 1, 1.0, 0.0),
        (1.0, 0, 0.0, 0.0),
    ],
)
def test_distribution(seq: kollama.Sequence, temperature: float, top_k: int, top_p: float, min_p: float) -> None:
    seq.logits[:] = np.random.default_rng(1).normal(0, 2, len(seq.logits))
    expected = reference(seq.logits, temperature, top_k, top_p, min_p)
    sampler = kollama.Sampler(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=7)
    counts = np.bincount([sampler.sample(seq) for _ in range(N_DRAWS)], minlength=len(expected))
    assert set(np.flatnonzero(counts)) <= set(np.flatnonzero(expected))
    # Total variation of N draws over the support: about sqrt(support / (2 pi N)) when right.
    distance = np.abs(counts / N_DRAWS - expected).sum() / 2
    assert distance < 2 * np.sqrt((expected > 0).sum() / (2 * np.pi * N_DRAWS)) + 0.005


@pytest.mark.parametrize("n_high", [1, 3, 100, 281])
def test_equal_logits_and_any_place(seq: kollama.Sequence, n_high: int) -> None:
    # The peak in every block and in the rest behind the last whole block of the scan.
    row = seq.logits
    for place in range(0, len(row), 13):
        row[:] = 0
        row[place] = 1
        assert kollama.Sampler(temperature=0).sample(seq) == place
    row[:] = 0
    assert kollama.Sampler(temperature=0).sample(seq) == 0  # the first of equals
    high = np.random.default_rng(n_high).permutation(len(row))[:n_high]
    row[high] = 3
    sampler = kollama.Sampler(temperature=1, top_k=n_high, top_p=1, min_p=0, seed=3)
    assert {sampler.sample(seq) for _ in range(200)} <= set(high.tolist())


def test_seed_reproduces(seq: kollama.Sequence) -> None:
    def draws(seed: int | None) -> list[int]:
        sampler = kollama.Sampler(temperature=2, seed=seed)
        return [sampler.sample(seq) for _ in range(50)]

    assert draws(42) == draws(42)
    assert draws(42) != draws(43)
    assert draws(None) != draws(None)
    unseeded = kollama.Sampler()
    assert 0 <= unseeded.seed < 2**32
    again = kollama.Sampler(temperature=2, seed=unseeded.seed)
    assert again.seed == unseeded.seed


def test_masking_by_hand(seq: kollama.Sequence) -> None:
    row = seq.logits
    row[:] = -np.inf
    row[[11, 12]] = 0.5
    sampler = kollama.Sampler(temperature=1, top_k=0, top_p=1, min_p=0, seed=1)
    assert {sampler.sample(seq) for _ in range(100)} == {11, 12}
    row[20] = np.inf
    assert {sampler.sample(seq) for _ in range(20)} == {20}
    assert kollama.Sampler(seed=1).sample(seq) == 20
    assert kollama.Sampler(temperature=0).sample(seq) == 20


@pytest.mark.parametrize("place", [0, 63, 64, 200, -1])
def test_nan_and_nothing_left(seq: kollama.Sequence, place: int) -> None:
    seq.logits[place] = np.nan
    with pytest.raises(kollama.ArgumentError, match="NaN"):
        kollama.Sampler().sample(seq)
    seq.logits[:] = -np.inf
    for sampler in (kollama.Sampler(), kollama.Sampler(temperature=0)):
        with pytest.raises(kollama.ArgumentError, match="all logits are -inf"):
            sampler.sample(seq)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"temperature": -0.1}, ValueError),
        ({"temperature": float("nan")}, ValueError),
        ({"temperature": "hot"}, TypeError),
        ({"top_k": -1}, ValueError),
        ({"top_k": 1.5}, TypeError),
        ({"top_p": 1.01}, ValueError),
        ({"min_p": -1}, ValueError),
        ({"seed": -1}, ValueError),
        ({"seed": 2**32}, ValueError),
        ({"topk": 3}, TypeError),
    ],
)
def test_wrong_options(options: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(options))):
        kollama.Sampler(**options)


def test_reading_back() -> None:
    sampler = kollama.Sampler(temperature=0.5, top_k=3, top_p=0.5, min_p=0.25, seed=9)
    assert repr(sampler) == "kollama.Sampler(temperature=0.5, top_k=3, top_p=0.5, min_p=0.25, seed=9)"
    with pytest.raises(TypeError):
        sampler.sample(None)  # type: ignore[arg-type]


# ---- against llama.cpp ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def llama_cpp(tiny_path: Path) -> Iterator[LlamaSamplers]:
    library = LlamaSamplers(tiny_path)
    yield library
    library.close()


@pytest.mark.parametrize("spread", [0.5, 2.0, 8.0])
@pytest.mark.parametrize(("temperature", "top_k", "top_p", "min_p"), [
    (0.8, 40, 0.95, 0.05), (1.3, 0, 0.9, 0.0), (0.7, 12, 1.0, 0.0), (1.0, 0, 1.0, 0.1), (1.0, 0, 1.0, 0.0), (2.0, 100, 0.5, 0.01),
    (0.2, 7, 0.99, 0.3)])
def test_every_draw_is_that_of_llama_cpps_chain(seq: kollama.Sequence, llama_cpp: LlamaSamplers, temperature: float, top_k: int,
                                                top_p: float, min_p: float, spread: float) -> None:
    """The pass that looks at the logits once, draw by draw.

    llama.cpp's own samplers leave candidates and logits; a number between 0 and 1 chooses one of them by
    their cumulated probabilities. The generator is NumPy's Mersenne Twister with the same seed.
    """
    rows = np.random.default_rng(11).normal(0, spread, (40, len(seq.logits))).astype(np.float32)
    sampler = kollama.Sampler(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p, seed=99)
    numbers = np.random.RandomState(99)
    undecided = 0
    for row in rows:
        seq.logits[:] = row
        chain = [llama_cpp.make("top_k", top_k), llama_cpp.make("top_p", top_p, 0), llama_cpp.make("min_p", min_p, 0),
                 llama_cpp.make("temp_ext", temperature, 0, 1)]
        left = llama_cpp.run(chain, row).astype(np.float64)
        sorts = 0 < top_k < len(row) or top_p < 1
        order = np.argsort(-left, kind="stable") if sorts else np.arange(len(left))
        bounds = np.cumsum(np.exp(left - left.max())[order])
        for _ in range(50):
            number = numbers.random_sample() * bounds[-1]
            got = sampler.sample(seq)
            if np.abs(bounds - number).min() < 1e-5 * bounds[-1]:
                undecided += 1  # float and double may see it on either side
            else:
                assert got == order[np.searchsorted(bounds, number, side="right")]
    assert undecided < 60
