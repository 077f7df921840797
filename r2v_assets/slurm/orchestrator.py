"""``r2v slurm run``: the orchestrator of a whole partition as a small job, which submits the stages' jobs itself.

Near its own time limit it stops, while the stage's job goes on, and is put back into the queue; it then finds that job
again. Where SLURM can't requeue, it submits its script anew.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from r2v_assets.slurm.jobs import job_id_in
from r2v_assets.slurm.login import Login, named_secrets
from r2v_assets.slurm.profile import LOGIN_VARIABLE, VARIABLE, Profile
from r2v_assets.slurm.script import sbatch_lines
from r2v_core.console import printable
from r2v_core.errors import R2VError
from r2v_core.partition import Partition

ASSET = "orchestrator"
"""What stands in the place of an asset in the job's name."""
FOLDER = Path("data/orchestrators")
"""Scripts and logs, below the project."""

_SCRIPT = """\
#!/bin/bash -l
{options}

# SLURM warns before the time limit (USR1, to this shell only): the orchestrator stops and is queued again; the job of
# the stage at work goes on meanwhile. scancel sends TERM: the orchestrator stops for good.
again=
orchestrator=
stop() {{ [ -z "$orchestrator" ] || kill -TERM "$orchestrator" 2>/dev/null; }}
trap 'again=yes; stop' USR1
trap stop TERM

{modules}source {environment}/activate.sh
cd {project} || exit 66
{exports}
{environment}/env/bin/python -m r2v_assets.slurm_run {arguments} &
orchestrator=$!
while :; do # a signal to this shell ends the wait, not the orchestrator
    wait "$orchestrator"
    status=$?
    kill -0 "$orchestrator" 2>/dev/null || break
done
if [ -n "$again" ] && [ "$status" -ne 0 ] && [ "$status" -ne 2 ]; then
    echo "[slurm] the orchestrator's time limit is near: it goes on in the queue"
    scontrol requeue "$SLURM_JOB_ID" || sbatch {script}
    sleep 60 # until SLURM takes this job back
fi
exit "$status"
"""


def submit(
    profile: Profile,
    partitions: Sequence[Partition],
    project: Path,
    arguments: Sequence[str],
    say: Callable[[str], None],
) -> None:
    """Submit one orchestrator for each partition that none is at work on, and say which.

    Args:
        arguments: of :mod:`r2v_assets.slurm_run`, beside the partition.

    Raises:
        R2VError: if sbatch refuses one.
        UnreachableError: if the login node can't be reached.
    """
    login = Login(profile.login)
    listed = login.run("squeue --noheader --me --format='%j|%i'").checked("squeue")
    at_work = dict(line.split("|")[:2] for line in listed.splitlines() if line.startswith("r2v."))
    for partition in partitions:
        if (name := job_name(partition)) in at_work:
            say(f"{partition.key}: an orchestrator is at work on it already, job {at_work[name]}")
            continue
        base = project / FOLDER / re.sub(r"[^\w.@+-]+", "_", partition.key)
        base.parent.mkdir(parents=True, exist_ok=True)
        path = base.with_suffix(".sh")
        path.write_text(script(profile, partition, project, path, arguments), encoding="utf-8")
        answer = login.run(f"sbatch --parsable {shlex.quote(str(path))}", named_secrets(profile.environment.pass_))
        said = answer.checked(f"{partition.key}: sbatch refused the orchestrator's job")
        job_id = job_id_in(said)
        if job_id is None:
            raise R2VError(
                f"sbatch answered '{printable(said.strip())}' instead of a job id; see what `sbatch --parsable` prints "
                "there"
            )
        say(f"{partition.key}: job {job_id}; log: {FOLDER / f'{base.name}-{job_id}.log'}")


def job_name(partition: Partition) -> str:
    """``r2v.orchestrator.<experiment>.<seed>``: as stages' jobs are named."""
    return f"r2v.{ASSET}.{partition.experiment}.{partition.seed}"


def script(profile: Profile, partition: Partition, project: Path, path: Path, arguments: Sequence[str]) -> str:
    """The job script; ``path`` is where it will lie."""
    options = [
        f"--job-name={job_name(partition)}",
        f"--output={path.with_suffix('')}-%j.log",
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{profile.warn_s}",
        "--export=ALL",
        *profile.orchestrator_resources().sbatch_options(),
    ]
    variables: Mapping[str, str] = {
        **profile.environment.set,
        "R2V_PROJECT": str(project),
        "R2V_COMPUTE": "slurm",
        VARIABLE: profile.name,
        LOGIN_VARIABLE: "local",
        "PYTHONUNBUFFERED": "1",
        **{name: os.environ[name] for name in ("DAGSTER_HOME",) if name in os.environ},
    }
    return _SCRIPT.format(
        options=sbatch_lines(options),
        modules="".join(f"module load {shlex.quote(name)}\n" for name in profile.environment.modules),
        environment=shlex.quote(str(profile.environment_folder)),
        project=shlex.quote(str(project)),
        exports="\n".join(f"export {name}={shlex.quote(value)}" for name, value in variables.items()),
        arguments=shlex.join(["--partition", partition.key, *arguments]),
        script=shlex.quote(str(path)),
    )
