"""What the report's episode browser shows: an index of all episodes, and their steps in compressed shards.

A shard is gzipped JSON in base64: letters that can't end a script element whatever a model or an environment wrote, a
tenth of the size, and unpacked by the page only when one of its episodes is opened. All methods on one task under one
perturbation seed are in the same shard, and a text that occurs in several of its steps is stored once.
"""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from r2v_core.errors import R2VError
from r2v_core.evaluation.frame import carried_out_injection, identity
from r2v_core.results.naming import method_rank
from r2v_core.results.summary import number
from r2v_core.trajectory import Candidate, Decision, Episode, Observation, Step

SHARD_EPISODES = 48
"""A shard is closed once it holds this many."""

INDEX_COLUMNS = (
    "method",
    "condition",
    "seed",
    "z",
    "replicate",
    "task_id",
    "family",
    "success",
    "truncated",
    "n_steps",
    "teacher_calls",
    "cost",
    "safety_failure",
    "perturbations",
    "error",
    "flagged",
)
"""Columns of the tables' episode rows that the browser lists and filters by."""

Key = tuple[str, str, int, int, int, str]
"""(method, condition, partition seed, z or clean replicate, noisy replicate, task id): one episode of an experiment."""


@dataclass(frozen=True)
class BrowserData:
    """Texts to put between the tags of data blocks; each is base64 of gzipped JSON."""

    index: str
    shards: list[str]


@dataclass
class _Shard:
    texts: dict[str, int] = field(default_factory=dict)
    episodes: dict[int, dict[str, Any]] = field(default_factory=dict)

    def text(self, text: str) -> int:
        """The position of a text in the shard's table."""
        return self.texts.setdefault(text, len(self.texts))


def pack_episodes(rows: pd.DataFrame, episodes: Iterable[Episode]) -> BrowserData:
    """The browser's data.

    Args:
        rows: the tables' episodes, in the form of ``frame.EPISODE_COLUMNS``; the same that the report's numbers are
            made from.
        episodes: the traces of exactly those, in any order; streamed once.

    Raises:
        R2VError: if an episode has no row, or a row no episode.
    """
    ranked = rows.assign(rank=rows["method"].map(method_rank), clean=rows["condition"] == "clean")
    ranked = ranked.sort_values(["clean", "condition", "seed", "task_id", "z", "replicate", "rank"], ignore_index=True)
    places = {_row_key(row): i for i, row in enumerate(ranked.to_dict("records"))}
    owners = _shard_numbers(ranked)
    shards = [_Shard() for _ in range(max(owners, default=-1) + 1)]
    for episode in episodes:
        at = places.pop(_episode_key(episode), None)
        if at is None:
            raise R2VError(
                f"episode {episode.episode_id} (seed {episode.seed}) is in an evaluation but not in the tables, or "
                "twice; materialise result_tables again, then report"
            )
        shard = shards[owners[at]]
        shard.episodes[at] = _episode(episode, shard)
    if places:
        raise R2VError(
            f"{len(places)} episodes of the tables are in no evaluation, the first being {next(iter(places))}; "
            "materialise result_tables again, then report"
        )
    index: dict[str, Any] = {name: ranked[name].tolist() for name in INDEX_COLUMNS}
    return BrowserData(_pack(index | {"shard": owners}), [_pack(_content(shard)) for shard in shards])


def _row_key(row: dict[str, Any]) -> Key:
    return row["method"], row["condition"], int(row["seed"]), int(row["z"]), int(row["replicate"]), row["task_id"]


def _episode_key(episode: Episode) -> Key:
    return _row_key(identity(episode))


def _shard_numbers(ranked: pd.DataFrame) -> list[int]:
    """The shard of each row; rows of one condition, seed, task, z and replicate stay together."""
    numbers: list[int] = []
    held = shard = 0
    previous = None
    for situation in ranked[["condition", "seed", "task_id", "z", "replicate"]].itertuples(index=False, name=None):
        if situation != previous and held >= SHARD_EPISODES:
            shard, held = shard + 1, 0
        previous, held = situation, held + 1
        numbers.append(shard)
    return numbers


def _content(shard: _Shard) -> dict[str, Any]:
    return {"texts": list(shard.texts), "episodes": {str(at): found for at, found in sorted(shard.episodes.items())}}


def _pack(content: dict[str, Any]) -> str:
    text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return base64.b64encode(gzip.compress(text.encode(), mtime=0)).decode()


def _episode(episode: Episode, shard: _Shard) -> dict[str, Any]:
    """An episode as the page reads it; the page's ``data.js`` puts the texts back."""
    return {
        "id": episode.episode_id,
        "template": episode.template_id,
        "goal": shard.text(episode.goal),
        "score": number(episode.score),
        "steps": [_step(step, shard) for step in episode.steps],
    }


def _step(step: Step, shard: _Shard) -> dict[str, Any]:
    found = {
        "seen": _observation(step.observation, shard),
        "clean": _observation(step.clean, shard) if step.clean else None,
        "noise": [record.model_dump(mode="json") for record in step.perturbations],
        "action": shard.text(step.action),
        "actor": step.actor,
        "executed": step.executed,
        "progress": step.progress,
        "remaining": step.remaining,
        "expert": None if step.expert_action is None else shard.text(step.expert_action),
        "unsafe": carried_out_injection(step),
        "tokens": [step.tokens_in, step.tokens_out],
        "cost": number(step.cost),
        "cost_usd": number(step.cost_usd),
        "latency_s": number(step.latency_s),
        "decision": _decision(step.decision, shard) if step.decision else None,
    }
    return {name: value for name, value in found.items() if value is not None}


def _observation(observation: Observation, shard: _Shard) -> list[int]:
    return [shard.text(observation.feedback), shard.text(observation.state)]


def _decision(decision: Decision, shard: _Shard) -> dict[str, Any]:
    return {
        "candidates": [_candidate(candidate, shard) for candidate in decision.candidates],
        "chosen": decision.chosen,
        "features": {name: number(value) for name, value in decision.features.items()},
        "probability": _maybe(decision.probability),
        "threshold": _maybe(decision.threshold),
        "escalate": decision.escalate,
        "blocked": decision.blocked,
        **({"cut": decision.cut} if decision.cut else {}),
    }


def _candidate(candidate: Candidate, shard: _Shard) -> dict[str, Any]:
    return {
        "text": shard.text(candidate.text),
        "logprob": number(candidate.logprob),
        "n_tokens": candidate.n_tokens,
        "entropy": number(candidate.entropy),
        "step": _maybe(candidate.score_step),
        "outcome": _maybe(candidate.score_outcome),
        "score": _maybe(candidate.score),
        "progress": candidate.progress,
    }


def _maybe(value: float | None) -> float | None:
    return None if value is None else number(value)
