"""Versions of what is kept on disk: every record is written with its version and read by it.

A record of an older version is carried forward, one version at a time, when it is read; its file is left as it is. A
record of a newer version is refused. Whoever changes the fields of a record in :data:`MIGRATIONS` adds a line there:
record → the version that it had → a function from those values to the next version's. Records without
``schema_version`` are of version 1: they were written before there was such a field.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from r2v_core.errors import R2VError

T = TypeVar("T", bound=BaseModel)
Migration = Callable[[dict[str, Any]], dict[str, Any]]

FIELD = "schema_version"


class NewerVersionError(R2VError):
    """A record was written by a newer program."""


MIGRATIONS: dict[str, dict[int, Migration]] = {
    "RunManifest": {
        1: lambda values: values | {"variant": ""},  # experiments had no variants
        2: lambda values: values | {"artifact_digests": {}},  # nothing was written down of the files
    },
    "StageSpec": {
        1: lambda values: values | {"variant": ""},
    },
    "Episode": {
        1: lambda values: values,  # nobody counted the verifier's tokens, nor the teacher's apart; both read as 0
    },
    "Task": {},
    "CandidateRow": {},
    "RouterRow": {
        1: lambda values: values | {"label": float(values["label"])},  # labels were true or false
    },
    "Bundle": {},
}
"""Record type → version → what makes the next version of it."""


def current_version(record: str) -> int:
    """The version that this program writes; 1 for types that never changed."""
    return max(MIGRATIONS.get(record, {}), default=0) + 1


def check_version(record: str, found: Any, where: object) -> int:
    """The version that a record says it has.

    Raises:
        NewerVersionError: naming file, version found and version known.
        R2VError: if it is no version at all.
    """
    known = current_version(record)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise R2VError(
            f"{where}: {FIELD} {found!r} of a {record} is not a version; write a whole number from 1 to {known}"
        )
    if found > known:
        raise NewerVersionError(
            f"{where}: {record} of version {found}, this program knows versions up to {known}; update r2v to read it"
        )
    return found


def upgrade(record: str, values: dict[str, Any], where: object) -> dict[str, Any]:
    """The values of a record, however old, as fields of its present version.

    Args:
        record: its type, a key of :data:`MIGRATIONS`.
        values: as read from the file.
        where: the file, or file and line, for messages.

    Raises:
        R2VError: as :func:`check_version`.
    """
    known = current_version(record)
    for version in range(check_version(record, values.get(FIELD, 1), where), known):
        values = MIGRATIONS[record][version](values)
    return {**values, FIELD: known}


def read_record(model: type[T], text: str | bytes, where: object) -> T:
    """A record from its JSON text.

    Raises:
        ValidationError: if it does not fit its version.
        R2VError: as :func:`upgrade`.
    """
    name = model.__name__
    if name not in MIGRATIONS:
        return model.model_validate_json(text)
    try:
        record = model.model_validate_json(text)
    except ValidationError:
        values = _object(text)
        if values is None or values.get(FIELD, 1) == current_version(name):
            raise
    else:  # quick: nearly every record is of the present version
        found = getattr(record, FIELD) if FIELD in record.model_fields_set else 1
        if found == current_version(name):
            return record
        values = _object(text) or {}
    return model.model_validate(upgrade(name, values, where))


def _object(text: str | bytes) -> dict[str, Any] | None:
    try:
        values = from_json(text)
    except ValueError:
        return None
    return values if isinstance(values, dict) else None


def versioned(record: BaseModel) -> dict[str, Any]:
    """A record's values as they are written: with its version, where its type has one."""
    name = type(record).__name__
    version = {FIELD: current_version(name)} if name in MIGRATIONS else {}
    return version | record.model_dump()
