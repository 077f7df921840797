"""``r2v slurm shell``: a shell, or one command, on a compute node with what an asset's job asks for."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from r2v_assets.slurm.login import Login
from r2v_assets.slurm.profile import Profile
from r2v_core.errors import R2VError


def shell(profile: Profile, asset: str, project: Path, command: Sequence[str]) -> int:
    """Run ``command``, or a shell, there, with this terminal if there is one; returns its exit status.

    Raises:
        R2VError: for an asset that has no job, or where ssh or srun is missing.
    """
    if profile.resources(asset).where == "local":
        raise R2VError(
            f"{asset} runs beside Dagster (where: local) and has no job; name another asset, or set where: slurm"
        )
    terminal = sys.stdin.isatty()
    line = srun_line(profile, asset, project, command, terminal)
    try:
        return subprocess.call(Login(profile.login).interactive(line, terminal))
    except OSError as error:
        raise R2VError(f"can't reach the login node: {error.strerror}") from None
    except KeyboardInterrupt:
        return 130


def srun_line(profile: Profile, asset: str, project: Path, command: Sequence[str], terminal: bool) -> str:
    """The shell line that asks SLURM for it: the job's environment, in the project's folder."""
    asked = profile.resources(asset)
    setting_up = [
        *(f"module load {shlex.quote(name)}" for name in profile.environment.modules),
        f"source {shlex.quote(str(profile.environment_folder))}/activate.sh",
        *(f"export {name}={shlex.quote(value)}" for name, value in profile.environment.set.items()),
        f"cd {shlex.quote(str(project))}",
        'exec "$@"',
    ]
    arguments = [
        "srun",
        *(["--pty"] if terminal else []),
        *(f"--job-name=r2v.shell.{asset}", *asked.options(), *asked.extra),
        *("bash", "-lc", " && ".join(setting_up), "bash", *(command or ("bash", "-i"))),
    ]
    return shlex.join(os.fspath(argument) for argument in arguments)
