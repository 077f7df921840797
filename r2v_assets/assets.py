"""The assets, by topic. What each one does is a stage of r2v_core; what it reads is in the stage table."""

from __future__ import annotations

from r2v_assets.stage_asset import stage_asset
from r2v_core.stages.table import ABLATIONS, get_stage

TOPICS: dict[str, dict[str, set[str]]] = {
    "data": {
        "task_suite": {"python", "json"},
        "collect": {"python", "parquet"},
        "perturb": {"python", "parquet"},
    },
    "policy": {
        "train_bc": {"pytorch", "huggingface"},
        "candidates": {"pytorch", "json"},
        "train_dpo": {"pytorch", "huggingface"},
    },
    "verifier": {"train_verifier": {"pytorch", "huggingface"}},
    "router": {"router_features": {"pytorch", "parquet"}, "train_router": {"pytorch"}},
    "evaluation": {"evaluate_clean": {"pytorch", "parquet"}, "evaluate_noisy": {"pytorch", "parquet"}},
    "ablation": {name: {"pytorch", "parquet"} for name in ABLATIONS},
    "results": {"result_tables": {"pandas", "csv"}, "report": {"matplotlib", "html"}},
}
"""Group → stage → kinds (the icons in the graph)."""

ASSETS = [
    stage_asset(get_stage(name), group, kinds) for group, stages in TOPICS.items() for name, kinds in stages.items()
]
