"""Evaluations as logs of inspect_ai, which its viewer and its readers open: one log a method of an evaluation run.

A task is a sample, a world (with its replicate) an epoch, the verdict the benchmark's own. Version 2 of the format, as
inspect_ai 0.3 writes it.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from r2v_core.digest import digest_of
from r2v_core.errors import R2VError
from r2v_core.registry.export import chat
from r2v_core.runs.manifest import RunManifest, write_atomic
from r2v_core.trajectory import Episode, Step

EVALUATIONS = ("evaluate_clean", "evaluate_noisy")
SCORER = "verdict"
Log = dict[str, Any]
_TOKENS = ("input_tokens", "output_tokens", "total_tokens")
_ROLES = {"teacher": "teacher", "slm": "small model"}


def check_evaluation(run: RunManifest) -> None:
    """Raise R2VError for a run of another stage."""
    if run.stage not in EVALUATIONS:
        raise R2VError(
            f"run {run.run_id} is of the stage {run.stage}; logs are made of evaluations: "
            "r2v registry query --stage evaluate_noisy lists them (trajectories: r2v registry export)"
        )


def write_logs(run: RunManifest, episodes: Iterable[Episode], folder: Path) -> list[Path]:
    """Write one log a method of an evaluation into ``folder``, each whole or not at all; returns their files.

    Raises:
        R2VError: if a file can't be written.
    """
    by_method: defaultdict[str, list[Episode]] = defaultdict(list)
    for episode in episodes:
        by_method[str(episode.metadata["method"])].append(episode)
    return [_write(log_of(run, method, played), folder) for method, played in by_method.items()]


def _write(log: Log, folder: Path) -> Path:
    about = log["eval"]
    began = re.sub(r"[:.+]", "-", about["created"])  # readers find logs by names that begin with a time
    path = folder / f"{began}_{about['task']}-{about['metadata']['method']}_{about['eval_id'][:12]}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(log, ensure_ascii=False, indent=1) + "\n")
    except OSError as error:
        raise R2VError(f"--output {folder}: can't be written ({error.strerror or error})") from None
    return path


def log_of(run: RunManifest, method: str, episodes: Sequence[Episode]) -> Log:
    """The log of one method. Its accuracy is the success rate of the tables: an episode with an error has failed."""
    worlds = {world: n for n, world in enumerate(sorted({_world(episode) for episode in episodes}), start=1)}
    tasks = sorted({episode.task_id for episode in episodes})
    accuracy = sum(episode.success for episode in episodes) / len(episodes)
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "eval_id": digest_of([run.run_id, method]),
            "run_id": run.run_id,
            "created": run.created_at,
            "task": f"{run.benchmark}-{run.stage.removeprefix('evaluate_')}",
            "task_id": digest_of([run.benchmark, run.stage]),
            "dataset": {"name": run.benchmark, "samples": len(tasks), "sample_ids": tasks},
            "model": f"r2v/{method}",
            "config": {"epochs": len(worlds)},
            "packages": {"r2v": run.code_version},
            "scorers": [{"name": SCORER, "metrics": [{"name": "accuracy"}]}],
            "metadata": {
                "method": method, "partition": run.partition, "variant": run.variant, "seed": run.seed,
                "stage": run.stage, "digest": run.digest, "small_model": run.config.get("slm", {}).get("model"),
                "teacher": f"{run.provider}/{run.model}",
            },
        },
        "plan": {"name": "plan", "steps": [{"solver": method, "params": {}}]},
        "results": {
            "total_samples": len(episodes),
            "completed_samples": sum(episode.error is None for episode in episodes),
            "scores": [
                {
                    "name": SCORER,
                    "scorer": SCORER,
                    "scored_samples": len(episodes),
                    "metrics": {"accuracy": {"name": "accuracy", "value": accuracy}},
                }
            ],
        },
        "stats": {
            "started_at": run.created_at,
            "completed_at": run.finished_at or run.created_at,
            "model_usage": _usage([step for episode in episodes for step in episode.steps]),
        },
        "samples": [_sample(episode, method, worlds) for episode in episodes],
    }  # fmt: skip


def _world(episode: Episode) -> tuple[int, int]:
    z = episode.perturbation_seed
    return (-1 if z is None else z, int(episode.metadata.get("replicate", 0)))


def _sample(episode: Episode, method: str, worlds: Mapping[tuple[int, int], int]) -> dict[str, Any]:
    told: list[dict[str, Any]] = [dict(one) for one in chat(episode, len(episode.steps) - 1)] if episode.steps else []
    last: dict[str, Any] = {"role": "assistant", "content": episode.steps[-1].action if episode.steps else ""}
    messages = [*told, last]
    spoken = (message for message in messages if message["role"] == "assistant")
    for message, step in zip(spoken, episode.steps, strict=False):
        message |= {"source": "generate", "metadata": _decision(step)}
    sample: dict[str, Any] = {
        "id": episode.task_id,
        "epoch": worlds[_world(episode)],
        "input": episode.goal,
        "target": "",
        "messages": messages,
        "output": {
            "model": f"r2v/{method}",
            "choices": [{"message": last, "stop_reason": "max_tokens" if episode.truncated else "stop"}],
        },
        "scores": {SCORER: {"value": "C" if episode.success else "I", "answer": last["content"]}},
        "metadata": {
            "episode_id": episode.episode_id, "template_id": episode.template_id, "z": episode.perturbation_seed,
            "steps": len(episode.steps), "teacher_calls": sum(step.actor == "teacher" for step in episode.steps),
            "cost": episode.cost, "score": episode.score, "truncated": episode.truncated,
        },
        "model_usage": _usage(episode.steps),
        "total_time": sum(step.latency_s for step in episode.steps),
    }  # fmt: skip
    if episode.error is not None:
        sample["error"] = {"message": episode.error, "traceback": "", "traceback_ansi": ""}
    return sample


def _decision(step: Step) -> dict[str, Any]:
    """What an action's message tells besides its text."""
    told: dict[str, Any] = {"actor": step.actor, "executed": step.executed, "cost": step.cost}
    if step.decision is not None:
        told |= {"probability": step.decision.probability, "threshold": step.decision.threshold}
    if step.perturbations:
        told["perturbations"] = [f"{one.family}/{one.operator}" for one in step.perturbations]
    return told


def _usage(steps: Iterable[Step]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for step in steps:
        kept = found.setdefault(_ROLES.get(step.actor, step.actor), dict.fromkeys(_TOKENS, 0))
        for name, n in zip(_TOKENS, (step.tokens_in, step.tokens_out, step.tokens_in + step.tokens_out), strict=True):
            kept[name] += n
    return found
