"""How a failed stage is shown: its own words, without the orchestrator's stack trace."""

from __future__ import annotations

import dagster as dg
from dagster._core.errors import DagsterUserCodeProcessError
from dagster_shared.error import SerializableErrorInfo


class _ElsewhereError(DagsterUserCodeProcessError):
    """An error that happened in another process. Dagster shows such an error as it is given here."""

    def __init__(self, message: str) -> None:
        shown = SerializableErrorInfo(message=message + "\n", stack=[], cls_name="StageFailure")
        super().__init__(message, user_code_process_error_infos=[shown])


class StageFailure(dg.Failure, _ElsewhereError):
    """A stage failed, or could not be planned. Takes what :class:`dagster.Failure` takes."""
