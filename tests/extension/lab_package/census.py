"""The stage: how many tasks each family has."""

from __future__ import annotations

import json
from collections import Counter

from r2v_core.digest import digest_of
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.spec import StageContext, StageResult
from r2v_core.stages.task_suite import read_tasks


def run(ctx: StageContext) -> StageResult:
    """Count them."""
    counts = Counter(task.family for split in ("train", "test") for task in read_tasks(ctx.inputs["tasks"], split))
    write_atomic(ctx.run_dir / "census.json", json.dumps(counts, sort_keys=True))
    return StageResult(digest=digest_of(dict(counts)), artifacts={"census": "census.json"}, counts=dict(counts))


if __name__ == "__main__":
    from r2v_core.stages.cli import run_module

    run_module("census")
