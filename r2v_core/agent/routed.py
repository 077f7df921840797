"""The routed agent: K candidates → verifier → router → the small model or the teacher acts."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from transformers import PreTrainedTokenizerBase

from r2v_core.agent.features import features
from r2v_core.agent.loop import Choice, Live
from r2v_core.agent.proposer import Proposal, Proposer, best_candidate
from r2v_core.agent.rules.base import RoutingContext, RoutingDecision, Rule
from r2v_core.agent.rules.table import proposes
from r2v_core.config.schema import AgentConfig, SLMConfig
from r2v_core.models.prompt import count_tokens, render_prompt
from r2v_core.teachers.base import Advice, Situation, Teacher
from r2v_core.trajectory import Candidate, Decision


@dataclass
class RoutedAgent:
    """The driver of evaluation and router features: each episode is routed by the rule of its job's method."""

    proposer: Proposer
    teacher: Teacher
    rules: Mapping[str, Rule]
    agent: AgentConfig
    slm: SLMConfig
    instructions: str

    def decide(self, live: Sequence[Live]) -> list[Choice]:
        """Propose for all at once, route each, ask the teacher for all escalated at once."""
        proposals = self._propose(live)
        choices = [self._route(one, proposals.get(i)) for i, one in enumerate(live)]
        escalated = [i for i, choice in enumerate(choices) if choice.actor == "teacher"]
        if escalated:
            advice = self.teacher.act([self._situation(live[i]) for i in escalated])
            for i, answer in zip(escalated, advice, strict=True):
                choices[i] = self._advised(choices[i], answer)
        return choices

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The small model's tokenizer."""
        return self.proposer.policy.tokenizer

    def prompt(self, one: Live) -> str:
        """What the small model reads at this step."""
        return render_prompt(self.tokenizer, self.slm, self.instructions, one.job.task.goal, one.history, one.seen)

    def _propose(self, live: Sequence[Live]) -> dict[int, Proposal]:
        asking = [i for i, one in enumerate(live) if proposes(one.job.method)]
        contexts = [(self.prompt(live[i]), _stream(live[i])) for i in asking]
        return dict(zip(asking, self.proposer.propose(contexts), strict=True)) if asking else {}

    def _route(self, one: Live, proposal: Proposal | None) -> Choice:
        began = time.perf_counter()
        method = one.job.method
        rule = self.rules[method]
        if proposal is None:
            decision = Decision(method=method, escalate=True)
            return self._with_budget(one, decision, Choice(action="", actor="teacher", decision=decision))
        candidates = list(proposal.candidates)
        chosen = best_candidate(candidates, failed_here(one) if self.agent.self_correction else frozenset())
        found = features(
            candidates,
            one.step,
            one.job.task.max_steps,
            proposal.tokens_in,
            count_tokens(self.tokenizer, one.job.task.goal),
        )
        routing = rule(
            RoutingContext(
                features=found,
                task_id=one.job.task.task_id,
                z=one.job.z,
                replicate=one.job.replicate,
                step=one.step,
                would_progress=lambda: one.environment.peek(candidates[chosen].text),
            )
        )
        decision = _decision(method, candidates, chosen, found, routing)
        choice = Choice(
            action=candidates[chosen].text,
            actor="teacher" if routing.escalate else "slm",
            decision=decision,
            tokens_in=proposal.tokens_in,
            tokens_out=proposal.tokens_out,
            cost=self.agent.cost_slm,
            latency_s=proposal.latency_s + time.perf_counter() - began,
        )
        return self._with_budget(one, decision, choice)

    def _with_budget(self, one: Live, decision: Decision, choice: Choice) -> Choice:
        """Refuse an escalation that the episode's budget no longer covers; the small model acts instead."""
        agent = self.agent
        over = (agent.max_teacher_calls and one.teacher_calls >= agent.max_teacher_calls) or (
            agent.max_cost and one.cost + agent.cost_teacher > agent.max_cost
        )
        if choice.actor == "teacher" and over and decision.candidates:
            return replace(choice, actor="slm", decision=decision.model_copy(update={"blocked": "budget"}))
        return choice

    def _situation(self, one: Live) -> Situation:
        return Situation(one.environment, self.instructions, one.job.task.goal, one.history, one.seen)

    def _advised(self, choice: Choice, advice: Advice) -> Choice:
        return replace(
            choice,
            action=advice.action,
            malformed=advice.detail.get("malformed"),
            tokens_in=choice.tokens_in + advice.tokens_in,
            tokens_out=choice.tokens_out + advice.tokens_out,
            cost=choice.cost + self.agent.cost_teacher,
            cost_usd=choice.cost_usd + advice.cost_usd,
            latency_s=choice.latency_s + advice.latency_s,
        )


def _stream(one: Live) -> int:
    """Which stream of sampling randomness an episode draws from: its z, or its replicate where there is no z."""
    return one.job.z if one.job.z is not None else -1 - one.job.replicate


def _decision(
    method: str, candidates: list[Candidate], chosen: int, found: dict[str, float], routing: RoutingDecision
) -> Decision:
    return Decision(
        method=method,
        candidates=candidates,
        chosen=chosen,
        features=found,
        probability=routing.probability,
        threshold=routing.threshold,
        escalate=routing.escalate,
    )


def failed_here(one: Live) -> frozenset[str]:
    """Actions that were carried out in the state the agent sees now and visibly changed nothing.

    Uses only what the agent saw: an action counts if it was executed (tool errors may be retried) and the state shown
    before and after it is the one shown now.
    """
    shown = [step.observation.state for step in one.history] + [one.seen.state]
    return frozenset(
        step.action
        for step, before, after in zip(one.history, shown, shown[1:], strict=False)
        if step.executed and before == after == one.seen.state
    )
