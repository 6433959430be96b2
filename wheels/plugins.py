"""Installs plugins from local wheels into clean environments, uses them, and removes them.

    python wheels/plugins.py wheels/dist blas vulkan rpc

The folder holds a wheel of kollama for this machine and those of the plugins: wheels/build.sh
x86_64 blas vulkan rpc. Each plugin has an environment of its own, made as a user makes it, by
pip install 'kollama[NAME]'. There `kollama devices` lists it, and a generation runs on it; without
the package all is as before. Vulkan's software driver (Debian: mesa-vulkan-drivers) will do.

The interpreter that runs this needs the `test` extra, for the tiny model.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from check import environment, run, tiny

# One prompt, long enough for BLAS, and tokens after it; "gpu" wants all layers on devices.
USE = '''
import contextlib, json, socket, subprocess, sys, time, kollama

@contextlib.contextmanager
def server():
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    command = [sys.executable, "-m", "kollama", "rpc-server", "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            for attempt in range(300):
                with contextlib.suppress(OSError):
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                time.sleep(0.1)
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()

path, how = sys.argv[1:]
with contextlib.ExitStack() as stack:
    options = {}
    if how == "rpc":
        options["rpc"] = stack.enter_context(server())
    elif how == "gpu":
        options["n_gpu_layers"] = -1
    model = stack.enter_context(kollama.Model(path, **options))
    assert how not in ("gpu", "rpc") or model.n_gpu_layers == model.n_layer + 1, model.n_gpu_layers
    sequence = stack.enter_context(stack.enter_context(model.context(n_ctx=256)).sequence())
    sequence.append([1, *range(3, 103)])
    logits = [float(x) for x in sequence.logits]
    llm = stack.enter_context(kollama.LLM(model, n_ctx=256))
    text = "대한민국의 수도는 서울이다. " * 4
    done = llm.complete(text, max_tokens=16, ignore_eos=True, temperature=0)
    print(json.dumps([logits, [int(token) for token in done.tokens]]))
'''
WITHOUT = '''
import sys, kollama
for wrong in ({"n_gpu_layers": 1}, {"rpc": "127.0.0.1:50052"}):
    try:
        kollama.Model(sys.argv[1], **wrong)
    except kollama.ModelLoadError as error:
        print(error)
    else:
        raise SystemExit(f"{wrong}: no error")
'''
BACKENDS = {"blas": "BLAS", "vulkan": "Vulkan", "cuda": "CUDA", "rpc": "RPC"}
HOW = {"blas": "cpu", "vulkan": "gpu", "cuda": "gpu", "rpc": "rpc"}
TOLERANCE = 0.05  # of the largest logit: other devices round otherwise


def use(python: Path, model: Path, how: str) -> tuple[list[float], list[int]]:
    logits, tokens = json.loads(run(python, "-c", USE, model, how)[0])
    assert len(tokens) == 16
    return logits, tokens


def try_plugin(name: str, wheel: Path, model: Path) -> None:
    """The whole life of a plugin in a clean environment."""
    backend = BACKENDS[name]
    with tempfile.TemporaryDirectory() as scratch:
        python = environment(sys.executable, Path(scratch), "--find-links", str(wheel.parent),
                             f"{wheel}[{name}]")
        kollama = (python, "-m", "kollama")
        found = json.loads(run(*kollama, "devices", "--json")[0])
        mine = [device for device in found if device["backend"] == backend]
        assert mine or name == "rpc", f"no device of {backend} among {found}"
        with_it, _ = use(python, model, HOW[name])

        run(python, "-m", "pip", "uninstall", "--quiet", "--yes", f"kollama-{name}")
        left = json.loads(run(*kollama, "devices", "--json")[0])
        assert any(device["type"] == "cpu" for device in left), left
        assert not any(device["backend"] == backend for device in left), left
        without, _ = use(python, model, "cpu")
        # A server may compute on a CPU as well: its logits can be those of this one, bit for bit.
        assert with_it != without or name == "rpc", "computed by somebody else"
        apart = max(abs(a - b) for a, b in zip(with_it, without, strict=True))
        largest = max(map(abs, without))
        assert apart <= TOLERANCE * largest, f"logits differ by {apart:g} of {largest:g}"
        errors = run(python, "-c", WITHOUT, model)[0]
        assert "pip install 'kollama[cuda]'" in errors, errors
        assert "pip install 'kollama[rpc]'" in errors, errors
    devices = [f"{device['name']} ({device['description']})" for device in mine]
    print(f"  kollama[{name}]: {', '.join(devices) or 'a server'}; logits within "
          f"{apart / largest:.1e} of the CPU's; removed, and the base works")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("plugins", nargs="+", choices=BACKENDS, metavar="PLUGIN",
                        help=", ".join(BACKENDS))
    options = parser.parse_args()
    machine = os.uname().machine
    (wheel,) = options.folder.resolve().glob(f"kollama-*{machine}.whl")
    os.environ.setdefault("GGML_VK_VISIBLE_DEVICES", "0")  # ggml leaves software drivers out
    with tempfile.TemporaryDirectory() as folder:
        model = tiny.write_llama(Path(folder) / "tiny.gguf", n_embd=256)
        for name in options.plugins:
            try:
                try_plugin(name, wheel, model)
            except subprocess.CalledProcessError as error:
                sys.exit(f"kollama[{name}] cannot be installed: {error}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
