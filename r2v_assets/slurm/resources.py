"""What one SLURM job asks for, and how sbatch and srun are told."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from typing_extensions import Self

UNLIMITED = sys.maxsize
"""Seconds of a job without a time limit."""
_MEMORY = re.compile(r"(\d+)\s*(?:([kmgt])i?b?)?", re.IGNORECASE)
_OTHER_MEMORY = {"memory": "memory_per_cpu", "memory_per_cpu": "memory"}


def one_line(value: object) -> object:
    """What stands in a job's options or a command's arguments: a line break would begin another option.

    Raises:
        ValueError: if there is one.
    """
    for text in value if isinstance(value, list) else [value]:
        if isinstance(text, str) and re.search(r"[\x00-\x1f\x7f]", text):
            raise ValueError("it holds a line break or control character; write one line without")
    return value


class Resources(BaseModel):
    """What one job asks for. Where a value is left out, that of the next more general section counts."""

    model_config = ConfigDict(extra="forbid")

    where: Literal["slurm", "local"] = Field("slurm", description="'local': as a process beside Dagster, no job")
    partition: str | None = Field(None, description="SLURM partition (queue); none: the cluster's default")
    gpus: int = Field(0, ge=0, description="GPUs on one node")
    gpu_type: str | None = Field(None, description="GPU type as SLURM knows it, e.g. a100; none: any")
    gres: list[Annotated[str, Field(pattern=r"^[A-Za-z][\w.-]*(:[\w.-]+)*$")]] = Field(
        [], description="further generic resources beside the GPUs, e.g. nvme:1"
    )
    processes: int | None = Field(
        None, ge=1, description="processes that share the work of a stage that can be shared; none: one per GPU"
    )
    shards: int = Field(1, ge=1, description="elements of a job array, each of which plays a part of the stage")
    shards_at_once: int | None = Field(None, ge=1, description="how many of these run side by side; none: all")
    cpus: int = Field(4, ge=1, description="CPU cores")
    memory: str | None = Field("16G", description="memory of the job, e.g. 32G; 0: the node's; none: not asked for")
    memory_per_cpu: str | None = Field(None, description="memory for each core, e.g. 4G, in the place of memory")
    time: str = Field("04:00:00", description="time limit: minutes, [days-]hours:minutes:seconds, or UNLIMITED")
    account: str | None = Field(None, description="account that is charged")
    qos: str | None = Field(None, description="quality of service")
    constraint: str | None = Field(None, description="node features, as sbatch --constraint takes them")
    mail_user: str | None = Field(None, description="address for mail")
    mail_type: list[Literal["BEGIN", "END", "FAIL", "REQUEUE", "TIME_LIMIT", "ALL"]] = Field(
        ["END", "FAIL"], description="when to send mail, if mail_user is set"
    )
    extra: list[Annotated[str, Field(pattern=r"^--[a-z]")]] = Field(
        [], description="further sbatch options, each as --name=value"
    )

    _checked = field_validator("*")(one_line)

    @field_validator("partition", "gpu_type", "memory", "memory_per_cpu", "time", "account", "qos", mode="before")
    @classmethod
    def _text(cls, value: object) -> object:
        """A number is the text of it: account 4711, memory 16000, time 90."""
        return str(value) if isinstance(value, int) and not isinstance(value, bool) else value

    @field_validator("memory", "memory_per_cpu")
    @classmethod
    def _memory(cls, value: str | None) -> str | None:
        if value is None:
            return None
        match = _MEMORY.fullmatch(value.strip())
        if match is None:
            raise ValueError(f"'{value}' is not an amount of memory; write a whole number and a unit, e.g. 64G or 500M")
        return match[1] + (match[2] or "").upper()

    @field_validator("gres")
    @classmethod
    def _beside_gpus(cls, value: list[str]) -> list[str]:
        if any(name.partition(":")[0] == "gpu" for name in value):
            raise ValueError("use the keys gpus and gpu_type for GPUs")
        return value

    @field_validator("time")
    @classmethod
    def _parsable(cls, value: str) -> str:
        seconds(value)
        return value

    @model_validator(mode="after")
    def _one_memory(self) -> Self:
        if self.memory_per_cpu and self.memory and "memory" in self.model_fields_set:
            raise ValueError("give memory or memory_per_cpu, not both")
        return self

    @property
    def memory_text(self) -> str:
        """How messages name the memory that is asked for."""
        each = f"{self.memory_per_cpu} for each of {self.cpus} CPUs" if self.memory_per_cpu else None
        return each or self.memory or "the cluster's default memory"

    @property
    def array(self) -> str:
        """The elements of the shards' job array, as sbatch takes them."""
        return f"0-{self.shards - 1}" + (f"%{self.shards_at_once}" if self.shards_at_once else "")

    def options(self) -> list[str]:
        """Options that sbatch and srun share, in the order of the fields."""
        gpus = ":".join(filter(None, ("gpu", self.gpu_type, str(self.gpus)))) if self.gpus else None
        options = {
            "partition": self.partition,
            "gres": ",".join(filter(None, (gpus, *self.gres))) or None,
            "cpus-per-task": self.cpus,
            "mem": None if self.memory_per_cpu else self.memory,
            "mem-per-cpu": self.memory_per_cpu,
            "time": self.time,
            "account": self.account,
            "qos": self.qos,
            "constraint": self.constraint,
        }
        return ["--nodes=1", *(f"--{name}={value}" for name, value in options.items() if value is not None)]

    def sbatch_options(self) -> list[str]:
        """Options of sbatch."""
        mail = [f"--mail-user={self.mail_user}", f"--mail-type={','.join(self.mail_type)}"] if self.mail_user else []
        return [*self.options(), *mail, *self.extra]


def layered(layers: Iterable[Mapping[str, Any]]) -> Resources:
    """One job's resources from sections, the more particular ones later.

    A section that asks for memory in one way takes back what an earlier one asked for in the other.
    """
    merged: dict[str, Any] = {}
    for layer in layers:
        for name in layer:
            if layer[name] is not None or name == "memory":
                merged.pop(_OTHER_MEMORY.get(name, ""), None)
        merged |= layer
    return Resources.model_validate(merged)


def seconds(limit: str) -> int:
    """A SLURM time limit in seconds; :data:`UNLIMITED` for none.

    Raises:
        ValueError: if SLURM can't parse it.
    """
    if limit.strip().upper() in ("UNLIMITED", "INFINITE"):
        return UNLIMITED
    match = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", limit)
    if not match:
        raise ValueError(
            f"'{limit}' is not a time limit; write minutes, hours:minutes:seconds, days-hours[:minutes] or UNLIMITED"
        )
    days, first, second, third = (int(group) if group is not None else None for group in match.groups())
    assert first is not None
    if days is not None:
        return days * 86400 + first * 3600 + (second or 0) * 60 + (third or 0)
    if third is not None:
        return first * 3600 + (second or 0) * 60 + third
    return first * 60 + (second or 0)
