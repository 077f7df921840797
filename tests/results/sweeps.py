"""Made-up sweeps of thresholds."""

from __future__ import annotations

from collections.abc import Callable

from r2v_core.evaluation.frame import Frames, frames
from r2v_core.trajectory import Episode

Make = Callable[..., list[Episode]]


def swept(make: Make, better: float) -> Frames:
    """Two rules at three shares: ``r2v`` wins where a task's difficulty is below its share plus ``better``."""
    episodes = make(conditions=("noisy",), methods=("slm_only", "llm_only"), tasks=12)
    found = []
    for method, share, bonus in [
        ("slm_only", 0.0, 0.0),
        ("llm_only", 1.0, 0.0),
        *[(f"r2v@{s}", s, better) for s in (0.2, 0.5)],
        *[(f"random_router@{s}", s, 0.0) for s in (0.2, 0.5)],
    ]:
        for episode in episodes:
            if episode.metadata["method"] != "slm_only":
                continue
            task, z = int(episode.task_id.rpartition("task")[2]), episode.perturbation_seed or 0
            steps = [
                step.model_copy(update={"actor": "teacher", "cost": 50.0} if i < share * 10 else {"actor": "slm"})
                for i, step in enumerate(episode.steps[:1] * 10)
            ]
            won = (task * 7 + z) % 12 / 12 < share + bonus
            changes = {"steps": steps, "success": won, "metadata": {**episode.metadata, "method": method}}
            found.append(episode.model_copy(update=changes))
    return frames(found)
