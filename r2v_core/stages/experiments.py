"""The experiments that exist: ``configs/experiments.yaml``, from which the partitions are made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from r2v_core import config
from r2v_core.agent.rules.table import RULES
from r2v_core.benchmarks import BENCHMARKS, options_model
from r2v_core.config import LoadedConfig
from r2v_core.config.explain import explain, schema_keys, shown
from r2v_core.config.yamlfile import read_yaml
from r2v_core.errors import R2VError, nearest
from r2v_core.partition import Partition
from r2v_core.teachers.names import FILE, TeacherEntry, known_teachers

DEFAULT_PATH = Path("configs/experiments.yaml")


class Experiment(BaseModel):
    """One benchmark learnt from one teacher, replicated over seeds."""

    model_config = ConfigDict(extra="forbid")
    config: Path = Field(
        description="the experiment's YAML file, relative to the file that lists it; absolute once loaded"
    )
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, description="replicates, each seed once")


def load_experiments(path: Path | None = None) -> dict[str, Experiment]:
    """Read the list of experiments: '<benchmark>:<teacher>' → :class:`Experiment`, in file order.

    Args:
        path: the list; ``configs/experiments.yaml`` below the working directory unless given.

    Raises:
        R2VError: naming file, line, entry, value and what is expected, one line for each problem.
    """
    path = path or DEFAULT_PATH
    if not path.is_file():
        raise R2VError(f"{path}: no such file; it lists the experiments, see configs/experiments.yaml of the project")
    file = read_yaml(path, dots=True)
    entries = file.data.get("experiments")
    if set(file.data) != {"experiments"} or not isinstance(entries, dict) or not entries:
        raise R2VError(
            f"{path}: expected one key, 'experiments', with entries such as "
            '"textworld:expert": {config: mrp.yaml, seeds: [1, 2, 3]}'
        )
    teachers = known_teachers(path.parent / FILE.name)
    experiments: dict[str, Experiment] = {}
    problems: list[str] = []
    for name, entry in entries.items():
        experiment, wrong = _check(name, entry, path.parent, teachers)
        where = f"{path}:{file.lines.get(f'experiments.{name}', 1)}"
        problems += [f"{where}: experiment '{name}': {problem}" for problem in wrong]
        if experiment is not None:
            experiments[name] = experiment
    if problems:
        raise R2VError("\n".join(problems))
    return experiments


def load_config(path: str | Path, overrides: Sequence[str] = (), project: Path | None = None) -> LoadedConfig:
    """Merge, resolve and check a config, its benchmark's options and its methods too, before any work is done with it.

    See :func:`r2v_core.config.load.load_config` for the arguments.

    Raises:
        R2VError: naming file and line (or override), key, value and what is expected, one line for each problem.
    """
    loaded = config.load_config(path, overrides, project, options_model)
    evaluation = loaded.config.evaluation
    for method in evaluation.methods:
        if method not in RULES:
            source = loaded.sources["evaluation.methods"]
            raise R2VError(f"evaluation.methods ({source}): no routing rule '{method}'.{nearest(method, RULES)}")
    evaluation.methods = evaluation.methods or list(RULES)
    return loaded


def _check(
    name: str, entry: Any, directory: Path, teachers: Mapping[str, TeacherEntry]
) -> tuple[Experiment | None, list[str]]:
    problems = _name_problems(name, teachers)
    if not isinstance(entry, dict):
        return None, [*problems, f"expected {{config: …, seeds: […]}}, not {shown(entry)}"]
    try:
        experiment = Experiment.model_validate(entry)
    except ValidationError as error:
        wrong = explain(error, schema_keys(Experiment))
        return None, [*problems, *(f"{key}: {what}" for key, what in wrong.items())]
    repeated = sorted({seed for seed in experiment.seeds if experiment.seeds.count(seed) > 1})
    if repeated:
        problems.append(f"seeds: {', '.join(map(str, repeated))} given twice")
    file = (directory / experiment.config).resolve()
    if not file.is_file():
        known = {p.relative_to(directory).as_posix() for p in directory.glob("**/*.yaml")}
        problems.append(f"config: no file '{experiment.config}'.{nearest(str(experiment.config), known)}")
    return experiment.model_copy(update={"config": file}), problems


def _name_problems(name: str, teachers: Mapping[str, TeacherEntry]) -> list[str]:
    try:
        partition = Partition.parse(f"{name}|0")
    except R2VError:
        return ["the name has to be '<benchmark>:<teacher>', e.g. 'textworld:expert'"]
    problems = []
    if partition.benchmark not in BENCHMARKS:
        problems.append(f"unknown benchmark '{partition.benchmark}'.{nearest(partition.benchmark, BENCHMARKS)}")
    if partition.teacher not in teachers:
        problems.append(f"unknown teacher '{partition.teacher}'.{nearest(partition.teacher, teachers)}")
    return problems
