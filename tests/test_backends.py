"""Backend plugins: packages found by their entry points, and what becomes of those that cannot be used."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import kollama
from kollama._core.runtime import llama_version
from kollama.backends import GROUP, find_plugins, no_gpu, no_rpc
from kollama.machine import Plugin

OURS = next(line for line in (Path(__file__).parent.parent / "cmake" / "fetch_llama_cpp.py").read_text().splitlines()
             if line.startswith("COMMIT = ")).split('"')[1]
OTHER = "0123456789abcdef0123456789abcdef01234567"


def write_plugin(folder: Path, name: str, code: str, version: str = "9.8.7") -> Path:
    """What pip leaves of a package kollama-<name> with an entry point."""
    module = folder / f"kollama_{name}"
    module.mkdir(parents=True)
    (module / "__init__.py").write_text(textwrap.dedent(code))
    info = folder / f"kollama_{name}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: kollama-{name}\nVersion: {version}\n")
    (info / "entry_points.txt").write_text(f"[{GROUP}]\n{name} = kollama_{name}\n")
    return folder


def not_a_library(folder: Path) -> Path:
    path = folder / "libkollama-ggml-fake.so"
    path.write_bytes(b"\x7fELF, but no more")
    return path


def run(folder: Path, code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    # Before the real ones: a plugin that is installed here must not stand in for the fake.
    head = f"import sys; sys.path.insert(0, {str(folder)!r})\n"
    return subprocess.run([sys.executable, "-X", "faulthandler", "-c", head + textwrap.dedent(code), *map(str, arguments)],
                          capture_output=True, text=True, timeout=120, check=False)


def plugin_of(folder: Path, name: str = "fake") -> dict[str, object]:
    """The plugin as a process with it sees it."""
    done = run(folder, f"""
    import dataclasses, json, logging, kollama
    logging.basicConfig(format="%(levelname)s %(message)s")
    found = kollama.plugins()
    assert any(device.type == "cpu" for device in kollama.devices())
    print(json.dumps([dataclasses.asdict(p) for p in found if p.name == {name!r}][0]))
    """)
    assert done.returncode == 0, done.stderr
    plugin: dict[str, object] = json.loads(done.stdout)
    assert done.stderr.count("is not loaded") >= 1, "the log says it too"
    assert f"WARNING backend plugin kollama-{name} 9.8.7 is not loaded: {plugin['problem']}" in done.stderr
    return plugin


def test_a_plugin_of_another_commit_is_refused_by_name_and_number(tmp_path: Path) -> None:
    write_plugin(tmp_path, "fake", f"""
    LLAMA_COMMIT = {OTHER!r}
    def library():
        raise SystemExit("must not be asked for its library")
    """)
    plugin = plugin_of(tmp_path)
    assert (plugin["package"], plugin["version"], plugin["library"]) == ("kollama-fake", "9.8.7", None)
    problem = str(plugin["problem"])
    for part in (OTHER[:12], OURS[:12], f"pip install 'kollama-fake=={kollama.__version__}'"):
        assert part in problem


def test_a_library_that_the_linker_refuses(tmp_path: Path) -> None:
    write_plugin(tmp_path, "fake", f"""
    LLAMA_COMMIT = {OURS!r}
    def library():
        return {str(not_a_library(tmp_path))!r}
    """)
    plugin = plugin_of(tmp_path)
    assert plugin["library"] is None
    assert "libkollama-ggml-fake.so" in str(plugin["problem"]), "the linker's own words"
    assert "load_backend" not in str(plugin["problem"])


@pytest.mark.parametrize(
    ("code", "parts"),
    [
        ("import nothing_of_this_name", ["ModuleNotFoundError", "nothing_of_this_name"]),
        ("this is no Python", ["SyntaxError"]),
        ("def library(): return '/'", ["AttributeError", "LLAMA_COMMIT"]),
        (f"LLAMA_COMMIT = {OURS!r}\ndef library(): raise OSError('libvulkan.so.1: cannot open shared object file')",
         ["libvulkan.so.1: cannot open", "the system's Vulkan loader"]),
        (f"LLAMA_COMMIT = {OURS!r}\ndef library(): return '/no/such/libkollama-ggml-fake.so'", ["/no/such/", "reinstall"]),
        (f"LLAMA_COMMIT = {OURS!r}\ndef library(): return 'relative.so'", ["relative.so", "reinstall"]),
        (f"LLAMA_COMMIT = {OURS!r}\nlibrary = None", ["TypeError"]),
        ("LLAMA_COMMIT = 7", ["TypeError"]),
    ],
    ids=["needs a package", "no Python", "no commit", "no loader", "no file", "relative", "no function", "a number"],
)
def test_a_broken_plugin_leaves_kollama_whole(tmp_path: Path, code: str, parts: list[str]) -> None:
    write_plugin(tmp_path, "fake", code)
    plugin = plugin_of(tmp_path)
    assert plugin["library"] is None
    for part in parts:
        assert part in str(plugin["problem"])


def test_an_entry_point_to_nothing(tmp_path: Path) -> None:
    write_plugin(tmp_path, "fake", "")
    (tmp_path / "kollama_fake-9.8.7.dist-info" / "entry_points.txt").write_text(f"[{GROUP}]\nfake = kollama_gone:thing\n")
    assert "kollama_gone" in str(plugin_of(tmp_path)["problem"])


def test_base_generates_beside_a_broken_plugin(tmp_path: Path, tiny_path: Path) -> None:
    write_plugin(tmp_path, "vulkan", f"LLAMA_COMMIT = {OTHER!r}")
    done = run(tmp_path, """
    import kollama
    with kollama.LLM(sys.argv[1], n_ctx=64, n_threads=1) as llm:
        print(len(llm.complete("대한민국의 수도는", max_tokens=4, ignore_eos=True).tokens))
    try:
        kollama.Model(sys.argv[1], n_gpu_layers=1)
    except kollama.ModelLoadError as error:
        print(error)
    """, tiny_path)
    assert done.returncode == 0, done.stderr
    tokens, error = done.stdout.splitlines()
    assert tokens == "4"
    assert error.startswith("n_gpu_layers=1, but ")
    if not any(device.type in ("gpu", "igpu") for device in kollama.devices()):
        assert "kollama-vulkan 9.8.7 is not loaded: " in error and OTHER[:12] in error
    assert done.stderr == "", "a library is silent until its user asks for its log"


def test_devices_command_tells_of_it(tmp_path: Path) -> None:
    write_plugin(tmp_path, "fake", f"LLAMA_COMMIT = {OTHER!r}")
    done = run(tmp_path, "from kollama.cli import main; sys.exit(main(['devices', '--json']))")
    assert done.returncode == 0
    assert any(device["type"] == "cpu" for device in json.loads(done.stdout))
    assert f"kollama: kollama-fake 9.8.7 is not loaded: it was built for llama.cpp {OTHER[:12]}" in done.stderr


def test_plugins_are_not_looked_for_by_the_import(tmp_path: Path) -> None:
    write_plugin(tmp_path, "fake", "print('looked at')")
    done = run(tmp_path, "import kollama; print('importlib.metadata' in sys.modules, 'kollama.backends' in sys.modules)")
    assert done.stdout == "False False\n"


@pytest.mark.parametrize(("value", "found"), [("", []), ("fake", ["fake"]), ("other, fake", ["fake", "other"]), ("none", [])])
def test_the_environment_chooses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str, found: list[str]) -> None:
    for name in ("fake", "other"):
        write_plugin(tmp_path, name, f"LLAMA_COMMIT = {OTHER!r}")
    monkeypatch.setenv("KOLLAMA_PLUGINS", value)
    done = run(tmp_path, "import kollama; print(*(p.name for p in kollama.plugins()))")
    assert done.stdout.split() == found


def test_what_the_errors_name() -> None:
    assert "kollama[cuda]" in no_gpu([]) and "kollama[vulkan]" in no_gpu([])
    blas = Plugin("blas", "kollama-blas", "1", library="/lib", n_devices=1)
    assert "kollama[cuda]" in no_gpu([blas]), "a BLAS holds no layers"
    lost = Plugin("cuda", "kollama-cuda", "1", problem="libcuda.so.1: cannot open")
    idle = Plugin("vulkan", "kollama-vulkan", "2", library="/lib")
    assert no_gpu([blas, lost, idle]) == ("no GPU can be used: kollama-cuda 1 is not loaded: libcuda.so.1: cannot open; "
                                          "kollama-vulkan 2 is loaded and finds no device; or leave n_gpu_layers at 0")
    assert no_gpu([idle]).endswith("finds no device; pip install 'kollama[cuda]' (NVIDIA); or leave n_gpu_layers at 0")
    assert "kollama[rpc]" in no_rpc([blas])
    assert no_rpc([Plugin("rpc", "kollama-rpc", "1", problem="why")]) == "kollama-rpc 1 is not loaded: why"


def test_the_pinned_commit_is_what_plugins_are_compared_with() -> None:
    assert OURS[:12] in llama_version()
    assert all(p.problem is None or OURS[:12] not in p.problem for p in find_plugins(OURS))


def test_gpu_layers_are_counted(tiny_path: Path) -> None:
    with kollama.Model(tiny_path) as model:
        assert model.n_gpu_layers == 0
    has_gpu = any(device.type in ("gpu", "igpu") for device in kollama.devices())
    with kollama.Model(tiny_path, n_gpu_layers="auto") as model:
        assert model.n_gpu_layers == (model.n_layer + 1 if has_gpu else 0)
    with pytest.raises(kollama.ArgumentError, match="n_gpu_layers is 'all'; it can be 'auto'"):
        kollama.Model(tiny_path, n_gpu_layers="all")  # type: ignore[arg-type]
