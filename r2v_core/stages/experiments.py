"""The experiments that exist: ``configs/experiments.yaml``, from which the partitions are made."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from r2v_core import config
from r2v_core.agent.rules.table import RULES, playable_rules
from r2v_core.benchmarks import BENCHMARKS, options_model
from r2v_core.config import Config, LoadedConfig
from r2v_core.config.explain import explain, schema_keys
from r2v_core.config.yamlfile import read_yaml
from r2v_core.errors import R2VError, nearest
from r2v_core.partition import Partition
from r2v_core.runs.directories import relative_to
from r2v_core.teachers.names import FILE, TEACHERS, TeacherEntry, find_teacher, known_teachers

DEFAULT_PATH = Path("configs/experiments.yaml")


class Experiment(BaseModel):
    """One benchmark learnt from one teacher, or a variant of that."""

    model_config = ConfigDict(extra="forbid")
    config: Path = Field(
        description="the experiment's YAML file, relative to the file that lists it; absolute once loaded"
    )


class ExperimentList(BaseModel):
    """What the file lists; every seed is valid for every experiment."""

    model_config = ConfigDict(extra="forbid")
    seeds: list[Annotated[int, Field(ge=0)]] = Field(min_length=1, description="replicates, each seed once")
    experiments: dict[str, Experiment] = Field(min_length=1, description="'<benchmark>:<teacher>[@<variant>]'")


def load_experiments(path: Path | None = None) -> ExperimentList:
    """Read the list of experiments and seeds; experiments stay in file order.

    Args:
        path: the list; ``configs/experiments.yaml`` below the working directory unless given.

    Raises:
        R2VError: naming file, line, entry, value and what is expected, one line for each problem.
    """
    path = path or DEFAULT_PATH
    if not path.is_file():
        raise R2VError(f"{path}: no such file; it lists the experiments, see configs/experiments.yaml of the project")
    file = read_yaml(path, dots=True)
    try:
        listed = ExperimentList.model_validate(file.data)
    except ValidationError as error:
        wrong = explain(error, schema_keys(ExperimentList))
        problems = [f"{path}:{_line(file.lines, key)}: {key}: {what}" for key, what in wrong.items()]
        raise R2VError("\n".join(problems)) from None
    teachers = known_teachers(path.parent / FILE.name)
    problems = []
    if repeated := sorted({seed for seed in listed.seeds if listed.seeds.count(seed) > 1}):
        problems.append(f"{path}:{_line(file.lines, 'seeds')}: seeds: {', '.join(map(str, repeated))} given twice")
    for name, experiment in listed.experiments.items():
        experiment.config = (path.parent / experiment.config).resolve()
        where = f"{path}:{_line(file.lines, f'experiments.{name}')}"
        wrong_here = [*_name_problems(name, teachers), *_config_problems(experiment.config, path.parent)]
        problems += [f"{where}: experiment '{name}': {problem}" for problem in wrong_here]
    if problems:
        raise R2VError("\n".join(problems))
    return listed


def _line(lines: Mapping[str, int], dotted: str) -> int:
    """The line of a key, or of the nearest section above it."""
    while dotted and dotted not in lines:
        dotted = dotted.rpartition(".")[0]
    return lines.get(dotted, 1)


def _config_problems(file: Path, directory: Path) -> list[str]:
    if file.is_file():
        return []
    known = {p.relative_to(directory).as_posix() for p in directory.glob("**/*.yaml")}
    shown = file.relative_to(directory.resolve()).as_posix() if file.is_relative_to(directory.resolve()) else str(file)
    return [f"config: no file '{shown}'.{nearest(shown, known)}"]


def partition_config(
    partition: Partition, config: str | Path | None, overrides: Sequence[str], project: Path
) -> LoadedConfig:
    """The checked configuration of a partition: the given file, ``$R2V_CONFIG``, or the experiment's own.

    A variant's folders are its own, ``data/<name>``, ``outputs/<name>`` and ``results/<name>`` with the name as in
    ``textworld_expert_study``, unless its file itself (not one that it inherits from) or an override names others.

    Raises:
        R2VError: for a config that is wrong or contradicts the teacher, or where none is given and the experiment is
            not listed.
    """
    path = config or os.environ.get("R2V_CONFIG")
    if not path:
        if not (project / DEFAULT_PATH).is_file():
            raise R2VError(
                f"{project} is not a project, as it has no {DEFAULT_PATH}; cd to the project, or set R2V_PROJECT"
            )
        listed = load_experiments(project / DEFAULT_PATH).experiments
        if partition.experiment not in listed:
            raise R2VError(
                f"{DEFAULT_PATH} has no experiment '{partition.experiment}', so its config is unknown; list it, or "
                f"say which file: --config configs/….yaml.{nearest(partition.experiment, listed)}"
            )
        path = listed[partition.experiment].config
    loaded = load_config(path, overrides, project)
    loaded = replace(loaded, named_models=named_models(partition, loaded.config, project))
    _check_training(partition, loaded, project)
    if partition.variant:
        _own_folders(partition, loaded, project)
    return loaded


def named_models(partition: Partition, config: Config, project: Path) -> dict[str, str]:
    """What the names of teacher and judge stand for in ``configs/teachers.yaml``: provider and model, by role.

    Built-in names are left out, since they always stand for the same. So are address and key of a server: where a model
    answers does not decide what.
    """
    names = {"teacher": partition.teacher}
    if config.candidates.scored_by == "judge":
        names["judge"] = config.judge.teacher
    entries = {role: find_teacher(name, project) for role, name in names.items() if name not in TEACHERS}
    return {role: f"{entry.provider} {entry.model}" for role, entry in entries.items()}


def _check_training(partition: Partition, loaded: LoadedConfig, project: Path) -> None:
    """Refuse a teacher that nobody would train, and tasks for training one where the partition's is another."""
    key, name = "benchmark.splits.teacher", partition.teacher
    tasks = loaded.config.benchmark.splits.get("teacher", 0)
    where = loaded.sources.get(key, loaded.path)
    trained = find_teacher(name, project).provider == "trained"
    if trained and not tasks:
        raise R2VError(
            f"{key} is 0 ({where}), but teacher '{name}' is trained on tasks of that split; set it, e.g. {key}=64, or "
            "choose a config that does, such as configs/textworld/taught.yaml"
        )
    if tasks and not trained:
        known = known_teachers(project / FILE)
        others = ", ".join(other for other, entry in known.items() if entry.provider == "trained")
        raise R2VError(
            f"{key} is {tasks} ({where}), but teacher '{name}' is not trained here; set it to 0, or choose a partition "
            f"whose teacher is ({others})"
        )


def _own_folders(partition: Partition, loaded: LoadedConfig, project: Path) -> None:
    own = {"override", relative_to(loaded.path, project.resolve())}
    name = re.sub(r"[^\w.+-]", "_", partition.experiment)
    for kind in ("data", "outputs", "results"):
        if loaded.sources[f"paths.{kind}"] not in own:
            setattr(loaded.config.paths, kind, f"{kind}/{name}")


def load_config(path: str | Path, overrides: Sequence[str] = (), project: Path | None = None) -> LoadedConfig:
    """Merge, resolve and check a config, its benchmark's options and its methods too, before any work is done with it.

    See :func:`r2v_core.config.load.load_config` for the arguments.

    Raises:
        R2VError: naming file and line (or override), key, value and what is expected, one line for each problem.
    """
    loaded = config.load_config(path, overrides, project, options_model)
    _check_methods(loaded)
    return loaded


def _check_methods(loaded: LoadedConfig) -> None:
    """Fill in the methods that an evaluation plays, and refuse those that nothing is calibrated for."""
    evaluation, baselines = loaded.config.evaluation, loaded.config.training.router.baselines
    swept = [name for name, rule in RULES.items() if rule.swept]
    for key, names, known in (
        ("evaluation.methods", evaluation.methods, list(RULES)),
        ("training.router.baselines", baselines, swept),
    ):
        for name in names:
            if name not in known:
                what = "calibrated rule" if name in RULES else "routing rule"
                raise R2VError(f"{key} ({loaded.sources[key]}): no {what} '{name}'.{nearest(name, known)}")
    playable = playable_rules(baselines)
    for name in evaluation.methods:
        if name not in playable:
            raise R2VError(
                f"evaluation.methods ({loaded.sources['evaluation.methods']}): '{name}' is not calibrated; add it to "
                f"training.router.baselines ({loaded.sources['training.router.baselines']}), or leave that list empty"
            )
    evaluation.methods = evaluation.methods or playable


def _name_problems(name: str, teachers: Mapping[str, TeacherEntry]) -> list[str]:
    try:
        partition = Partition.parse(f"{name}|0")
    except R2VError:
        return ["the name has to be '<benchmark>:<teacher>[@<variant>]', e.g. 'textworld:expert'"]
    problems = []
    if partition.benchmark not in BENCHMARKS:
        problems.append(f"unknown benchmark '{partition.benchmark}'.{nearest(partition.benchmark, BENCHMARKS)}")
    if partition.teacher not in teachers:
        problems.append(f"unknown teacher '{partition.teacher}'.{nearest(partition.teacher, teachers)}")
    return problems
