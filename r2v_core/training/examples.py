"""From stored episodes to the states that models are trained on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from transformers import PreTrainedTokenizerBase

from r2v_core.benchmarks import benchmark_class
from r2v_core.config.schema import SLMConfig
from r2v_core.errors import R2VError
from r2v_core.models.chat_template import ChatTemplate
from r2v_core.models.control_tokens import action_ids
from r2v_core.models.prompt import render_prompt
from r2v_core.runs.parquet import read_episodes
from r2v_core.runs.spec import UpstreamRun
from r2v_core.trajectory import Episode, Step


@dataclass(frozen=True)
class Renderer:
    """Prompts as the agent will see them in the closed loop."""

    tokenizer: PreTrainedTokenizerBase
    slm: SLMConfig
    instructions: str
    cut: Counter[str] = field(default_factory=Counter, compare=False)
    """Part of a prompt → how many of the prompts rendered so far left something of it out."""

    @cached_property
    def _chat(self) -> ChatTemplate:
        return ChatTemplate(self.tokenizer)

    def prompt(self, episode: Episode, index: int) -> str:
        """The prompt at a step of an episode, from its (perturbed) observation and the steps before it."""
        step = episode.steps[index]
        return self.render(episode.goal, episode.steps[:index], step)

    def render(self, goal: str, history: Sequence[Step], step: Step) -> str:
        """The prompt for a step that follows ``history``."""
        prompt = render_prompt(self._chat, self.slm, self.instructions, goal, history, step.observation)
        self.cut.update(prompt.cut.keys())
        return prompt.text

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a prompt; the chat template has put special tokens in already."""
        ids: list[int] = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return ids

    def encode_action(self, action: str) -> list[int]:
        """Token ids of an action with the end-of-turn token."""
        return action_ids(self.tokenizer, action)


def instructions_of(benchmark: str) -> str:
    """What a benchmark tells a language model; needs none of the benchmark's libraries."""
    return str(benchmark_class(benchmark).instructions)


def training_episodes(run: UpstreamRun) -> list[Episode]:
    """Episodes of the training split, by episode id; an error tells nothing of the actions before it.

    Raises:
        R2VError: if there are none.
    """
    episodes = [e for e in read_episodes(run) if e.metadata.get("split") == "train" and e.error is None]
    if not episodes:
        stage, todo = run.manifest.stage, "collect on training tasks first (benchmark.splits.train)"
        if stage == "policy_rollouts":
            todo = "make it again with training.verifier.on_policy.episodes above 0"
        raise R2VError(f"run {run.manifest.run_id} ({stage}) has no episode of split 'train'; {todo}")
    return sorted(episodes, key=lambda episode: episode.episode_id)


def states(episodes: Iterable[Episode]) -> Iterator[tuple[Episode, int]]:
    """Every (episode, step position), in order."""
    for episode in episodes:
        for index in range(len(episode.steps)):
            yield episode, index


def executed_before(episode: Episode) -> list[int]:
    """For each step, how many actions were carried out before it: equal numbers are the same underlying state."""
    counts, done = [], 0
    for step in episode.steps:
        counts.append(done)
        done += step.executed
    return counts
