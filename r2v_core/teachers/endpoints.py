"""Where each provider answers and which key it wants; and what its SDK's errors mean here."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from r2v_core.errors import R2VError
from r2v_core.teachers.delays import delay_of
from r2v_core.teachers.names import FILE, Provider, TeacherEntry

_URLS: dict[Provider, str] = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com",
    "google": "https://generativelanguage.googleapis.com/v1beta/openai",
    "deepseek": "https://api.deepseek.com",
}
_KEYS: dict[Provider, tuple[str, ...]] = {
    "openai": ("OPENAI_API_KEY",),
    "anthropic": ("ANTHROPIC_API_KEY",),
    "google": ("GEMINI_API_KEY", "GOOGLE_API_KEY"),
    "deepseek": ("DEEPSEEK_API_KEY",),
    "openai_compatible": ("OPENAI_COMPATIBLE_API_KEY",),
}
_NO_KEY = "none"
"""What is sent to a server that wants no key; the SDKs insist on some."""
_SHOWN = 300
"""Characters of a server's message that ours quotes."""
_TRANSIENT = frozenset({408, 409, 425, 429})
_BUSY = frozenset({429, 529})
"""A rate limit, an overload; 503 is one too where a model's server says it, and not a proxy that found none."""
_OF_THE_REQUEST = frozenset({400, 413, 422})
"""Statuses that are about one request: too long, filtered; another one may be answered."""
_USED_UP = ("insufficient_quota", "billing")
"""Codes of a 429 that waiting does not cure."""


class Transient(Exception):
    """A request that may well be answered when it is made again."""

    def __init__(self, message: str, retry_after_s: float | None = None, busy: bool = False) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s
        self.busy = busy
        """Whether the server said that it is there and has too much to do."""


class TooLate(Exception):
    """A request was not answered whole in its time."""


class Refused(R2VError):
    """A request that is refused for what is in it: the content filter, a context too long, an unknown parameter."""

    def __init__(self, message: str, said: str = "", body: str = "") -> None:
        super().__init__(message)
        self.said = said
        """The server's own words, in one line."""
        self.body = body
        """Its whole answer."""


@dataclass(frozen=True)
class Endpoint:
    """One model behind one address."""

    provider: Provider
    model: str
    base_url: str
    key: str = field(repr=False)

    def __str__(self) -> str:
        return f"model '{self.model}' at {self.base_url}"

    def redacted(self, text: str) -> str:
        """A text from outside, without the key should it be repeated there."""
        return text if self.key == _NO_KEY else text.replace(self.key, "[key]")


def endpoint(name: str, entry: TeacherEntry) -> Endpoint:
    """Where a teacher answers, with its key from the environment.

    Raises:
        R2VError: if the key is not set, or the address reads a variable that is not.
    """
    key, variables = api_key(entry)
    if key is None and variables:
        raise R2VError(
            f"teacher '{name}' (provider {entry.provider}) needs an API key: set the environment variable "
            f"{' or '.join(variables)}; for jobs of a SLURM cluster name it in the profile's environment.pass, too"
        )
    return Endpoint(entry.provider, entry.model, _address(name, entry).rstrip("/"), key or _NO_KEY)


def api_key(entry: TeacherEntry) -> tuple[str | None, tuple[str, ...]]:
    """A teacher's key, and the environment variables of which one has to hold it; none where it may be left out."""
    variables = (entry.key_env,) if entry.key_env else _KEYS[entry.provider]
    key = next((value for value in map(os.environ.get, variables) if value), None)
    return key, variables if entry.key_env or entry.provider != "openai_compatible" else ()


def lacks_version(where: Endpoint) -> bool:
    """Whether an address of OpenAI's protocol is a host alone, where most servers answer below ``/v1``."""
    return where.provider != "anthropic" and urlsplit(where.base_url).path in ("", "/")


def _address(name: str, entry: TeacherEntry) -> str:
    if entry.base_url is None:
        return _URLS[entry.provider]
    try:
        return str(OmegaConf.create({"base_url": entry.base_url}).base_url)
    except OmegaConfBaseException as error:
        raise R2VError(f"{FILE}: teacher '{name}': base_url: {str(error).splitlines()[0]}") from None


def import_sdk(name: str) -> ModuleType:
    """A provider's SDK.

    Raises:
        R2VError: if it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise R2VError(f"the package {name} is missing: pip install -c constraints.txt -e '.[teachers]'") from None


@contextmanager
def translated(sdk: Any, where: Endpoint) -> Iterator[None]:
    """Turn an SDK's errors into :class:`Transient` or R2VError; both SDKs in use name theirs alike.

    Raises:
        Transient: for rate limits, errors of the server, time-outs, cut connections, and answers that are no JSON.
        Refused: for what is wrong with this one request.
        R2VError: for everything else that waiting does not cure.
    """
    try:
        yield
    except (sdk.APITimeoutError, TooLate):
        raise Transient("no answer in time (limits.timeout_s)") from None
    except sdk.APIConnectionError as error:
        cause = error.__cause__ or error
        raise Transient(f"connection failed ({where.redacted(str(cause) or type(cause).__name__)})") from None
    except sdk.APIStatusError as error:
        said = where.redacted(_said(error))[:_SHOWN]
        code = str(getattr(error, "code", "") or "")
        if (error.status_code in _TRANSIENT and code not in _USED_UP) or error.status_code >= 500:
            pause = delay_of(error.response.headers, error.response.text)
            busy = error.status_code in _BUSY or (error.status_code == 503 and isinstance(error.body, (dict, list)))
            raise Transient(f"status {error.status_code} ({said})", pause, busy) from None
        message = f"{where} refuses: status {error.status_code} ({said})"
        if error.status_code in _OF_THE_REQUEST:
            raise Refused(message, said, error.response.text) from None
        lost = error.status_code == 404 and lacks_version(where)
        raise R2VError(message + ("; most servers want a base_url that ends in /v1" if lost else "")) from None
    except (sdk.APIResponseValidationError, ValueError) as error:
        raise Transient(f"the answer is not what the API promises ({type(error).__name__})") from None


def _said(error: Any) -> str:
    """A server's message in one line; the SDKs pass on messages in their own protocol's form alone."""
    told = str(error.message)
    return " ".join((told if " - " in told else f"{told} - {error.response.text[:4000]}").split()).removesuffix(" -")
