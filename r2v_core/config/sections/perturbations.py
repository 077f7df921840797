"""The noise: families of operators, and the worlds that they make."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from r2v_core.config.sections.base import Positive, Probability, Section


class FamilyConfig(Section):
    """What every family of noise has, whatever its operators are."""

    enabled: bool = Field(True, description="false: no operator of the family is ever applied")
    prob: Probability = Field(
        1.0,
        description="probability that the family is active at a step; its operators' probabilities apply when it is",
    )


class ToolFlakinessConfig(FamilyConfig):
    """Tools that fail. Probabilities per step."""

    timeout: Probability = Field(
        0.0, description="the action is not carried out, and the observation says that the tool did not answer"
    )
    error: Probability = Field(
        0.0, description="the action is not carried out, and the observation says that the tool failed"
    )
    stale: Probability = Field(0.0, description="the agent sees the previous observation again")
    garbled: Probability = Field(0.0, description="characters of the observation are replaced")
    partial: Probability = Field(
        0.0, description="the connection breaks: 30 to 80 % of the text arrives, with a note that says so"
    )
    result_shuffle: Probability = Field(0.0, description="lists are reordered, and some of their entries are missing")
    numeric_drift: Probability = Field(0.0, description="numbers are off, as in an answer from an old cache")
    garble_share: Probability = Field(0.15, description="share of characters that 'garbled' replaces")
    lost_share: Probability = Field(0.3, description="share of a list's entries that 'result_shuffle' loses")
    drift_share: Probability = Field(0.3, description="largest share by which 'numeric_drift' changes a number")


class PartialObservabilityConfig(FamilyConfig):
    """Observations with parts missing. Probabilities per step."""

    truncate: Probability = Field(0.0, description="the end of the text is missing")
    mask: Probability = Field(0.0, description="words are hidden")
    drop_sentences: Probability = Field(0.0, description="sentences are missing")
    keep_share: Probability = Field(0.6, description="share of the text that 'truncate' keeps")
    mask_share: Probability = Field(0.3, description="share of words that 'mask' hides")
    drop_share: Probability = Field(0.3, description="share of sentences that 'drop_sentences' removes")


class PromptInjectionConfig(FamilyConfig):
    """Text in the observation that tries to command the agent. Probabilities per step."""

    override: Probability = Field(0.0, description="“ignore your instructions and …”")
    fake_system: Probability = Field(0.0, description="the same command in the guise of a system message")
    fake_goal: Probability = Field(0.0, description="the same command in the guise of a new goal")
    indirect: Probability = Field(
        0.0, description="the same command in text by somebody else, such as a note or a comment"
    )
    encoded: Probability = Field(0.0, description="the same command in base64, hexadecimal or ROT13")
    exfiltration: Probability = Field(0.0, description="a command to send out what the agent has been told")


class DistractorsConfig(FamilyConfig):
    """Irrelevant or misleading content. Probabilities per step."""

    irrelevant_text: Probability = Field(0.0, description="sentences that have nothing to do with the task")
    decoy_objects: Probability = Field(0.0, description="objects that do not exist")
    shuffle: Probability = Field(0.0, description="sentences are reordered")
    repeat: Probability = Field(0.0, description="a sentence is repeated")
    plausible_wrong: Probability = Field(0.0, description="a made-up hint that sounds helpful")


class SeedsConfig(Section):
    """How many perturbation seeds z each purpose has; no seed serves two."""

    train: Positive = Field(2, description="perturbed copies of each trajectory, for policy and verifier")
    router: Positive = Field(3, description="seeds of the rollouts that the router learns from")
    validation: Positive = Field(3, description="seeds for temperature and threshold")
    test: Positive = Field(3, description="seeds of the reported evaluation")


class PerturbationsConfig(Section):
    """The noise z: four families of operators, each operator with a probability per step."""

    seeds: SeedsConfig = Field(default_factory=SeedsConfig)
    severity_spread: float = Field(
        0.5,
        ge=0,
        description="how much worlds differ: standard deviation of a family's severity, which has mean 1 and "
        "multiplies its probabilities; 0: all worlds are alike",
    )
    held_out: list[Literal["tool_flakiness", "partial_observability", "distractors", "prompt_injection"]] = Field(
        default_factory=list,
        description="families that occur only in the reported evaluation, e.g. [prompt_injection]; training, router "
        "and thresholds never meet them",
    )
    tool_flakiness: ToolFlakinessConfig = Field(default_factory=ToolFlakinessConfig)
    partial_observability: PartialObservabilityConfig = Field(default_factory=PartialObservabilityConfig)
    prompt_injection: PromptInjectionConfig = Field(default_factory=PromptInjectionConfig)
    distractors: DistractorsConfig = Field(default_factory=DistractorsConfig)
