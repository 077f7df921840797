"""The job script: what a stage's SLURM job runs. ``r2v slurm render`` prints it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from r2v_assets.slurm.profile import Profile
from r2v_core.partition import Partition
from r2v_core.runs.processes import SHARD, launch_arguments
from r2v_core.stages.table import get_stage

FOLDER = "slurm"
"""Folder of a run directory with everything about its jobs: scripts, logs, messages."""
NOT_VISIBLE = 66
WRONG_PYTHON = 67
WARNED = 75
"""Exit status of a job whose stage saved and stopped because the time limit was near."""

_SCRIPT = """\
#!/bin/bash -l
{options}

# SLURM warns before the time limit (USR1, to this shell only): the stage is asked to save and stop (TERM) and goes on
# in another job. scancel sends TERM to all processes; this shell then waits until the stage has closed its files.
rm -f {folder}/warned-"$SLURM_JOB_ID" # of a time before it was put back into the queue
stage=
warned() {{
    echo "[slurm] the time limit is near: asking the stage to save and stop"
    touch {folder}/warned-"$SLURM_JOB_ID"
    [ -z "$stage" ] || kill -TERM "$stage" 2>/dev/null
}}
trap warned USR1
trap : TERM

if [ ! -f {spec} ]; then
    echo "error: {project} is not visible on node $(hostname): the project has to lie on a file system that compute" \\
        "nodes see under the same path (profile key 'shared')"
    exit {not_visible}
fi
{modules}source {environment}/activate.sh
python={environment}/env/bin/python
expected="$(head -n 1 {environment}/python.txt)"
found="$("$python" -c 'import platform; print(platform.python_version())' 2>&1)"
if [ "$found" != "$expected" ]; then
    echo "error: Python on node $(hostname) is '$found', on the login node it was '$expected': make the environment" \\
        "visible to all nodes, then run r2v slurm deploy again"
    exit {wrong_python}
fi
cd {project}
{exports}
(
    trap '' USR1
    exec "$python" -m {command} --spec {spec}
) &
stage=$!
[ ! -e {folder}/warned-"$SLURM_JOB_ID" ] || kill -TERM "$stage" 2>/dev/null
while :; do # a signal to this shell ends the wait, not the stage
    wait "$stage"
    status=$?
    kill -0 "$stage" 2>/dev/null || break
done
wait "$stage" # 127: its status was read above
last=$?
[ "$last" -eq 127 ] || status=$last
if [ "$status" -ne 0 ] && [ -e {folder}/warned-"$SLURM_JOB_ID" ]; then # a launcher has its own idea of 143
    status={warned}
fi
exit "$status"
"""


@dataclass(frozen=True)
class Job:
    """What a job is for and where it works."""

    stage: str
    partition: str
    run_id: str
    run_dir: Path
    project: Path

    @property
    def asset(self) -> str:
        """The asset it materialises."""
        return get_stage(self.stage).asset

    @property
    def name(self) -> str:
        """``r2v.<asset>.<benchmark>:<teacher>.<seed>``: readable in squeue, and without sacct's separator."""
        partition = Partition.parse(self.partition)
        return f"r2v.{self.asset}.{partition.experiment}.{partition.seed}"

    @property
    def folder(self) -> Path:
        """Scripts, logs and messages of the run's jobs."""
        return self.run_dir / FOLDER

    def log(self, job_id: str) -> Path:
        """The log of one of the run's jobs, or of a job array's element: what the stage prints."""
        return self.folder / f"job-{job_id}.log"


def job_script(profile: Profile, job: Job, variables: Mapping[str, str], *, sharded: bool = False) -> str:
    """The whole script. ``variables`` are set for the stage; secrets are not among them (see :mod:`.login`).

    Args:
        sharded: the job array of the stage's shards, in the place of the job that gathers what they made.
    """
    asked = profile.resources(job.asset)
    options = [
        f"--job-name={job.name}",
        f"--comment={job.run_id}",
        f"--output={job.folder}/job-{'%A_%a' if sharded else '%j'}.log",
        *([f"--array={asked.array}"] if sharded else []),
        "--open-mode=append",
        "--requeue",
        f"--signal=B:USR1@{profile.warn_s}",
        "--export=ALL",
        *asked.sbatch_options(),
    ]
    lines = {**variables, **profile.environment.set}
    exports = [f"export {name}={shlex.quote(value)}" for name, value in lines.items()]
    exports += [f'export {SHARD}="$SLURM_ARRAY_TASK_ID/{asked.shards}"'] if sharded else []
    modules = "".join(f"module load {shlex.quote(name)}\n" for name in profile.environment.modules)
    quote = shlex.quote
    return _SCRIPT.format(
        options=sbatch_lines(options),
        folder=quote(str(job.folder)),
        spec=quote(str(job.run_dir / "spec.json")),
        project=quote(str(job.project)),
        environment=quote(str(profile.environment_folder)),
        modules=modules,
        exports="\n".join(exports),
        command=shlex.join(_command(profile, job)),
        not_visible=NOT_VISIBLE,
        wrong_python=WRONG_PYTHON,
        warned=WARNED,
    )


def _command(profile: Profile, job: Job) -> tuple[str, ...]:
    """What follows ``python -m``: the stage, by way of ``accelerate launch`` where several processes share it."""
    stage, asked = get_stage(job.stage), profile.resources(job.asset)
    return launch_arguments(stage.command, (asked.processes or asked.gpus) if stage.shared else 1)


def sbatch_lines(options: Iterable[str]) -> str:
    """Options as the head of a script."""
    return "\n".join(f"#SBATCH {_sbatch_quote(option)}" for option in options)


def _sbatch_quote(option: str) -> str:
    """An option as an #SBATCH line takes it: quoted where it holds a blank."""
    name, separator, value = option.partition("=")
    return f'{name}{separator}"{value}"' if any(c.isspace() for c in value) else option


def activate_script(profile: Profile) -> str:
    """``activate.sh`` of the environment folder: files to source, then the virtual or conda environment."""
    lines = ["# written by `r2v slurm deploy`; sourced at the start of every job"]
    lines += [f"source {shlex.quote(path)}" for path in profile.environment.source]
    if profile.environment.venv:
        lines.append(f"source {shlex.quote(profile.environment.venv)}/bin/activate")
    if profile.environment.conda:
        folder = shlex.quote(profile.environment.conda)
        lines.append(f"export CONDA_PREFIX={folder} PATH={folder}/bin:$PATH")
    return "\n".join(lines) + "\n"
