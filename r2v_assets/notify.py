"""What happens when a Dagster run fails: a command or a webhook of your choice is told.

``R2V_ON_FAILURE`` holds an address (``https://…``: the event is POSTed as JSON) or a command (run without a shell, the
event as JSON on its standard input). Unset, nothing happens. Set it where ``make ui`` or the daemon is started.
"""

# no `from __future__ import annotations`: Dagster reads the annotations of sensors as they are

import json
import os
import shlex
import subprocess
import urllib.error
import urllib.request
from typing import Any

import dagster as dg

from r2v_core.errors import R2VError

VARIABLE = "R2V_ON_FAILURE"
PATIENCE_S = 60.0
"""Seconds for the command or the server to answer."""


def failure_event(run: dg.DagsterRun, error: str, steps: list[str]) -> dict[str, Any]:
    """What is told: identity of the Dagster run, what it was making, why it failed."""
    return {
        "event": "run_failed",
        "dagster_run_id": run.run_id,
        "job": run.job_name,
        "assets": sorted(key.to_user_string() for key in run.asset_selection or ()),
        "partition": run.tags.get("dagster/partition"),
        "backfill": run.tags.get("dagster/backfill"),
        "failed_steps": steps,
        "error": error,
    }


def tell(target: str, event: dict[str, Any]) -> None:
    """Hand an event to a command or a webhook.

    Raises:
        R2VError: if the command can't be run or fails, or the server refuses; names the target without its secrets.
    """
    data = json.dumps(event).encode()
    if target.startswith(("http://", "https://")):
        where = target.partition("://")[2].partition("/")[0].rpartition("@")[2]
        request = urllib.request.Request(target, data, {"Content-Type": "application/json"}, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE_S):
                return
        except (urllib.error.URLError, OSError) as error:
            raise R2VError(f"{VARIABLE}: {where} did not accept the event: {error}") from None
    try:
        command = shlex.split(target)
        done = subprocess.run(command, input=data, capture_output=True, timeout=PATIENCE_S, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise R2VError(f"{VARIABLE}: the command could not be run: {error}") from None
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise R2VError(f"{VARIABLE}: {command[0]} ended with status {done.returncode}: {said}")


@dg.run_failure_sensor(
    name="on_failure",
    monitor_all_code_locations=True,  # runs from a shell belong to none
    default_status=dg.DefaultSensorStatus.RUNNING if os.environ.get(VARIABLE) else dg.DefaultSensorStatus.STOPPED,
    minimum_interval_seconds=30,
    description=f"Reports every failed run to the command or webhook in ${VARIABLE}; runs where that is set.",
)
def on_failure(context: dg.RunFailureSensorContext) -> dg.SkipReason | None:
    """Tell of one failed run."""
    target = os.environ.get(VARIABLE)
    if not target:
        return dg.SkipReason(f"{VARIABLE} is not set")
    failures = context.get_step_failure_events()
    said = [event.step_failure_data.user_failure_data for event in failures]
    words = [str(data.description) for data in said if data is not None and data.description]
    steps = [str(event.step_key) for event in failures]
    tell(target, failure_event(context.dagster_run, "; ".join(words) or context.failure_event.message or "", steps))
    return None
