"""How a failed stage is shown: its own words, without the orchestrator's stack trace."""

from __future__ import annotations

import dagster as dg

from r2v_assets.dagster_adapter import ElsewhereError
from r2v_core.errors import R2VError, TransientError

RETRY = dg.RetryPolicy(max_retries=2, delay=10, backoff=dg.Backoff.EXPONENTIAL)
"""For failures that may pass: a process that was killed, a connection that was lost. The run is taken up where it
stopped. Everything else fails at once (``allow_retries=False``)."""


class StageFailure(dg.Failure, ElsewhereError):
    """A stage failed, or could not be planned. Takes what :class:`dagster.Failure` takes."""


def stage_failure(error: R2VError) -> StageFailure:
    """The failure of an asset for an error that its user can read."""
    return StageFailure(str(error), allow_retries=isinstance(error, TransientError))
