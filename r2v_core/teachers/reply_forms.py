"""Forms in which chat models wrap an action: a JSON object, ReAct's thought and action."""

from __future__ import annotations

import json
import re

_ACTION_KEYS = ("action", "next_action", "command", "answer")


def json_action(text: str) -> tuple[str, str | None] | None:
    """The action in a reply that is a JSON object, and what is wrong with it; None if it is no such reply."""
    if not (text.startswith("{") and text.endswith("}")):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    for key in _ACTION_KEYS:
        if isinstance(found.get(key), str) and found[key].strip():
            return found[key].strip(), None
    return "", "the JSON object holds no action as text"


_STEP = re.compile(r"(?:^|\n|(?<=[.!?;] ))[ \t>*_#-]*(?:next |my )?action(?: \d+)?\s*[*_]*\s*:[*_ \t]*", re.IGNORECASE)
_THOUGHT = re.compile(
    r"\A[ \t>*_#-]*(?:thought|reasoning|think|plan|observation|reason)s?(?: \d+)?\s*[*_]*\s*:", re.IGNORECASE
)
_AFTERWARDS = re.compile(
    r"\n[ \t>*_#-]*(?:observation|thought|action input|result)(?: \d+)?\s*[*_]*\s*:.*\Z", re.DOTALL | re.IGNORECASE
)


def react_action(text: str) -> tuple[str, str | None] | None:
    """The action of a reply in ReAct's form (``Thought: … Action: …``); None if it is not in that form.

    What the model imagines to come of it (``Observation: …``) is left out, and so are further actions.
    """
    if not _THOUGHT.match(text):
        return None
    first = _STEP.search(text)
    if first is None:
        return "", "a thought without an action"
    said = text[first.end() :]
    if re.search(r"\n[ \t*_]*action input\s*[*_]*\s*:", said, re.IGNORECASE):
        return "", "an action with an input of its own; write the whole action in one line"
    return _AFTERWARDS.sub("", said).strip(), None
