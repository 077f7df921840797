"""How a failed stage is shown: its own words, without the orchestrator's stack trace."""

from __future__ import annotations

from typing import NoReturn

import dagster as dg

from r2v_assets.dagster_adapter import ElsewhereError
from r2v_core.errors import R2VError, TransientError

MAX_RETRIES = 2
RETRY_DELAY_S = 10


class StageFailure(dg.Failure, ElsewhereError):
    """A stage failed, or could not be planned. Takes what :class:`dagster.Failure` takes."""


def raise_again(failure: StageFailure, retry_number: int) -> NoReturn:
    """Fail, or ask Dagster to try again where the failure may pass: a process that was killed, a lost connection.

    Dagster's own retry policies leave errors alone that it shows without a stack trace.

    Args:
        retry_number: tries before this one. The run is taken up where the last one stopped.
    """
    if failure.allow_retries and retry_number < MAX_RETRIES:
        raise dg.RetryRequested(MAX_RETRIES, seconds_to_wait=RETRY_DELAY_S * 3**retry_number) from failure
    raise failure from None


def stage_failure(error: R2VError) -> StageFailure:
    """The failure of an asset for an error that its user can read."""
    return StageFailure(str(error), allow_retries=isinstance(error, TransientError))
