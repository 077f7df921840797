"""The closed loop: how the agent acts and how episodes are played."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from r2v_core.config.sections.base import Count, Positive, Probability, Section


class AgentConfig(Section):
    """The closed loop."""

    parallel: Positive = Field(24, description="episodes rolled out side by side")
    max_teacher_calls: Count = Field(0, description="teacher calls allowed per episode; 0: no limit")
    max_cost: float = Field(0.0, ge=0, description="cost units allowed per episode; 0: no limit")
    max_vain_calls: Count = Field(
        2,
        description="teacher calls that may visibly change nothing in a state before it isn't asked there any more; "
        "0: no limit",
    )
    cost_slm: float = Field(1.0, gt=0, description="cost units of one SLM step")
    cost_candidate: float = Field(0.0, ge=0, description="further cost units of each of its K candidates")
    cost_verifier: float = Field(0.0, ge=0, description="further cost units of each different candidate that is scored")
    cost_teacher: float = Field(50.0, gt=0, description="cost units of one teacher step")
    self_correction: bool = Field(
        True, description="re-rank candidates to avoid an action that just failed in the same state"
    )
    verifier: bool = Field(
        True,
        description="false: candidates are not scored; the small model plays the action that it samples most often",
    )
    entropy_threshold: float = Field(2.5, ge=0, description="nats; heuristic_router escalates above this entropy")
    verifier_threshold: Probability = Field(0.4, description="heuristic_router escalates below this mean score")


class EpisodesConfig(Section):
    """How episodes are played. One that ends in an error (a failed environment, a refused request) counts as failed."""

    workers: Count = Field(
        0,
        description="environments that work at the same time, where the benchmark allows it; 0: as many as are useful",
    )
    patience_s: Annotated[float, Field(gt=0)] = Field(
        3600.0,
        description="seconds that an environment that works beside others may take for one step before its episode "
        "ends in an error",
    )
    max_error_share: Probability = Field(
        0.05, description="share of a stage's episodes that may end in an error, rounded up; beyond it the stage stops"
    )
    retry_errors: bool = Field(
        False, description="true: when an unfinished run is resumed, play its episodes that ended in an error again"
    )
