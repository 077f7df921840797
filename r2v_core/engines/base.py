"""What samples tokens, as everything above sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from r2v_core.config.schema import Section, SLMConfig
from r2v_core.models.prompt import Chat
from r2v_core.trajectory import Candidate


class Engine(Chat, Protocol):
    """A loaded language model: renders chats, counts tokens, samples and scores.

    Texts go in and come out; tokens, tensors and weights stay inside.
    """

    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], *, k: int, temperature: float, batch_size: int
    ) -> list[list[Candidate]]:
        """K replies to each prompt, in the prompts' order, each of ``slm.max_action_tokens`` tokens at most.

        A candidate's ``text`` is what the model wrote. Its log-probability (a sum over the reply's tokens, the end of
        the turn included) and entropy (:mod:`r2v_core.models.entropy`, the mean over them) are the model's own, at
        temperature 1, whatever was sampled at.

        Args:
            prompts: as :meth:`render` made them.
            seeds: one for each prompt; what is sampled depends on nothing else that is random. What rounding may add
                is each engine's to say (docs/how-to/engines.md).
            k: replies a prompt.
            temperature: divides the logits; 0: the likeliest token each time.
            batch_size: prompts worked on together at most.
        """
        ...

    def score(
        self, prompts: Sequence[str], continuations: Sequence[Sequence[str]], *, batch_size: int
    ) -> list[list[float]]:
        """Log-probability of each continuation of each prompt, end of turn included, nats, at temperature 1."""
        ...


class EngineModule(Protocol):
    """What a module has to define to be an engine."""

    Options: type[Section]
    """``slm.engine_options``, checked; defining it may import nothing heavy."""

    def open_engine(self, slm: SLMConfig, options: Section, cache: Path, adapter: Path | None, logs: Path) -> Engine:
        """Load the model, with a LoRA adapter (a folder written by peft) if one is given.

        What the engine starts writes its logs into ``logs``, and ends when the engine is let go of.

        Raises:
            R2VError: if the model or the adapter can't be loaded.
        """
        ...
