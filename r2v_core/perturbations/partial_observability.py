"""Observations with parts missing."""

from __future__ import annotations

import re

from r2v_core.config import schema
from r2v_core.perturbations import tree
from r2v_core.perturbations.base import StepContext, View
from r2v_core.perturbations.common import change, fires, how_many, parts_of, replace_matches, sentences
from r2v_core.trajectory import Observation, Perturbation

HIDDEN = "[hidden]"
"""What stands in for a masked word."""

_WORD = re.compile(r"\w+(?:['\u2019-]\w+)*")


class PartialObservability:
    """``truncate``: the end of each text is missing. ``mask``: words are hidden. ``drop_sentences``: sentences are
    missing, never all of them.

    On a web page ``mask`` strips elements of name, value and properties, and ``drop_sentences`` hides elements.
    """

    name = "partial_observability"
    operators = ("truncate", "mask", "drop_sentences")

    def __init__(self, config: schema.PartialObservabilityConfig) -> None:
        self.config = config

    def observe(self, context: StepContext, view: View) -> None:
        """Apply the operators in the order of their names above."""
        if fires(context, "truncate", self.config.truncate):
            feedback, state = parts_of(view)
            share = self.config.keep_share
            change(view, self.name, "truncate", (_keep(feedback, share), _keep(state, share)), keep_share=share)
        if (draws := fires(context, "mask", self.config.mask)) and tree.is_tree(view.observation.state):
            feedback, state = parts_of(view)
            state, n = tree.strip(state, self.config.mask_share, draws)
            change(view, self.name, "mask", (feedback, state), elements=n)
        elif draws:
            parts, n = replace_matches(parts_of(view), _WORD, self.config.mask_share, draws, lambda: HIDDEN)
            change(view, self.name, "mask", parts, words=n)
        draws = fires(context, "drop_sentences", self.config.drop_sentences)
        if draws and tree.is_tree(view.observation.state):
            feedback, state = parts_of(view)
            state, n = tree.hide(state, self.config.drop_share, draws)
            change(view, self.name, "drop_sentences", (feedback, state), elements=n)
        elif draws:
            said, described = (sentences(text) for text in parts_of(view))
            total = len(said) + len(described)
            n = min(how_many(self.config.drop_share, total), max(total - 1, 0))
            gone = set(draws.choice(total, size=n, replace=False).tolist()) if n else set()
            kept = [
                "".join(sentence for i, sentence in enumerate(part, start) if i not in gone)
                for part, start in ((said, 0), (described, len(said)))
            ]
            change(view, self.name, "drop_sentences", (kept[0], kept[1]), sentences=n)

    def intercept(self, context: StepContext, action: str) -> tuple[Observation, Perturbation] | None:
        """Never: this family only changes what is seen."""
        return None


def _keep(text: str, share: float) -> str:
    """The first ``share`` of a text's words (rounded), then an ellipsis."""
    words = list(re.finditer(r"\S+", text))
    n = round(share * len(words))
    if n >= len(words):
        return text
    return f"{text[: words[n - 1].end()]} …" if n else "…"
