"""What the router sees of a step: 22 numbers that are known before anyone acts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from r2v_core.benchmarks.actions import normalise_action
from r2v_core.errors import R2VError, nearest
from r2v_core.trajectory import Candidate, Observation, Step

FEATURES: tuple[str, ...] = (
    "entropy",
    "verifier_spread",
    "verifier_mean",
    "verifier_std",
    "verifier_best",
    "verifier_worst",
    "logprob_best",
    "logprob_mean",
    "logprob_std",
    "consistency",
    "semantic_entropy",
    "horizon_fraction",
    "step",
    "context_length",
    "goal_length",
    "logprob_chosen",
    "verifier_chosen",
    "state_seen",
    "action_repeated",
    "unchanged",
    "vain_calls",
    "ungrounded",
)
"""Names in the order in which every vector and matrix of features holds them."""

UNSCORED = 0.5
"""Verifier score of a candidate where no verifier is used: the same everywhere, so it says nothing."""


def features(
    candidates: Sequence[Candidate],
    chosen: int,
    history: Sequence[Step],
    seen: Observation,
    max_steps: int,
    context_tokens: int,
    goal_tokens: int,
) -> dict[str, float]:
    """The 22 features of one step, in the order of :data:`FEATURES`.

    - ``entropy``: mean over the candidates of their mean next-token entropy (:mod:`r2v_core.models.entropy`), nats.
    - ``verifier_*``: best, worst, spread (best − worst), mean and population standard deviation of the verifier's
      scores; without a verifier all scores count as 0.5.
    - ``logprob_*``: of log π(a|x), the *sum* over the action's tokens, nats. Not normalised by length: what is
      uncertain about an action is mostly one token (which door, which object), and dividing by the length would make
      the same doubt look smaller in a longer action.
    - ``consistency``: share of the candidates that are the most frequent action.
    - ``semantic_entropy``: see :func:`semantic_entropy`.
    - ``horizon_fraction``: ``step / max_steps``; ``context_length`` and ``goal_length`` in tokens.
    - ``logprob_chosen`` and ``verifier_chosen``: of the candidate that the small model would play.
    - ``state_seen``, ``action_repeated``, ``unchanged``: see :func:`loops`; ``vain_calls``: see :func:`vain_calls`;
      ``ungrounded``: see :func:`ungrounded`.

    Args:
        candidates: the K proposals of the small model, K ≥ 1.
        chosen: index of the candidate that would be played.
        history: the episode's steps so far.
        seen: what the agent sees now.
        max_steps: steps after which the episode is cut.
        context_tokens: length of the prompt.
        goal_tokens: length of the goal.

    Raises:
        ValueError: if there is no candidate, or only some of them were scored.
    """
    if not candidates:
        raise ValueError("features need at least one candidate")
    scored = [candidate.score for candidate in candidates]
    if None in scored and any(score is not None for score in scored):
        raise ValueError("either all candidates of a step carry verifier scores, or none")
    scores = np.array([UNSCORED if score is None else score for score in scored])
    logprobs = np.array([candidate.logprob for candidate in candidates])
    counts = Counter(normalise_action(candidate.text) for candidate in candidates)
    step = len(history)
    values = (
        np.mean([candidate.entropy for candidate in candidates]),
        scores.max() - scores.min(),
        scores.mean(),
        scores.std(),
        scores.max(),
        scores.min(),
        logprobs.max(),
        logprobs.mean(),
        logprobs.std(),
        max(counts.values()) / len(candidates),
        semantic_entropy(candidates),
        step / max_steps,
        step,
        context_tokens,
        goal_tokens,
        logprobs[chosen],
        scores[chosen],
        *loops(history, seen, candidates[chosen].text),
        vain_calls(history, seen),
        ungrounded(candidates[chosen].text, seen),
    )
    return {name: float(value) for name, value in zip(FEATURES, values, strict=True)}


def loops(history: Sequence[Step], seen: Observation, action: str) -> tuple[int, int, int]:
    """How far an episode goes round in circles, from what the agent saw alone.

    Returns:
        ``state_seen``: earlier steps at which the state shown was the one shown now; ``action_repeated``: earlier steps
        at which this action was carried out; ``unchanged``: steps just before this one that left what is shown alone.
    """
    now = [step.observation.state == seen.state for step in history]
    unchanged = next((i for i, same in enumerate(reversed(now)) if not same), len(now))
    wanted = normalise_action(action)
    repeated = sum(step.executed and normalise_action(step.action) == wanted for step in history)
    return sum(now), repeated, unchanged


def standing_still(history: Sequence[Step], seen: Observation) -> list[Step]:
    """Earlier steps whose action was carried out in the state that is shown now and visibly changed nothing.

    Uses only what the agent saw: a step counts if its action was executed (a tool error says nothing of it) and the
    state shown before and after it is the one shown now.
    """
    shown = [step.observation.state for step in history] + [seen.state]
    return [
        step
        for step, before, after in zip(history, shown, shown[1:], strict=False)
        if step.executed and before == after == seen.state
    ]


def vain_calls(history: Sequence[Step], seen: Observation) -> int:
    """How often the teacher has played in the state that is shown now without visibly changing it."""
    return sum(step.actor == "teacher" for step in standing_still(history, seen))


def ungrounded(action: str, seen: Observation) -> float:
    """Share of an action's different words that are not in what the agent is shown now; 0 for one without words.

    A small model that has learnt what actions look like names things that are not there; noise hides things that are.
    """
    words = _words(action)
    return len(words - _words(f"{seen.state} {seen.feedback}")) / len(words) if words else 0.0


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def semantic_entropy(candidates: Sequence[Candidate]) -> float:
    """Entropy over clusters of actions that mean the same, nats, in [0, ln K] (Kuhn et al. 2023).

    A cluster is a set of equal normalised texts: actions are commands, so no entailment model is needed. A cluster
    weighs the probability mass of its distinct sampled texts, normalised over the sampled clusters (the
    Rao-Blackwellised estimate of Farquhar et al. 2024). With K = 4 samples, counts alone would take only five values
    and repeat what ``consistency`` says.
    """
    clusters: dict[str, dict[str, float]] = {}
    for candidate in candidates:
        clusters.setdefault(normalise_action(candidate.text), {})[candidate.text] = candidate.logprob
    masses = np.array([np.logaddexp.reduce(list(texts.values())) for _, texts in sorted(clusters.items())])
    shares = np.exp(masses - np.logaddexp.reduce(masses))
    positive = shares[shares > 0]
    return abs(float(np.sum(positive * np.log(positive))))


def choose_features(names: Sequence[str]) -> tuple[str, ...]:
    """The configured subset in the order of :data:`FEATURES`; all where the list is empty.

    Raises:
        R2VError: for an unknown name.
    """
    for name in names:
        if name not in FEATURES:
            raise R2VError(f"training.router.features: unknown feature '{name}'.{nearest(name, FEATURES)}")
    return tuple(name for name in FEATURES if name in names) if names else FEATURES


def feature_matrix(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> NDArray[np.float32]:
    """Rows of features as a matrix of shape (n, len(names)).

    Raises:
        R2VError: if a row lacks a feature or holds a value that is not finite.
    """
    try:
        matrix = np.array([[row[name] for name in names] for row in rows], dtype=np.float32).reshape(-1, len(names))
    except KeyError as error:
        raise R2VError(f"a row of router features has no {error}; materialise 'router_features' again") from None
    bad = np.argwhere(~np.isfinite(matrix))
    if bad.size:
        row, column = bad[0]
        raise R2VError(
            f"feature '{names[column]}' of row {row} is {matrix[row, column]}; materialise 'router_features' again"
        )
    return matrix
