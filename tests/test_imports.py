"""Imports point downwards, and importing kollama loads nothing that not every user needs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import kollama

PACKAGE = Path(__file__).resolve().parent.parent / "src" / "kollama"

# Lowest first. A module may import its own layer and those below; a folder stands for all in it.
# Only `kollama` itself, the package's __init__.py, is named without what is below it.
LAYERS = (
    ("errors", "types", "machine", "params", "progress", "unicode", "files", "schemas", "structured",
     "sampling", "defaults", "samplers", "chain", "deadline", "turn", "signature", "backends", "servers"),
    ("_core", "legacy_cache"),
    ("adapters", "control_vectors", "generate", "chat", "chat_format", "chat_builtin",
     "chat_registry", "context_shift", "embed", "rerank", "slots", "together",
     "inspection", "demo", "convert", "imatrix", "quantization", "aio", "watcher"),
    ("blocking",),
    ("llm",),
    ("",),
    ("cli", "compat", "ray"),
    ("__main__",),
)
RANKS = {name: rank for rank, names in enumerate(LAYERS) for name in names}

CYTHON_IMPORT = re.compile(
    r"^[ \t]*(?:from[ \t]+(?P<source>[.\w]+)[ \t]+)?c?import[ \t]*(?P<names>\([^)]*\)|[^#\n]+)",
    re.MULTILINE,
)
UNWANTED = ("argparse", "asyncio", "dataclasses", "gguf", "hashlib", "huggingface_hub", "jinja2", "json",
            "llguidance", "logging", "pathlib", "pydantic", "tqdm", "zipfile")


def sources() -> dict[Path, str]:
    """Every source file and the dotted name of its module."""
    found = {}
    for path in sorted(PACKAGE.rglob("*")):
        if path.suffix in (".py", ".pyi", ".pyx", ".pxd"):
            parts = ("kollama", *path.relative_to(PACKAGE).with_suffix("").parts)
            found[path] = ".".join(parts).removesuffix(".__init__")
    return found


def rank_of(module: str) -> int:
    name = module.removeprefix("kollama").removeprefix(".").split(".")[0]
    assert name in RANKS, f"{module} is in no layer: name it in LAYERS"
    return RANKS[name]


def statements(path: Path, text: str) -> Iterator[tuple[str, list[str]]]:
    """(source, names) of each import, wherever it stands; source keeps the dots of a relative one."""
    if path.suffix in (".py", ".pyi"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                yield from ((alias.name, []) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield "." * node.level + (node.module or ""), [item.name for item in node.names]
        return
    for match in CYTHON_IMPORT.finditer(text):
        names = [item.split()[0] for item in match["names"].strip("() \t").split(",") if item.strip()]
        if match["source"] is not None:
            yield match["source"], names
        else:
            yield from ((name, []) for name in names)


def imported(path: Path, module: str, text: str, known: set[str]) -> set[str]:
    """The modules of kollama that a file imports."""
    found = set()
    for source, names in statements(path, text):
        base = source.lstrip(".")
        if level := len(source) - len(base):
            package = module.split(".") + ["__init__"] * (path.stem == "__init__")
            base = ".".join([*package[:-level], *filter(None, [base])])
        if base.split(".")[0] != "kollama":
            continue
        # `from kollama import params` is the module; `from kollama import LLM` is __init__'s.
        found |= {f"{base}.{name}" if f"{base}.{name}" in known else base for name in names or [""]}
    return found


def violations(files: dict[Path, tuple[str, str]]) -> list[str]:
    known = {module for module, _ in files.values()}
    return [
        f"{module} ({path.name}) imports {target}, which is above it"
        for path, (module, text) in files.items()
        for target in sorted(imported(path, module, text, known))
        if rank_of(target) > rank_of(module)
    ]


def read_all() -> dict[Path, tuple[str, str]]:
    return {path: (module, path.read_text("utf-8")) for path, module in sources().items()}


def test_no_layer_imports_a_higher_one() -> None:
    assert violations(read_all()) == []


def test_every_module_has_a_layer() -> None:
    modules = sources().values()
    assert "kollama._core.model" in modules
    for module in modules:
        rank_of(module)


@pytest.mark.parametrize(
    ("name", "line", "target"),
    [
        ("errors.py", "from .params import integer", "kollama.params"),
        ("types.py", "def f():\n    from . import llm", "kollama.llm"),
        ("params.py", "import kollama._core.model as m", "kollama._core.model"),
        ("_core/__init__.py", "from ..generate import Generation", "kollama.generate"),
        ("_core/model.pyi", "from kollama import LLM", "kollama"),
        ("_core/model.pyx", "    from kollama.llm import LLM", "kollama.llm"),
        ("_core/model.pyx", "from kollama import errors, chat", "kollama.chat"),
        ("_core/gguf.pyx", "from kollama import (\n    errors,\n    slots,\n)", "kollama.slots"),
        ("_core/gguf.pyx", "import os, kollama.inspection", "kollama.inspection"),
        ("_core/context.pxd", "from ..demo cimport thing  # why", "kollama.demo"),
        ("_core/context.pxd", "from .model cimport Model", "kollama._core.model"),
        ("llm.py", "from .cli.options import open_llm", "kollama.cli.options"),
        ("__init__.py", "from .cli import main", "kollama.cli"),
        ("cli/run.py", "from .. import __main__", "kollama.__main__"),
    ],
)
def test_an_import_is_found_and_judged(name: str, line: str, target: str) -> None:
    files = read_all()
    path = PACKAGE / name
    module = files[path][0]
    files[path] = (module, line + "\n")
    assert imported(path, module, files[path][1], {m for m, _ in files.values()}) >= {target}
    upwards = rank_of(target) > rank_of(module)
    assert [text.startswith(f"{module} ({path.name}) imports {target},")
            for text in violations(files)] == [True] * upwards


def in_a_new_process(folder: Path, code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, text=True,
                          capture_output=True, check=True, timeout=120)
    return done.stdout.split()


def test_import_is_light(tmp_path: Path) -> None:
    code = "import sys, numpy; before = {*sys.modules}; import kollama; print(*{*sys.modules} - before)"
    loaded = {name for name in in_a_new_process(tmp_path, code) if not name.startswith("kollama")}
    if sys.platform == "win32":  # the folder of the libraries is said with it
        loaded.discard("pathlib")
    assert sorted({name.split(".")[0] for name in loaded} & set(UNWANTED)) == []


@pytest.mark.parametrize("first", ["", "import kollama.convert.config; ", "kollama.samplers; "])
def test_what_is_imported_later_is_there_as_well(tmp_path: Path, first: str) -> None:
    code = f"""
import kollama
{first}
assert set(kollama.__all__) <= set(dir(kollama))
print(*(type(getattr(kollama, name)).__name__ for name in kollama.__all__), kollama.__version__)
assert callable(kollama.convert) and callable(kollama.inspect)
assert kollama.quantize is kollama.quantize and kollama.samplers.TopK(40).top_k == 40
from kollama import *
assert ChatFormat is kollama.ChatFormat
try:
    kollama.nothing
except AttributeError as error:
    assert "'kollama'" in str(error) and "'nothing'" in str(error)
else:
    raise SystemExit("no AttributeError")
"""
    assert len(in_a_new_process(tmp_path, code)) == len(kollama.__all__) + 1
