"""A threaded web server that streams answers, with the standard library alone.

    python examples/web.py model.gguf --port 8000
    curl -N -d '{"prompt": "대한민국의 수도는", "max_tokens": 32}' http://127.0.0.1:8000/generate

Each connection has a thread of its own; the requests of up to `--parallel` of them are computed
together, the others wait for a place. The answer comes as Server-Sent Events, one for each token
that completes some text. A client that goes away ends its request within one graph of the model.
"""

from __future__ import annotations

import argparse
import contextlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import kollama

MAX_BODY = 1 << 20
OPTIONS = {"max_tokens", "temperature", "top_k", "top_p", "min_p", "seed", "stop"}
TIMEOUT_S = 120


class Server(ThreadingHTTPServer):
    """One model for all connections."""

    daemon_threads = False  # the threads end before the model is closed

    def __init__(self, address: tuple[str, int], llm: kollama.LLM) -> None:
        super().__init__(address, Handler)
        self.llm = llm


class Handler(BaseHTTPRequestHandler):
    """POST /generate with {"prompt": ..., "max_tokens": ...}."""

    server: Server
    timeout = 10  # seconds that a client may keep the connection idle

    def do_POST(self) -> None:
        if self.path != "/generate":
            return self.refuse(404, "there is only /generate")
        try:
            request = self.read_request()
            stream = self.server.llm.generate(request.pop("prompt"), timeout=TIMEOUT_S, **request)
        except (KeyError, TypeError, ValueError) as error:  # kollama's are among them
            return self.refuse(400, str(error))
        with stream:  # a client that goes away raises in send: the request ends here
            self.answer(stream)

    def answer(self, stream: kollama.Generation) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        try:
            for token in stream:
                if token.text:
                    self.send({"text": token.text})
            self.send({"finish_reason": stream.result.finish_reason})
        except kollama.KollamaError as error:
            self.send({"error": str(error)})
        except ConnectionError:
            pass

    def send(self, event: dict[str, Any]) -> None:
        data = json.dumps(event, ensure_ascii=False)
        self.wfile.write(f"data: {data}\n\n".encode())
        self.wfile.flush()

    def read_request(self) -> dict[str, Any]:
        length = int(self.headers.get("Content-Length", 0))
        if not 0 < length <= MAX_BODY:
            raise ValueError(f"the request has {length} bytes; it can have 1 to {MAX_BODY}")
        request = json.loads(self.rfile.read(length))
        if not isinstance(request, dict) or not isinstance(request.get("prompt"), str):
            raise ValueError('the request must be a JSON object with a "prompt"')
        if unknown := set(request) - OPTIONS - {"prompt"}:
            raise ValueError(f"unknown: {', '.join(sorted(unknown))}")
        return request

    def refuse(self, status: int, reason: str) -> None:
        body = json.dumps({"error": reason}, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--parallel", type=int, default=4)
    options = parser.parse_args()
    with (
        kollama.LLM(options.model, n_ctx=2048, n_parallel=options.parallel) as llm,
        Server(("127.0.0.1", options.port), llm) as server,
    ):
        print(f"http://127.0.0.1:{server.server_address[1]}/generate", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


if __name__ == "__main__":
    main()
