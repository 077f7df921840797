"""Those who are asked: the teacher, and the judge that scores candidates."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from r2v_core.config.sections.base import Count, Positive, Section


class TeacherLimitsConfig(Section):
    """How, and how often, a teacher behind an API is asked; nothing here influences what it answers. A run that meets a
    budget stops as 'partial' and goes on with a larger one.
    """

    concurrency: Positive = Field(8, description="requests at the same time")
    timeout_s: float = Field(120.0, gt=0, description="seconds that one request may take, including its whole answer")
    attempts: Positive = Field(6, description="minimum number of times that a request is tried before the run fails")
    patience_s: float = Field(
        5400.0,
        ge=0,
        description="seconds for which to retry a server that has answered before, is busy, or says how long to wait; "
        "0: only attempts counts",
    )
    backoff_s: float = Field(
        1.0, gt=0, description="seconds; scale of the random pause after a failure, which doubles each time"
    )
    budget_calls: Count | None = Field(
        None, description="calls allowed per run; 0: no limit; null: not set, which is refused where calls cost money"
    )
    budget_usd: Annotated[float, Field(ge=0)] | None = Field(
        None, description="dollars allowed per run; 0: no limit; null: not set, which is refused where calls cost money"
    )


class TeacherConfig(Section):
    """The teacher that the partition key names."""

    options: dict[str, Any] = Field(default_factory=dict, description="the provider's own keys, which it checks")
    limits: TeacherLimitsConfig = Field(default_factory=TeacherLimitsConfig)


class JudgeConfig(Section):
    """A language model that scores candidates in place of the trained verifier, where candidates.scored_by says so."""

    teacher: str = Field("gpt-4o-mini", description="a teacher's name, as in partitions")
    options: dict[str, Any] = Field(default_factory=dict, description="the provider's own keys, which it checks")
    limits: TeacherLimitsConfig = Field(
        default_factory=TeacherLimitsConfig, description="limits of the judge, separate from the teacher's"
    )
