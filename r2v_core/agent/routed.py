"""The routed agent: K candidates → verifier → router → the small model or the teacher acts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from r2v_core.agent.advice import ask_teacher
from r2v_core.agent.features import features, standing_still, vain_calls
from r2v_core.agent.live import Choice, Live, each
from r2v_core.agent.proposer import Proposal, Proposer, best_candidate, step_cost
from r2v_core.agent.rules.base import RoutingContext, RoutingDecision, Rule
from r2v_core.agent.rules.table import looks_ahead, proposes
from r2v_core.config.schema import AgentConfig, SLMConfig
from r2v_core.digest import derive_seed
from r2v_core.models.prompt import Prompt, render_prompt
from r2v_core.teachers.base import Advice, Teacher
from r2v_core.trajectory import Candidate, Decision


@dataclass
class RoutedAgent:
    """The driver of evaluation and router features: each episode is routed by the rule of its job's method.

    ``overheard``: whether, at a step of an episode that the small model plays, the teacher is asked all the same. Its
    action is recorded (``expert_action``), its tokens and dollars are counted, and nobody plays it.
    """

    proposer: Proposer
    teacher: Teacher
    rules: Mapping[str, Rule]
    agent: AgentConfig
    slm: SLMConfig
    instructions: str
    overheard: Callable[[str, int], bool] = lambda episode_id, step: False

    def decide(self, live: Sequence[Live]) -> list[Choice]:
        """Propose for all at once, route each, ask the teacher for all escalated at once."""
        return self.advised(live, self.routed(live))

    def routed(self, live: Sequence[Live]) -> list[Choice]:
        """Propose for all at once and route each; where the teacher is to act, it has not been asked yet."""
        proposals = self._propose(live)
        chosen = {i: self._chosen(live[i], proposal) for i, (_, proposal) in proposals.items()}
        texts = {live[i].job.episode_id: proposals[i][1].candidates[at].text for i, at in chosen.items()}

        def would_progress(one: Live) -> bool | None:
            return one.environment.would_progress(texts[one.job.episode_id])

        looking = [i for i in proposals if looks_ahead(live[i].job.method)]
        truth = dict(zip(looking, each([live[i] for i in looking], would_progress), strict=True))
        choices = []
        for i, one in enumerate(live):
            if i not in proposals:
                choices.append(self._unasked(one))
                continue
            tell = partial(truth.get, i) if i in truth else partial(would_progress, one)
            choices.append(self._route(one, *proposals[i], chosen[i], tell))
        return choices

    def advised(self, live: Sequence[Live], routed: Sequence[Choice]) -> list[Choice]:
        """The choices with the teacher's action where it is to act, asked for all of those at once."""
        choices = list(routed)
        asked = [i for i, choice in enumerate(choices) if choice.actor == "teacher" or self._overhears(live[i])]
        advice = ask_teacher(self.teacher, [live[i] for i in asked], self.instructions) if asked else []
        for i, answer in zip(asked, advice, strict=True):
            take = self._with_advice if choices[i].actor == "teacher" else _overhearing
            choices[i] = take(choices[i], answer)
        return choices

    def _overhears(self, one: Live) -> bool:
        """Only where a call could be paid for: elsewhere no rule can make one."""
        return self.overheard(one.job.episode_id, one.step) and self._refusal(one) is None

    def prompt(self, one: Live) -> Prompt:
        """What the small model reads at this step."""
        engine = self.proposer.engine
        return render_prompt(engine, self.slm, self.instructions, one.job.task.goal, one.history, one.seen)

    def _propose(self, live: Sequence[Live]) -> dict[int, tuple[Prompt, Proposal]]:
        prompts = {i: self.prompt(one) for i, one in enumerate(live) if proposes(one.job.method)}
        if not prompts:
            return {}
        proposals = self.proposer.propose([(prompt.text, _stream(live[i])) for i, prompt in prompts.items()])
        return dict(zip(prompts, zip(prompts.values(), proposals, strict=True), strict=True))

    def _chosen(self, one: Live, proposal: Proposal) -> int:
        """Which candidate the small model would play."""
        return best_candidate(proposal.candidates, failed_here(one) if self.agent.self_correction else frozenset())

    def _unasked(self, one: Live) -> Choice:
        """The choice of a rule that leaves the small model alone."""
        decision = Decision(method=one.job.method, escalate=True)
        return Choice(action="", actor="teacher", decision=decision)

    def _route(
        self, one: Live, prompt: Prompt, proposal: Proposal, chosen: int, would_progress: Callable[[], bool | None]
    ) -> Choice:
        began = time.perf_counter()
        method, candidates = one.job.method, list(proposal.candidates)
        found = features(
            candidates,
            chosen,
            one.history,
            one.seen,
            one.job.task.max_steps,
            proposal.tokens_in,
            self.proposer.engine.count_tokens(one.job.task.goal),
        )
        routing = self.rules[method](
            RoutingContext(
                features=found,
                earlier=[step.decision.features for step in one.history if step.decision is not None],
                task_id=one.job.task.task_id,
                z=one.job.z,
                replicate=one.job.replicate,
                step=one.step,
                would_progress=would_progress,
            )
        )
        decision = _decision(method, candidates, chosen, found, routing, prompt.cut)
        choice = Choice(
            action=candidates[chosen].text,
            actor="teacher" if routing.escalate else "slm",
            decision=decision,
            tokens_in=proposal.tokens_in,
            tokens_out=proposal.tokens_out,
            tokens_verifier=proposal.tokens_verifier,
            cost=step_cost(self.agent, candidates),
            latency_s=proposal.latency_s + time.perf_counter() - began,
        )
        if choice.actor == "teacher" and (refusal := self._refusal(one)):
            return replace(choice, actor="slm", decision=decision.model_copy(update={"blocked": refusal}))
        return choice

    def _refusal(self, one: Live) -> str | None:
        """Why the teacher can't be paid for at this step, and the small model acts in its stead; None where it can."""
        agent = self.agent
        if agent.max_vain_calls and vain_calls(one.history, one.seen) >= agent.max_vain_calls:
            return "vain"
        over = (agent.max_teacher_calls and one.teacher_calls >= agent.max_teacher_calls) or (
            agent.max_cost and one.cost + agent.cost_teacher > agent.max_cost
        )
        return "budget" if over else None

    def _with_advice(self, choice: Choice, advice: Advice) -> Choice:
        return replace(
            choice,
            action=advice.action,
            malformed=advice.detail.get("malformed"),
            error=advice.error and f"teacher: {advice.error}",
            tokens_in=choice.tokens_in + advice.tokens_in,
            tokens_out=choice.tokens_out + advice.tokens_out,
            tokens_teacher_in=advice.tokens_in,
            tokens_teacher_out=advice.tokens_out,
            cost=choice.cost + self.agent.cost_teacher,
            cost_usd=choice.cost_usd + advice.cost_usd,
            latency_s=choice.latency_s + advice.latency_s,
        )


def _overhearing(choice: Choice, advice: Advice) -> Choice:
    return replace(
        choice,
        expert_action=None if advice.error else advice.action,
        tokens_in=choice.tokens_in + advice.tokens_in,
        tokens_out=choice.tokens_out + advice.tokens_out,
        tokens_teacher_in=advice.tokens_in,
        tokens_teacher_out=advice.tokens_out,
        cost_usd=choice.cost_usd + advice.cost_usd,
    )


def _stream(one: Live) -> int:
    """Which stream of sampling randomness an episode draws from: its replicate's, under noise its z's.

    The first replicate under noise draws from its z alone, as every episode does that has no others beside it.
    """
    z, replicate = one.job.z, one.job.replicate
    if z is None:
        return -1 - replicate
    return derive_seed("replicate", z, replicate) if replicate else z


def _decision(
    method: str,
    candidates: list[Candidate],
    chosen: int,
    found: dict[str, float],
    routing: RoutingDecision,
    cut: dict[str, int],
) -> Decision:
    return Decision(
        method=method,
        candidates=candidates,
        chosen=chosen,
        features=found,
        probability=routing.probability,
        threshold=routing.threshold,
        escalate=routing.escalate,
        cut=cut,
    )


def failed_here(one: Live) -> frozenset[str]:
    """Actions that were carried out in the state the agent sees now and visibly changed nothing."""
    return frozenset(step.action for step in standing_still(one.history, one.seen))
