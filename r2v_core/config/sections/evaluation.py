"""The router's rollouts and the reported evaluation."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from r2v_core.config.sections.base import Count, Positive, Probability, Section


class BenefitConfig(Section):
    """How the benefit of a call is measured: by playing on after the teacher's action and after the small model's."""

    state_share: Probability = Field(
        0.25, description="share of the logged steps at which it is measured; others have no label"
    )
    continuations: Annotated[int, Field(ge=4)] = Field(
        4, description="times that the small model plays on after either action (N)"
    )


class RouterFeaturesConfig(Section):
    """Stage 6: rollouts that the router learns from."""

    episodes_per_task: Positive = Field(1, description="rollouts per task and perturbation seed")
    takeover_prob: Probability = Field(
        0.25, description="probability that the teacher plays a step, so that states after its help are seen too"
    )
    label: Literal["progress", "benefit"] = Field(
        "progress",
        description="what the router learns of a step: that the small model's action fails to make progress, or what a "
        "teacher call there adds to the probability of success",
    )
    benefit: BenefitConfig = Field(default_factory=BenefitConfig)


class EvaluationConfig(Section):
    """Stage 8: evaluation."""

    methods: list[str] = Field(
        default_factory=list, description="routing rules to compare, e.g. [r2v, slm_only, llm_only]; empty: all"
    )
    sweep: list[Probability] = Field(
        default_factory=list,
        description="additional thresholds of every scoring rule, for the frontier; each given as the share of "
        "router-split steps above it",
    )
    router_threshold: Probability | None = Field(
        None, description="r2v escalates above this probability; null: above the router's calibrated threshold"
    )
    clean_seeds: Positive = Field(
        1, description="sampling replicates of each test task in the evaluation without noise"
    )
    noisy_seeds: Positive = Field(
        1, description="sampling replicates of each test task in each world that it meets: the same noise, other draws"
    )
    worlds_per_template: Count = Field(
        0, description="test worlds that each template meets, families dealt out evenly; 0: all of seeds.test"
    )
    bootstrap: Positive = Field(2000, description="bootstrap resamples")
    confidence: float = Field(0.95, gt=0, lt=1, description="coverage of the intervals")
