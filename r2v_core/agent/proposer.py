"""Candidates and their verifier scores, computed once per context and shared by all who meet it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from r2v_core.benchmarks.actions import one_line
from r2v_core.config.schema import AgentConfig, CandidatesConfig
from r2v_core.digest import derive_seed, digest_of
from r2v_core.engines.base import Engine
from r2v_core.runs.memory import Memory
from r2v_core.trajectory import Candidate


class Scorer(Protocol):
    """What the proposer needs of a verifier: (step, outcome) scores in [0, 1] of each prompt's actions."""

    def score(self, prompts: list[str], actions: list[list[str]]) -> list[list[tuple[float, float]]]:
        """One pair per action, in order."""
        ...


@dataclass(frozen=True)
class Proposal:
    """K scored candidates at one context, and what they cost."""

    candidates: tuple[Candidate, ...]
    tokens_in: int
    """Of the prompt, which is read once for all candidates."""
    tokens_out: int
    """Of all K candidates."""
    latency_s: float
    """This context's share of its batch's wall time, seconds; remembered, it reports the same figure."""
    tokens_verifier: int = 0
    """Read by the verifier: the prompt once, then each different action with its end of turn."""


class Proposer:
    """Samples and scores in batches, remembering the proposal of each (context, replicate).

    All methods of an evaluation ask the same proposer, so at the same context under the same perturbation seed they
    see the same candidates, and the model runs once. ``read`` makes an action of what the model wrote
    (:mod:`r2v_core.benchmarks.actions`). What is remembered, and for how long, is :attr:`memory`'s matter.
    """

    def __init__(
        self,
        engine: Engine,
        verifier: Scorer | None,
        config: CandidatesConfig,
        seed: int,
        read: Callable[[str], str] = one_line,
    ) -> None:
        self.engine = engine
        self.verifier = verifier
        self.config = config
        self.seed = seed
        self.read = read
        self.computed = 0
        self.asked = 0
        self.memory: Memory[Proposal] = Memory(Proposal)
        """Assigned anew for each scope (:mod:`r2v_core.runs.memory`)."""

    def propose(self, contexts: Sequence[tuple[str, int]]) -> list[Proposal]:
        """Proposals for (prompt, replicate) contexts, in order."""
        self.asked += len(contexts)
        keys = {context: digest_of([*context]) for context in contexts}
        missing = sorted(context for context, key in keys.items() if key not in self.memory)
        missing.sort(key=lambda context: len(context[0]))
        for start in range(0, len(missing), self.config.batch_size):
            batch = missing[start : start + self.config.batch_size]
            if self.memory.add([keys[context] for context in batch], partial(self._compute, batch)):
                self.computed += len(batch)
        return [self.memory[keys[context]] for context in contexts]

    def _compute(self, batch: Sequence[tuple[str, int]]) -> list[Proposal]:
        began = time.perf_counter()
        prompts = [prompt for prompt, _ in batch]
        replies = self.engine.sample(
            prompts,
            [derive_seed(self.seed, "sample", replicate, prompt) for prompt, replicate in batch],
            k=self.config.k,
            temperature=self.config.temperature,
            batch_size=self.config.batch_size,
        )
        sampled = [[reply.model_copy(update={"text": self.read(reply.text)}) for reply in row] for row in replies]
        if self.verifier is not None:
            sampled = score_candidates(self.verifier, prompts, sampled)
        share = (time.perf_counter() - began) / len(batch)
        return [
            Proposal(
                candidates=tuple(candidates),
                tokens_in=self.engine.count_tokens(prompt),
                tokens_out=sum(candidate.n_tokens for candidate in candidates),
                latency_s=share,
                tokens_verifier=self._scored(prompt, candidates) if self.verifier is not None else 0,
            )
            for prompt, candidates in zip(prompts, sampled, strict=True)
        ]

    def _scored(self, prompt: str, candidates: Sequence[Candidate]) -> int:
        texts = dict.fromkeys(candidate.text for candidate in candidates)
        return self.engine.count_tokens(prompt) + sum(self.engine.count_tokens(text) + 1 for text in texts)


def step_cost(agent: AgentConfig, candidates: Sequence[Candidate]) -> float:
    """Cost units of the small model's part of a step: the step, each candidate, each different one that was scored."""
    scored = {candidate.text for candidate in candidates if candidate.score is not None}
    return agent.cost_slm + agent.cost_candidate * len(candidates) + agent.cost_verifier * len(scored)


def score_candidates(
    verifier: Scorer, prompts: Sequence[str], sampled: Sequence[Sequence[Candidate]]
) -> list[list[Candidate]]:
    """The same candidates with verifier scores; equal texts at one state are scored once."""
    unique = [list(dict.fromkeys(candidate.text for candidate in candidates)) for candidates in sampled]
    scores = [
        dict(zip(texts, pairs, strict=True))
        for texts, pairs in zip(unique, verifier.score(list(prompts), unique), strict=True)
    ]
    return [
        [
            candidate.model_copy(
                update={"score_step": found[candidate.text][0], "score_outcome": found[candidate.text][1]}
            )
            for candidate in candidates
        ]
        for candidates, found in zip(sampled, scores, strict=True)
    ]


def best_candidate(candidates: Sequence[Candidate], excluded: frozenset[str] = frozenset()) -> int:
    """Index of the candidate the SLM plays: verifier-weighted self-consistency.

    Equal texts pool their verifier scores, so that the choice weighs what the policy keeps saying by what the verifier
    thinks of it (weighted majority vote, Li et al. 2023, "Making language models better reasoners with step-aware
    verifier"). Ties go to the higher log-probability per token, then to the first. Candidates whose text is in
    ``excluded`` are passed over as long as another is left.
    """
    votes: dict[str, float] = defaultdict(float)
    for candidate in candidates:
        votes[candidate.text] += 1.0 if candidate.score is None else candidate.score
    allowed = [i for i, candidate in enumerate(candidates) if candidate.text not in excluded]
    return max(
        allowed or range(len(candidates)),
        key=lambda i: (votes[candidates[i].text], candidates[i].logprob / candidates[i].n_tokens, -i),
    )
