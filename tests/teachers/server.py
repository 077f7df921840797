"""A small HTTP server that speaks both chat protocols and misbehaves as it is told to."""

from __future__ import annotations

import json
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Behaviour = Callable[["Handler"], None]
USAGE = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}


@dataclass
class Seen:
    """One request as it arrived."""

    path: str
    headers: dict[str, str]
    body: dict[str, Any]

    @property
    def messages(self) -> list[dict[str, str]]:
        return self.body["messages"]


@dataclass
class Server:
    """Behaviours are used up one a request; after the last, every request is answered by ``otherwise``."""

    url: str
    script: deque[Behaviour] = field(default_factory=deque)
    otherwise: Behaviour = field(default_factory=lambda: says("look"))
    models: Behaviour = field(default_factory=lambda: lists("tiny", "gpt-4o", "claude-haiku-4-5", "gpt-99"))
    requests: list[Seen] = field(default_factory=list)
    looks: list[Seen] = field(default_factory=list)
    """Requests for the list of models."""
    most_at_once: int = 0
    sent: int = 0
    released: threading.Event = field(default_factory=threading.Event)
    _active: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, request: Seen) -> Behaviour:
        with self._lock:
            self.requests.append(request)
            self._active += 1
            self.most_at_once = max(self.most_at_once, self._active)
            return self.script.popleft() if self.script else self.otherwise

    def finished(self) -> None:
        with self._lock:
            self._active -= 1


class Handler(BaseHTTPRequestHandler):
    """Reads a request, then behaves."""

    state: Server
    seen: Seen

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["content-length"]))
        self.seen = Seen(self.path, {k.lower(): v for k, v in self.headers.items()}, json.loads(raw))
        behave = self.state.next(self.seen)
        try:
            behave(self)
        except (BrokenPipeError, ConnectionResetError):
            pass  # the client has given up
        finally:
            self.state.finished()

    def do_GET(self) -> None:
        self.seen = Seen(self.path, {k.lower(): v for k, v in self.headers.items()}, {})
        self.state.looks.append(self.seen)
        self.state.models(self)

    def answer(self, status: int, body: str, headers: dict[str, str] | None = None) -> None:
        raw = body.encode()
        self.send_response(status)
        for name, value in ({"content-type": "application/json"} | (headers or {})).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *args: object) -> None:
        pass


def says(text: str | None, finish: str = "stop", usage: bool = True) -> Behaviour:
    """A proper reply, in the protocol of the path."""

    def behave(handler: Handler) -> None:
        if handler.seen.path.endswith("/messages"):
            body: dict[str, Any] = {
                "id": "1", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None,
                "content": [{"type": "text", "text": text}] if text else [],
                "stop_reason": {"stop": "end_turn", "length": "max_tokens"}[finish],
                "usage": {"input_tokens": USAGE["prompt_tokens"], "output_tokens": USAGE["completion_tokens"]},
            }  # fmt: skip
        else:
            choice = {"index": 0, "finish_reason": finish, "message": {"role": "assistant", "content": text}}
            body = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
            body |= {"usage": USAGE} if usage else {}
        handler.answer(200, json.dumps(body))

    return behave


def lists(*models: str) -> Behaviour:
    """The list of models."""
    return lambda handler: handler.answer(200, json.dumps({"data": [{"id": name} for name in models]}))


def odd(content: str = '"look"', usage: str | None = "{}", finish: str = '"stop"') -> Behaviour:
    """A reply in the protocol of the path whose content and usage are whatever JSON; ``{}`` of usage: proper counts."""

    def behave(handler: Handler) -> None:
        if handler.seen.path.endswith("/messages"):
            counts = usage if usage != "{}" else '{"input_tokens": 100, "output_tokens": 10}'
            told = (counts or "").replace("prompt_tokens", "input_tokens").replace("completion_tokens", "output_tokens")
            body = f'"type": "message", "content": {content}, "stop_reason": {finish}'
        else:
            told = usage if usage != "{}" else json.dumps(USAGE)
            body = f'"choices": [{{"index": 0, "finish_reason": {finish}, "message": {{"content": {content}}}}}]'
        handler.answer(200, f'{{"id": "1", {body}{"" if usage is None else f""", "usage": {told}"""}}}')

    return behave


def drips(part: str, handler: Handler) -> None:
    """A proper reply, ``dripped``, a piece at a time: its head or its body alone would take ten seconds."""
    choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "dripped"}}
    body = json.dumps({"id": "1", "choices": [choice], "usage": USAGE}).encode()
    head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    for name, piece in (("head", head), ("body", body)):
        for at in range(len(piece)):
            handler.wfile.write(piece[at : at + 1])
            if name == part and handler.state.released.wait(10 / len(piece)):
                return
    handler.close_connection = True


def endless(handler: Handler) -> None:
    """A reply whose content does not end; ``state.sent`` says how much of it was taken."""
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.end_headers()
    handler.close_connection = True
    handler.wfile.write(b'{"choices": [{"message": {"content": "')
    while not handler.state.released.is_set():
        handler.wfile.write(b"x" * 65536)
        handler.state.sent += 65536


def fails(status: int, message: str = "no", code: str | None = None, **headers: str) -> Behaviour:
    """An error in the protocol's form; ``retry_after`` becomes the header Retry-After."""
    body = json.dumps({"error": {"message": message, "code": code, "type": "error"}})
    return lambda handler: handler.answer(status, body, {k.replace("_", "-"): v for k, v in headers.items()})


def raw(body: str, content_type: str = "application/json") -> Behaviour:
    """Status 200 with whatever body."""
    return lambda handler: handler.answer(200, body, {"content-type": content_type})


def hangs(handler: Handler) -> None:
    """No answer until the server ends."""
    handler.state.released.wait(60)


def cuts(handler: Handler) -> None:
    """The connection is closed in the middle of the body."""
    handler.send_response(200)
    handler.send_header("content-type", "application/json")
    handler.send_header("content-length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"id": "1", "cho')
    handler.wfile.flush()
    handler.connection.shutdown(socket.SHUT_RDWR)
    handler.close_connection = True


def together(barrier: threading.Barrier, then: Behaviour) -> Behaviour:
    """Answers once as many requests as the barrier has parties are under way."""

    def behave(handler: Handler) -> None:
        barrier.wait(60)
        then(handler)

    return behave


@contextmanager
def running() -> Iterator[Server]:
    """A server on a free port of this machine."""
    http = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Handler,), {}))
    http.daemon_threads = True
    state = Server(f"http://127.0.0.1:{http.server_address[1]}")
    http.RequestHandlerClass.state = state  # type: ignore[attr-defined]
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield state
    finally:
        state.released.set()
        http.shutdown()
        http.server_close()
        thread.join()
