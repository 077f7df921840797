"""The same noise on a stored trajectory, for training on perturbed observations."""

from __future__ import annotations

from copy import deepcopy

from r2v_core.errors import R2VError
from r2v_core.perturbations import Noise
from r2v_core.perturbations.base import StepContext
from r2v_core.trajectory import Episode, Step

MAX_FAILURES = 3
"""Failed calls in a row after which a stored action is carried out whatever the noise says."""


def perturb_episode(episode: Episode, noise: Noise, z: int) -> Episode:
    """A copy of a clean episode as it would have been recorded under the noise with seed ``z``.

    An intercepted action becomes a step of its own (``executed=False``, ``progress=None``: nothing happened that
    could be judged; nothing measured: no tokens, dollars or seconds), after which the same action is tried again.
    Steps are counted anew, and each moment is the one that a closed loop would have had. The clean observation is
    kept where the noise changed it. Actions, goal, verdict and score stay what they were.

    Raises:
        R2VError: if the episode is already perturbed.
    """
    if episode.perturbation_seed is not None or any(step.perturbations or step.clean for step in episode.steps):
        raise R2VError(f"Episode {episode.episode_id} is already perturbed; perturb the clean one it came from")
    steps: list[Step] = []
    previous = None
    for step in episode.steps:
        current = step.observation
        admissible = sorted({*step.alternatives, step.action})
        for attempt in range(MAX_FAILURES + 1):
            context = StepContext(z, episode.task_id, len(steps), episode.goal, admissible, previous, current)
            seen, records = noise.observe(context, current)
            failure = noise.intercept(context, step.action) if attempt < MAX_FAILURES else None
            changes = {
                "index": len(steps),
                "observation": seen,
                "clean": current if seen != current else None,
                "perturbations": records,
            }
            previous = current
            if failure is None:
                steps.append(step.model_copy(update=changes, deep=True))
                break
            current, record = failure
            changes |= {"executed": False, "progress": None, "perturbations": [*records, record]}
            changes |= {"tokens_in": 0, "tokens_out": 0, "cost_usd": 0.0, "latency_s": 0.0, "decision": None}
            steps.append(step.model_copy(update=changes, deep=True))
    changes = {"episode_id": f"{episode.episode_id}~z{z}", "steps": steps, "perturbation_seed": z}
    return episode.model_copy(update=changes | {"metadata": deepcopy(episode.metadata) | noise.world(z)})
