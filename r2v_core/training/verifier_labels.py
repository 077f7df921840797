"""What the verifier learns from: states with what the environment, or the small model's playing on, said of actions.

A label is a number in [0, 1]: 0 or 1 where one thing happened, the share of continuations that were won where several
were played. Such a soft label counts in everything (loss, balance, AUC, Brier score) as both classes at once, each by
its share.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from r2v_core.agent.continuations import CONTINUATIONS, ON_POLICY
from r2v_core.digest import rng
from r2v_core.models.verifier import HEADS
from r2v_core.training.examples import Renderer, states
from r2v_core.trajectory import Episode, Step

Label = float | None


@dataclass(frozen=True)
class LabelledState:
    """One prompt and its actions with what the environment said about each."""

    prompt: str
    template_id: str
    actions: tuple[str, ...]
    step: tuple[Label, ...]
    outcome: tuple[Label, ...]
    episode_id: str = ""
    """Of the episode as it was played; the same for all its perturbed copies."""
    on_policy: bool = False
    """Whether the small model had brought the state about."""


def step_labels(step: Step, expert: bool = True) -> dict[str, bool]:
    """Action → does it make progress at this state, for the actions of which the environment said so.

    These are the alternatives that were tried out, the action carried out, and the expert's action where the
    environment counts the expert's remaining actions (following it brings that number down by one). ``expert`` says
    whether ``expert_action`` is that expert's: another teacher may be wrong.
    """
    labels = dict(step.alternatives)
    if step.executed and step.progress is not None:
        labels.setdefault(step.action, step.progress)
    if expert and step.expert_action is not None and step.remaining is not None:
        labels.setdefault(step.expert_action, True)
    return labels


def outcome_label(episode: Episode, step: Step) -> Label:
    """Did the episode in which this action was carried out end in success; None where that says nothing.

    Known in episodes of the mode ``explore_all``, which one policy (half expert, half random) plays from start to end:
    there the verdict is a sample of how an episode goes on after this action. Where the teacher always finishes, every
    verdict is success whatever the action was, so those are no labels.
    """
    if episode.metadata.get("mode") == "explore_all" and step.executed:
        return episode.success
    return None


def outcome_labels(episode: Episode, step: Step) -> dict[str, float]:
    """Action → how an episode ends after it: its verdict where that says something, or the share of continuations."""
    label = outcome_label(episode, step)
    known = {} if label is None else {step.action: label}
    tried = episode.metadata.get(CONTINUATIONS, {}).get(str(step.index), {})
    return known | {action: won / played for action, (won, played) in tried.items()}


def label_states(episodes: Sequence[Episode], renderer: Renderer) -> list[LabelledState]:
    """Every state with at least one label, in episode order."""
    found = []
    for episode, index in states(episodes):
        step = episode.steps[index]
        known = step_labels(step, expert=episode.metadata.get("teacher_provider", "env") == "env")
        outcome = outcome_labels(episode, step)
        actions = sorted({*known, *outcome})
        if actions:
            found.append(
                LabelledState(
                    prompt=renderer.prompt(episode, index),
                    template_id=episode.template_id,
                    actions=tuple(actions),
                    step=tuple(known.get(action) for action in actions),
                    outcome=tuple(outcome.get(action) for action in actions),
                    episode_id=str(episode.metadata.get("source_episode_id", episode.episode_id)),
                    on_policy=episode.metadata.get("mode") == ON_POLICY,
                )
            )
    return found


def split_by_template(
    found: Sequence[LabelledState], share: float, seed: int
) -> tuple[list[LabelledState], list[LabelledState]]:
    """Training and held-out states; no template stands on both sides, and training keeps at least one."""
    templates = sorted({state.template_id for state in found})
    n = min(math.ceil(share * len(templates)), len(templates) - 1)
    held = {templates[i] for i in rng(seed, "verifier-validation").permutation(len(templates))[:n]}
    return [s for s in found if s.template_id not in held], [s for s in found if s.template_id in held]


def with_share(found: Sequence[LabelledState], share: float, seed: int) -> list[LabelledState]:
    """The states, those of the small model repeated or thinned at random until they are so large a share of all.

    The teacher's stay as they are. A collection is a few hundred states of the small model's beside thousands of the
    teacher's, and what it does in its own is what the scores are needed for.
    """
    own, others = ([s for s in found if s.on_policy is mine] for mine in (True, False))
    if not own or not others:
        return list(found)
    whole, rest = divmod(round(share / (1 - share) * len(others)), len(own))
    some = rng(seed, "verifier-share").permutation(len(own))[:rest]
    return [*others, *own * whole, *(own[i] for i in some)]


def shares(found: Sequence[LabelledState]) -> dict[str, tuple[int, float]]:
    """Head → (number of labels, share of positive ones)."""
    result = {}
    for head in HEADS:
        known = [label for state in found for label in getattr(state, head) if label is not None]
        result[head] = (len(known), sum(known) / len(known) if known else 0.0)
    return result


def class_episodes(found: Sequence[LabelledState]) -> dict[str, tuple[int, int]]:
    """Head → numbers of episodes in which the negative and the positive class occur; a soft label holds both."""
    result = {}
    for head in HEADS:
        known = [(s.episode_id, label) for s in found for label in getattr(s, head) if label is not None]
        negative = {episode_id for episode_id, label in known if label < 1}
        result[head] = (len(negative), len({episode_id for episode_id, label in known if label > 0}))
    return result
