"""The floor of an evaluation: its held-out tasks under its noise, played with uniformly random admissible actions.

    python benchmarks/random_play.py outputs/mrp/evaluate_noisy/<run_id>

Prints the success rate of random play over many repeats beside that of the run's small model and teacher.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from r2v_core.agent.live import Choice, Job, Live
from r2v_core.agent.loop import play
from r2v_core.config import Config
from r2v_core.digest import rng
from r2v_core.perturbations import make_noise
from r2v_core.runs.directories import project_root
from r2v_core.runs.manifest import read_manifest
from r2v_core.runs.parquet import read_parquet
from r2v_core.runs.spec import UpstreamRun
from r2v_core.stages.task_suite import open_benchmark, read_tasks
from r2v_core.trajectory import Episode


class RandomPlay:
    """A driver that knows what is admissible and nothing else."""

    def decide(self, live: Sequence[Live]) -> list[Choice]:
        """One random admissible action for each live episode."""
        choices = []
        for one in live:
            admissible = one.environment.admissible()
            draw = rng(0, "random-play", one.job.episode_id, one.step)
            choices.append(Choice(action=str(draw.choice(admissible)) if admissible else "look", actor="explore"))
        return choices


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run directory of a finished evaluation")
    parser.add_argument(
        "--repeats", type=int, default=10, help="random episodes per task and noise (default: %(default)s)"
    )
    args = parser.parse_args()
    project, manifest = project_root(), read_manifest(args.run)
    config = Config.model_validate(manifest.config)
    suite = project / next(item.path for item in manifest.inputs if item.role == "tasks")
    tasks = {task.task_id: task for task in read_tasks(UpstreamRun(suite, read_manifest(suite)), "test")}
    played = list(read_parquet(UpstreamRun(args.run, manifest).artifact("episodes"), Episode))
    settings = sorted({(e.task_id, e.perturbation_seed) for e in played}, key=str)
    jobs = [Job(f"{task}~{z}~{r}", tasks[task], z=z) for task, z in settings for r in range(args.repeats)]
    benchmark = open_benchmark(config)
    cache = project / config.paths.cache
    episodes = list(
        play(
            jobs,
            RandomPlay(),
            open_environment=lambda task: benchmark.open(task, cache),
            noise=make_noise(config.perturbations),
            parallel=config.agent.parallel,
            benchmark=manifest.benchmark,
            seed=manifest.seed,
            metadata={},
        )
    )
    print(f"random play: {sum(e.success for e in episodes) / len(episodes):.1%} of {len(episodes)} episodes")
    for method in ("slm_only", "llm_only"):
        chosen = [e.success for e in played if e.metadata["method"] == method]
        print(f"{method}: {sum(chosen) / len(chosen):.1%} of {len(chosen)} episodes")


if __name__ == "__main__":
    main()
