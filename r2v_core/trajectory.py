"""The one schema of episodes: what was seen, what was done, what came of it.

Everything the pipeline exchanges about behaviour (teacher runs, perturbed copies, evaluation traces) is an
:class:`Episode`. Storage lives in :mod:`r2v_core.store`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from r2v_core.digest import digest_of
from r2v_core.migrations import current_version

Actor = Literal["teacher", "slm", "explore"]
"""Who chose an action: the teacher, the small model, or the collection's exploratory policy."""


class Record(BaseModel):
    """Base of the schema: unknown fields are refused so that a misspelt field cannot vanish silently."""

    model_config = ConfigDict(extra="forbid")


def version_field(record: str) -> Any:
    """The field that says which version of its type a record is of: written to files, no part of its content."""
    return Field(default=current_version(record), exclude=True, description="version of this record's fields")


class Observation(Record):
    """What an agent is shown before it acts.

    ``feedback`` is the environment's answer to the previous action, ``state`` a description of the present
    situation. Perturbations may change both; the environment's own words are then kept in the step's ``clean``.
    """

    state: str
    feedback: str = ""

    @property
    def text(self) -> str:
        """Both parts as one text."""
        return f"{self.feedback}\n{self.state}".strip()


class Perturbation(Record):
    """One thing that the noise did at one step."""

    family: str = Field(description="tool_flakiness, partial_observability, prompt_injection or distractors")
    operator: str = Field(description="operator within the family, e.g. 'timeout'")
    detail: dict[str, Any] = Field(default_factory=dict, description="operator-specific facts, JSON values only")


class Candidate(Record):
    """One action proposed by the small model at a state."""

    text: str
    logprob: float = Field(description="sum of token log-probabilities, nats, end-of-turn token included")
    n_tokens: int = Field(description="tokens generated, end-of-turn token included")
    entropy: float = Field(description="mean next-token entropy (r2v_core.models.entropy) over those tokens, nats")
    score_step: float | None = Field(default=None, description="verifier's step head, in [0, 1]")
    score_outcome: float | None = Field(default=None, description="verifier's outcome head, in [0, 1]")
    progress: bool | None = Field(default=None, description="would it make progress; None where unknown")

    @property
    def score(self) -> float | None:
        """The verifier's value V(x, a): the mean of both heads, None before scoring."""
        if self.score_step is None or self.score_outcome is None:
            return None
        return 0.5 * (self.score_step + self.score_outcome)


class Decision(Record):
    """How a routed agent came to its action."""

    method: str
    candidates: list[Candidate] = Field(default_factory=list)
    chosen: int | None = Field(default=None, description="index of the candidate the SLM would play")
    features: dict[str, float] = Field(
        default_factory=dict, description="what the router sees (r2v_core.agent.features)"
    )
    probability: float | None = Field(default=None, description="the rule's risk score in [0, 1]")
    threshold: float | None = None
    escalate: bool = False
    blocked: str | None = Field(
        default=None, description="why an escalation was refused: 'budget', 'vain' (agent.max_vain_calls), …"
    )
    cut: dict[str, int] = Field(
        default_factory=dict,
        description="part of the prompt → its tokens that slm.max_prompt_tokens left no room for",
    )


class Step(Record):
    """One turn: observation, action, consequence."""

    index: int = Field(ge=0, description="0-based position in the episode; failed tool calls count")
    observation: Observation
    clean: Observation | None = Field(default=None, description="unperturbed observation, where it differs")
    action: str
    actor: Actor
    executed: bool = Field(default=True, description="False where a tool failure swallowed the action")
    progress: bool | None = Field(default=None, description="did the action bring the goal closer")
    remaining: int | None = Field(
        default=None, description="expert actions still needed before this action; None where unknown"
    )
    expert_action: str | None = Field(default=None, description="what the expert would do here, where known")
    perturbations: list[Perturbation] = Field(default_factory=list)
    alternatives: dict[str, bool] = Field(
        default_factory=dict, description="other actions at this state → would they make progress"
    )
    decision: Decision | None = None
    malformed: str | None = Field(
        default=None, description="why the teacher's reply was not a usable action; 'action' is then the best guess"
    )
    tokens_in: int = Field(default=0, description="read by small model and teacher; a prompt once for all K candidates")
    tokens_out: int = Field(default=0, description="generated by small model (all K candidates) and teacher")
    tokens_teacher_in: int = Field(default=0, description="of tokens_in, the teacher's, at steps of a routed agent")
    tokens_teacher_out: int = Field(default=0, description="of tokens_out, likewise")
    tokens_verifier: int = Field(default=0, description="read by the verifier: the prompt once, each different action")
    cost: float = Field(default=0.0, description="cost units of this step (method.md, 'Calls and cost')")
    cost_usd: float = Field(default=0.0, description="measured dollars")
    latency_s: float = Field(default=0.0, description="wall seconds to decide and act")


class Metadata(dict[str, Any]):
    """What is known of an episode beside its steps: JSON values by name, readable as attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(
                f"no '{name}' in this episode's metadata; it has {', '.join(self) or 'none'}"
            ) from None


class Episode(Record):
    """One attempt at one task."""

    schema_version: int = version_field("Episode")
    episode_id: str = Field(description="unique within its run; same content, same id")
    benchmark: str
    task_id: str
    template_id: str
    goal: str
    steps: list[Step]
    success: bool = Field(description="the benchmark's own verdict")
    score: float = Field(default=0.0, description="benchmark's score in [0, 1]")
    truncated: bool = Field(default=False, description="ended by the step limit")
    perturbation_seed: int | None = Field(default=None, description="z; None for clean episodes")
    seed: int = Field(default=0, description="the partition's seed")
    metadata: Annotated[dict[str, Any], AfterValidator(Metadata)] = Field(
        default_factory=Metadata, description="run_id, teacher_model, teacher_provider, split, family, method, …"
    )

    @property
    def actions(self) -> list[str]:
        """The actions in order."""
        return [step.action for step in self.steps]

    @property
    def action_hash(self) -> str:
        """Identity for deduplication."""
        return action_hash(self.actions)

    @property
    def error(self) -> str | None:
        """Why it ended before its time (an environment that failed, a refused request); None where it did not."""
        return self.metadata.get("error") or None

    @property
    def cost(self) -> float:
        """Cost units of the whole episode."""
        return sum(step.cost for step in self.steps)


def teacher_action(step: Step) -> str | None:
    """What the teacher would do at this state: the expert's action, or the action where the teacher itself acted."""
    if step.expert_action is not None:
        return step.expert_action
    return step.action if step.actor == "teacher" and step.malformed is None else None


def action_hash(actions: Sequence[str]) -> str:
    """Hash of an action sequence: SHA-256 over the JSON list of action texts.

    Two trajectories with the same action texts in the same order are duplicates, whatever run they came from.
    """
    return hashlib.sha256(json.dumps(list(actions), ensure_ascii=False).encode()).hexdigest()


VOLATILE_METADATA = frozenset({"run_id", "created_at", "source_run_id"})
"""Metadata that differs between two runs of the same experiment and so stays out of digests."""


def episode_content(episode: Episode) -> dict[str, Any]:
    """The episode without what two runs of the same experiment may differ in (run id, times, latencies)."""
    content = episode.model_dump(mode="json")
    for step in content["steps"]:
        step.pop("latency_s")
        if step["malformed"] is None:
            del step["malformed"]  # as in episodes that were written before there was such a field
        for name in ("tokens_teacher_in", "tokens_teacher_out", "tokens_verifier"):
            if not step[name]:
                del step[name]  # likewise
        if step["decision"] is not None and not step["decision"]["cut"]:
            del step["decision"]["cut"]
    content["metadata"] = {k: v for k, v in content["metadata"].items() if k not in VOLATILE_METADATA}
    return content


def episodes_digest(episodes: Iterable[Episode]) -> str:
    """Content digest of a set of episodes, independent of the order in which they finished."""
    return digest_of(sorted(digest_of(episode_content(episode)) for episode in episodes))
