"""Synthetic rollouts with a known law: two features and the seed's noise decide how likely an action fails."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy.special import expit

from r2v_core.agent.features import FEATURES
from r2v_core.models.router import RouterRow

MAX_STEPS = 12


def synthetic_rows(
    seed: int, split: str = "router", tasks: int = 10, seeds: int = 6, takeover: float = 0.25, fail_shift: float = 0.0
) -> list[RouterRow]:
    """Rollouts of ``tasks`` tasks under ``seeds`` perturbation seeds; an episode succeeds after five good steps."""
    random = np.random.default_rng(seed)
    rows = []
    for task in range(tasks):
        for z in range(seeds):
            episode, good = [], 0
            for step in range(MAX_STEPS):
                confusion = random.normal() + 0.35 * z - 0.8 + fail_shift
                verifier = np.clip(0.5 - 0.18 * confusion + 0.1 * random.normal(), 0.01, 0.99)
                entropy = np.exp(0.4 * confusion + 0.5 * random.normal())
                label = bool(random.random() < expit(2.5 * confusion))
                actor = "teacher" if random.random() < takeover else "slm"
                failed = bool(random.random() < 0.05) if actor == "teacher" else label
                values = dict.fromkeys(FEATURES, 0.0) | {name: float(random.normal()) for name in FEATURES[5:9]}
                values |= {"entropy": float(entropy), "verifier_mean": float(verifier), "step": float(step)}
                values |= {"verifier_best": float(verifier + 0.05), "horizon_fraction": step / MAX_STEPS}
                episode.append((step, values, label, actor, failed))
                good += not failed
                if good == 5:
                    break
            for step, values, label, actor, failed in episode:
                rows.append(
                    RouterRow(
                        task_id=f"{split}-{task}",
                        template_id=f"{split}-t{task}",
                        family="synthetic",
                        split=split,
                        z=z if split == "router" else 100 + z,
                        episode_id=f"{split}-{task}-{z}",
                        step=step,
                        features=values,
                        label=label,
                        label_source="progress",
                        actor=actor,
                        failed=failed,
                        success=good == 5,
                    )
                )
    return rows


@pytest.fixture(scope="session")
def make_rows() -> Callable[..., list[RouterRow]]:
    """:func:`synthetic_rows`."""
    return synthetic_rows


@pytest.fixture(scope="session")
def router_rows() -> list[RouterRow]:
    """Steps to train on."""
    return synthetic_rows(1)


@pytest.fixture(scope="session")
def validation_rows() -> list[RouterRow]:
    """Steps of other tasks, for temperature and threshold."""
    return synthetic_rows(2, "validation", tasks=8)
