"""kollama.ray: a stage for Ray Data, and a deployment for Ray Serve."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

import kollama
from kollama.ray import Completer

TEXTS = ["대한민국의 수도는", "오늘 날씨가 좋네요", "안녕하세요", "the"]
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install 'kollama[ray]'")
pytestmark = pytest.mark.filterwarnings("default")

GENERATION = {"max_tokens": 6, "temperature": 0, "ignore_eos": True}


def test_a_batch_without_ray(tiny_path: Path) -> None:
    stage = Completer(str(tiny_path), column="text", generation=GENERATION, n_ctx=64, n_parallel=2, n_threads=1)
    batch = stage({"text": np.array(TEXTS, dtype=object), "id": np.arange(4)})
    assert batch["id"].tolist() == [0, 1, 2, 3]
    assert batch["completion_tokens"].tolist() == [6] * 4
    with kollama.LLM(tiny_path, n_ctx=64, n_parallel=2, n_threads=1) as llm:
        done = llm.complete(TEXTS, **GENERATION)  # type: ignore[call-overload]
    assert batch["completion"].tolist() == [one.text for one in done]
    assert set(batch["completion_finish_reason"]) == {"length"}
    assert stage({"text": np.array([], dtype=object)})["completion"].shape == (0,)
    with pytest.raises(KeyError, match="no column 'text'; it has .'prompt'."):
        stage({"prompt": np.array(["a"], dtype=object)})


def free_port() -> int:
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return int(trial.getsockname()[1])


def in_ray(code: str, *arguments: object) -> str:
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)], capture_output=True, text=True,
                          timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    (found,) = (line for line in done.stdout.splitlines() if line.startswith("["))  # Ray's own lines may follow
    return found


@needs_ray
def test_two_workers_of_ray_data(tiny_path: Path) -> None:
    out = in_ray("""
    import json, logging, os, sys
    import ray
    import kollama.ray
    ray.init(num_cpus=3, include_dashboard=False, logging_level=logging.ERROR)
    texts = json.loads(sys.argv[2])
    data = ray.data.from_items([{"prompt": text, "id": i} for i, text in enumerate(texts * 8)]).repartition(8)
    done = kollama.ray.complete(data, sys.argv[1], workers=2, batch_size=4, n_ctx=64,
                                generation={"max_tokens": 6, "temperature": 0, "ignore_eos": True})
    rows = sorted(done.take_all(), key=lambda row: row["id"])
    ray.shutdown()
    print(json.dumps([row["completion"] for row in rows]))
    """, tiny_path, json.dumps(TEXTS))
    found = json.loads(out)
    with kollama.LLM(tiny_path, n_ctx=64, n_threads=1) as llm:
        assert found == [llm.complete(text, max_tokens=6, temperature=0, ignore_eos=True).text for text in TEXTS] * 8


@needs_ray
@pytest.mark.skipif(importlib.util.find_spec("starlette") is None, reason="Ray Serve is not installed: pip install 'kollama[ray]'")
def test_a_deployment_of_ray_serve(tiny_path: Path) -> None:
    out = in_ray("""
    import json, logging, sys, urllib.error, urllib.request
    import ray
    from ray import serve
    import kollama.ray
    ray.init(num_cpus=3, include_dashboard=False, logging_level=logging.ERROR)
    port = int(sys.argv[3])
    serve.start(http_options={"port": port})
    handle = serve.run(kollama.ray.deployment(sys.argv[1], n_ctx=64, n_parallel=2))
    many = [handle.complete.remote(text, max_tokens=6, temperature=0, ignore_eos=True) for text in json.loads(sys.argv[2])]
    texts = [one.result()["text"] for one in many]

    def post(**body):
        request = urllib.request.Request(f"http://127.0.0.1:{port}/", json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    status, body = post(prompt=json.loads(sys.argv[2])[0], max_tokens=6, temperature=0, ignore_eos=True)
    assert (status, body["text"], len(body["tokens"]), body["finish_reason"]) == (200, texts[0], 6, "length"), body
    status, body = post(prompt="a", max_tokens=0)
    assert status == 400 and "max_tokens" in body["error"], (status, body)
    status, body = post(promt="a")
    assert status == 400 and '"prompt"' in body["error"], (status, body)
    status, body = post(prompt="a", temprature=0)
    assert status == 400 and "temprature" in body["error"], (status, body)
    print(json.dumps(texts))
    serve.shutdown()
    ray.shutdown()
    """, tiny_path, json.dumps(TEXTS), free_port())
    with kollama.LLM(tiny_path, n_ctx=64, n_threads=1) as llm:
        assert json.loads(out) == [llm.complete(text, max_tokens=6, temperature=0, ignore_eos=True).text for text in TEXTS]
