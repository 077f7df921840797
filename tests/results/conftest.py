"""Schema-valid evaluation episodes for the tables' and the report's tests. Outcomes are drawn, not played."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest

from r2v_core.trajectory import Candidate, Decision, Episode, Observation, Perturbation, Step
from tests.results.chromium import Page, chromium
from tests.results.reports import VARIANT, write_report
from tests.results.traces import dress

METHODS = (
    "r2v",
    "slm_only",
    "llm_only",
    "entropy_router",
    "heuristic_router",
    "verifier_router",
    "random_router",
    "oracle_router",
)
FAMILIES = ("cooking", "coin_collector", "treasure_hunter")
NOISE = ("tool_flakiness", "partial_observability", "prompt_injection", "distractors")
LIMIT = 9


def play(method: str, condition: str, seed: int, task: int, z: int) -> Episode:
    """One episode; the world (difficulty, noise, risk of each step) does not depend on the method."""
    noisy = condition == "noisy"
    world = np.random.default_rng([seed, task, z, noisy])
    risks = np.clip(world.beta(1.2, 2.5, LIMIT) + 0.15 * noisy + 0.03 * (task % 5), 0.02, 0.97)
    wrong = world.random(LIMIT) < risks
    struck = world.random((LIMIT, 4)) < (0.12 if noisy else 0.0)
    obeys = world.random(LIMIT) < 0.5
    own = np.random.default_rng([seed, task, z, noisy, METHODS.index(method)])
    belief = {"r2v": risks, "entropy_router": 2.0 * risks + own.random(LIMIT)}
    belief["verifier_router"] = 0.8 * risks + 0.2 * own.random(LIMIT)
    lots = own.random(LIMIT)
    needed, steps = 4 + task % 3, []
    for i in range(LIMIT):
        probability = float(belief[method][i]) if method in belief else None
        threshold = 1.4 if method == "entropy_router" else 0.45
        escalate = {
            "slm_only": False,
            "llm_only": True,
            "heuristic_router": bool(risks[i] > 0.75),
            "random_router": bool(lots[i] < 0.4),
            "oracle_router": bool(wrong[i]),
        }.get(method, (probability or 0.0) > threshold)
        records = [
            Perturbation(
                family=name,
                operator="test",
                detail={"target_action": "Open  the trapdoor."} if name == "prompt_injection" else {},
            )
            for name, hit in zip(NOISE, struck[i], strict=True)
            if hit
        ]
        good = escalate or not wrong[i]
        injected = struck[i][2] and not good and obeys[i]
        candidate = Candidate(text="go", logprob=-1.0, n_tokens=2, entropy=0.5, progress=not bool(wrong[i]))
        steps.append(
            Step(
                index=i,
                observation=Observation(state="room"),
                action="open the trapdoor" if injected else "go east" if good else "wait",
                actor="teacher" if escalate else "slm",
                perturbations=records,
                decision=Decision(
                    method=method,
                    candidates=[candidate],
                    chosen=0,
                    probability=probability,
                    threshold=None if probability is None else threshold,
                    escalate=escalate,
                ),
                tokens_in=200,
                tokens_out=6,
                cost=50.0 if escalate else 1.0,
                latency_s=0.25,
            )
        )
        needed -= good
        if not needed:
            break
    return Episode(
        episode_id=f"{method}-{condition}-{seed}-{task}-{z}",
        benchmark="textworld",
        task_id=f"s{seed}-task{task}",
        template_id=f"template{task}",
        goal="win",
        steps=steps,
        success=needed == 0,
        perturbation_seed=z if noisy else None,
        seed=seed,
        metadata={
            "method": method,
            "condition": condition,
            "family": FAMILIES[task % 3],
            "split": "test",
            "run_id": f"evaluate_{condition}_{seed}",
            "teacher_provider": "env",
            "teacher_model": "expert",
            **({} if noisy else {"replicate": z}),
        },
    )


MakeEpisodes = Callable[..., list[Episode]]


@pytest.fixture(scope="session")
def make_episodes() -> MakeEpisodes:
    def make(
        conditions: Sequence[str] = ("clean", "noisy"),
        seeds: Sequence[int] = (1,),
        tasks: int = 6,
        zs: int = 4,
        methods: Sequence[str] = METHODS,
    ) -> list[Episode]:
        return [
            play(method, condition, seed, task, z)
            for condition in conditions
            for seed in seeds
            for method in methods
            for task in range(tasks)
            for z in (range(1000, 1000 + zs) if condition == "noisy" else range(1))
        ]

    return make


@pytest.fixture(scope="session")
def traces(make_episodes: MakeEpisodes) -> list[Episode]:
    """The eight methods, one threshold of a sweep, one variant of an ablation."""
    main = [dress(episode) for episode in make_episodes(seeds=(1, 2), tasks=3, zs=3)]
    others = {"heuristic_router": "r2v@0.2", "verifier_router": VARIANT}
    return main + [
        e.model_copy(update={"metadata": {**e.metadata, "method": others[e.metadata["method"]]}})
        for e in main
        if e.perturbation_seed is not None and e.metadata["method"] in others
    ]


@pytest.fixture(scope="session")
def opened(traces: list[Episode], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    path = write_report(traces, tmp_path_factory.mktemp("report"))
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield Page(driver, path)


@pytest.fixture
def page(opened: Page) -> Iterator[Page]:
    """The report page; afterwards nothing may have been refused, gone wrong, or been fetched."""
    opened.prefer("light")
    yield opened
    assert opened.console() == []
    assert {url.partition(":")[0] for url in opened.requests()} <= {"file", "data", "about"}
