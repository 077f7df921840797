"""What operators share: their draws, and texts as words and sentences."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from r2v_core.digest import rng
from r2v_core.perturbations.base import StepContext, View
from r2v_core.trajectory import Observation, Perturbation

_SENTENCE = re.compile(r".+?(?:[.!?]+(?=\s)|\n|\Z)\s*", re.DOTALL)

Parts = tuple[str, str]
"""An observation as (feedback, state): the order in which the agent reads it."""


def fires(context: StepContext, operator: str, probability: float) -> np.random.Generator | None:
    """The operator's generator if it strikes at this moment, else None.

    It strikes with ``probability`` times the world's severity. The first draw decides, whatever the probability: an
    operator that strikes at p also strikes at every p' > p, and no operator's draws depend on another's.
    """
    if probability <= 0:
        return None
    generator = rng(context.z, context.task_id, context.step, operator)
    return generator if generator.random() < probability * context.severity else None


def change(view: View, family: str, operator: str, parts: Parts, **detail: Any) -> None:
    """Put new texts into ``view`` and record the operator, unless the texts are what they were."""
    if parts != (view.observation.feedback, view.observation.state):
        view.observation = Observation(feedback=parts[0], state=parts[1])
        view.records.append(Perturbation(family=family, operator=operator, detail=detail))


def parts_of(view: View) -> Parts:
    """The texts of the observation as it stands."""
    return view.observation.feedback, view.observation.state


def sentences(text: str) -> list[str]:
    """The sentences and lines of a text, each with the space after it; joined they are the text."""
    return _SENTENCE.findall(text)


def insert_sentence(text: str, sentence: str, share: float) -> str:
    """``text`` with a sentence more, between the two sentences at ``share`` ∈ [0, 1] of the way."""
    pieces = sentences(text)
    at = round(share * len(pieces))
    before, after = "".join(pieces[:at]), "".join(pieces[at:])
    gap = " " if before and not before[-1].isspace() else ""
    return f"{before}{gap}{sentence}{' ' if after else ''}{after}"


def how_many(share: float, n: int) -> int:
    """``share`` of ``n`` things, at least one where there is something and the share is not 0."""
    return min(n, max(1, round(share * n))) if share > 0 else 0


def replace_matches(
    parts: Parts, pattern: re.Pattern[str], share: float, generator: np.random.Generator, new: Callable[[], str]
) -> tuple[Parts, int]:
    """Replace a random ``share`` of all matches in both texts by ``new()``; the texts and the number replaced."""
    spans = [(part, match.span()) for part, text in enumerate(parts) for match in pattern.finditer(text)]
    n = how_many(share, len(spans))
    texts = list(parts)
    # From the end, so that earlier positions stay right.
    for i in sorted(generator.choice(len(spans), size=n, replace=False).tolist() if n else [], reverse=True):
        part, (start, end) = spans[i]
        texts[part] = texts[part][:start] + new() + texts[part][end:]
    return (texts[0], texts[1]), n


def pick(generator: np.random.Generator, choices: Sequence[str]) -> str:
    """One of ``choices``, uniformly."""
    return choices[int(generator.integers(len(choices)))]
