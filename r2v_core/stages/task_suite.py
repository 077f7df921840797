"""Stage 0: build the benchmark's tasks and split them by template."""

from __future__ import annotations

if __name__ == "__main__":  # before the imports: help and refusals come at once
    from r2v_core.stages.cli import run_module

    run_module("task_suite")

from collections import Counter

from r2v_core.benchmarks import make_benchmark
from r2v_core.benchmarks.base import SPLITS, Benchmark, Task
from r2v_core.config.schema import Config
from r2v_core.digest import digest_of
from r2v_core.runs.jsonl import JsonlStore, write_records
from r2v_core.runs.manifest import write_atomic
from r2v_core.runs.spec import StageContext, StageResult, UpstreamRun
from r2v_core.training.guarantee import shortfall


def open_benchmark(config: Config) -> Benchmark:
    """The benchmark of a config section, ready to run."""
    section = config.benchmark
    splits = {str(split): count for split, count in section.splits.items()}
    return make_benchmark(section.name, section.options, splits, section.max_steps)


def read_tasks(run: UpstreamRun, *splits: str) -> list[Task]:
    """Tasks of a finished suite, of the given splits (all if none is given)."""
    return [task for task in JsonlStore(run.artifact("tasks"), Task) if not splits or task.split in splits]


def run(ctx: StageContext) -> StageResult:
    """Make every task's files and write ``tasks.jsonl``."""
    benchmark = open_benchmark(ctx.config)
    tasks = benchmark.make_tasks(
        ctx.seed, ctx.cache, progress=lambda done, total: ctx.report.progress("tasks", done, total)
    )
    write_records(ctx.run_dir / "tasks.jsonl", tasks)
    write_atomic(ctx.run_dir / "preview.md", _preview(tasks))
    splits = Counter(task.split for task in tasks)
    held_out = len({task.template_id for task in tasks if task.split == "validation"})
    if why := shortfall(ctx.config.training.router, ctx.spec.provider, held_out):  # said hours before the router
        ctx.report.log(f"warning: {why}")
    return StageResult(
        digest=digest_of([task.model_dump(mode="json") for task in tasks]),
        artifacts={"tasks": "tasks.jsonl", "preview": "preview.md"},
        counts={
            "tasks": len(tasks),
            "templates": len({task.template_id for task in tasks}),
            **{f"tasks_{split}": splits[split] for split in SPLITS},
        },
    )


def _preview(tasks: list[Task]) -> str:
    families = sorted({task.family for task in tasks})
    lines = ["| family | " + " | ".join(SPLITS) + " |", "| --- |" + " ---: |" * len(SPLITS)]
    for family in families:
        counts = Counter(task.split for task in tasks if task.family == family)
        lines.append(f"| {family} | " + " | ".join(str(counts[split]) for split in SPLITS) + " |")
    lines += ["", "Tasks per family and split. One of each family:", ""]
    lines += [f"- **{family}**: {next(t.goal for t in tasks if t.family == family)}" for family in families]
    return "\n".join(lines) + "\n"
