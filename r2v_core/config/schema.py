"""Every configuration key, its type, its unit and its bounds.

The YAML files under ``configs/`` are merged and checked against :class:`Config` by :mod:`r2v_core.config.load`.
Benchmark-specific keys (``benchmark.options``) are checked against the benchmark's own options model.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]
Count = Annotated[int, Field(ge=0)]
Split = Literal["train", "router", "validation", "test", "teacher"]
SPLIT_SIZES: dict[Split, int] = {"train": 24, "router": 8, "validation": 8, "test": 8, "teacher": 0}


class Section(BaseModel):
    """A section refuses keys that it does not know."""

    model_config = ConfigDict(extra="forbid", validate_default=True)


def _only_teacher_empty(splits: dict[Split, int]) -> dict[Split, int]:
    """Refuse a split without tasks, but for that of a teacher that is trained here."""
    if empty := [split for split, count in splits.items() if not count and split != "teacher"]:
        raise ValueError(f"{empty[0]} is 0; every split but teacher needs 1 template or more")
    return splits


class PathsConfig(Section):
    """Where files are kept, relative to the project root."""

    data: str = Field("data", description="run directories go to <data>/runs/<run_id>")
    outputs: str = Field("outputs", description="checkpoints and evaluation traces")
    results: str = Field("results/default", description="tables go to <results>/structured_results")
    cache: str = Field("data/cache", description="games and converted models; safe to delete")


class BenchmarkConfig(Section):
    """The tasks."""

    name: str = Field("textworld", description="name of a benchmark (r2v benchmarks lists them)")
    max_steps: Positive = Field(20, description="environment steps after which an episode ends")
    splits: Annotated[dict[Split, Count], AfterValidator(_only_teacher_empty)] = Field(
        default_factory=SPLIT_SIZES.copy,
        description="number of task templates per split; teacher: for a teacher that is trained here, else 0",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="benchmark-specific, checked by the benchmark")


class TeacherLimitsConfig(Section):
    """How, and how often, a teacher behind an API is asked. Nothing here influences what it answers."""

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
        None, description="calls allowed per run; 0: no limit; null: not set, refused where calls cost money"
    )
    budget_usd: Annotated[float, Field(ge=0)] | None = Field(
        None, description="dollars allowed per run; 0: no limit; null: not set, refused where calls cost money"
    )


class TeacherConfig(Section):
    """The teacher, which the partition key names."""

    options: dict[str, Any] = Field(default_factory=dict, description="provider-specific, checked by the provider")
    limits: TeacherLimitsConfig = Field(default_factory=TeacherLimitsConfig)


class JudgeConfig(Section):
    """A language model that scores candidate actions in place of the trained verifier."""

    teacher: str = Field("gpt-4o-mini", description="a teacher's name, as in partitions")
    options: dict[str, Any] = Field(default_factory=dict, description="provider-specific, checked by the provider")
    limits: TeacherLimitsConfig = Field(
        default_factory=TeacherLimitsConfig, description="limits of the judge, separate from the teacher's"
    )


class SLMConfig(Section):
    """The small language model."""

    model: str = Field("smollm2-135m-instruct", description="packaged name, local path or hub id")
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="auto: bfloat16 where the processor or GPU computes in it, else float32"
    )
    quantization: Literal["none", "4bit"] = Field("none", description="4bit needs a CUDA GPU and bitsandbytes")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field("sdpa", description="attention kernel")
    max_prompt_tokens: Positive = Field(
        320, description="tokens; to stay below this, older history is dropped, then each part is cut"
    )
    max_action_tokens: Positive = Field(16, description="largest number of tokens generated for one action")
    history_steps: Count = Field(4, description="past actions shown in the prompt")
    engine: str = Field("transformers", description="what samples tokens: the name of an engine in r2v_core.engines")
    engine_options: dict[str, Any] = Field(default_factory=dict, description="keys of the engine, which checks them")


class CollectionConfig(Section):
    """Stage 1: teacher trajectories."""

    episodes_per_task: Positive = Field(2, description="episodes on each train task")
    explore_start_steps: Count = Field(
        4,
        description="every second episode begins with between 1 and this many random admissible actions; 0: none does",
    )
    explore_prob: Probability = Field(0.15, description="probability of a random action later in such an episode")
    explore_all_episodes: Count = Field(
        1, description="additional episodes on each task that explore from beginning to end"
    )
    explore_all_prob: Probability = Field(
        0.5, description="probability of a random action at each step of such an episode"
    )
    alternatives: Count = Field(
        3, description="number of other admissible actions that are labelled with their progress at each step"
    )
    parallel: Positive = Field(16, description="environments stepped side by side")


class DataConfig(Section):
    """What the training stages learn from."""

    merge: str | list[str] | None = Field(
        None,
        description="runs of 'collect' to merge, without duplicates, into the training set: a SQL condition on the "
        "registry's table runs, or a list of run ids; null: only the partition's own run",
    )


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
    garble_share: Probability = Field(0.15, description="share of characters replaced by 'garbled'")
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
    """How many perturbation seeds z each purpose has; the ranges never overlap."""

    train: Positive = Field(2, description="perturbed copies of each trajectory, for policy and verifier")
    router: Positive = Field(3, description="seeds of the rollouts that the router learns from")
    validation: Positive = Field(3, description="seeds for temperature and threshold")
    test: Positive = Field(3, description="seeds of the reported evaluation")


class PerturbationsConfig(Section):
    """The noise z: four families, each with its operators' probabilities."""

    seeds: SeedsConfig = Field(default_factory=SeedsConfig)
    severity_spread: float = Field(
        0.5,
        ge=0,
        description="how much worlds differ: standard deviation of a family's severity, which has mean 1 and "
        "multiplies its probabilities; 0: all worlds are alike",
    )
    held_out: list[Literal["tool_flakiness", "partial_observability", "distractors", "prompt_injection"]] = Field(
        default_factory=list,
        description="families that occur only in the reported evaluation; training, router and thresholds never meet "
        "them",
    )
    tool_flakiness: ToolFlakinessConfig = Field(default_factory=ToolFlakinessConfig)
    partial_observability: PartialObservabilityConfig = Field(default_factory=PartialObservabilityConfig)
    prompt_injection: PromptInjectionConfig = Field(default_factory=PromptInjectionConfig)
    distractors: DistractorsConfig = Field(default_factory=DistractorsConfig)


class LoRAConfig(Section):
    """Low-rank adapters (Hu et al. 2021)."""

    r: Positive = Field(16, description="rank")
    alpha: Positive = Field(32, description="the scale is alpha / r")
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
    """A teacher that is trained here (stage train_teacher), on the tasks of benchmark.splits.teacher."""

    max_steps: Positive = Field(300, description="optimiser steps")
    learning_rate: float = Field(5e-4, gt=0, description="peak, after linear warm-up, cosine to zero")
    save_steps: Positive = Field(50, description="optimiser steps between checkpoints")
    worlds: Positive = Field(2, description="perturbed copies of each episode, in worlds that serve nothing else")


class OnPolicyConfig(Section):
    """What the verifier learns of the small model's own candidates in its own states (stage policy_rollouts)."""

    episodes: Count = Field(
        0, description="episodes of the BC policy on training tasks; 0: none, and the stage is left out"
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
        True, description="whether probabilities get a level and a slope, fitted to cross-fitted predictions"
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
        None, description="wanted share of teacher calls; null: the cheapest threshold whose risk is within ε"
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


class CandidatesConfig(Section):
    """Stage 4 and every rollout: K samples per state."""

    k: Annotated[int, Field(ge=2)] = Field(4, description="candidates per state (K)")
    temperature: float = Field(0.7, gt=0, description="sampling temperature")
    batch_size: Positive = Field(24, description="states for which actions are sampled together")
    max_states: Count = Field(160, description="number of states in stage 4; 0: all")
    rank_by: Literal["environment", "verifier"] = Field(
        "environment",
        description="what decides which of two candidates is better, for DPO; where the environment can't tell, the "
        "verifier decides",
    )
    scored_by: Literal["verifier", "judge"] = Field(
        "verifier", description="verifier: the trained verifier; judge: the language model of the section judge"
    )


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
    self_correction: bool = Field(True, description="avoid an action that just failed in the same state, by re-ranking")
    verifier: bool = Field(
        True,
        description="false: candidates are not scored; the small model plays the action that it samples most often",
    )
    entropy_threshold: float = Field(2.5, ge=0, description="nats; heuristic_router escalates above this entropy")
    verifier_threshold: Probability = Field(0.4, description="heuristic_router escalates below this mean score")


class EpisodesConfig(Section):
    """How all episodes are played, and how many may end in an error. Those count as failed."""

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
        False, description="when an unfinished run is resumed, play its episodes that ended in an error again"
    )


class BenefitConfig(Section):
    """How the benefit of a call is measured (label: benefit)."""

    state_share: Probability = Field(0.25, description="share of the logged steps at which it is; others have no label")
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
        default_factory=list, description="names of routing rules to compare (r2v_core.agent.rules); empty: all"
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
    worlds_per_template: Count = Field(
        0, description="test worlds that each template meets, families dealt out evenly; 0: all of seeds.test"
    )
    bootstrap: Positive = Field(2000, description="bootstrap resamples")
    confidence: float = Field(0.95, gt=0, lt=1, description="coverage of the intervals")


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
