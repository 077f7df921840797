"""The whole config: every section in its place. Keys, types, units, bounds and defaults are in the sections.

The YAML files under ``configs/`` are merged and checked against :class:`Config` by :mod:`r2v_core.config.load`;
``configs/base.yaml`` is written from it by :mod:`r2v_core.config.basefile`.
Benchmark-specific keys (``benchmark.options``) are checked against the benchmark's own options model.
"""

from __future__ import annotations

from pydantic import Field

from r2v_core.config.sections.agent import AgentConfig, EpisodesConfig
from r2v_core.config.sections.base import Count, Positive, Section
from r2v_core.config.sections.data import CollectionConfig, DataConfig
from r2v_core.config.sections.evaluation import BenefitConfig, EvaluationConfig, RouterFeaturesConfig
from r2v_core.config.sections.perturbations import (
    DistractorsConfig,
    FamilyConfig,
    PartialObservabilityConfig,
    PerturbationsConfig,
    PromptInjectionConfig,
    SeedsConfig,
    ToolFlakinessConfig,
)
from r2v_core.config.sections.slm import CandidatesConfig, SLMConfig
from r2v_core.config.sections.tasks import BenchmarkConfig, PathsConfig
from r2v_core.config.sections.teacher import JudgeConfig, TeacherConfig, TeacherLimitsConfig
from r2v_core.config.sections.training import (
    BCConfig,
    DPOConfig,
    LoRAConfig,
    OnPolicyConfig,
    OptimConfig,
    RouterConfig,
    TeacherTrainingConfig,
    TrainingConfig,
    VerifierConfig,
)

__all__ = [
    "AgentConfig",
    "BCConfig",
    "BenchmarkConfig",
    "BenefitConfig",
    "CandidatesConfig",
    "CollectionConfig",
    "Config",
    "Count",
    "DPOConfig",
    "DataConfig",
    "DistractorsConfig",
    "EpisodesConfig",
    "EvaluationConfig",
    "FamilyConfig",
    "JudgeConfig",
    "LoRAConfig",
    "OnPolicyConfig",
    "OptimConfig",
    "PartialObservabilityConfig",
    "PathsConfig",
    "PerturbationsConfig",
    "Positive",
    "PromptInjectionConfig",
    "RouterConfig",
    "RouterFeaturesConfig",
    "SLMConfig",
    "Section",
    "SeedsConfig",
    "TeacherConfig",
    "TeacherLimitsConfig",
    "TeacherTrainingConfig",
    "ToolFlakinessConfig",
    "TrainingConfig",
    "VerifierConfig",
]


class Config(Section):
    """One experiment."""

    name: str = Field("base", description="appears in logs and tables")
    paths: PathsConfig = Field(default_factory=PathsConfig)
    benchmark: BenchmarkConfig = Field(default_factory=BenchmarkConfig)
    teacher: TeacherConfig = Field(default_factory=TeacherConfig)
    judge: JudgeConfig = Field(default_factory=JudgeConfig)
    slm: SLMConfig = Field(default_factory=SLMConfig)
    collection: CollectionConfig = Field(default_factory=CollectionConfig)
    perturbations: PerturbationsConfig = Field(default_factory=PerturbationsConfig)
    data: DataConfig = Field(default_factory=DataConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    candidates: CandidatesConfig = Field(default_factory=CandidatesConfig)
    agent: AgentConfig = Field(default_factory=AgentConfig)
    episodes: EpisodesConfig = Field(default_factory=EpisodesConfig)
    router_features: RouterFeaturesConfig = Field(default_factory=RouterFeaturesConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
