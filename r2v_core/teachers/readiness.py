"""Whether each teacher can be asked from here: its key is set, its address answers; on request, a one-token reply."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from r2v_core.errors import R2VError
from r2v_core.models.packaged import PACKAGED, folder_or_hub_id, packaged_file
from r2v_core.teachers.endpoints import Endpoint, TooLate, api_key, endpoint, import_sdk, lacks_version
from r2v_core.teachers.names import FILE, IN_PROCESS, TeacherEntry, find_teacher, known_teachers
from r2v_core.teachers.prices import Price, load_prices
from r2v_core.teachers.transport import connection

TIMEOUT_S = 5.0
"""Seconds that an address has to answer in."""


def survey_teachers(project: Path, network: bool = True) -> list[dict[str, Any]]:
    """A row for each teacher of a project: ``teacher``, ``provider``, ``model``, ``address``, ``ready``, what is
    ``to_do``, and dollars for a million tokens ``usd_in`` and ``usd_out``, ``as_of`` when and by which ``source``.

    Args:
        network: whether addresses are asked for their list of models, which costs nothing; only where the key is set.

    Raises:
        R2VError: for a broken ``configs/teachers.yaml`` or ``configs/prices.yaml``.
    """
    known = known_teachers(project / FILE)
    prices = load_prices(project)
    with ThreadPoolExecutor(len(known)) as pool:
        rows = [
            pool.submit(_row, name, entry, prices.find(entry.provider, entry.model), network)
            for name, entry in known.items()
        ]
    return [row.result() for row in rows]


def _row(name: str, entry: TeacherEntry, price: Price | None, network: bool) -> dict[str, Any]:
    address, problem = "", ""
    try:
        if entry.provider in IN_PROCESS:
            packaged_file(entry.model) if entry.model in PACKAGED else folder_or_hub_id(entry.model)
        elif entry.provider != "env":
            key, variables = api_key(entry)
            if key is None and variables:
                problem = f"set the environment variable {' or '.join(variables)}"
            else:
                where = endpoint(name, entry)
                address = where.base_url
                problem = _trouble(where, network)
    except R2VError as error:
        problem = str(error)
    return {
        "teacher": name,
        "provider": entry.provider,
        "model": entry.model,
        "address": address,
        "ready": not problem,
        "to_do": problem,
        "usd_in": price.input if price else None,
        "usd_out": price.output if price else None,
        "as_of": str(price.as_of or "") if price else "",
        "source": price.source if price else "",
    }


def _trouble(where: Endpoint, network: bool) -> str:
    """Why a model's API can't be asked; empty if nothing speaks against it."""
    name = sdk_of(where)
    if find_spec(name) is None:
        import_sdk(name)  # says what to install
    if not network:
        return ""
    sdk = import_sdk(name)
    client = getattr(sdk, "Anthropic" if name == "anthropic" else "OpenAI")(**connection(sdk, where, TIMEOUT_S))
    try:
        listed = client.models.with_raw_response.list().http_response.json()
    except (sdk.APITimeoutError, TooLate):
        return f"{where.base_url} does not answer within {TIMEOUT_S:g} s"
    except sdk.APIConnectionError as error:
        cause = error.__cause__ or error
        return (
            f"{where.base_url} can't be reached ({where.redacted(str(cause) or type(cause).__name__)}); is it running?"
        )
    except sdk.APIStatusError as error:
        if error.status_code in (401, 403):
            return f"{where.base_url} refuses the key (status {error.status_code})"
        if error.status_code == 404 and lacks_version(where):
            return f"{where.base_url} answers 404; most servers want a base_url that ends in /v1"
        return f"{where.base_url} answers with status {error.status_code}" if error.status_code >= 500 else ""
    except ValueError:
        return ""  # it answers, if not with a list
    models = _ids(listed)
    if not models or any(where.model in (model, model.removeprefix("models/")) for model in models):
        return ""
    return f"{where.base_url} does not list the model '{where.model}', but {_some(models)}"


def sdk_of(where: Endpoint) -> str:
    """The package that a provider is asked through."""
    return "anthropic" if where.provider == "anthropic" else "openai"


def _ids(listed: Any) -> list[str]:
    rows = listed.get("data") if isinstance(listed, dict) else None
    found = [row.get("id") for row in rows or () if isinstance(row, dict)] if isinstance(rows, list) else []
    return [one for one in found if isinstance(one, str)]


def _some(names: Sequence[str], most: int = 5) -> str:
    rest = len(names) - most
    return ", ".join(sorted(names)[:most]) + (f" and {rest} more" if rest > 0 else "")


def ask_one_token(name: str, project: Path) -> dict[str, Any]:
    """Ask a teacher's API for a reply of one token, which costs what that costs, and say what the server takes.

    Raises:
        R2VError: if it can't be asked, is none behind an API, or does not answer.
    """
    entry = find_teacher(name, project)
    if entry.provider == "env" or entry.provider in IN_PROCESS:
        raise R2VError(
            f"--ask {name}: the provider '{entry.provider}' has no API to ask; r2v teachers says what it needs"
        )
    from r2v_core.teachers.trial import one_token  # not where only keys are looked at

    where = endpoint(name, entry)
    return {
        "teacher": name,
        "model": entry.model,
        **one_token(where, load_prices(project).find(entry.provider, entry.model)),
    }
