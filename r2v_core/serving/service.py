"""One request is one step: the conversation as a live episode, routed as an evaluation routes it, and logged."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal

from r2v_core.agent.guarded import GuardedEnvironment
from r2v_core.agent.live import Choice, Job, Live
from r2v_core.agent.proposer import Proposal
from r2v_core.agent.routed import RoutedAgent
from r2v_core.benchmarks.base import Environment, Outcome, Task
from r2v_core.errors import R2VError, TransientError
from r2v_core.runs.memory import Memory
from r2v_core.serving.conversation import Conversation, read_conversation
from r2v_core.serving.decisions import DecisionLog
from r2v_core.serving.episodes import Episodes
from r2v_core.teachers.budget import BudgetSpent
from r2v_core.teachers.names import IN_PROCESS
from r2v_core.trajectory import Decision, Step

METHOD = "r2v"
LIMITS = "teacher.limits"
"""Why an escalation was refused, where the server's own budget is used up; that of an episode is called ``budget``."""


class Unanswered(Exception):
    """The teacher was to act and gave no action."""

    def __init__(self, message: str, why: Literal["refused", "unavailable", "failed"]) -> None:
        super().__init__(message)
        self.why = why
        """``refused``: what this conversation says; ``unavailable``: for now; ``failed``: whatever is asked."""


@dataclass(frozen=True)
class Answer:
    """A decided step."""

    episode: str
    step: int
    choice: Choice
    decision: Decision
    teacher_calls: int
    """Steps of the episode that the teacher has played, this one included."""

    def facts(self) -> dict[str, Any]:
        """How it was decided, without a word of what was said."""
        return {
            "episode": self.episode,
            "step": self.step,
            "actor": self.choice.actor,
            "score": self.decision.probability,
            "threshold": self.decision.threshold,
            "escalate": self.decision.escalate,
            "blocked": self.decision.blocked,
            "teacher_calls": self.teacher_calls,
            "tokens_in": self.choice.tokens_in,
            "tokens_out": self.choice.tokens_out,
            "cost": self.choice.cost,
            "cost_usd": self.choice.cost_usd,
        }


class Service:
    """Small model, router and teacher, asked for one action at a time.

    Many threads may ask. The small model works for one of them at a time, and so does a teacher in this process; a
    teacher behind an API is asked for several.
    """

    def __init__(
        self,
        name: str,
        agent: RoutedAgent,
        benchmark: str,
        max_steps: int,
        decisions: DecisionLog,
        log: Callable[[str], None],
    ) -> None:
        """``agent`` has the rule :data:`METHOD`, and the benchmark's instructions for chats without any."""
        self.name = name
        self.agent = agent
        self.benchmark = benchmark
        self.max_steps = max_steps
        self.decisions = decisions
        self.log = log
        self.episodes = Episodes()
        self._model = threading.Lock()
        self._teacher = threading.Lock() if agent.teacher.provider in IN_PROCESS else nullcontext()
        self._told = False

    def answer(self, messages: Any, name: str | None) -> Answer:
        """The next action of a conversation.

        Args:
            messages: of the request, as JSON gave them.
            name: of the episode, where the client has one.

        Raises:
            BadMessages: if they are no conversation of an agent.
            Unanswered: if the teacher was to act and gave no action.
        """
        began = time.perf_counter()
        conversation = read_conversation(messages)
        live = self._live(conversation, name)
        agent = self.agent
        if conversation.instructions is not None:
            agent = replace(agent, instructions=conversation.instructions)
        with self._model:
            agent.proposer.memory = Memory(Proposal)  # nothing is kept of one request for the next
            (routed,) = agent.routed([live])
        failed: Unanswered | None = None
        try:
            choice = self._advised(agent, live, routed)
        except Unanswered as error:
            choice, failed = routed, error
        decision = choice.decision
        assert decision is not None  # the rule asks the small model at every step
        calls = live.teacher_calls + (choice.actor == "teacher" and failed is None)
        found = Answer(live.job.episode_id, live.step, choice, decision, calls)
        latency = round(time.perf_counter() - began, 6)
        facts = found.facts() | {"latency_s": latency, "features": decision.features}
        if failed is not None:
            facts |= {"error": failed.why}
        elif choice.malformed is not None:
            facts |= {"malformed": choice.malformed}
        said = {
            "messages": messages,
            "candidates": [candidate.text for candidate in decision.candidates],
            "action": None if failed else choice.action,
            **({"problem": str(failed)} if failed else {}),
        }
        self.decisions.write(facts, said)
        if failed is not None:
            raise failed
        self.episodes.remember(conversation, name, _step(live, choice, decision))
        return found

    def _live(self, conversation: Conversation, name: str | None) -> Live:
        """The episode as an evaluation without noise has it, at the step that wants an action."""
        episode = name or conversation.prefixes[0]
        task = Task(
            task_id=episode,
            template_id=episode,
            benchmark=self.benchmark,
            family="served",
            goal=conversation.goal,
            split="test",
            max_steps=self.max_steps,
            content="",
        )
        seen = conversation.observations[-1]
        return Live(
            job=Job(episode, task, method=METHOD),
            environment=GuardedEnvironment(episode, task, _elsewhere),
            outcome=Outcome(observation=seen),
            seen=seen,
            history=self.episodes.history(conversation, name),
        )

    def _advised(self, agent: RoutedAgent, live: Live, routed: Choice) -> Choice:
        """The choice with the teacher's action, if it is to act; the small model's where the budget is used up.

        Raises:
            Unanswered: if there is no action of the teacher.
        """
        try:
            with self._teacher:
                (choice,) = agent.advised([live], [routed])
        except BudgetSpent as spent:
            if not self._told:
                self._told = True
                self.log(f"{spent}; until then the small model plays on")
            assert routed.decision is not None
            return replace(routed, actor="slm", decision=routed.decision.model_copy(update={"blocked": LIMITS}))
        except R2VError as error:
            raise Unanswered(str(error), "unavailable" if isinstance(error, TransientError) else "failed") from error
        if choice.error:
            raise Unanswered(choice.error, "refused")
        return choice


def _elsewhere(task: Task) -> Environment:
    """The environment of a served episode is the client's."""
    raise RuntimeError(f"the environment of {task.task_id} is not here")


def _step(live: Live, choice: Choice, decision: Decision) -> Step:
    """What is remembered of a decided step."""
    return Step(
        index=live.step,
        observation=live.seen,
        action=choice.action,
        actor=choice.actor,
        decision=Decision(method=METHOD, features=decision.features),
        cost=choice.cost,
        cost_usd=choice.cost_usd,
    )
