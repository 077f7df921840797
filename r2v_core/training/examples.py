"""From stored episodes to the states that models are trained on."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from r2v_core.benchmarks import benchmark_class
from r2v_core.config.schema import SLMConfig
from r2v_core.errors import R2VError
from r2v_core.models.prompt import end_of_turn, render_prompt
from r2v_core.runs.parquet import read_episodes
from r2v_core.runs.spec import UpstreamRun
from r2v_core.trajectory import Episode, Step


@dataclass(frozen=True)
class Renderer:
    """Prompts as the agent will see them in the closed loop."""

    tokenizer: PreTrainedTokenizerBase
    slm: SLMConfig
    instructions: str

    def prompt(self, episode: Episode, index: int) -> str:
        """The prompt at a step of an episode, from its (perturbed) observation and the steps before it."""
        step = episode.steps[index]
        return self.render(episode.goal, episode.steps[:index], step)

    def render(self, goal: str, history: Sequence[Step], step: Step) -> str:
        """The prompt for a step that follows ``history``."""
        return render_prompt(self.tokenizer, self.slm, self.instructions, goal, history, step.observation)

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a prompt; the chat template has put special tokens in already."""
        ids: list[int] = self.tokenizer(prompt, add_special_tokens=False)["input_ids"]
        return ids

    def encode_action(self, action: str) -> list[int]:
        """Token ids of an action with the end-of-turn token."""
        return self.encode(action + end_of_turn(self.tokenizer))


def instructions_of(benchmark: str) -> str:
    """What a benchmark tells a language model; needs none of the benchmark's libraries."""
    return str(benchmark_class(benchmark).instructions)


def training_episodes(run: UpstreamRun) -> list[Episode]:
    """Episodes of the training split, by episode id.

    Raises:
        R2VError: if there are none.
    """
    episodes = [episode for episode in read_episodes(run) if episode.metadata.get("split") == "train"]
    if not episodes:
        raise R2VError(
            f"run {run.manifest.run_id} ({run.manifest.stage}) has no episode of split 'train'; collect on training "
            "tasks first (benchmark.splits.train)"
        )
    return sorted(episodes, key=lambda episode: episode.episode_id)


def teacher_action(step: Step) -> str | None:
    """What the teacher would do at this state: the expert's action, or the action where the teacher itself acted."""
    if step.expert_action is not None:
        return step.expert_action
    return step.action if step.actor == "teacher" and step.malformed is None else None


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
