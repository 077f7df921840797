"""Requests to an OpenAI-compatible server, many at once, and what its errors mean here."""

from __future__ import annotations

import http.client
import json
import threading
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Sequence
from queue import SimpleQueue
from typing import Any, TypeVar
from urllib.parse import urlsplit

from r2v_core.errors import R2VError, TransientError

In = TypeVar("In")
Out = TypeVar("Out")
SHOWN = 300
"""Characters of a server's message that ours quotes."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Client:
    """One server. ``check`` raises where it is known to have ended, with the reason."""

    def __init__(self, address: str, key: str, timeout_s: float, check: Callable[[], None]) -> None:
        self.address = address
        self._key = key
        self._timeout_s = timeout_s
        self._check = check
        local = urlsplit(address).hostname in LOOPBACK  # no proxy of the environment knows this machine's loopback
        self._opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if local else []))

    def ask(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The answer to a request, a POST if it has a body.

        Raises:
            TransientError: if the server is gone, does not answer in time, or has an error of its own.
            R2VError: if it refuses the request, or answers no JSON.
        """
        answer = self.text(path, body)
        try:
            found = json.loads(answer)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise R2VError(
                f"{self.address}: not an OpenAI-compatible server (no JSON object at {path}); correct the address"
            )
        return found

    def text(self, path: str, body: dict[str, Any] | None = None) -> str:
        """What the server says to a request, as it is; errors as for :meth:`ask`."""
        data = None if body is None else json.dumps(body).encode()
        headers = {
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {self._key}"} if self._key else {}),
        }
        request = urllib.request.Request(self.address + path, data, headers)
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                return str(answer.read().decode("utf-8", "replace"))
        except urllib.error.HTTPError as error:
            raise self._refused(path, error.code, error.read().decode("utf-8", "replace")) from None
        except (TimeoutError, urllib.error.URLError, http.client.HTTPException, OSError) as error:
            self._check()
            raise self._failed(error) from None

    def _failed(self, error: Exception) -> TransientError:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return TransientError(
                f"{self.address}: no answer within {self._timeout_s:g} s (slm.engine_options.timeout_s); "
                "run the same command again to continue"
            )
        return TransientError(
            f"{self.address}: the connection failed ({reason or type(reason).__name__}); see that the server runs, "
            "then run the same command again to continue"
        )

    def _refused(self, path: str, status: int, body: str) -> R2VError:
        said = " ".join(_message(body).split())[:SHOWN]
        if status >= 500 or status in (408, 429):
            self._check()
            return TransientError(f"{self.address}: status {status} ({said}); run the same command again to continue")
        if status == 401:
            return R2VError(f"{self.address}: the server asks for a key; set the environment variable VLLM_API_KEY")
        return Refusal(f"{self.address}{path}: status {status} ({said})", status)


class Refusal(R2VError):
    """A request that the server does not take."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def _message(body: str) -> str:
    try:
        found = json.loads(body)
    except ValueError:
        return body
    error = found.get("error", found) if isinstance(found, dict) else found
    return str(error.get("message", error) if isinstance(error, dict) else error)


def at_once(call: Callable[[In], Out], items: Sequence[In], limit: int) -> list[Out]:
    """``call`` of each item, in order, at most ``limit`` at a time; the first error ends it.

    The threads are daemons: a server that never answers keeps no process from ending.
    """
    left = deque(enumerate(items))
    outcomes: SimpleQueue[tuple[int, Out | None, BaseException | None]] = SimpleQueue()

    def work() -> None:
        while True:
            try:
                i, item = left.popleft()
            except IndexError:
                return
            try:
                outcomes.put((i, call(item), None))
            except BaseException as error:
                outcomes.put((i, None, error))

    threads = [threading.Thread(target=work, daemon=True, name="vllm") for _ in range(min(limit, len(items)))]
    for thread in threads:
        thread.start()
    found: dict[int, Any] = {}
    try:
        while len(found) < len(items):
            i, answer, error = outcomes.get()
            if error is not None:
                raise error
            found[i] = answer
        for thread in threads:
            thread.join()
    finally:
        left.clear()
    return [found[i] for i in range(len(items))]
