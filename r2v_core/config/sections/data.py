"""What is collected from the teacher, and what the training stages learn from."""

from __future__ import annotations

from pydantic import Field

from r2v_core.config.sections.base import Count, Positive, Probability, Section


class CollectionConfig(Section):
    """Stage 1: teacher trajectories."""

    episodes_per_task: Positive = Field(2, description="episodes on each train task")
    explore_start_steps: Count = Field(
        4,
        description="every second episode begins with 1 to this many random admissible actions; 0: none does",
    )
    explore_prob: Probability = Field(0.15, description="probability of a random action later in such an episode")
    explore_all_episodes: Count = Field(
        1, description="additional episodes on each task that explore from beginning to end"
    )
    explore_all_prob: Probability = Field(
        0.5, description="probability of a random action at each step of such an episode"
    )
    alternatives: Count = Field(
        3, description="other admissible actions that are labelled with their progress at each step"
    )
    parallel: Positive = Field(16, description="environments stepped side by side")


class DataConfig(Section):
    """What the training stages train_bc and train_verifier learn from."""

    merge: str | list[str] | None = Field(
        None,
        description="runs of 'collect' to merge, without duplicates, into the training set: a SQL condition on the "
        "registry's table runs, e.g. \"benchmark = 'textworld' AND stage = 'collect' AND status = 'done'\", or a list "
        "of run ids; null: only the partition's own run",
    )
