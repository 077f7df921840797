"""Candidates and their verifier scores, computed once per context and shared by all who meet it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from r2v_core.config.schema import CandidatesConfig
from r2v_core.digest import derive_seed
from r2v_core.models.policy import Policy
from r2v_core.models.prompt import count_tokens
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
    tokens_out: int
    latency_s: float
    """This context's share of its batch's wall time, seconds; a later cache hit reports the same figure."""


class Proposer:
    """Samples and scores in batches, with a cache from (context, replicate) to proposal.

    All methods of an evaluation ask the same proposer, so at the same context under the same perturbation seed they
    see the same candidates, and the model runs once. A proposal's last bits depend on the batch that it was computed
    in, so what was computed for one :meth:`scope` is not handed out in another: results of one scope are the same
    whatever was played before it.
    """

    def __init__(self, policy: Policy, verifier: Scorer | None, config: CandidatesConfig, seed: int) -> None:
        self.policy = policy
        self.verifier = verifier
        self.config = config
        self.seed = seed
        self.computed = 0
        self.asked = 0
        self._scopes: dict[str, dict[tuple[str, int], Proposal]] = {}
        self._cache = self._scopes.setdefault("", {})

    def scope(self, name: str) -> None:
        """Proposals are from here on remembered for, and taken from, this scope."""
        self._cache = self._scopes.setdefault(name, {})

    def propose(self, contexts: Sequence[tuple[str, int]]) -> list[Proposal]:
        """Proposals for (prompt, replicate) contexts, in order."""
        self.asked += len(contexts)
        missing = sorted({context for context in contexts if context not in self._cache})
        missing.sort(key=lambda context: len(context[0]))
        for start in range(0, len(missing), self.config.batch_size):
            batch = missing[start : start + self.config.batch_size]
            for context, proposal in zip(batch, self._compute(batch), strict=True):
                self._cache[context] = proposal
        self.computed += len(missing)
        return [self._cache[context] for context in contexts]

    def known(self) -> list[tuple[str, int]]:
        """The contexts that proposals were computed for, in order."""
        return [context for cache in self._scopes.values() for context in cache]

    def _compute(self, batch: Sequence[tuple[str, int]]) -> list[Proposal]:
        began = time.perf_counter()
        prompts = [prompt for prompt, _ in batch]
        sampled = self.policy.sample(
            prompts,
            [derive_seed(self.seed, "sample", replicate, prompt) for prompt, replicate in batch],
            k=self.config.k,
            temperature=self.config.temperature,
            batch_size=self.config.batch_size,
        )
        if self.verifier is not None:
            sampled = score_candidates(self.verifier, prompts, sampled)
        share = (time.perf_counter() - began) / len(batch)
        return [
            Proposal(
                candidates=tuple(candidates),
                tokens_in=count_tokens(self.policy.tokenizer, prompt),
                tokens_out=sum(candidate.n_tokens for candidate in candidates),
                latency_s=share,
            )
            for prompt, candidates in zip(prompts, sampled, strict=True)
        ]


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
