"""What a server remembers of episodes: who played which step, which a conversation does not say."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator

from r2v_core.benchmarks.actions import headline
from r2v_core.serving.conversation import Conversation
from r2v_core.trajectory import Observation, Step

MOST = 20_000
"""Steps that are remembered; of more, those decided longest ago are forgotten."""


class Episodes:
    """Decided steps, found again by the conversation that led to them, or by the episode's name and the step's index.

    Of conversations without a name, equal ones are one episode: what is decided in them is the same. A request that is
    made again replaces its own step, so nothing counts twice. Thread-safe.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._steps: OrderedDict[str, Step] = OrderedDict()
        self._lock = threading.Lock()

    def history(self, conversation: Conversation, name: str | None) -> list[Step]:
        """The steps before the one that wants an action.

        Observations and actions are the conversation's, who played and what it cost is what is remembered. A step that
        nobody remembers counts as the small model's and free. What was seen at actions that are only named is known
        where the episode has a name.
        """
        return list(self._told(conversation, name))

    def remember(self, conversation: Conversation, name: str | None, step: Step) -> None:
        """Keep the step that a conversation wanted."""
        key = _key(conversation, name, step.index)
        with self._lock:
            self._steps[key] = step
            self._steps.move_to_end(key)
            while len(self._steps) > self._most:
                self._steps.popitem(last=False)

    def _told(self, conversation: Conversation, name: str | None) -> Iterator[Step]:
        for i, action in enumerate(conversation.unseen):
            known = self._known(_key(conversation, name, i)) if name else None
            if known is not None and headline(known.action) == headline(action):
                yield known
            else:
                yield Step(index=i, observation=Observation(state=""), action=action, actor="slm")
        shown = zip(conversation.observations, conversation.actions, strict=False)
        for i, (seen, action) in enumerate(shown, start=len(conversation.unseen)):
            known = self._known(_key(conversation, name, i))
            step = known or Step(index=i, observation=seen, action=action, actor="slm")
            yield step.model_copy(update={"observation": seen, "action": action})

    def _known(self, key: str) -> Step | None:
        with self._lock:
            return self._steps.get(key)


def _key(conversation: Conversation, name: str | None, index: int) -> str:
    return f"{name}\n{index}" if name else conversation.prefixes[index - len(conversation.unseen)]
