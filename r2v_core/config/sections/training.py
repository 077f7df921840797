"""Everything that is trained: teacher, policy, verifier and router."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from r2v_core.config.sections.base import Count, Positive, Probability, Section


class LoRAConfig(Section):
    """Low-rank adapters (Hu et al. 2021)."""

    r: Positive = Field(16, description="rank")
    alpha: Positive = Field(32, description="the adapter's scale is alpha / r")
    dropout: Probability = Field(0.0, description="probability that an input is dropped in training")
    target_modules: list[str] = Field(
        default_factory=lambda: ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        description="projections that get an adapter",
    )


class OptimConfig(Section):
    """What all stages that train a language model share."""

    max_steps: Positive = Field(40, description="optimiser steps")
    batch_size: Positive = Field(8, description="examples per step and process")
    grad_accumulation: Positive = Field(1, description="micro-batches per optimiser step")
    learning_rate: float = Field(1e-3, gt=0, description="peak, after linear warm-up, cosine to zero")
    warmup_ratio: Probability = Field(0.1, description="share of max_steps")
    weight_decay: float = Field(0.0, ge=0, description="decoupled (AdamW)")
    max_grad_norm: float = Field(1.0, gt=0, description="gradients are clipped to this norm")
    save_steps: Positive = Field(20, description="optimiser steps between checkpoints")
    logging_steps: Positive = Field(1, description="optimiser steps between log lines")


class BCConfig(OptimConfig):
    """Stage 3a: behaviour cloning."""

    max_steps: Count = Field(40, description="optimiser steps; 0: the small model is used as it is")
    clean_share: Probability = Field(0.5, description="share of examples from unperturbed trajectories")
    max_examples: Count = Field(0, description="largest number of training examples; 0: all")


class TeacherTrainingConfig(BCConfig):
    """A teacher that is trained here (stage train_teacher), where benchmark.splits.teacher is above 0."""

    max_steps: Positive = Field(300, description="optimiser steps")
    learning_rate: float = Field(5e-4, gt=0, description="peak, after linear warm-up, cosine to zero")
    save_steps: Positive = Field(50, description="optimiser steps between checkpoints")
    worlds: Positive = Field(2, description="perturbed copies of each episode, in worlds that serve nothing else")


class OnPolicyConfig(Section):
    """The small model's own candidates in its own states, which the verifier learns from (stage policy_rollouts)."""

    episodes: Count = Field(
        0, description="episodes that the BC policy plays on training tasks; 0: none, and the stage is left out"
    )
    state_share: Probability = Field(0.25, description="share of their states at which all K candidates are tried")
    continuations: Annotated[int, Field(ge=4)] = Field(
        4, description="times that the small model plays on after a candidate (N); the share won is its outcome label"
    )
    learn: bool = Field(True, description="false: the verifier is only measured on these states")
    share: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        None, description="share of the examples that these states make up, repeated or thinned; null: as they come"
    )


class VerifierConfig(OptimConfig):
    """Stage 3b: the step verifier."""

    layers: Count = Field(0, description="lowest transformer layers used; 0: all")
    step_weight: float = Field(0.3, ge=0, description="weight of the step head's BCE (paper: 0.3)")
    outcome_weight: float = Field(1.0, ge=0, description="weight of the outcome head's BCE (paper: 1.0)")
    validation_share: Probability = Field(0.15, description="share of episodes held out to report AUC")
    on_policy: OnPolicyConfig = Field(default_factory=OnPolicyConfig)


class DPOConfig(OptimConfig):
    """Stage 5: preference optimisation."""

    max_steps: Count = Field(20, description="optimiser steps; 0: the BC policy is used unchanged")
    learning_rate: float = Field(2e-4, gt=0, description="peak, after linear warm-up, cosine to zero")
    beta: float = Field(0.1, gt=0, description="DPO temperature (Rafailov et al. 2023)")
    consistency_weight: float = Field(0.1, ge=0, description="λ_cons on the Jensen-Shannon divergence")
    consistency_batch: Positive = Field(2, description="state pairs per step for the consistency term")
    validation_share: Probability = Field(
        0.15, description="share of templates whose pairs are held out to report accuracy, margin and divergence"
    )


class RouterConfig(Section):
    """Stage 7: the router."""

    hidden: list[Positive] = Field(default_factory=lambda: [128, 64], description="units per hidden layer")
    dropout: Probability = Field(0.3, description="probability that a hidden unit is dropped in training")
    epochs: Positive = Field(60, description="full-batch passes; with more, the router memorises its tasks")
    learning_rate: float = Field(3e-3, gt=0, description="learning rate of AdamW, constant")
    weight_decay: float = Field(
        1.0, ge=0, description="decoupled (AdamW); strong, because there are few training steps"
    )
    brier_weight: float = Field(1.0, ge=0, description="w in E[cost] + λ(CVaR − ε) + w·Brier")
    cvar_alpha: float = Field(0.2, gt=0, le=1, description="CVaR over the worst ⌈α|Z|⌉ seeds")
    cvar_epsilon: Probability = Field(
        0.3, description="ε: largest CVaR of failure allowed in training, and largest risk in calibration"
    )
    guarantee: Literal["auto", "failure", "excess", "cvar"] = Field(
        "auto",
        description="the risk that calibration bounds by ε: expected failure, failure in excess of the teacher's, or "
        "CVaR over worlds; auto: failure where the teacher is the benchmark's expert, excess where it can be wrong",
    )
    delta: float = Field(0.1, gt=0, lt=1, description="probability that the calibration's guarantee is wrong")
    dual_learning_rate: float = Field(0.05, gt=0, description="step of the dual ascent on λ")
    objective: Literal["cvar", "expected_cost"] = Field(
        "cvar", description="cvar: E[cost] + λ(CVaR − ε) + w·Brier; expected_cost: the same without CVaR"
    )
    features: list[str] = Field(default_factory=list, description="subset of the 22 features; empty: all")
    scorer: Literal["auto", "lagrangian", "logistic", "mlp", "ensemble", "boosting"] = Field(
        "auto",
        description="the model that gives r2v's probability: the published Lagrangian net, or, trained by log loss, a "
        "logistic regression, a net, an ensemble of five or boosted trees; auto: the one with the lowest log loss when "
        "cross-fitted over router templates",
    )
    calibrated: bool = Field(
        True, description="adjust probabilities by a level and a slope, fitted to cross-fitted predictions"
    )
    baselines: list[str] = Field(
        default_factory=list,
        description="rules that are calibrated in addition to r2v, each by playing the validation tasks; empty: all",
    )
    calibrate: Literal["played", "logged"] = Field(
        "played",
        description="played: thresholds are tried in closed loop on validation tasks; logged: they are tried on logged "
        "steps, with the surrogate of failure that training uses",
    )
    teacher_share: Probability | None = Field(
        None, description="share of teacher calls to aim for; null: the cheapest threshold whose risk is within ε"
    )


class TrainingConfig(Section):
    """Everything that is trained."""

    lora: LoRAConfig = Field(default_factory=LoRAConfig)
    teacher: TeacherTrainingConfig = Field(default_factory=TeacherTrainingConfig)
    bc: BCConfig = Field(default_factory=BCConfig)
    verifier: VerifierConfig = Field(default_factory=VerifierConfig)
    dpo: DPOConfig = Field(default_factory=DPOConfig)
    router: RouterConfig = Field(default_factory=RouterConfig)
    wandb: Literal["disabled", "offline", "online"] = Field(
        "disabled", description="Weights & Biases: numbers only, never a prompt; WANDB_MODE takes precedence"
    )
    wandb_project: str = Field("r2v", description="W&B project; WANDB_PROJECT takes precedence")
    wandb_entity: str | None = Field(
        None, description="W&B user or team; WANDB_ENTITY takes precedence; null: your default one"
    )
