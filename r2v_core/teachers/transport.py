"""An HTTP client for the SDKs that keeps to a time for the whole request and to a size of the response."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from typing import Any

from r2v_core.teachers.endpoints import Endpoint, TooLate
from r2v_core.teachers.replies import LARGEST_BODY

_CHUNK = 1 << 16
_CONNECTED = ("connect_tcp.complete", "start_tls.complete")


def connection(sdk: Any, where: Endpoint, timeout_s: float) -> dict[str, Any]:
    """How an SDK's client reaches an endpoint: once a request, within a time and a size."""
    return {
        "api_key": where.key,
        "base_url": where.base_url,
        "timeout": timeout_s,
        "max_retries": 0,
        "http_client": bounded_client(sdk, timeout_s),
    }


def bounded_client(sdk: Any, timeout_s: float) -> Any:
    """What an SDK takes as ``http_client``. Proxies and certificates are the SDK's defaults.

    The SDKs' own time limit is one for each piece of a response, so that a server which sends a byte now and then
    is never late. A body is read up to one byte more than :data:`LARGEST_BODY`.
    """

    class Bounded(sdk.DefaultHttpxClient):
        def send(self, request: Any, **keywords: Any) -> Any:
            watch = _Watch(timeout_s)
            request.extensions = {**request.extensions, "trace": watch.saw}
            request.headers["connection"] = "close"  # so that the connection is this request's, and is seen being made
            try:
                with watch:
                    response = super().send(request, **{**keywords, "stream": True})
                    body = bytearray()
                    try:
                        for chunk in response.iter_bytes(_CHUNK):
                            body += chunk[: LARGEST_BODY + 1 - len(body)]
                            watch.check()
                            if len(body) > LARGEST_BODY:
                                break
                    finally:
                        response.close()
            except Exception:
                watch.check()
                raise
            gone = ("content-encoding", "content-length", "transfer-encoding")
            return type(response)(
                response.status_code,
                headers=[pair for pair in response.headers.multi_items() if pair[0].lower() not in gone],
                content=bytes(body),
                request=request,
            )

    return Bounded(timeout=timeout_s)


class _Watch:
    """Cuts a request's connection once its time is over."""

    def __init__(self, timeout_s: float) -> None:
        self._until = time.monotonic() + timeout_s
        self._timer = threading.Timer(timeout_s, self._cut)
        self._timer.daemon = True
        self._socket: Any = None

    def __enter__(self) -> None:
        self._timer.start()

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def saw(self, event: str, details: dict[str, Any]) -> None:
        """What the client tells of its work; of interest is the connection that it made."""
        if event.endswith(_CONNECTED):
            self._socket = details["return_value"].get_extra_info("socket")
            if time.monotonic() >= self._until:
                self._cut()

    def check(self) -> None:
        """Raises TooLate if the time is over."""
        if time.monotonic() >= self._until:
            raise TooLate

    def _cut(self) -> None:
        with suppress(OSError, AttributeError, ValueError):
            self._socket.shutdown(socket.SHUT_RDWR)
