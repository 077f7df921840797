"""SLURM's side of a job: submit it, ask for it, read its accounting, cancel it.

The state comes from the controller (``scontrol``) while it remembers the job, which is minutes longer than it runs;
only then from ``sacct``, whose database may lag or be down. Numbers come from ``sacct``, read by ``dagster_slurm``'s
collector.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from r2v_assets.slurm.login import Login
from r2v_assets.slurm.script import Job
from r2v_core.console import printable
from r2v_core.errors import R2VError

ACTIVE = frozenset(
    {"PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "RESIZING", "SIGNALING", "STAGE_OUT"}
    | {"REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "RESV_DEL_HOLD", "SPECIAL_EXIT"}
)
ENDED = frozenset(
    {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY", "BOOT_FAIL", "DEADLINE"}
    | {"REVOKED"}
)
LOST_NODE = frozenset({"NODE_FAIL", "PREEMPTED", "BOOT_FAIL"})
_MARK = "r2v-sacct:"
_EXTRA = (
    *("Submit", "Start", "End", "Partition", "Account", "NodeList", "AllocCPUS", "ExitCode", "State", "ElapsedRaw"),
    "Restarts",
)
"""What we ask ``sacct`` for beside what the collector reads; older versions don't know the last."""
_FACT = re.compile(r"(\w+)=(\S*)")
_NO_TIME = {"", "Unknown", "None", "N/A"}


@dataclass(frozen=True)
class JobStatus:
    """What SLURM says of a job right now."""

    state: str
    """A word of :data:`ACTIVE` or :data:`ENDED`; empty: SLURM does not know the job."""
    reason: str = ""
    node: str = ""
    exit_code: str = ""
    """'status:signal' once it has ended."""
    restarts: int = 0

    @property
    def ended(self) -> bool:
        """Whether it will not run any more."""
        return self.state in ENDED


def submit(login: Login, job: Job, attempt: int, environment_folder: Path, secrets: Mapping[str, str]) -> str:
    """Submit ``job-<attempt>.sh`` of a run; returns the job id, which is also left in the run's folder.

    The id is written by the login node itself, so that it is not lost if this process ends before it hears the answer.

    Raises:
        R2VError: with sbatch's own message, or because the login node does not see the run's folder or environment.
        UnreachableError: if the login node can't be reached.
    """
    folder = job.folder
    script = f"""cd {_q(folder)} 2>/dev/null || exit 66
[ -f {_q(environment_folder / "activate.sh")} ] || exit 67
[ "$({_q(environment_folder / "env/bin/python")} -c 'import platform; print(platform.python_version())' 2>&1)" = \
"$(head -n 1 {_q(environment_folder / "python.txt")})" ] || exit 68
sbatch --parsable job-{attempt}.sh > submitted-{attempt}.tmp && mv submitted-{attempt}.tmp submitted-{attempt} \
&& cat submitted-{attempt}"""
    answer = login.run(script, secrets)
    wrong = {
        66: f"the login node does not see {folder}: the project has to lie on the cluster's shared file system under "
        "the same path here and there (profile key 'shared')",
        67: f"there is no environment at {environment_folder} yet; run: r2v slurm deploy",
        68: f"the Python of {environment_folder} has changed since it was deployed; run: r2v slurm deploy",
    }
    if answer.status in wrong:
        raise R2VError(wrong[answer.status])
    job_id = job_id_in(answer.checked("sbatch refused the job"))
    if job_id is None:
        raise R2VError(
            f"sbatch answered '{printable(answer.out.strip())}' instead of a job id; see what `sbatch --parsable` "
            "prints there"
        )
    return job_id


def job_id_in(answer: str) -> str | None:
    """The job id in what ``sbatch --parsable`` said: the last line that is one, whatever else a login node prints."""
    found = re.findall(r"^(\d+)(?:;\S*)?[ \t\r]*$", answer, re.MULTILINE)
    return found[-1] if found else None


def find_submitted(job: Job, attempt: int) -> str | None:
    """The id of a submission whose answer nobody heard, None if it was never made."""
    path = job.folder / f"submitted-{attempt}"
    return job_id_in(path.read_text(errors="replace")) if path.exists() else None


def query_job(login: Login, job_id: str) -> JobStatus:
    """Ask for a job.

    Raises:
        UnreachableError: if the login node can't be reached.
        R2VError: if SLURM can't be asked there.
    """
    number = shlex.quote(job_id)
    script = f"""export TZ=UTC
out="$(scontrol show job --oneliner {number} 2>&1)" && echo "$out" && exit 0
echo {_MARK}
sacct --allocations --noheader --parsable2 --jobs={number} --format=State,ExitCode,NodeList 2>/dev/null
case "$out" in *"Invalid job id"*) exit 0 ;; esac
echo "$out" >&2
exit 1"""
    answer = login.run(script)
    controller, _, accounting = answer.out.partition(f"{_MARK}\n")
    if controller.strip():
        return _status(dict(_FACT.findall(controller)))
    if accounting.strip():
        state, exit_code, node = accounting.strip().splitlines()[-1].split("|")[:3]
        return JobStatus(_word(state), "", node, exit_code)
    answer.checked("can't ask SLURM for the job")
    return JobStatus("")


def query_array(login: Login, job_id: str, count: int, known: Mapping[int, JobStatus]) -> dict[int, JobStatus]:
    """Ask for the elements 0 to ``count`` - 1 of a job array.

    Args:
        known: what was said of them before. It holds for those that SLURM has forgotten since, and accounting is not
            asked again for one that had completed.

    Raises:
        UnreachableError: if the login node can't be reached.
        R2VError: if SLURM can't be asked there.
    """
    number = shlex.quote(job_id)
    answer = login.run(f"scontrol show job --oneliner {number} 2>&1")
    if answer.status and "Invalid job id" not in answer.out:
        raise R2VError(f"can't ask SLURM for the job: {answer.out.strip()}")
    found: dict[int, JobStatus] = {}
    for line in answer.out.splitlines() if not answer.status else []:
        facts = dict(_FACT.findall(line))
        found |= dict.fromkeys(task_ids(facts.get("ArrayTaskId", "")), _status(facts))
    found = {index: status for index, status in known.items() if status.state == "COMPLETED"} | found
    if any(index not in found for index in range(count)):
        fields = "--allocations --noheader --parsable2 --format=JobID,State,ExitCode,NodeList"
        for line in login.run(f"sacct --jobs={number} {fields} 2>/dev/null").out.splitlines():
            element, state, exit_code, node = line.split("|")[:4]
            told = JobStatus(_word(state), "", node, exit_code)
            found = dict.fromkeys(task_ids(element.partition("_")[2].strip("[]")), told) | found
    ended = {index: status for index, status in known.items() if status.ended}
    return {index: found.get(index) or ended.get(index) or JobStatus("") for index in range(count)}


def task_ids(text: str) -> list[int]:
    """The elements of a job array in SLURM's way of listing them: ``0,2-5%2`` → 0, 2, 3, 4, 5."""
    ranges = re.findall(r"(\d+)(?:-(\d+))?", text.partition("%")[0])
    return [index for first, last in ranges for index in range(int(first), int(last or first) + 1)]


def requeue(login: Login, job_id: str) -> None:
    """Put a job or an element of a job array that has ended back into the queue.

    Raises:
        R2VError: if SLURM refuses.
    """
    login.run(f"scontrol requeue {shlex.quote(job_id)}").checked("scontrol requeue")


def max_array_size(login: Login) -> int:
    """How many elements a job array of the cluster may have.

    Raises:
        R2VError: if SLURM does not say.
    """
    said = login.run("scontrol show config").checked("scontrol show config")
    if (found := re.search(r"^MaxArraySize\s*=\s*(\d+)", said, re.MULTILINE)) is None:
        raise R2VError("scontrol show config: names no MaxArraySize; leave out 'shards' of the profile")
    return int(found[1])


def cancel(login: Login, job_id: str) -> None:
    """``scancel``; a job that has ended is no error."""
    login.run(f"scancel {shlex.quote(job_id)}")


def read_accounting(login: Login, job_id: str) -> dict[str, Any] | None:
    """A job's facts from ``sacct``, None while its database does not know that the job and its script have ended.

    The database learns of a job's end and of its script's (the step ``.batch``, which alone knows the memory) in two
    messages. Only a job that never ran, or whose node was lost, may have no end of its script.

    Returns:
        state, partition, account, nodes, cpus, gpus, submitted_at, started_at, ended_at (ISO 8601, UTC), queue_wait_s,
        elapsed_s, max_memory_mb, cpu_efficiency (0 to 1), exit_code, restarts: what SLURM knows of them.
    """
    from dagster_slurm.helpers.metrics import SlurmMetricsCollector

    measured = SlurmMetricsCollector.SACCT_FIELDS
    fields = ",".join([*measured, *_EXTRA])
    ask = f"sacct --noheader --parsable2 --jobs={shlex.quote(job_id)} --format="
    script = f"""export TZ=UTC SLURM_TIME_FORMAT=standard
{ask}{fields} 2>/dev/null || {ask}{fields.removesuffix(",Restarts")} 2>/dev/null"""
    told = login.run(script).out
    rows = {line.split("|")[0]: line.split("|")[len(measured) :] for line in told.strip().splitlines()}
    row = dict(zip(_EXTRA, rows.get(job_id, ()), strict=False))
    if not _has_ended(row):
        return None
    submitted, started, ended = (_moment(row[name]) for name in ("Submit", "Start", "End"))
    batch = dict(zip(_EXTRA, rows.get(f"{job_id}.batch", ()), strict=False))
    ran = int(row["ElapsedRaw"] or 0) > 0 and _word(row["State"]) not in LOST_NODE
    if ran and not _has_ended(batch):
        return None
    numbers = SlurmMetricsCollector().collect_job_metrics(job_id, None, sacct_output=told)  # type: ignore[arg-type]
    return {
        "state": _word(row["State"]),
        "partition": row["Partition"],
        "account": row["Account"],
        "nodes": row["NodeList"].replace("None assigned", ""),
        "cpus": int(row["AllocCPUS"] or 0),
        "gpus": numbers.allocated_gpus or 0,
        "submitted_at": _iso(submitted),
        "started_at": _iso(started),
        "ended_at": _iso(ended),
        "queue_wait_s": (started - submitted).total_seconds() if started and submitted else None,
        "elapsed_s": float(row["ElapsedRaw"] or 0),
        "max_memory_mb": round(numbers.max_rss_mb, 1),
        "cpu_efficiency": round(numbers.cpu_efficiency, 4),
        "exit_code": row["ExitCode"],
        "restarts": int(row.get("Restarts") or 0),
    }


def _status(facts: Mapping[str, str]) -> JobStatus:
    """What ``scontrol show job`` says of a job, or of an element of a job array."""
    return JobStatus(
        _word(facts.get("JobState", "")),
        facts.get("Reason", "").replace("None", ""),
        facts.get("NodeList", "").replace("(null)", ""),
        facts.get("ExitCode", ""),
        int(facts.get("Restarts") or 0),
    )


def _has_ended(row: Mapping[str, str]) -> bool:
    return _word(row.get("State", "")) in ENDED and row.get("End", "") not in _NO_TIME


def _word(state: str) -> str:
    """'CANCELLED by 0' and 'COMPLETED+' are said of the same states."""
    return state.split()[0].rstrip("+").upper() if state.strip() else ""


def _moment(text: str) -> datetime | None:
    return None if text in _NO_TIME else datetime.fromisoformat(text).replace(tzinfo=timezone.utc)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None


def _q(path: Path) -> str:
    return shlex.quote(str(path))
