"""The HTTP application, and the server that runs it."""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections.abc import Mapping
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from r2v_core.errors import R2VError, TransientError
from r2v_core.serving.conversation import BadMessages
from r2v_core.serving.protocol import (
    EPISODE,
    ApiError,
    check_name,
    check_request,
    completion,
    headers,
    models,
    unanswered,
)
from r2v_core.serving.service import Service, Unanswered

ENDING_S = 10
"""Seconds that requests under way have to end in once the server is asked to stop."""


def make_app(service: Service, about: Mapping[str, Any], key: str | None = None) -> Starlette:
    """The application of a service.

    Args:
        service: what answers.
        about: what ``GET /health`` says besides that all is well.
        key: what requests have to carry as ``Authorization: Bearer …``; None: nothing.
    """
    since = int(time.time())

    def check_key(request: Request) -> None:
        given = request.headers.get("authorization", "").removeprefix("Bearer ")
        if key is not None and not secrets.compare_digest(given.encode(), key.encode()):
            raise ApiError(
                401, "the API key is missing or wrong: Authorization: Bearer $R2V_SERVE_KEY", "invalid_api_key"
            )

    async def chat(request: Request) -> Response:
        check_key(request)
        # a page in somebody's browser can't send this type to another address without being asked
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise ApiError(415, "Content-Type: expected application/json")
        try:
            body = json.loads(await request.body())
        except (ValueError, RecursionError):
            raise ApiError(400, "the request's body is not JSON") from None
        messages, name = check_request(body, service.name), check_name(request.headers.get(EPISODE))
        try:
            answer = await run_in_threadpool(service.answer, messages, name)
        except BadMessages as error:
            raise ApiError(400, str(error), "invalid_value", error.where) from None
        except Unanswered as error:
            raise unanswered(error) from None
        except R2VError as error:  # the small model's engine, or a judge
            raise ApiError(503 if isinstance(error, TransientError) else 500, str(error)) from None
        return JSONResponse(completion(answer, service.name), headers=headers(answer))

    async def listed(request: Request) -> Response:
        check_key(request)
        return JSONResponse(models(service, since))

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok", **about})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", chat, methods=["POST"]),
            Route("/v1/models", listed),
            Route("/health", health),
        ],
        exception_handlers={ApiError: _api_error, HTTPException: _http_error},
    )


async def _api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return JSONResponse(error.body, error.status)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    known = "POST /v1/chat/completions, GET /v1/models, GET /health"
    what = ApiError(error.status_code, f"{request.method} {request.url.path}: {error.detail}; use {known}")
    return JSONResponse(what.body, error.status_code, error.headers)


def bound(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; port 0: a free one.

    Raises:
        R2VError: if the address can't be had.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or error
        raise R2VError(f"--host {host} --port {port}: {why}; choose another (--port 0: any free one)") from None


def make_server(app: Starlette) -> uvicorn.Server:
    """A server for the application; ``run(sockets=[…])`` serves until a signal or ``should_exit``."""
    return uvicorn.Server(
        uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=ENDING_S, lifespan="off")
    )
