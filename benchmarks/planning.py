"""Planning with thousands of runs on disk: seconds to plan one stage, all its inputs searched for.

    python benchmarks/planning.py                 10,000 runs
    python benchmarks/planning.py --runs 1000

The manifests are as large as real ones (the whole config snapshot). A process that has planned before only reads what
is new, as Dagster's do; both times are printed, and the one for parsing every manifest whole, as it would be without
:mod:`r2v_core.runs.heads`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from r2v_core.config import config_snapshot
from r2v_core.partition import Partition
from r2v_core.runs.directories import runs_folder
from r2v_core.runs.manifest import RunManifest, read_manifest, write_manifest
from r2v_core.stages.experiments import load_config
from r2v_core.stages.plan import plan
from r2v_core.stages.table import STAGES

ROOT = Path(__file__).parents[1]
STAGE = "candidates"


def make_runs(project: Path, n: int) -> None:
    """``n`` finished runs, shared out over the inputs of :data:`STAGE` and 50 seeds, the newest of seed 0."""
    loaded = load_config("configs/mrp.yaml", (), project)
    snapshot = config_snapshot(loaded.config)
    upstream = [STAGES[name] for _, name in STAGES[STAGE].inputs]
    for i in range(n):
        stage, seed = upstream[i % len(upstream)], i // len(upstream) % 50
        run_id = f"{stage.name}_textworld_env_expert_{i:06d}"
        directory = runs_folder(project, loaded.config.paths, stage) / run_id
        directory.mkdir(parents=True)
        manifest = RunManifest(
            run_id=run_id,
            stage=stage.name,
            benchmark="textworld",
            provider="env",
            model="expert",
            seed=seed,
            partition=f"textworld:expert|{seed}",
            status="done",
            created_at=f"2026-01-01T00:00:00.{i:06d}+00:00",
            output_dir=directory.relative_to(project).as_posix(),
            config=snapshot,
            digest=f"{i:064d}",
        )
        write_manifest(manifest, directory)


def main() -> None:
    """Print the three times."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    n = parser.parse_args().runs
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder)
        shutil.copytree(ROOT / "configs", project / "configs")
        make_runs(project, n)
        loaded = load_config("configs/mrp.yaml", (), project)
        for when in ("first plan of a process", "next plan"):
            began = time.perf_counter()
            spec = plan(STAGE, Partition.parse("textworld:expert|0"), loaded, project=project)
            print(f"{when}: {time.perf_counter() - began:.2f} s, {len(spec.inputs)} inputs among {n} runs")
        began = time.perf_counter()
        paths = [path for name in ("data", "outputs") for path in (project / name).rglob("run_manifest.json")]
        for path in paths:
            read_manifest(path.parent)
        print(f"parsing all {len(paths)} manifests: {time.perf_counter() - began:.2f} s")


if __name__ == "__main__":
    main()
