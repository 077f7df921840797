"""``r2v slurm status``: one line a job of the pipeline."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from r2v_assets.slurm.login import Login
from r2v_assets.slurm.profile import Profile
from r2v_assets.slurm.record import read_record

_NOW = "squeue --noheader --me --format='%i|%j|%T|%r|%N|%M|%l|%k'"
_DAY = (
    "sacct --noheader --parsable2 --allocations --user=$USER --starttime=now-1day "
    "--format=JobID,JobName,State,Reason,NodeList,Elapsed,Timelimit,Comment"
)


def show(profile: Profile, project: Path, all_jobs: bool) -> None:
    """Print the jobs that wait or run, with those of the last day if asked for."""
    login = Login(profile.login)
    rows = _rows(login.run(_NOW).checked("squeue"))
    if all_jobs:
        known = {row[0] for row in rows}
        rows += [row for row in _rows(login.run(_DAY).checked("sacct")) if row[0] not in known]
    logs = _logs(project)
    table = Table(box=None, pad_edge=False)
    for title in ("job", "asset", "partition", "state", "why", "node", "time", "limit", "log"):
        table.add_column(title, overflow="fold")
    for job_id, name, state, reason, node, elapsed, limit in rows:
        _, asset, key = name.split(".", 2)
        why = "" if reason in ("None", "") else reason
        table.add_row(
            job_id, asset, "|".join(key.rsplit(".", 1)), state.lower(), why, node, elapsed, limit, logs.get(job_id, "")
        )
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 400)  # in a pipe: one line a job
    if rows:
        console.print(table)
    else:
        console.print("no jobs of the pipeline wait or run" + ("" if all_jobs else "; ended ones: --all"))


def _rows(text: str) -> list[list[str]]:
    rows = [line.split("|")[:7] for line in text.splitlines() if line.strip()]
    return [row for row in rows if row[1].startswith("r2v.") and row[1].count(".") >= 3]


def _logs(project: Path) -> dict[str, str]:
    """Job id → its log, for every run of the project."""
    found = {}
    for pattern in ("data/**/slurm_job.json", "outputs/**/slurm_job.json"):
        for path in project.glob(pattern):
            record = read_record(path.parent)
            for attempt in record.attempts if record else []:
                if attempt.job_id and attempt.log:
                    found[attempt.job_id] = str((path.parent / attempt.log).relative_to(project))
    return found
