"""The engine ``scripted``: replies from the configuration, with no model at all.

For tests and for trying a pipeline out: a rollout costs its environments and nothing else. What it says is drawn from
the replies of the first line of the script whose pattern is found in the prompt, each of them as likely as it is often
listed; log-probabilities, entropies and scores are those of that distribution. A token is a word, and the end of the
turn is one more.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import Field, field_validator

from r2v_core.config.schema import Section, SLMConfig
from r2v_core.models.entropy import clipped_entropy
from r2v_core.trajectory import Candidate

Replies = Annotated[list[str], Field(min_length=1)]


class Line(Section):
    """What is said where."""

    when: str = Field("", description="a regular expression that is searched for in the prompt; empty: anywhere")
    say: Replies = Field(description="replies to draw from; what is listed twice is twice as likely")

    @field_validator("when")
    @classmethod
    def _compiles(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"not a regular expression ({error})") from None
        return value


class Options(Section):
    """The script."""

    script: list[Line] = Field(default_factory=list, description="the first line that fits a prompt answers it")
    otherwise: Replies = Field(default_factory=lambda: ["look"], description="replies where no line fits")


@dataclass(frozen=True)
class Scripted:
    """A script as an engine (:class:`r2v_core.engines.base.Engine`)."""

    options: Options

    def render(self, messages: Sequence[Mapping[str, str]]) -> str:
        """Each message after its role, ending with the assistant's."""
        return "".join(f"{message['role']}: {message['content']}\n" for message in messages) + "assistant:"

    def count_tokens(self, text: str) -> int:
        """Number of words."""
        return len(text.split())

    def sample(
        self, prompts: Sequence[str], seeds: Sequence[int], *, k: int, temperature: float, batch_size: int
    ) -> list[list[Candidate]]:
        """K replies to each prompt; at temperature 0 the one that is listed most often, the first of several."""
        return [self._sample(prompt, seed, k, temperature) for prompt, seed in zip(prompts, seeds, strict=True)]

    def score(
        self, prompts: Sequence[str], continuations: Sequence[Sequence[str]], *, batch_size: int
    ) -> list[list[float]]:
        """Log-probability of each continuation; −∞ for what the script does not say there."""
        known = [self._log_probabilities(prompt) for prompt in prompts]
        return [[row.get(text, -math.inf) for text in some] for row, some in zip(known, continuations, strict=True)]

    def _sample(self, prompt: str, seed: int, k: int, temperature: float) -> list[Candidate]:
        logp = self._log_probabilities(prompt)
        texts, values = list(logp), np.array(list(logp.values()))
        if temperature == 0:
            drawn = [int(values.argmax())] * k
        else:
            weights = np.exp((values - values.max()) / temperature)
            drawn = np.random.default_rng(seed).choice(len(texts), size=k, p=weights / weights.sum()).tolist()
        entropy = clipped_entropy(values.tolist())
        candidates = []
        for text in (texts[i] for i in drawn):
            n = self.count_tokens(text) + 1
            candidates.append(Candidate(text=text, logprob=logp[text], n_tokens=n, entropy=entropy / n))
        return candidates

    def _log_probabilities(self, prompt: str) -> dict[str, float]:
        script = self.options.script
        replies = next((line.say for line in script if re.search(line.when, prompt)), self.options.otherwise)
        return {text: math.log(count / len(replies)) for text, count in Counter(replies).items()}


def open_engine(slm: SLMConfig, options: Options, cache: Path, adapter: Path | None, logs: Path) -> Scripted:
    """The script; model and adapter are left alone."""
    return Scripted(options)
