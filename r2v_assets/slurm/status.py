"""``r2v slurm status`` and ``cancel``: the pipeline's jobs that wait or run, one line each."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from rich.table import Table

from r2v_assets.slurm.login import Login
from r2v_assets.slurm.orchestrator import ASSET as ORCHESTRATOR
from r2v_assets.slurm.orchestrator import FOLDER
from r2v_assets.slurm.profile import Profile
from r2v_assets.slurm.record import read_record
from r2v_core.console import printable, rich_console

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
        asset, key = _named(name)
        why = "" if reason in ("None", "") else reason
        log = logs.get(job_id) or logs.get(job_id.partition("_")[0], "")
        table.add_row(job_id, asset, key, state.lower(), why, node, elapsed, limit, log)
    console = rich_console(markup=False, width=None if sys.stdout.isatty() else 400)  # in a pipe: one line a job
    if rows:
        console.print(table)
    else:
        console.print("no jobs of the pipeline are waiting or running" + ("" if all_jobs else "; ended ones: --all"))


def cancel_jobs(profile: Profile, partition: str | None, asset: str | None, say: Callable[[str], None]) -> None:
    """``scancel`` the jobs of a partition, of an asset, or all (None), and say which; orchestrators first."""
    login = Login(profile.login)
    chosen = []
    rows = sorted(_rows(login.run(_NOW).checked("squeue")), key=lambda row: _named(row[1])[0] != ORCHESTRATOR)
    for job_id, name, state, *_ in rows:
        job_asset, key = _named(name)
        if partition in (None, key) and asset in (None, job_asset):
            chosen.append(job_id.partition("_")[0])  # of a job array the whole
            say(f"cancelling job {job_id}: {job_asset} of {printable(key)}, {state.lower()}")
    if chosen:
        login.run(shlex.join(["scancel", *dict.fromkeys(chosen)])).checked("scancel")
    else:
        say("no such job is waiting or running")


def _named(job_name: str) -> tuple[str, str]:
    """Asset and partition key in the name of a job."""
    _, asset, key = job_name.split(".", 2)
    return asset, "|".join(key.rsplit(".", 1))


def _rows(text: str) -> list[list[str]]:
    rows = [line.split("|")[:7] for line in text.splitlines() if line.strip()]
    return [row for row in rows if row[1].startswith("r2v.") and row[1].count(".") >= 3]


def _logs(project: Path) -> dict[str, str]:
    """Job id → its log, for every run and orchestrator of the project."""
    found = {path.stem.rpartition("-")[2]: str(path.relative_to(project)) for path in project.glob(f"{FOLDER}/*.log")}
    for pattern in ("data/**/slurm_job.json", "outputs/**/slurm_job.json"):
        for path in project.glob(pattern):
            record = read_record(path.parent)
            for attempt in record.attempts if record else []:
                if attempt.job_id and attempt.log:
                    found[attempt.job_id] = str((path.parent / attempt.log).relative_to(project))
    return found
