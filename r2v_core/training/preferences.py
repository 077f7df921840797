"""From ranked candidates to preference pairs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Literal

from pydantic import Field

from r2v_core.digest import rng
from r2v_core.errors import R2VError
from r2v_core.trajectory import Candidate, Record, version_field

PAIRS_PER_STATE = 2
SCORE_MARGIN = 0.1
"""Verifier scores closer than this are no preference."""
MIN_PAIRS = 4


class CandidateRow(Record):
    """One state of the candidates stage: K proposals in a perturbed context, judged and scored."""

    schema_version: int = version_field("CandidateRow")
    episode_id: str
    task_id: str
    step: int = Field(ge=0, description="index of the step in the episode")
    z: int | None = Field(description="perturbation seed; None for a clean state")
    prompt: str
    expert_action: str | None = None
    candidates: list[Candidate]


@dataclass(frozen=True)
class Pair:
    """At ``prompt``, ``chosen`` is better than ``rejected``."""

    prompt: str
    chosen: str
    rejected: str
    template_id: str = ""
    """Of the task that the prompt is from."""


def make_pairs(
    rows: Sequence[CandidateRow],
    rank_by: Literal["environment", "verifier"],
    seed: int,
    templates: Mapping[str, str] = MappingProxyType({}),
) -> list[Pair]:
    """Preference pairs, at most ``PAIRS_PER_STATE`` a state, in the order of ``rows``.

    ``environment``: an action that makes progress against one that does not; where no candidate does, the expert's
    action is the better one. Where the environment can't tell about any candidate, and for ``verifier`` everywhere, the
    verifier's best candidate stands against worse ones, if their scores differ by ``SCORE_MARGIN``.

    Args:
        rows: states with judged and scored candidates.
        rank_by: who says which of two actions is better.
        seed: of the choice among a state's pairs.
        templates: task → its template; a task that is not there is one of its own.

    Raises:
        R2VError: if fewer than ``MIN_PAIRS`` come out, saying why.
    """
    pairs = []
    for row in rows:
        judged = rank_by == "environment" and any(c.progress is not None for c in row.candidates)
        options = _by_environment(row) if judged else _by_verifier(row)
        draw = rng(seed, "preferences", row.episode_id, row.step)
        picked = sorted(draw.permutation(len(options))[:PAIRS_PER_STATE].tolist())
        template = templates.get(row.task_id, row.task_id)
        pairs += [Pair(row.prompt, better, worse, template) for better, worse in (options[i] for i in picked)]
    if len(pairs) < MIN_PAIRS:
        raise R2VError(_too_few(rows, len(pairs), rank_by))
    return pairs


def _by_environment(row: CandidateRow) -> list[tuple[str, str]]:
    good = sorted({c.text for c in row.candidates if c.progress is True})
    bad = sorted({c.text for c in row.candidates if c.progress is False} - set(good))
    if not good and row.expert_action is not None:
        good = [row.expert_action]
    return [(better, worse) for better, worse in product(good, bad) if better != worse]


def _by_verifier(row: CandidateRow) -> list[tuple[str, str]]:
    scores = {c.text: c.score for c in row.candidates if c.score is not None}
    if not scores:
        return []
    best = max(scores, key=lambda text: (scores[text], text))
    return [(best, text) for text in sorted(scores) if scores[best] - scores[text] >= SCORE_MARGIN]


def _too_few(rows: Sequence[CandidateRow], n: int, rank_by: str) -> str:
    known = [c.progress for row in rows for c in row.candidates if c.progress is not None]
    if known and all(known):
        why = "every candidate makes progress, so there is nothing to prefer: raise candidates.temperature, the "
        why += "perturbations' probabilities, or the benchmark's difficulty"
    elif known and rank_by == "environment":
        why = (
            "too few states with a wrong candidate: raise candidates.max_states, candidates.k or candidates.temperature"
        )
    else:
        why = f"candidates' verifier scores differ by less than {SCORE_MARGIN}: raise candidates.k or "
        why += "candidates.temperature, or train the verifier longer (training.verifier.max_steps)"
    return f"preference pairs: only {n} from {len(rows)} states, at least {MIN_PAIRS} are needed; {why}"
