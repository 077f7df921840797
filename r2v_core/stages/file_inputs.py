"""``--input ROLE=FILE.jsonl``: a file of episodes as an input, made a run of its own while planning.

The run lies beside the others (stage ``import``) and is named after its content, so the same file again is the same
run. It is read only where it is named. Episodes of templates that the partition's own task suite holds out (for the
router, for validation, for the test) are left out, and so are those that say they are of another split.
"""

from __future__ import annotations

import os
import platform
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from r2v_core.benchmarks.base import Task
from r2v_core.config.schema import PathsConfig
from r2v_core.digest import digest_of
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.runs.artifacts import digests
from r2v_core.runs.directories import relative_to
from r2v_core.runs.jsonl import JsonlStore, write_records
from r2v_core.runs.manifest import (
    IMPORT,
    MANIFEST_NAME,
    RunInput,
    RunManifest,
    read_manifest,
    utc_now,
    write_manifest,
)
from r2v_core.runs.parquet import write_parquet
from r2v_core.runs.spec import UpstreamRun
from r2v_core.stages.episodes import PARQUET, TRAJECTORIES
from r2v_core.trajectory import Episode, episodes_digest

_SHOWN = 5
"""Lines of a file that a refusal names."""


def imported_run(
    file: Path,
    stage: str,
    partition: Partition,
    teacher: tuple[str, str],
    project: Path,
    paths: PathsConfig,
    suite: UpstreamRun | None,
) -> Path:
    """The run directory of a file of episodes, made if it is new.

    Args:
        file: JSON Lines, an episode a line, in today's form or that of the R2V scripts.
        stage: the stage whose output it stands for, ``collect`` or ``perturb``.
        partition: what is planned.
        teacher: provider and model, for episodes that don't say who taught them.
        project: the project root.
        paths: where runs lie.
        suite: the partition's own task suite.

    Raises:
        R2VError: naming file and line of what is no episode, stands there twice or is of another benchmark; or if
            nothing is left to learn from.
    """
    if suite is None:
        raise R2VError(
            f"{file}: partition '{partition.key}' has no task suite, so which templates it holds out is unknown; make "
            f"it first:\n  python -m r2v_core.stages.task_suite --partition '{partition.key}'"
        )
    read = _read(file, partition, teacher)
    kept, counts = _for_training(read, list(JsonlStore(suite.artifact("tasks"), Task)))
    if not kept:
        raise R2VError(
            f"{file}: nothing is left of {len(read)} episodes ({counts['held_out']} are of templates that "
            f"'{partition.key}' holds out, {counts['other_split']} of another split); name a file with others"
        )
    digest = digest_of([stage, episodes_digest(kept), suite.manifest.digest])
    directory = project / paths.data / "runs" / f"import_{stage}_{partition.benchmark}_{digest[:12]}"
    if (directory / MANIFEST_NAME).is_file() and read_manifest(directory).status == "done":
        return directory
    kept = [e.model_copy(update={"metadata": {"run_id": directory.name, **e.metadata, "split": "train"}}) for e in kept]
    config = {"import": {"file": relative_to(file, project), "stage": stage}}
    tasks = suite.manifest
    manifest = RunManifest(
        run_id=directory.name,
        stage=IMPORT,
        benchmark=partition.benchmark,
        provider=teacher[0],
        model=teacher[1],
        seed=partition.seed,
        partition=partition.key,
        status="done",
        created_at=utc_now(),
        finished_at=utc_now(),
        output_dir=relative_to(directory, project),
        config=config,
        config_digest=digest_of(config),
        inputs=[
            RunInput(role="tasks", run_id=tasks.run_id, digest=tasks.digest, path=relative_to(suite.directory, project))
        ],
        digest=digest,
        artifacts={"trajectories": TRAJECTORIES, "episodes": PARQUET},
        n_episodes=len(kept),
        n_success=sum(episode.success for episode in kept),
        n_steps=sum(len(episode.steps) for episode in kept),
        counts=counts,
        host=platform.node(),
    )
    _write(directory, kept, manifest)
    return directory


def _read(file: Path, partition: Partition, teacher: tuple[str, str]) -> list[Episode]:
    """Every episode of the file; one bad line and all is refused, with the first few of them."""
    from r2v_core.registry.legacy import read_episode
    from r2v_core.registry.legacy_fields import Entry
    from r2v_core.registry.values import describe, lines

    identity = {"provider": teacher[0], "model": teacher[1], "benchmark": partition.benchmark, "seed": partition.seed}
    entry = Entry(f"import_{file.stem}", identity)
    episodes: list[Episode] = []
    problems: list[str] = []
    first_line: dict[str, int] = {}
    for number, _, text, _ in lines(file):
        try:
            episode = read_episode(text, entry, number)
        except ValidationError as error:
            problems.append(f"{file}:{number}: {describe(error)}")
            continue
        except (ValueError, RecursionError, R2VError) as error:
            problems.append(f"{file}:{number}: {str(error).splitlines()[0]}")
            continue
        known = first_line.setdefault(episode.episode_id, number)
        if known != number:
            problems.append(f"{file}:{number}: episode '{episode.episode_id}' is in line {known} already")
        elif episode.benchmark != partition.benchmark:
            problems.append(f"{file}:{number}: of benchmark '{episode.benchmark}', '{partition.key}' is not")
        else:
            episodes.append(episode)
    if problems:
        more = [f"… and {len(problems) - _SHOWN} more lines"] if len(problems) > _SHOWN else []
        raise R2VError("\n".join([*problems[:_SHOWN], *more]))
    return episodes


def _for_training(episodes: Sequence[Episode], tasks: Sequence[Task]) -> tuple[list[Episode], dict[str, float]]:
    """The episodes that may be learnt from, and for the manifest how many are left out, and why."""
    held_out = {task.template_id for task in tasks if task.split != "train"}
    held_out_tasks = {task.task_id for task in tasks if task.split != "train"}
    known = {task.template_id for task in tasks}
    kept, counts = [], Counter({"held_out": 0, "other_split": 0, "unknown_template": 0})
    for episode in episodes:
        if episode.template_id in held_out or episode.task_id in held_out_tasks:
            counts["held_out"] += 1
        elif episode.metadata.get("split", "train") != "train":
            counts["other_split"] += 1
        else:
            counts["unknown_template"] += episode.template_id not in known
            kept.append(episode)
    return kept, {"kept": len(kept), **counts}


def _write(directory: Path, episodes: Iterable[Episode], manifest: RunManifest) -> None:
    """The whole run directory at once, so that nobody finds half of one."""
    episodes = list(episodes)
    staging = directory.with_name(f".{directory.name}.{os.getpid()}")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    write_records(staging / TRAJECTORIES, episodes)
    write_parquet(staging / PARQUET, episodes, Episode)
    manifest = manifest.model_copy(update={"artifact_digests": digests(staging, manifest.artifacts)})
    write_manifest(manifest, staging)
    shutil.rmtree(directory, ignore_errors=True)
    staging.rename(directory)
