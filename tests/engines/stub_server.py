"""A server that behaves as it is told: ``stub_server.py BEHAVIOUR … --port=PORT …``.

Behaviours: ``well``; ``dies`` at once with a traceback; ``sleeps`` without serving; ``silent`` to completions; ``few``
log-probabilities; ``scaled`` by the temperature; ``none`` at all; ``mortal``: dies of the fifth completion.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

BEHAVIOUR = sys.argv[1]
ASKED: list[int] = []


def completion(request: dict[str, Any]) -> dict[str, Any]:
    scale = max(request["temperature"], 0.1) if BEHAVIOUR == "scaled" else 1.0
    top = {f"token_id:{i}": -(2.0 + i) / scale for i in range(3 if BEHAVIOUR == "few" else 20)}
    told = {"tokens": ["token_id:5"], "token_logprobs": [-2.0], "top_logprobs": [top]}
    choice = {"text": "x", "finish_reason": "length", "logprobs": None if BEHAVIOUR == "none" else told}
    return {"choices": [{"index": i, **choice} for i in range(request.get("n", 1))]}


class Handler(BaseHTTPRequestHandler):
    def answer(self, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_GET(self) -> None:
        self.answer({"data": [{"id": "base", "parent": None}]})

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ASKED.append(1)
        if BEHAVIOUR == "silent":
            time.sleep(600)
        if BEHAVIOUR == "mortal" and len(ASKED) == 5:
            print("(EngineCore pid=1) MemoryError: no room for the cache", flush=True)
            os._exit(3)
        self.answer(completion(request))

    def log_message(self, *args: object) -> None:
        pass


if __name__ == "__main__":
    print("vLLM, or so:", *sys.argv, flush=True)
    if BEHAVIOUR == "dies":
        print("(EngineCore pid=7) ERROR 11-27 09:00:00 [core.py:1] ValueError: LoRA rank 7 is not served", flush=True)
        raise RuntimeError("Engine core initialization failed. See root cause above.")
    if BEHAVIOUR == "sleeps":
        time.sleep(600)
    port = next(int(word.removeprefix("--port=")) for word in sys.argv if word.startswith("--port="))
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
