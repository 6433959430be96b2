"""The examples run, on the tiny model."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from conftest import ROOT

import kollama

EXAMPLES = ROOT / "examples"
WAIT_S = 120


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(name: str, *arguments: object) -> str:
    done = subprocess.run([sys.executable, str(EXAMPLES / f"{name}.py"), *map(str, arguments)], text=True,
                          capture_output=True, check=False, timeout=WAIT_S, encoding="utf-8",
                          env=os.environ | {"PYTHONUTF8": "1"})
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


@pytest.fixture
def server(model: kollama.Model) -> Iterator[Any]:
    web = load("web")
    with kollama.LLM(model, n_ctx=2048, n_parallel=2, n_threads=1) as llm, web.Server(("127.0.0.1", 0), llm) as opened:
        thread = threading.Thread(target=opened.serve_forever)
        thread.start()
        yield opened
        opened.shutdown()
        thread.join(WAIT_S)


def ask(server: Any, body: object, path: str = "/generate") -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection(*server.server_address, timeout=WAIT_S)
    connection.request("POST", path, json.dumps(body))
    return connection.getresponse()


def events(response: http.client.HTTPResponse) -> list[dict[str, str]]:
    with response:
        lines = response.read().decode().split("\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line]


def test_web_streams(server: Any) -> None:
    expected = server.llm.complete("한국어", max_tokens=12, temperature=0)
    answers: list[list[dict[str, str]]] = []
    threads = [
        threading.Thread(target=lambda: answers.append(events(ask(server, {"prompt": "한국어", "max_tokens": 12, "temperature": 0}))))
        for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT_S)
    assert len(answers) == 5
    for answer in answers:
        assert "".join(event.get("text", "") for event in answer) == expected.text
        assert answer[-1] == {"finish_reason": expected.finish_reason}


def test_web_refuses(server: Any) -> None:
    for body, path, status in [
        ({"prompt": "a"}, "/", 404), ({}, "/generate", 400), ([1], "/generate", 400), ({"prompt": 3}, "/generate", 400),
        ({"prompt": "a", "max_tokens": 0}, "/generate", 400), ({"prompt": "a", "sampler": 1}, "/generate", 400),
        ({"prompt": "a" * 9000}, "/generate", 400),
    ]:
        with ask(server, body, path) as response:
            assert response.status == status, body
            assert json.loads(response.read())["error"]


def test_web_client_that_goes_away(server: Any) -> None:
    for _ in range(4):  # more than there are places
        response = ask(server, {"prompt": "a", "max_tokens": 1900, "temperature": 2.0})
        response.read(20)
        response.close()
    end = time.monotonic() + WAIT_S
    while any(slot.holder is not None for slot in server.llm._slots._slots):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert events(ask(server, {"prompt": "a", "max_tokens": 2}))[-1]["finish_reason"]


def test_pool(tiny_path: Path, model: kollama.Model) -> None:
    prompts = ["한국어", "대한민국의 수도는"]
    lines = run("pool", tiny_path, *prompts)
    with kollama.LLM(model, n_ctx=512, n_threads=1) as llm:
        expected = "".join(f"{prompt}{llm.complete(prompt, max_tokens=32, temperature=0).text}\n" for prompt in prompts)
    assert lines.replace("\r", "\n") == expected.replace("\r", "\n")


def test_loop(tiny_path: Path) -> None:
    text = run("loop", tiny_path)
    assert text.startswith("대한민국의")
    assert "cancelled\n한국어" in text
