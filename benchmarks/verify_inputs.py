"""What it costs to compare a run's files with the digests in its manifest, against reading its episodes.

    python benchmarks/verify_inputs.py                   20,000 episodes and an adapter of 300 MB, about a minute
    python benchmarks/verify_inputs.py --episodes 200000

Both alternate in one process over the same files, which the system has in memory; the ratio is theirs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from r2v_core.runs.artifacts import digests, verify
from r2v_core.runs.manifest import RunManifest, utc_now
from r2v_core.runs.parquet import read_parquet, write_parquet
from r2v_core.trajectory import Episode, Observation, Step

ADAPTER_MB = 300
"""LoRA of rank 64 on all linear layers of an 8 B model, in bfloat16."""


def episode(n: int) -> Episode:
    """Eight steps of a text game's length."""
    steps = [
        Step(
            index=i,
            observation=Observation(state=f"Room {n % 97}, visit {i}. " + "There is a door. " * 20, feedback="Done."),
            action=f"go {n % 4}",
            actor="teacher",
        )
        for i in range(8)
    ]
    return Episode(
        episode_id=f"e{n}", benchmark="textworld", task_id=f"t{n}", template_id=f"t{n}", goal="Find it.",
        steps=steps, success=True, metadata={"run_id": "r"},
    )  # fmt: skip


def main() -> None:
    """Alternate and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--episodes", type=int, default=20_000)
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run_dir = Path(folder)
        write_parquet(run_dir / "trajectories.parquet", [episode(n) for n in range(args.episodes)], Episode)
        (run_dir / "adapter").mkdir()
        with (run_dir / "adapter/weights").open("wb") as handle:
            for _ in range(ADAPTER_MB):
                handle.write(os.urandom(1 << 20))
        artifacts = {"episodes": "trajectories.parquet", "adapter": "adapter"}
        manifest = RunManifest(
            run_id="r", stage="collect", benchmark="textworld", provider="env", model="expert", seed=1,
            partition="textworld:expert|1", status="done", created_at=utc_now(), output_dir=folder,
            artifacts=artifacts, artifact_digests=digests(run_dir, artifacts),
        )  # fmt: skip
        size = sum(path.stat().st_size for path in run_dir.rglob("*") if path.is_file())
        ratios = []
        for _ in range(args.repeats):
            began = time.perf_counter()
            verify(run_dir, manifest)
            verified = time.perf_counter() - began
            began = time.perf_counter()
            n = sum(1 for _ in read_parquet(run_dir / "trajectories.parquet", Episode))
            read = time.perf_counter() - began
            ratios.append(verified / read)
            print(f"{size / 1e6:.0f} MB verified in {verified:.2f} s; {n} episodes read in {read:.2f} s", flush=True)
        print(f"verification over reading: {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
