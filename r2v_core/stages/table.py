"""The pipeline as a table: every stage, what it reads, what it depends on in the config, where it writes.

The command lines, the Dagster assets and the fingerprints are all made from this table.
"""

from __future__ import annotations

from importlib.metadata import entry_points

from r2v_core.config import section
from r2v_core.config.schema import Config, OnPolicyConfig, SLMConfig
from r2v_core.errors import R2VError, nearest
from r2v_core.runs.stage import Stage
from r2v_core.stages import ablations

_SCORING = ("candidates", "judge.teacher", "judge.options")
_ROLLOUT = ("benchmark", "teacher.options", "slm", "perturbations", *_SCORING, "agent")

_TRAINED = tuple(f"slm.{key}" for key in SLMConfig.model_fields if not key.startswith("engine"))
"""Of the small model, what training depends on: not what samples from it later."""

_ON_POLICY = tuple(
    f"training.verifier.on_policy.{key}" for key in OnPolicyConfig.model_fields if key not in ("learn", "share")
)
"""Of the verifier's own data, what decides them: not whether and how much they are learnt from."""

_TEACHER = ("teacher", "train_teacher")
"""What stages that ask a teacher read where it is one that is trained here."""

_CPU = {"gpus": 0, "time": "04:00:00"}
_SAMPLING = {"gpus": 1, "cpus": 8, "memory": "64G", "time": "24:00:00"}
_TRAINING = {"gpus": 2, "cpus": 16, "memory": "128G", "time": "24:00:00"}
_BESIDE_DAGSTER = {"where": "local"}

_BUILT_IN = (
    Stage(
        name="task_suite",
        asset="task_suite",
        function="r2v_core.stages.task_suite:run",
        title="Build the benchmark's tasks and split them by template",
        group="data",
        kinds=("python", "json"),
        resources=_CPU,
        sections=("benchmark",),
        root="data",
    ),
    Stage(
        name="train_teacher",
        asset="teacher_policy",
        function="r2v_core.stages.train_teacher:run",
        title="Train a teacher that reads what the agent reads, on tasks and in worlds of its own",
        group="data",
        kinds=("pytorch", "huggingface"),
        resources=_SAMPLING,
        memory_key="training.teacher.batch_size",
        inputs=(("tasks", "task_suite"),),
        switch="benchmark.splits.teacher",
        sections=("benchmark", "perturbations", "collection", *_TRAINED, "training.lora", "training.teacher"),
    ),
    Stage(
        name="collect",
        asset="trajectory_run",
        function="r2v_core.stages.collect:run",
        title="Collect teacher trajectories, with exploratory starts and labelled alternatives",
        group="data",
        kinds=("python", "parquet"),
        resources={"gpus": 1, "time": "24:00:00"},
        memory_key="collection.parallel",
        inputs=(("tasks", "task_suite"), _TEACHER),
        sections=("benchmark", "teacher.options", "collection"),
        root="data",
        version="3",
        extends=("benchmark.name", "benchmark.max_steps", "benchmark.options", "teacher.options"),
        shared=True,
        sharded=True,
    ),
    Stage(
        name="perturb",
        asset="perturbed_dataset",
        function="r2v_core.stages.perturb:run",
        title="Apply the four perturbation families to the stored trajectories",
        group="data",
        kinds=("python", "parquet"),
        resources=_CPU,
        inputs=(("tasks", "task_suite"), ("trajectories", "collect")),
        sections=("perturbations",),
        root="data",
        version="3",
    ),
    Stage(
        name="train_bc",
        asset="bc_policy",
        function="r2v_core.stages.train_bc:run",
        title="Fine-tune the small model on teacher actions (behaviour cloning, LoRA)",
        group="policy",
        kinds=("pytorch", "huggingface"),
        resources=_TRAINING | {"time": "48:00:00"},
        memory_key="training.bc.batch_size",
        inputs=(("trajectories", "collect"), ("perturbed", "perturb")),
        sections=(*_TRAINED, "training.lora", "training.bc"),
        extends=(*_TRAINED, "training.lora"),
        version="2",
        shared=True,
        merged=("trajectories", "perturbed"),
    ),
    Stage(
        name="policy_rollouts",
        asset="policy_rollouts",
        function="r2v_core.stages.policy_rollouts:run",
        title="Play the BC policy on training tasks, and play on from its own states after each of its candidates",
        group="verifier",
        kinds=("pytorch", "parquet"),
        resources=_SAMPLING | {"time": "12:00:00"},
        memory_key="agent.parallel",
        inputs=(("tasks", "task_suite"), ("policy", "train_bc")),
        switch="training.verifier.on_policy.episodes",
        sections=("benchmark", "slm", "perturbations", "candidates", "agent", *_ON_POLICY),
        root="data",
        version="3",
        shared=True,
        sharded=True,
    ),
    Stage(
        name="train_verifier",
        asset="verifier",
        function="r2v_core.stages.train_verifier:run",
        title="Train the two-headed step verifier on actions of both classes",
        group="verifier",
        kinds=("pytorch", "huggingface"),
        resources=_SAMPLING | {"time": "12:00:00"},
        memory_key="training.verifier.batch_size",
        inputs=(("trajectories", "collect"), ("perturbed", "perturb"), ("rollouts", "policy_rollouts")),
        sections=(*_TRAINED, "training.lora", "training.verifier"),
        extends=(*_TRAINED, "training.lora", "training.verifier.layers"),
        version="2",
        shared=True,
        merged=("trajectories", "perturbed"),
    ),
    Stage(
        name="candidates",
        asset="candidates",
        function="r2v_core.stages.candidates:run",
        title="Sample K actions per state from the BC policy in perturbed contexts, score and rank them",
        group="policy",
        kinds=("pytorch", "json"),
        resources=_SAMPLING,
        memory_key="candidates.batch_size",
        inputs=(
            ("tasks", "task_suite"),
            ("perturbed", "perturb"),
            ("policy", "train_bc"),
            ("verifier", "train_verifier"),
        ),
        sections=("slm", *_SCORING),
        root="data",
        version="7",
        shared=True,
        sharded=True,
    ),
    Stage(
        name="train_dpo",
        asset="dpo_policy",
        function="r2v_core.stages.train_dpo:run",
        title="Preference-optimise the policy (DPO from the BC adapter, plus the consistency term)",
        group="policy",
        kinds=("pytorch", "huggingface"),
        resources=_TRAINING,
        memory_key="training.dpo.batch_size",
        inputs=(("candidates", "candidates"), ("perturbed", "perturb"), ("policy", "train_bc")),
        sections=(*_TRAINED, "candidates.rank_by", "training.lora", "training.dpo"),
        extends=(*_TRAINED, "training.lora"),
        version="3",
        shared=True,
    ),
    Stage(
        name="router_features",
        asset="router_features",
        function="r2v_core.stages.router_features:run",
        title="Roll the policy out under router and validation seeds; label every step with what really happened",
        group="router",
        kinds=("pytorch", "parquet"),
        resources=_SAMPLING | {"time": "12:00:00"},
        memory_key="agent.parallel",
        inputs=(("tasks", "task_suite"), ("policy", "train_dpo"), ("verifier", "train_verifier"), _TEACHER),
        sections=(*_ROLLOUT, "router_features"),
        root="data",
        version="13",
        shared=True,
        sharded=True,
    ),
    Stage(
        name="train_router",
        asset="router",
        function="r2v_core.stages.train_router:run",
        title="Choose the router's scorer by cross-fitting, train it, certify its threshold by playing",
        group="router",
        kinds=("pytorch",),
        resources={"gpus": 1, "time": "04:00:00"},
        memory_key="agent.parallel",
        inputs=(
            ("features", "router_features"),
            ("tasks", "task_suite"),
            ("policy", "train_dpo"),
            ("verifier", "train_verifier"),
            _TEACHER,
        ),
        sections=(*_ROLLOUT, "training.router"),
        version="13",
        shared=True,
    ),
    *(
        Stage(
            name=f"evaluate_{condition}",
            asset=f"evaluation_{condition}",
            function=f"r2v_core.stages.evaluate_{condition}:run",
            title=f"Play the held-out tasks with every method, {how}",
            group="evaluation",
            kinds=("pytorch", "parquet"),
            resources=_SAMPLING,
            memory_key="agent.parallel",
            inputs=(
                ("tasks", "task_suite"),
                ("policy", "train_dpo"),
                ("verifier", "train_verifier"),
                ("router", "train_router"),
                _TEACHER,
            ),
            sections=(*_ROLLOUT, "evaluation"),
            version="13",
            shared=True,
            sharded=True,
        )
        for condition, how in (("clean", "without perturbations"), ("noisy", "under the test perturbation seeds"))
    ),
    Stage(
        name="result_tables",
        asset="result_tables",
        function="r2v_core.stages.result_tables:run",
        title="Metrics, statistics and tables from the evaluation's step traces, over all seeds evaluated so far",
        group="results",
        kinds=("pandas", "csv"),
        resources=_BESIDE_DAGSTER,
        inputs=(("clean", "evaluate_clean"), ("noisy", "evaluate_noisy"), ("router", "train_router")),
        sections=("evaluation", "training.router"),
        version="8",
    ),
    Stage(
        name="report",
        asset="report",
        function="r2v_core.stages.report:run",
        title="One HTML page: the question, the setting, tables, figures, and a browser of all episodes",
        group="results",
        kinds=("matplotlib", "html"),
        resources=_BESIDE_DAGSTER,
        inputs=(("tables", "result_tables"), ("clean", "evaluate_clean"), ("noisy", "evaluate_noisy")),
        version="5",
    ),
)

ENTRY_POINTS = "r2v.stages"
"""Entry-point group under which another package offers a :class:`Stage` of its own."""

STAGES: dict[str, Stage] = {
    stage.name: stage for stage in (*_BUILT_IN, *(found.load() for found in entry_points(group=ENTRY_POINTS)))
}
"""The pipeline in dependency order: what the demo makes, but for stages that the config has switched off."""

ABLATIONS: dict[str, Stage] = {
    ablation.stage: Stage(
        name=ablation.stage,
        asset=ablation.stage,
        function="r2v_core.stages.ablation:run",
        title=f"Ablation. {ablation.title}",
        group="ablation",
        kinds=("pytorch", "parquet"),
        resources=_SAMPLING | {"time": "48:00:00"},
        memory_key="agent.parallel",
        inputs=(("full", "evaluate_noisy"),),
        sections=("evaluation.bootstrap", "evaluation.confidence", "training.router.cvar_alpha"),
        arguments=(ablation.name,),
    )
    for ablation in ablations.ABLATIONS.values()
}
"""Made on demand, beside the pipeline."""

BY_ASSET = {stage.asset: stage for stage in (STAGES | ABLATIONS).values()}


def is_on(stage: Stage, config: Config) -> bool:
    """Whether a stage has anything to do under a configuration; 0 is what a snapshot says without the key."""
    table, _, key = stage.switch.rpartition(".")
    return not stage.switch or bool(section(config, table).get(key))


def pipeline(config: Config) -> list[Stage]:
    """The stages that have anything to do under a configuration, in dependency order."""
    return [stage for stage in STAGES.values() if is_on(stage, config)]


def inputs_of(stage: Stage, config: Config) -> tuple[tuple[str, str], ...]:
    """The (role, upstream stage) pairs that a stage reads under a configuration."""
    return tuple((role, upstream) for role, upstream in stage.inputs if is_on(STAGES[upstream], config))


def all_sections(stage: Stage, config: Config) -> set[str]:
    """Config sections that a stage's runs depend on under a configuration, through their inputs too."""
    upstreams = [STAGES[upstream] for _, upstream in inputs_of(stage, config)]
    return set(stage.sections).union(*(all_sections(upstream, config) for upstream in upstreams))


def get_stage(name: str) -> Stage:
    """Look a stage up by its name.

    Raises:
        R2VError: for an unknown name, with the known ones.
    """
    known = STAGES | ABLATIONS
    if name not in known:
        raise R2VError(f"Unknown stage '{name}'.{nearest(name, known)}")
    return known[name]
