"""A cluster, and what each asset asks of it: ``configs/slurm/<name>.yaml``, checked before anything is submitted.

``configs/slurm/example.yaml`` has every key with its meaning.
"""

from __future__ import annotations

import getpass
import os
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from r2v_assets.slurm.resources import Resources, layered, one_line, seconds
from r2v_core.config.explain import explain, schema_keys
from r2v_core.config.load import unresolved
from r2v_core.config.secrets import is_secret
from r2v_core.config.yamlfile import read_yaml
from r2v_core.errors import R2VError, nearest
from r2v_core.stages.table import BY_ASSET

FOLDER = Path("configs/slurm")
VARIABLE = "R2V_SLURM_PROFILE"
LOGIN_VARIABLE = "R2V_SLURM_LOGIN"
"""``local``: this machine can submit jobs itself, whatever the profile says of the login node."""
ORCHESTRATOR = {"gpus": 0, "cpus": 1, "memory": "4G", "time": "2-00:00:00"}
"""What the job of ``r2v slurm run`` asks for unless a profile says otherwise."""
_NAMES = "expected a list of names of variables, not their values"
_NAME = r"^[A-Za-z_][A-Za-z0-9_]*$"


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Lines(_Section):
    _checked = field_validator("*")(one_line)


class Login(_Lines):
    """How to reach the login node."""

    host: str = Field("local", min_length=1, description="its name; 'local': this machine is the login node")
    user: str = Field(default_factory=getpass.getuser, description="account there (default: the same as here)")
    port: int = Field(22, ge=1, le=65535, description="SSH port")
    key: str | None = Field(None, description="private key file; without it ssh-agent and ~/.ssh/config decide")
    host_keys: Literal["strict", "accept-new"] = Field("strict", description="what to do with an unknown host key")
    known_hosts: str | None = Field(None, description="known-hosts file (default: ~/.ssh/known_hosts)")

    @property
    def local(self) -> bool:
        """Whether Dagster runs on the login node itself."""
        return self.host == "local"


class Environment(_Section):
    """How a job gets its Python."""

    venv: str | None = Field(None, description="virtual environment with r2v in it, on the shared file system")
    conda: str | None = Field(None, description="conda environment with r2v in it: its folder")
    modules: list[str] = Field([], description="modules to load, in order")
    source: list[str] = Field([], description="files to source, in order")
    set: dict[Annotated[str, Field(pattern=_NAME)], str] = Field({}, description="environment variables and values")
    pass_: list[Annotated[str, Field(pattern=_NAME)]] = Field(
        [], alias="pass", description="names of variables handed on from Dagster's environment: API keys and the like"
    )

    @field_validator("set")
    @classmethod
    def _no_secrets(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if is_secret(name):
                raise ValueError(
                    f"'{name}' looks like a secret; export it where Dagster runs and list its name under "
                    "environment.pass, so that it stands in no file"
                )
        return value


class Profile(_Section):
    """One cluster."""

    name: str = Field("", description="the file's name", exclude=True)
    login: Login = Field(Login(), description="the login node")
    shared: str = Field(
        min_length=1, description="folder that this machine, login and compute nodes see under the same path"
    )
    environment: Environment = Field(Environment(), description="Python and variables of a job")
    defaults: dict[str, Any] = Field({}, description="what every asset asks for")
    cpu: dict[str, Any] = Field({}, description="what assets without a GPU ask for")
    gpu: dict[str, Any] = Field({}, description="what assets with a GPU ask for")
    assets: dict[str, dict[str, Any]] = Field({}, description="what single assets ask for; evaluation_* is a pattern")
    orchestrator: dict[str, Any] = Field({}, description="what the job of `r2v slurm run` asks for")
    warn_s: int = Field(300, ge=1, description="seconds before the time limit at which a stage saves and stops")
    resubmit: int = Field(
        20, ge=0, description="how often a run goes on after its job reached the time limit or lost its node"
    )
    poll_s: float = Field(10.0, gt=0, description="seconds between questions to SLURM about a job, at most")
    max_jobs: int = Field(24, ge=1, description="runs of a backfill that are at work side by side")

    _checked = field_validator("shared")(one_line)

    @property
    def environment_folder(self) -> Path:
        """What ``r2v slurm deploy`` makes: activate.sh, env → the environment, python.txt."""
        return Path(self.shared) / "r2v-environment"

    def resources(self, asset: str) -> Resources:
        """What an asset asks for: its defaults, then the profile's, the general before the particular."""
        own, built_in = _of(self.assets, asset), BY_ASSET[asset].resources
        # a GPU asset keeps its number of GPUs: `defaults` is for what all have in common
        gpus = own.get("gpus", self.defaults.get("gpus", built_in.get("gpus", 0)))
        return layered((built_in, self.defaults, {"gpus": gpus}, self.gpu if gpus else self.cpu, own))

    def orchestrator_resources(self) -> Resources:
        """What the job of ``r2v slurm run`` asks for."""
        return layered((self.defaults, self.cpu, ORCHESTRATOR, self.orchestrator))

    def asking(self, asset: str, wanted: Mapping[str, Any]) -> Profile:
        """This profile, with what one run asks for of an asset.

        Raises:
            R2VError: if a value is wrong, or the time limit too short to save before it.
        """
        if wrong := _resource_problems(dict(wanted)):
            raise R2VError("\n".join(f"cluster.{key}: {what}" for key, what in wrong.items()))
        changed = self.model_copy(update={"assets": {**self.assets, asset: {**self.assets.get(asset, {}), **wanted}}})
        if wrong_shards := _shards_problem(changed, asset):
            raise R2VError(f"cluster: {wrong_shards} ({self.name})")
        limit = changed.resources(asset).time
        if seconds(limit) <= self.warn_s:
            raise R2VError(
                f"cluster.time: {limit} is not longer than warn_s of {self.name} ({self.warn_s} s); ask for more time"
            )
        return changed


def _of(table: dict[str, dict[str, Any]], asset: str) -> dict[str, Any]:
    """What a table with patterns says of an asset; its own entry before a pattern's."""
    merged: dict[str, Any] = {}
    for name, entry in table.items():
        if name != asset and fnmatch(asset, name):
            merged |= entry
    return merged | table.get(asset, {})


def known_profiles(project: Path) -> list[str]:
    """Names of the profiles that exist."""
    return sorted(path.stem for path in (project / FOLDER).glob("*.yaml"))


def load_profile(name: str | None, project: Path) -> Profile:
    """Read and check a profile; ``name`` defaults to ``$R2V_SLURM_PROFILE``.

    Raises:
        R2VError: without a name, for an unknown one, and for everything that is wrong with the file, one line each.
    """
    name = name or os.environ.get(VARIABLE)
    known = known_profiles(project)
    if not name:
        raise R2VError(f"which cluster? set {VARIABLE} to a profile of {FOLDER}/.{nearest('', known)}")
    path = project / FOLDER / f"{name}.yaml"
    if not path.is_file():
        raise R2VError(
            f"no SLURM profile '{name}': {FOLDER / path.name} is missing; copy {FOLDER}/example.yaml."
            f"{nearest(name, known)}"
        )
    shown = str(FOLDER / path.name)
    file = read_yaml(path, shown)
    try:
        data = OmegaConf.to_container(OmegaConf.create(file.data), resolve=True)
    except OmegaConfBaseException as error:
        key = error.full_key or ""
        raise R2VError(f"{shown}:{_line(file.lines, key)}: {key}: {unresolved(error)}") from None
    problems: list[str] = []
    if os.environ.get(LOGIN_VARIABLE) == "local":
        data = {**dict(data), "login": {"host": "local"}}  # type: ignore[arg-type]
    try:
        profile = Profile.model_validate({**dict(data), "name": name})  # type: ignore[arg-type]
    except ValidationError as error:
        wrong = explain(error, schema_keys(Profile))
        wrong |= {key: _NAMES for key in wrong if key.startswith("environment.pass")}  # its value may be a secret
        raise R2VError(
            "\n".join(f"{shown}:{_line(file.lines, key)}: {key}: {what}" for key, what in wrong.items())
        ) from None
    for section, entry in _resource_sections(profile):
        problems += [
            f"{shown}:{_line(file.lines, f'{section}.{key}')}: {section}.{key}: {what}"
            for key, what in _resource_problems(entry).items()
        ]
    for asset in profile.assets:
        if "*" not in asset and asset not in BY_ASSET and not fnmatch(asset, "ablation_*"):
            problems.append(
                f"{shown}:{_line(file.lines, f'assets.{asset}')}: no asset '{asset}'.{nearest(asset, BY_ASSET)}"
            )
    problems += _consistency(profile, shown) if not problems else []
    if problems:
        raise R2VError("\n".join(problems))
    return profile


def _resource_sections(profile: Profile) -> list[tuple[str, dict[str, Any]]]:
    return [
        ("defaults", profile.defaults),
        ("cpu", profile.cpu),
        ("gpu", profile.gpu),
        ("orchestrator", profile.orchestrator),
        *((f"assets.{name}", entry) for name, entry in profile.assets.items()),
    ]


def _resource_problems(entry: dict[str, Any]) -> dict[str, str]:
    try:
        Resources.model_validate(entry)
    except ValidationError as error:
        return explain(error, schema_keys(Resources))
    return {}


def _consistency(profile: Profile, shown: str) -> list[str]:
    problems = []
    if profile.environment.venv and profile.environment.conda:
        problems.append(f"{shown}: environment: give venv or conda, not both")
    for key, value in (
        ("shared", profile.shared),
        ("venv", profile.environment.venv),
        ("conda", profile.environment.conda),
    ):
        if value and not Path(value).is_absolute():
            problems.append(f"{shown}: {key}: '{value}' has to be an absolute path, the same on every node")
    if seconds(limit := profile.orchestrator_resources().time) <= profile.warn_s:
        problems.append(
            f"{shown}: orchestrator.time: {limit} is not longer than warn_s ({profile.warn_s} s); ask for more time"
        )
    for section, entry in _resource_sections(profile):
        if "shards" in entry and not section.startswith("assets."):
            problems.append(f"{shown}: {section}.shards: says how one stage is divided; write it under assets")
    for asset in BY_ASSET:
        if wrong := _shards_problem(profile, asset):
            problems.append(f"{shown}: assets.{asset}.{wrong}")
        resources = profile.resources(asset)
        if resources.where == "slurm" and seconds(resources.time) <= profile.warn_s:
            problems.append(
                f"{shown}: warn_s: {profile.warn_s} s before the end is not within the time limit of {asset} "
                f"({resources.time}); lower warn_s or raise assets.{asset}.time"
            )
    if profile.login.key and not Path(profile.login.key).expanduser().is_file():
        problems.append(f"{shown}: login.key: no file '{profile.login.key}'")
    return problems


def _shards_problem(profile: Profile, asset: str) -> str | None:
    """Why a stage can't be played in the shards that a profile asks for."""
    asked = profile.resources(asset)
    if asked.shards == 1:
        return None
    if not BY_ASSET[asset].sharded:
        able = ", ".join(name for name, stage in BY_ASSET.items() if stage.sharded)
        return f"shards: this stage can't be divided; those that can: {able}"
    if asked.where == "local":
        return "shards: it runs beside Dagster (where: local), in one process; leave one of the two out"
    if (processes := asked.processes or asked.gpus) > 1:
        return f"shards: each would run as {processes} processes, but a shard is one; add processes: 1"
    return None


def _line(lines: dict[str, int], dotted: str) -> int:
    """The line of a key, or of the nearest section above it."""
    while dotted and dotted not in lines:
        dotted = dotted.rpartition(".")[0]
    return lines.get(dotted, 1)
