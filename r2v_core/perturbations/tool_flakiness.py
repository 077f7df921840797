"""Tools that fail: calls that are not carried out, answers that are old or damaged."""

from __future__ import annotations

import re

import numpy as np

from r2v_core.config import schema
from r2v_core.perturbations import listing, tree
from r2v_core.perturbations.base import StepContext, View
from r2v_core.perturbations.common import Parts, change, fires, parts_of, pick, replace_matches
from r2v_core.trajectory import Observation, Perturbation

MESSAGES = {
    "timeout": (
        "Error: the request timed out after 30 seconds. Nothing was done.",
        "Timeout: no answer from the environment. The action was not carried out.",
        "504 Gateway Timeout. The action did not reach the environment.",
    ),
    "error": (
        "Error: the tool failed. The action was not carried out.",
        "500 Internal Server Error. The action could not be executed.",
        "Tool error: connection reset by peer. Nothing was done.",
    ),
}
"""What the agent reads instead of a result."""

BROKEN = (
    "[connection lost: the rest of the answer did not arrive]",
    "[transfer interrupted, the output is incomplete]",
    "[the response ended early: unexpected end of stream]",
)
"""What stands where an answer breaks off."""

_GARBAGE = "#%&*@?~^"
_VISIBLE = re.compile(r"\S")
_NUMBER = re.compile(r"(?<![\w.\[])\d{1,15}(?:\.\d{1,6})?(?![\w\]])")
"""A number that is a value: no part of a word or version, no id in brackets."""


class ToolFlakiness:
    """``timeout``, ``error``: the action is not carried out. ``stale``: the previous clean observation is shown.
    ``numeric_drift``: numbers are off. ``result_shuffle``: lists in another order, entries missing. ``partial``: the
    text breaks off, and says so. ``garbled``: characters are replaced.

    Where both failures strike, ``timeout`` is the one that is seen. On a web page ``result_shuffle`` hides and reorders
    elements.
    """

    name = "tool_flakiness"
    operators = ("timeout", "error", "stale", "garbled", "partial", "result_shuffle", "numeric_drift")

    def __init__(self, config: schema.ToolFlakinessConfig) -> None:
        self.config = config

    def observe(self, context: StepContext, view: View) -> None:
        """Apply ``stale`` (nothing to show at the first step), then what alters the answer, then ``garbled``."""
        if context.previous is not None and fires(context, "stale", self.config.stale):
            change(view, self.name, "stale", (context.previous.feedback, context.previous.state))
        if draws := fires(context, "numeric_drift", self.config.numeric_drift):
            parts, n = _drift(parts_of(view), self.config.drift_share, draws)
            change(view, self.name, "numeric_drift", parts, numbers=n)
        if draws := fires(context, "result_shuffle", self.config.result_shuffle):
            parts, n = _lose_results(parts_of(view), self.config.lost_share, draws)
            change(view, self.name, "result_shuffle", parts, lost=n)
        if draws := fires(context, "partial", self.config.partial):
            share = float(draws.uniform(0.3, 0.8))
            change(view, self.name, "partial", _break_off(parts_of(view), share, pick(draws, BROKEN)), share=share)
        if draws := fires(context, "garbled", self.config.garbled):
            parts, n = replace_matches(
                parts_of(view), _VISIBLE, self.config.garble_share, draws, lambda: pick(draws, _GARBAGE)
            )
            change(view, self.name, "garbled", parts, characters=n)

    def intercept(self, context: StepContext, action: str) -> tuple[Observation, Perturbation] | None:
        """An error text as feedback and the state as it is, if the call fails.

        Raises:
            ValueError: if ``context.current`` is missing (a mistake of the caller).
        """
        if context.current is None:
            raise ValueError("StepContext.current has to be set to intercept an action")
        for operator, probability in (("timeout", self.config.timeout), ("error", self.config.error)):
            if draws := fires(context, operator, probability):
                message = pick(draws, MESSAGES[operator])
                record = Perturbation(
                    family=self.name, operator=operator, detail={"action": action, "message": message}
                )
                return Observation(state=context.current.state, feedback=message), record
        return None


def _drift(parts: Parts, share: float, draws: np.random.Generator) -> tuple[Parts, int]:
    """Each number multiplied by a factor of its own from [1 - share, 1 + share], digits after the point as before.

    A whole number that would stay what it is moves by one. The texts, and how many numbers there are.
    """
    count = 0

    def other(match: re.Match[str]) -> str:
        nonlocal count
        count += 1
        digits = len(match[0].partition(".")[2])
        value = float(match[0]) * float(draws.uniform(1 - share, 1 + share))
        changed = f"{value:.{digits}f}"
        return changed if changed != match[0] or digits else str(int(match[0]) + 1)

    feedback, state = (_NUMBER.sub(other, text) if share > 0 else text for text in parts)
    return (feedback, state), count


def _lose_results(parts: Parts, share: float, draws: np.random.Generator) -> tuple[Parts, int]:
    """Lists in both texts, or a page's elements, in another order and without a ``share`` of them."""
    feedback, state = parts
    if tree.is_tree(state):
        state, n = tree.hide(tree.reorder(state, draws), share, draws)
        return (feedback, state), n
    feedback, first = listing.lose_entries(feedback, share, draws)
    state, second = listing.lose_entries(state, share, draws)
    return (feedback, state), first + second


def _break_off(parts: Parts, share: float, notice: str) -> Parts:
    """The first ``share`` of all characters, to the end of a word (of a line on a page), then ``notice``."""
    feedback, state = parts
    left = round(share * (len(feedback) + len(state)))
    if not feedback.strip() and not state.strip():
        return parts
    if left < len(feedback):
        return _to_word(feedback, left, notice), ""
    if tree.is_tree(state):
        kept = state[: left - len(feedback)].rpartition("\n")[0]
        return feedback, f'{kept}\ntext "{notice}"'.lstrip("\n")
    return feedback, _to_word(state, left - len(feedback), notice)


def _to_word(text: str, length: int, notice: str) -> str:
    kept = text[:length] if text[length : length + 1].isspace() else re.sub(r"\S+\Z", "", text[:length])
    return f"{kept.rstrip()}\n{notice}".lstrip("\n")
