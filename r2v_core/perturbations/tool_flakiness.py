"""Tools that fail: calls that are not carried out, answers that are old or damaged."""

from __future__ import annotations

import re

from r2v_core.config import schema
from r2v_core.perturbations.base import StepContext, View
from r2v_core.perturbations.common import change, fires, parts_of, pick, replace_matches
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

_GARBAGE = "#%&*@?~^"
_VISIBLE = re.compile(r"\S")


class ToolFlakiness:
    """``timeout``, ``error``: the action is not carried out. ``stale``: the previous clean observation is shown.
    ``garbled``: characters are replaced.

    Where both failures strike, ``timeout`` is the one that is seen.
    """

    name = "tool_flakiness"
    operators = ("timeout", "error", "stale", "garbled")

    def __init__(self, config: schema.ToolFlakinessConfig) -> None:
        self.config = config

    def observe(self, context: StepContext, view: View) -> None:
        """Apply ``stale`` (nothing to show at the first step), then ``garbled``."""
        if context.previous is not None and fires(context, "stale", self.config.stale):
            change(view, self.name, "stale", (context.previous.feedback, context.previous.state))
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
