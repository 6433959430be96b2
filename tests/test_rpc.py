"""One model over several machines: two servers on loopback, and what goes wrong with them."""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import tiny

import kollama
from kollama import servers
from kollama._core.runtime import backend_loaded

has_rpc = backend_loaded("RPC")
needs_rpc = pytest.mark.skipif(not has_rpc, reason="the plugin kollama-rpc is not installed: pip install 'kollama[rpc]'")

TIMEOUT_S = 120


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


# ---- without the plugin --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ("localhost", kollama.ArgumentError, "rpc is 'localhost'; it can be host:port"),
        (":50052", kollama.ArgumentError, "host:port"),
        ("a:0", kollama.ArgumentError, "host:port"),
        ("a:65536", kollama.ArgumentError, "host:port"),
        ("a:http", kollama.ArgumentError, "host:port"),
        ("::1:50052", kollama.ArgumentError, "host:port"),
        ([], kollama.ArgumentError, "empty"),
        (["a:1", "a:1"], kollama.ArgumentError, "twice"),
        ([f"a:{n}" for n in range(1, 18)], kollama.ArgumentError, "17 servers; it can name 16"),
        ([1], TypeError, "not int"),
        (7, TypeError, "int"),
    ],
)
def test_arguments(tiny_path: Path, value: object, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        kollama.Model(tiny_path, rpc=value)  # type: ignore[arg-type]


@pytest.mark.skipif(has_rpc, reason="kollama-rpc is installed here")
def test_without_the_plugin(tiny_path: Path) -> None:
    with pytest.raises(kollama.ModelLoadError, match=r"the RPC backend is not installed: pip install 'kollama\[rpc\]'"):
        kollama.Model(tiny_path, rpc="127.0.0.1:50052")


class Listener:
    """Answers one connection with some bytes, or not at all."""

    def __init__(self, answer: bytes | None) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.name = f"127.0.0.1:{self.socket.getsockname()[1]}"
        self.thread = threading.Thread(target=self._serve, args=(answer,))
        self.thread.start()

    def _serve(self, answer: bytes | None) -> None:
        connection, _ = self.socket.accept()
        with connection:
            connection.recv(64)
            if answer is None:
                connection.recv(1)  # until the other side gives up
            else:
                connection.sendall(answer)

    def close(self) -> None:
        self.thread.join(TIMEOUT_S)
        self.socket.close()


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "is no RPC server of this version"),
        (b"", "hangs up: it is no RPC server"),
        (struct.pack("<QBBBB", 28, 6, 1, 0, 0) + bytes(24), r"speaks version 6\.1\.0 of the protocol, and this kollama 7\.0"),
        (struct.pack("<QBBBB", 28, 7, 1, 0, 0) + bytes(24), r"speaks version 7\.1\.0"),
        (None, "does not answer within .* serves one process at a time"),
    ],
    ids=["HTTP", "hangs up", "older", "newer", "busy"],
)
def test_who_is_no_server_is_told_from_one(answer: bytes | None, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "TIMEOUT_S", 0.3)
    listener = Listener(answer)
    try:
        with pytest.raises(kollama.RemoteError, match=text):
            servers.check(listener.name)
    finally:
        listener.close()


def test_nobody_listens() -> None:
    with pytest.raises(kollama.RemoteError, match=r"cannot be reached: .*is a kollama rpc-server running there\?") as caught:
        servers.check(f"127.0.0.1:{free_port()}")
    assert isinstance(caught.value, ConnectionError)


def test_hosts() -> None:
    assert servers.resolve("localhost") == "127.0.0.1"
    assert servers.is_loopback("127.0.0.1") and not servers.is_loopback("0.0.0.0")
    with pytest.raises(kollama.ArgumentError, match="host is 'no.such.host.invalid'"):
        servers.resolve("no.such.host.invalid")
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="cannot listen at 127.0.0.1:"):
        servers.try_to_bind("127.0.0.1", taken.getsockname()[1])


# ---- with it -------------------------------------------------------------------------------------


class Server:
    def __init__(self, port: int | None = None, *more: str) -> None:
        self.port = port or free_port()
        self.name = f"127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "kollama", "rpc-server", "--port", str(self.port), "--n-threads", "1", *more],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        deadline = time.monotonic() + 30
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, "the server does not start"
            time.sleep(0.05)

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate(timeout=30)


@pytest.fixture
def two() -> Iterator[list[Server]]:
    made = [Server(), Server()]
    yield made
    for server in made:
        server.kill()


def child(code: str, *arguments: object) -> str:
    """In a process of its own: what a lost server leaves behind stays there."""
    done = subprocess.run([sys.executable, "-X", "faulthandler", "-c", textwrap.dedent(code), *map(str, arguments)],
                          capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@needs_rpc
def test_two_servers_give_what_one_machine_gives(tiny_path: Path, two: list[Server]) -> None:
    prompt = [1, *range(260, 300)]
    with kollama.Model(tiny_path) as here, here.context(n_ctx=128, n_threads=1) as ctx:
        seq = ctx.sequence()
        seq.append(prompt)
        expected = seq.logits.copy()
        seq.close()
    with kollama.Model(tiny_path, rpc=[server.name for server in two]) as model:
        assert model.n_gpu_layers == model.n_layer + 1
        with model.context(n_ctx=128, n_seq_max=2, n_threads=1) as ctx:
            seq = ctx.sequence()
            seq.append(prompt)
            assert np.abs(seq.logits - expected).max() < 0.02 * np.abs(expected).max()
            branch = seq.fork()
            branch.append([5])
            blob = branch.state()
            branch.restore(blob)
            branch.append([6])
            branch.close()
            seq.close()
        with kollama.LLM(model, n_ctx=128, n_parallel=2, n_threads=1) as llm:
            done = llm.complete(["대한민국의", "오늘 날씨"], max_tokens=8, ignore_eos=True, temperature=0)
            assert [len(one.tokens) for one in done] == [8, 8]
    assert not any(device.backend == "RPC" for device in kollama.devices()), "they are the model's alone"


@needs_rpc
def test_a_second_model_shares_the_connection(tiny_path: Path, two: list[Server]) -> None:
    with kollama.Model(tiny_path, rpc=two[0].name) as one, kollama.Model(tiny_path, rpc=two[0].name, n_gpu_layers=1) as other:
        assert (one.n_gpu_layers, other.n_gpu_layers) == (3, 1)
    with kollama.Model(tiny_path, rpc=two[0].name) as again:
        assert again.n_gpu_layers == 3


@needs_rpc
def test_progress_and_a_load_that_is_stopped(tmp_path: Path, two: list[Server]) -> None:
    path = tiny.write_llama(tmp_path / "larger.gguf", n_layer=24, n_embd=256)
    seen: list[float] = []
    with kollama.Model(path, rpc=two[0].name, progress=seen.append):
        assert seen and seen[-1] == 1 and sorted(seen) == seen
    with pytest.raises(kollama.AbortedError):
        kollama.Model(path, rpc=two[0].name, progress=lambda done: False)
    with pytest.raises(ZeroDivisionError):
        kollama.Model(path, rpc=two[0].name, progress=lambda done: 1 / 0)  # type: ignore[arg-type, return-value]


LOST = """
import os, signal, sys, threading, time
import kollama

path, name, pid, how = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]

def kill(after=0.0):
    time.sleep(after)
    os.kill(pid, signal.SIGKILL)

def fails(f):
    start = time.monotonic()
    try:
        f()
    except kollama.RemoteError as error:
        assert name in str(error), error
        assert time.monotonic() - start < 10, "took too long"
        return True
    return False

model = kollama.Model(path, rpc=name)
ctx = model.context(n_ctx=4096, n_threads=1)
seq = ctx.sequence()
seq.append([1, 300, 301])
if how == "idle":
    kill()
    time.sleep(0.1)
    assert fails(lambda: seq.append([5]))
elif how == "generating":
    llm = kollama.LLM(model, n_ctx=4000, n_threads=1)
    threading.Thread(target=kill, args=(0.3,)).start()
    assert fails(lambda: llm.complete("대한민국", max_tokens=3000, ignore_eos=True))
    assert fails(lambda: llm.complete("a"))
    llm.close()
elif how == "context":
    kill()
    time.sleep(0.1)
    assert fails(lambda: model.context(n_ctx=64, n_threads=1))
elif how == "close":
    kill()
    time.sleep(0.1)
if how != "close":
    assert fails(lambda: seq.append([5])), "it stays lost"
    assert fails(lambda: model.context(n_ctx=64)), "and so does the model"
ctx.close()
model.close()
# This machine goes on.
with kollama.LLM(path, n_ctx=64, n_threads=1) as llm:
    assert len(llm.complete("가", max_tokens=3, ignore_eos=True).tokens) == 3
print("lost", flush=True)
sys.stdin.readline()  # by now the server is back
for _ in range(2):
    with kollama.Model(path, rpc=name) as model, model.context(n_ctx=64, n_threads=1) as ctx, ctx.sequence() as seq:
        seq.append([1, 300])
        assert seq.logits.any()
print("back")
"""


@needs_rpc
@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGKILL")
@pytest.mark.parametrize("how", ["idle", "generating", "context", "close"])
def test_a_killed_server_is_an_error_and_a_restarted_one_is_used_again(tiny_path: Path, how: str) -> None:
    server = Server()
    process = subprocess.Popen([sys.executable, "-X", "faulthandler", "-c", LOST, str(tiny_path), server.name,
                                str(server.process.pid), how], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               stderr=subprocess.PIPE, text=True)
    watchdog = threading.Timer(TIMEOUT_S, process.kill)
    watchdog.start()
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "lost\n", process.communicate()
        server.kill()
        server = Server(server.port)
        out, err = process.communicate("\n", timeout=TIMEOUT_S)
        assert (out, err, process.returncode) == ("back\n", "", 0)
    finally:
        watchdog.cancel()
        process.kill()
        server.kill()


@needs_rpc
def test_one_lost_server_leaves_models_of_another(tiny_path: Path, two: list[Server]) -> None:
    out = child("""
    import os, signal, sys, time, kollama
    path, first, second, pid = *sys.argv[1:4], int(sys.argv[4])
    lost, kept = kollama.Model(path, rpc=first), kollama.Model(path, rpc=second)
    a = lost.context(n_ctx=64, n_threads=1).sequence()
    b = kept.context(n_ctx=64, n_threads=1).sequence()
    a.append([1, 300]); b.append([1, 300])
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.1)
    try:
        a.append([5])
    except kollama.RemoteError as error:
        print(first in str(error), second in str(error))
    b.append([5])
    print(len(b))
    """, tiny_path, two[0].name, two[1].name, two[0].process.pid)
    assert out == "True False\n3\n"


@needs_rpc
def test_server_command(tmp_path: Path) -> None:
    def fails(*options: str) -> str:
        done = subprocess.run([sys.executable, "-m", "kollama", "rpc-server", *options], capture_output=True, text=True,
                              timeout=60, check=False)
        assert done.returncode != 0
        return done.stderr

    assert "port is 0; it can be 1 to 65535" in fails("--port", "0")
    assert "n_threads is 0" in fails("--n-threads", "0")
    assert "device is 'CUDA7'; it can be " in fails("--device", "CUDA7", "--port", str(free_port()))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert "cannot listen at 127.0.0.1:" in fails("--port", str(taken.getsockname()[1]))
    server = Server(None, "--host", "0.0.0.0", "--cache", str(tmp_path / "cache"))
    server.process.send_signal(signal.SIGINT)
    err = server.process.communicate(timeout=30)[1]
    assert "neither\nauthenticated nor encrypted" in err and "0.0.0.0" in err
    assert server.process.returncode == -signal.SIGINT
    server = Server()
    server.process.terminate()
    assert "WARNING" not in server.process.communicate(timeout=30)[1]
