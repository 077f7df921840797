"""The pipeline as a table: every stage, what it reads, what it depends on in the config, where it writes.

The command lines, the Dagster assets and the fingerprints are all made from this table.
"""

from __future__ import annotations

from r2v_core.errors import R2VError, nearest
from r2v_core.runs.stage import Stage
from r2v_core.stages import ablations

_SCORING = ("candidates", "judge.teacher", "judge.options")
_ROLLOUT = ("benchmark", "teacher.options", "slm", "perturbations", *_SCORING, "agent")

STAGES: dict[str, Stage] = {
    stage.name: stage
    for stage in (
        Stage(
            "task_suite",
            "task_suite",
            "r2v_core.stages.task_suite:run",
            "Build the benchmark's tasks and split them by template",
            sections=("benchmark",),
            root="data",
        ),
        Stage(
            "collect",
            "trajectory_run",
            "r2v_core.stages.collect:run",
            "Collect teacher trajectories, with exploratory starts and labelled alternatives",
            (("tasks", "task_suite"),),
            ("benchmark", "teacher.options", "collection"),
            "data",
            version="2",
            shared=True,
        ),
        Stage(
            "perturb",
            "perturbed_dataset",
            "r2v_core.stages.perturb:run",
            "Apply the four perturbation families to the stored trajectories",
            (("tasks", "task_suite"), ("trajectories", "collect")),
            ("perturbations",),
            "data",
            version="2",
        ),
        Stage(
            "train_bc",
            "bc_policy",
            "r2v_core.stages.train_bc:run",
            "Fine-tune the small model on teacher actions (behaviour cloning, LoRA)",
            (("trajectories", "collect"), ("perturbed", "perturb")),
            ("slm", "training.lora", "training.bc"),
            shared=True,
            merged=("trajectories", "perturbed"),
        ),
        Stage(
            "train_verifier",
            "verifier",
            "r2v_core.stages.train_verifier:run",
            "Train the two-headed step verifier on actions of both classes",
            (("trajectories", "collect"), ("perturbed", "perturb")),
            ("slm", "training.lora", "training.verifier"),
            shared=True,
            merged=("trajectories", "perturbed"),
        ),
        Stage(
            "candidates",
            "candidates",
            "r2v_core.stages.candidates:run",
            "Sample K actions a state from the BC policy in perturbed contexts, score and rank them",
            (("tasks", "task_suite"), ("perturbed", "perturb"), ("policy", "train_bc"), ("verifier", "train_verifier")),
            ("slm", *_SCORING),
            "data",
            version="2",
            shared=True,
        ),
        Stage(
            "train_dpo",
            "dpo_policy",
            "r2v_core.stages.train_dpo:run",
            "Preference-optimise the policy (DPO from the BC adapter, plus the consistency term)",
            (("candidates", "candidates"), ("perturbed", "perturb"), ("policy", "train_bc")),
            ("slm", "candidates.rank_by", "training.lora", "training.dpo"),
            shared=True,
        ),
        Stage(
            "router_features",
            "router_features",
            "r2v_core.stages.router_features:run",
            "Roll the policy out under router and validation seeds; label every step with what really happened",
            (("tasks", "task_suite"), ("policy", "train_dpo"), ("verifier", "train_verifier")),
            (*_ROLLOUT, "router_features"),
            "data",
            version="4",
            shared=True,
        ),
        Stage(
            "train_router",
            "router",
            "r2v_core.stages.train_router:run",
            "Train the router with the CVaR Lagrangian, calibrate its temperature, and its threshold in closed loop",
            (
                ("features", "router_features"),
                ("tasks", "task_suite"),
                ("policy", "train_dpo"),
                ("verifier", "train_verifier"),
            ),
            (*_ROLLOUT, "training.router"),
            version="4",
        ),
        *(
            Stage(
                f"evaluate_{condition}",
                f"evaluation_{condition}",
                f"r2v_core.stages.evaluate_{condition}:run",
                f"Play the held-out tasks with every method, {how}",
                (
                    ("tasks", "task_suite"),
                    ("policy", "train_dpo"),
                    ("verifier", "train_verifier"),
                    ("router", "train_router"),
                ),
                (*_ROLLOUT, "evaluation"),
                version="4",
                shared=True,
            )
            for condition, how in (("clean", "without perturbations"), ("noisy", "under the test perturbation seeds"))
        ),
        Stage(
            "result_tables",
            "result_tables",
            "r2v_core.stages.result_tables:run",
            "Metrics, statistics and tables from the evaluation's step traces, over all seeds evaluated so far",
            (("clean", "evaluate_clean"), ("noisy", "evaluate_noisy"), ("router", "train_router")),
            ("evaluation", "training.router"),
        ),
        Stage(
            "report",
            "report",
            "r2v_core.stages.report:run",
            "One HTML page: the question, the setting, tables, figures, and a browser of all episodes",
            (("tables", "result_tables"), ("clean", "evaluate_clean"), ("noisy", "evaluate_noisy")),
            version="2",
        ),
    )
}
"""The pipeline in dependency order: what the demo makes."""

ABLATIONS: dict[str, Stage] = {
    ablation.stage: Stage(
        ablation.stage,
        ablation.stage,
        "r2v_core.stages.ablation:run",
        f"Ablation. {ablation.title}",
        (("full", "evaluate_noisy"),),
        ("evaluation.bootstrap", "evaluation.confidence", "training.router.cvar_alpha"),
        arguments=(ablation.name,),
    )
    for ablation in ablations.ABLATIONS.values()
}
"""Made on demand, beside the pipeline."""

BY_ASSET = {stage.asset: stage for stage in (STAGES | ABLATIONS).values()}


def get_stage(name: str) -> Stage:
    """Look a stage up by its name.

    Raises:
        R2VError: for an unknown name, with the known ones.
    """
    known = STAGES | ABLATIONS
    if name not in known:
        raise R2VError(f"Unknown stage '{name}'.{nearest(name, known)}")
    return known[name]
