"""``r2v slurm doctor``: does the cluster have what the profile says, in the order in which things depend on each other.

Each check returns what it found or raises :class:`R2VError` with the fix. Checks whose ground is missing are not tried.
"""

from __future__ import annotations

import secrets
import shlex
import shutil
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from filelock import FileLock

from r2v_assets.slurm.deploy import PACKAGES, VERSIONS, python_of
from r2v_assets.slurm.gpus import GPUS, gpus_seen
from r2v_assets.slurm.jobs import cancel, job_id_in, max_array_size, query_job
from r2v_assets.slurm.login import Login
from r2v_assets.slurm.profile import FOLDER, Profile
from r2v_assets.slurm.script import Job, job_script
from r2v_core.console import printable
from r2v_core.errors import R2VError
from r2v_core.runs.locks import LOCK_NAME
from r2v_core.stages.table import BY_ASSET

CLOCK_S = 5.0
"""Clocks that differ by more than this make build systems, TLS and resume-by-date unreliable."""
FREE_GB = 5.0
LOCKED = """
import sys
from pathlib import Path
from r2v_core.runs.locks import is_alive
try:
    print("held" if is_alive(Path(sys.argv[1])) else "free")
except OSError as error:
    print(error)
"""
"""Run on the node: whether it sees the lock that the doctor holds in a folder."""


@dataclass
class Doctor:
    """The checks, over one connection."""

    profile: Profile
    project: Path
    job_timeout_s: float = 300.0
    token: str = field(default_factory=lambda: f".r2v-doctor-{secrets.token_hex(4)}")

    @property
    def login(self) -> Login:
        """The login node."""
        return Login(self.profile.login)

    @property
    def file(self) -> str:
        """The profile as messages name it."""
        return f"{FOLDER}/{self.profile.name}.yaml"

    def checks(self) -> list[tuple[str, Callable[[], str], bool]]:
        """(name, check, whether the following ones need it)."""
        return [
            ("login node", self.check_login, True),
            ("SLURM commands", self.check_commands, True),
            ("accounting", self.check_accounting, False),
            ("what assets ask for", self.check_requests, False),
            ("shared folder", self.check_shared, True),
            ("environment", self.check_environment, True),
            ("disk space", self.check_disk, False),
            ("clock", self.check_clock, False),
            *((f"a job in partition {name or '(default)'}", job, False) for name, job in self._job_checks()),
        ]

    def check_login(self) -> str:
        """The login node answers."""
        began = time.monotonic()
        name = self.login.run("hostname").checked("hostname").strip()
        return f"{self.login.name} is {name}, answers in {time.monotonic() - began:.1f} s"

    def check_commands(self) -> str:
        """SLURM's commands are there and the controller answers."""
        script = "for c in sbatch squeue scontrol scancel sacct; do command -v $c >/dev/null || echo $c; done"
        if missing := self.login.run(script).out.split():
            raise R2VError(
                f"{self.login.name} has no {', '.join(missing)} in the PATH of a login shell; is login.host "
                "a login node of the cluster?"
            )
        self.login.run("squeue --noheader --me >/dev/null").checked("squeue")
        return self.login.run("sbatch --version").out.strip()

    def check_accounting(self) -> str:
        """Accounting can be read, and the user may submit."""
        answer = self.login.run("sacct --noheader --allocations --jobs=1 >/dev/null")
        if answer.status:
            raise R2VError(
                f"sacct: {answer.err.strip()}; jobs will run, but without peak memory, CPU efficiency and history: ask "
                "your administrators for accounting (slurmdbd)"
            )
        found = self.login.run("sacctmgr --noheader --parsable2 show user $USER withassoc format=Account").out.split()
        return f"sacct works; accounts: {', '.join(sorted(set(found))) or 'none listed'}"

    def check_requests(self) -> str:
        """What every asset asks for is accepted: partitions, accounts, GPU types, limits."""
        problems: dict[str, list[str]] = {}
        by_options: dict[tuple[str, ...], list[str]] = {}
        for asset in BY_ASSET:
            if (resources := self.profile.resources(asset)).where == "slurm":
                array = (f"--array={resources.array}",) if resources.shards > 1 else ()
                by_options.setdefault((*array, *resources.sbatch_options()), []).append(asset)
        for options, assets in by_options.items():
            line = " ".join(shlex.quote(option) for option in options)
            answer = self.login.run(f"sbatch --test-only {line} --wrap true")
            if answer.status:
                said = [part.removeprefix("sbatch: error: ").removeprefix("allocation failure: ")
                        for part in answer.err.strip().splitlines() if part.strip()]  # fmt: skip
                problems.setdefault(said[-1] if said else "refused", []).extend(assets)
        if problems:
            raise R2VError("; ".join(self._fix(said, assets) for said, assets in problems.items()))
        return f"sbatch accepts all {sum(map(len, by_options.values()))} assets that run as jobs"

    def _fix(self, said: str, assets: list[str]) -> str:
        resources = self.profile.resources(assets[0])
        partitions = self.login.run("sinfo --noheader --format=%R").out.split()
        gpus = sorted(set(self.login.run("sinfo --noheader --format=%G").out.split()) - {"(null)"})
        hint = f"see {self.file}"
        lower = said.lower()
        if "partition" in lower and "account" not in lower:
            there = ", ".join(sorted(set(partitions)))
            hint = f"partition '{resources.partition}' in {self.file}: the cluster has {there}"
        elif "account" in lower:
            hint = f"account '{resources.account}' in {self.file}: `sacctmgr show assoc user=$USER` lists yours"
        elif "qos" in lower:
            hint = f"qos '{resources.qos}' in {self.file}: `sacctmgr show qos` lists them"
        elif "array" in lower:
            most = max_array_size(self.login)
            hint = f"shards: {resources.shards} in {self.file}: job arrays have at most {most} elements"
        elif "configuration" in lower or "memory" in lower:
            hint = (
                f"{resources.gpus} GPUs of type {resources.gpu_type}, {resources.cpus} CPUs, {resources.memory_text} "
                f"on one node of '{resources.partition}'; GPUs of the cluster: {', '.join(gpus) or 'none'}"
            )
        return f"{', '.join(assets)}: {said} ({hint})"

    def check_shared(self) -> str:
        """The project and the shared folder are the same on this machine and the login node."""
        for folder in dict.fromkeys((Path(self.profile.shared), self.project)):
            here = folder / self.token
            try:
                here.write_text(self.token)
            except OSError as error:
                raise R2VError(
                    f"{folder} can't be written here ({error.strerror}); it has to be on a file system that this "
                    "machine, the login node and the compute nodes share"
                ) from None
            try:
                seen = self.login.run(f"cat {shlex.quote(str(here))}").out.strip()
            finally:
                here.unlink(missing_ok=True)
            if seen != self.token:
                raise R2VError(
                    f"{self.login.name} does not see what this machine writes to {folder}: put the project on the "
                    "cluster's shared file system and run Dagster where it is mounted (the login node, for one)"
                )
        return f"{self.profile.shared} and {self.project} are the same here and on {self.login.name}"

    def check_environment(self) -> str:
        """The deployed environment is there and is what it was."""
        folder = self.profile.environment_folder
        script = (
            f"cd {shlex.quote(str(folder))} && source ./activate.sh >&2 && env/bin/python -c {shlex.quote(VERSIONS)}"
        )
        exports = "".join(f"export {k}={shlex.quote(v)}\n" for k, v in self.profile.environment.set.items())
        modules = "".join(f"module load {shlex.quote(name)}\n" for name in self.profile.environment.modules)
        answer = self.login.run(f"{exports}{modules}{script}")
        if answer.status:
            raise R2VError(
                f"{answer.err.strip().splitlines()[-1:]}; run: r2v slurm deploy (for {python_of(self.profile)})"
            )
        deployed = self.login.run(f"cat {shlex.quote(str(folder / 'python.txt'))}").out
        if deployed != answer.out:
            raise R2VError(f"{folder} has changed since it was deployed ({_difference(deployed, answer.out)}); run: "
                           "r2v slurm deploy")  # fmt: skip
        return f"Python {answer.out.splitlines()[0]} with {len(PACKAGES)} packages as deployed"

    def check_disk(self) -> str:
        """There is room for runs."""
        line = self.login.run(f"df --output=avail -k {shlex.quote(str(self.project))} | tail -n 1").out.strip()
        free = int(line or 0) / 1024**2
        if free < FREE_GB:
            raise R2VError(f"only {free:.1f} GB are free at {self.project}; a run needs more, checkpoints above all")
        return f"{free:,.0f} GB free at {self.project}"

    def check_clock(self) -> str:
        """This machine and the login node agree on the time."""
        before = time.time()
        there = float(self.login.run("date +%s.%N").out)
        off = max(0.0, abs(there - (before + time.time()) / 2) - (time.time() - before) / 2)
        if off > CLOCK_S:
            raise R2VError(f"the clocks here and on {self.login.name} differ by {off:.0f} s; have both use NTP")
        return f"within {off:.1f} s of {self.login.name}"

    def _job_checks(self) -> Iterable[tuple[str | None, Callable[[], str]]]:
        """One small job in every partition that some asset uses."""
        found: dict[str | None, str] = {}
        for stage in BY_ASSET.values():
            resources = self.profile.resources(stage.asset)
            if resources.where == "slurm":
                found.setdefault(resources.partition, stage.name)
        for partition, stage_name in found.items():
            yield partition, partial(self.check_job, stage_name)

    def check_job(self, stage: str) -> str:
        """A job runs, on a node that sees the folders and who locks what, has the same Python and the right time."""
        folder = self.project / f"{self.token}-{stage}"
        job = Job(stage, "doctor:doctor|0", folder.name, folder, self.project)
        job.folder.mkdir(parents=True)
        (folder / "spec.json").write_text("{}")
        head, _, _ = job_script(self.profile, job, {}).partition("\n(\n")
        asked = self.profile.resources(job.asset)
        gpus = f'"$python" -c {shlex.quote(GPUS)}; ' if asked.gpus else "echo -; "
        lock = f'"$python" -c {shlex.quote(LOCKED)} {shlex.quote(str(folder))}; '
        probe = f'{head}\n{lock}{gpus}hostname; date +%s; "$python" -c {shlex.quote(VERSIONS)}\n'
        (job.folder / "job.sh").write_text(probe)
        job_id = None
        try:
            memory = "--mem-per-cpu=2G" if asked.memory_per_cpu else "--mem=2G" if asked.memory else ""
            options = f"--time=5 {memory} --cpus-per-task=1 --job-name=r2v.doctor {shlex.quote(str(job.folder))}/job.sh"
            said = self.login.run(f"sbatch --parsable {options}").checked("sbatch")
            job_id = job_id_in(said)
            if job_id is None:
                raise R2VError(
                    f"sbatch answered '{printable(said.strip())}' instead of a job id; see what `sbatch --parsable` "
                    "prints there"
                )
            with FileLock(folder / LOCK_NAME):
                return self._judge(job, job_id)
        finally:
            if job_id and not query_job(self.login, job_id).ended:
                cancel(self.login, job_id)
            shutil.rmtree(folder, ignore_errors=True)

    def _judge(self, job: Job, job_id: str) -> str:
        end = time.monotonic() + self.job_timeout_s
        while not (status := query_job(self.login, job_id)).ended:
            if time.monotonic() > end:
                raise R2VError(
                    f"job {job_id} is still {status.state.lower()} ({status.reason}) after {self.job_timeout_s:.0f} s; "
                    "the queue may just be long: try again with --timeout, or look at `squeue --start`"
                )
            time.sleep(1.0)
        log = job.log(job_id)
        deadline = time.monotonic() + 30
        while not log.exists() and time.monotonic() < deadline:
            time.sleep(0.5)
        if not log.exists():
            raise R2VError(
                f"job {job_id} ended as {status.state} on {status.node}, and its log is not at {log}: compute nodes do "
                "not see the project's folder; move the project to the shared file system"
            )
        lines = log.read_text(errors="replace").strip().splitlines()
        if status.state != "COMPLETED":
            raise R2VError(
                f"job {job_id} ended as {status.state} on {status.node}: {lines[-1] if lines else 'no output'}"
            )
        lock, gpus, name, clock, *versions = lines[-len(PACKAGES) - 5 :]
        if lock != "held":
            raise R2VError(
                f"node {name} does not see that {self.project} is locked here ({lock}): two jobs could write one run. "
                "Have the file system pass locks on between machines (NFS: no local_lock or nolock; Lustre: flock)"
            )
        deployed = (self.profile.environment_folder / "python.txt").read_text()
        if deployed.splitlines() != versions:
            raise R2VError(
                f"packages on node {name} differ from the login node's ({_difference(deployed, chr(10).join(versions))}"
                "); the environment has to be on the shared file system, then: r2v slurm deploy"
            )
        off = abs(log.stat().st_mtime - float(clock))
        if off > CLOCK_S:
            raise R2VError(f"the clock of node {name} is {off:.0f} s off; tell your administrators")
        seen = gpus_seen(gpus, name, self.profile.resources(job.asset).gpus)
        return f"job {job_id} ran on {name}: sees the project and its locks, same Python and packages, right time{seen}"


def _difference(before: str, after: str) -> str:
    changed = [f"{a} → {b}" for a, b in zip(before.splitlines(), after.splitlines(), strict=False) if a != b]
    return ", ".join(changed) or "another number of packages"


def examine(doctor: Doctor, say: Callable[[str], None]) -> int:
    """Run every check, saying what was found; returns the number of failures."""
    failures = 0
    for name, check, needed in doctor.checks():
        try:
            say(f"✓ {name}: {check()}")
        except R2VError as error:
            failures += 1
            say(f"✗ {name}: {error}")
            if needed:
                say("  the checks below need this one; fix it and run the doctor again")
                break
    return failures
