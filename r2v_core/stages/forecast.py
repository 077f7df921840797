"""What a partition will take before anything runs: the work of each stage, counted from its config.

Every number is an upper bound: episodes may end before ``benchmark.max_steps``, and proposals that methods share are
sampled once. What that takes in hours and on disk is scaled from a finished run of the same stage, where there is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from r2v_core.agent.rules.table import calibrated_rules, evaluated_methods, proposes, rule_of
from r2v_core.benchmarks.base import SPLITS
from r2v_core.config.schema import Config, OptimConfig
from r2v_core.training.guarantee import LEVELS

SMALL_MODEL_ALONE = "slm_only"


@dataclass(frozen=True)
class Work:
    """What a stage does at most."""

    tasks: int = 0
    episodes: int = 0
    steps: int = 0
    """Environment steps."""
    states: int = 0
    """Prompts that the small model samples ``candidates.k`` actions for."""
    new_tokens: int = 0
    """Tokens that it generates."""
    teacher_calls: int = 0
    judge_calls: int = 0
    updates: int = 0
    """Optimiser steps."""

    @property
    def size(self) -> int:
        """The number that the stage's time and disk grow with."""
        return self.updates or self.states or self.steps or self.episodes or self.tasks


Tasks = Mapping[str, int]
"""Split → number of tasks."""


def planned_tasks(config: Config) -> Tasks:
    """One task a template, which is what most benchmarks make of ``benchmark.splits``."""
    return {split: config.benchmark.splits.get(split, 0) for split in SPLITS}


def work_of(stage: str, config: Config, tasks: Tasks) -> Work:
    """What a stage will do at most; nothing for stages that only read what others made.

    Args:
        stage: a name of the stage table.
        tasks: how many tasks each split has.
    """
    count = _WORK.get(stage)
    return count(config, tasks) if count else Work()


def _task_suite(config: Config, tasks: Tasks) -> Work:
    return Work(tasks=sum(tasks.values()))


def _train_teacher(config: Config, tasks: Tasks) -> Work:
    played = _collect(config, {"train": tasks.get("teacher", 0)})
    if not played.episodes:
        return Work()
    return Work(episodes=played.episodes, steps=played.steps, updates=config.training.teacher.max_steps)


def _collect(config: Config, tasks: Tasks) -> Work:
    episodes = tasks["train"] * (config.collection.episodes_per_task + config.collection.explore_all_episodes)
    steps = episodes * config.benchmark.max_steps
    return Work(episodes=episodes, steps=steps, teacher_calls=steps)


def _perturb(config: Config, tasks: Tasks) -> Work:
    return Work(episodes=_collect(config, tasks).episodes * config.perturbations.seeds.train)


def _training(section: str) -> Callable[[Config, Tasks], Work]:
    def count(config: Config, tasks: Tasks) -> Work:
        settings: OptimConfig = getattr(config.training, section)
        return Work(updates=settings.max_steps)

    return count


def _candidates(config: Config, tasks: Tasks) -> Work:
    at_most = _perturb(config, tasks).episodes * config.benchmark.max_steps
    return _sampled(config, min(config.candidates.max_states or at_most, at_most))


def _policy_rollouts(config: Config, tasks: Tasks) -> Work:
    settings, longest = config.training.verifier.on_policy, config.benchmark.max_steps
    tried = math.ceil(settings.episodes * longest * settings.state_share)
    episodes = settings.episodes + tried * config.candidates.k * settings.continuations
    states = episodes * longest
    sampled = states * config.candidates.k * config.slm.max_action_tokens
    return Work(episodes=episodes, steps=states, states=states, new_tokens=sampled)


def _router_features(config: Config, tasks: Tasks) -> Work:
    seeds = config.perturbations.seeds
    settings, longest = config.router_features, config.benchmark.max_steps
    rollouts = tasks["router"] * seeds.router + tasks["validation"] * seeds.validation
    logged = _played(config, {"random_router": rollouts * settings.episodes_per_task})
    if settings.label == "progress":
        return logged
    tried = math.ceil(logged.steps * settings.benefit.state_share)
    continued = 2 * tried * settings.benefit.continuations
    sampled = _sampled(config, continued * longest)
    return Work(
        episodes=logged.episodes + continued,
        steps=logged.steps + continued * longest,
        states=logged.states + continued * longest,
        new_tokens=logged.new_tokens + sampled.new_tokens,
        teacher_calls=logged.teacher_calls + tried,
        judge_calls=logged.judge_calls + sampled.judge_calls,
    )


def _train_router(config: Config, tasks: Tasks) -> Work:
    router = config.training.router
    if router.calibrate == "logged" or router.teacher_share is not None:
        return Work()
    episodes = tasks["validation"] * config.perturbations.seeds.validation * len(LEVELS)
    return _played(config, dict.fromkeys(calibrated_rules(router.baselines), episodes))


def _evaluate_clean(config: Config, tasks: Tasks) -> Work:
    return _evaluated(config, tasks["test"] * config.evaluation.clean_seeds)


def _evaluate_noisy(config: Config, tasks: Tasks) -> Work:
    met = config.evaluation.worlds_per_template or config.perturbations.seeds.test
    return _evaluated(config, tasks["test"] * met * config.evaluation.noisy_seeds)


def _evaluated(config: Config, episodes: int) -> Work:
    return _played(config, dict.fromkeys(evaluated_methods(config.evaluation), episodes))


def _played(config: Config, methods: Mapping[str, int]) -> Work:
    """Work of playing so many episodes with each method."""
    longest = config.benchmark.max_steps
    calls = min(config.agent.max_teacher_calls or longest, longest)
    states = sum(n for method, n in methods.items() if proposes(method)) * longest
    sampled = _sampled(config, states)
    asking = sum(n for method, n in methods.items() if rule_of(method) != SMALL_MODEL_ALONE)
    episodes = sum(methods.values())
    return Work(
        episodes=episodes,
        steps=episodes * longest,
        states=states,
        new_tokens=sampled.new_tokens,
        teacher_calls=asking * calls,
        judge_calls=sampled.judge_calls,
    )


def _sampled(config: Config, states: int) -> Work:
    """Work of sampling, and where a judge scores, of judging ``candidates.k`` actions in so many states."""
    samples = states * config.candidates.k
    judged = states if config.candidates.scored_by == "judge" else 0
    return Work(states=states, new_tokens=samples * config.slm.max_action_tokens, judge_calls=judged)


_WORK: dict[str, Callable[[Config, Tasks], Work]] = {
    "task_suite": _task_suite,
    "train_teacher": _train_teacher,
    "collect": _collect,
    "perturb": _perturb,
    "train_bc": _training("bc"),
    "policy_rollouts": _policy_rollouts,
    "train_verifier": _training("verifier"),
    "candidates": _candidates,
    "train_dpo": _training("dpo"),
    "router_features": _router_features,
    "train_router": _train_router,
    "evaluate_clean": _evaluate_clean,
    "evaluate_noisy": _evaluate_noisy,
}
