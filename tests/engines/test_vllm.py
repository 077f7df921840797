"""A real vLLM on the CPU: what it samples and scores is what the model in this process does; stages run through it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp

from r2v_core.agent.features import FEATURES, features
from r2v_core.agent.proposer import best_candidate
from r2v_core.config.schema import SLMConfig
from r2v_core.engines import open_engine
from r2v_core.engines.base import Engine
from r2v_core.engines.vllm import WHERE
from r2v_core.engines.vllm.opening import BASE
from r2v_core.engines.vllm.server import Server
from r2v_core.errors import R2VError
from r2v_core.trajectory import Candidate, Observation
from tests.engines.vllm_servers import random_adapter, real_environment, serve, small_llama

ROOT = Path(__file__).parents[2]
ROOMS = ("kitchen", "cellar", "long dark corridor", "garden", "hall", "library", "tower", "shed")
THINGS = ("a key", "an old lamp", "a locked chest", "two apples", "a map", "nothing at all")


def prompts(engine: Engine, count: int = 48) -> list[str]:
    said = "You play a game. Answer with one command."
    return [
        engine.render(
            [
                {"role": "system", "content": said},
                {"role": "user", "content": f"You are in the {room}. You see {thing}."},
            ]
        )
        for room in ROOMS
        for thing in THINGS
    ][:count]


def request(slm: SLMConfig, engine: str, **options: Any) -> SLMConfig:
    return slm.model_copy(update={"engine": engine, "engine_options": options})


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory, real_slm: SLMConfig, model_cache: Path) -> SLMConfig:
    return small_llama(real_slm, model_cache, tmp_path_factory.mktemp("small") / "llama")


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory, small: SLMConfig, model_cache: Path) -> Path:
    return random_adapter(small, model_cache, tmp_path_factory.mktemp("adapter") / "lora")


@pytest.fixture(scope="module")
def served(small: SLMConfig, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = serve(small.model, tmp_path_factory.mktemp("server") / "vllm.log")
    yield server
    server.stop()


@pytest.fixture
def at_address(served: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(WHERE, f"{served.address}/v1")
    monkeypatch.setenv("VLLM_API_KEY", served.key)
    return served.address


def sampled(engine: Engine, count: int = 48, **changed: Any) -> list[list[Candidate]]:
    asked = prompts(engine, count)
    options = {"k": 4, "temperature": 1.0, "batch_size": 16} | changed
    return engine.sample(asked, range(len(asked)), **options)


def greedy_agreement(ours: Engine, theirs: Engine, count: int = 48) -> tuple[float, list[float]]:
    """Share of equal replies at temperature 0, and by how much the log-probabilities of equal ones differ, nats."""
    both = [sampled(engine, count, k=1, temperature=0) for engine in (ours, theirs)]
    rows = [(a[0], b[0]) for a, b in zip(*both, strict=True)]
    equal = [a.text == b.text for a, b in rows]
    return float(np.mean(equal)), [abs(a.logprob - b.logprob) for a, b in rows if a.text == b.text]


def alike(ours: Sequence[Sequence[Candidate]], theirs: Sequence[Sequence[Candidate]]) -> dict[str, float]:
    """Feature → p-value of the two engines' values being from one distribution (Kolmogorov-Smirnov)."""
    values = [
        [features(row, best_candidate(row), [], Observation(state=""), 8, 30, 10) for row in rows]
        for rows in (ours, theirs)
    ]
    return {
        name: float(ks_2samp(*[[row[name] for row in rows] for rows in values]).pvalue)
        for name in FEATURES
        if len({row[name] for rows in values for row in rows}) > 1
    }


def test_an_adapter_is_loaded_at_an_address_and_samples_as_its_model_does(
    at_address: str, small: SLMConfig, adapter: Path, model_cache: Path
) -> None:
    theirs = open_engine(request(small, "vllm"), model_cache, adapter)
    ours = open_engine(small, model_cache, adapter)
    base = open_engine(request(small, "vllm", served_as=BASE), model_cache)
    equal, apart = greedy_agreement(ours, theirs)
    assert equal >= 0.97 and np.median(apart) <= 0.02 and np.quantile(apart, 0.99) <= 0.1
    assert greedy_agreement(base, theirs)[0] < 0.5  # it is the adapter that is served
    again = open_engine(request(small, "vllm"), model_cache, adapter)  # known there by now
    assert greedy_agreement(again, theirs)[0] == 1.0
    first = sampled(theirs)
    assert all(p > 0.001 for p in alike(sampled(ours), first).values())
    assert min(alike(sampled(base), first).values()) < 0.001  # and the comparison can tell models apart
    asked, texts = prompts(ours)[:3], [["take key", "go east"], [], ["look around"]]
    for a, b in zip(ours.score(asked, texts, batch_size=4), theirs.score(asked, texts, batch_size=4), strict=True):
        assert a == pytest.approx(b, abs=1e-2)


def test_equal_seeds_equal_replies_whatever_is_asked_beside(
    at_address: str, small: SLMConfig, model_cache: Path
) -> None:
    engine = open_engine(request(small, "vllm"), model_cache)
    alone = open_engine(request(small, "vllm", in_flight=1), model_cache)
    asked = prompts(engine)[:12]
    settings: dict[str, Any] = {"k": 3, "temperature": 1.0, "batch_size": 4}
    together = engine.sample(asked, range(12), **settings)
    one_by_one = alone.sample(asked, range(12), **settings)
    assert [[c.text for c in row] for row in together] == [[c.text for c in row] for row in one_by_one]
    other = engine.sample(asked, range(50, 62), **settings)
    assert [[c.text for c in row] for row in together] != [[c.text for c in row] for row in other]


def test_what_is_reported_is_the_models_own_whatever_was_sampled_at(
    at_address: str, small: SLMConfig, model_cache: Path
) -> None:
    engine = open_engine(request(small, "vllm"), model_cache)
    asked = prompts(engine)[:6]
    for temperature in (0.5, 2.0):
        rows = engine.sample(asked, range(6), k=3, temperature=temperature, batch_size=6)
        whole = [[c for c in row if c.n_tokens < small.max_action_tokens] for row in rows]
        scores = engine.score(asked, [[c.text for c in row] for row in whole], batch_size=6)
        for row, found in zip(whole, scores, strict=True):
            for candidate, score in zip(row, found, strict=True):
                assert candidate.logprob == pytest.approx(score, abs=1e-2)


def test_a_name_that_nothing_is_served_under_is_refused(at_address: str, small: SLMConfig, model_cache: Path) -> None:
    with pytest.raises(R2VError, match=f"served_as: {at_address} does not serve 'other'; choose one of: {BASE}"):
        open_engine(request(small, "vllm", served_as="other"), model_cache)


def test_merged_weights_are_the_same_in_a_server_of_its_own(
    small: SLMConfig, adapter: Path, model_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(WHERE, str(real_environment()))
    ours = open_engine(small, model_cache, adapter)
    theirs = open_engine(request(small, "vllm", adapter="merged"), tmp_path, adapter, tmp_path / "logs")
    equal, apart = greedy_agreement(ours, theirs, 24)
    assert equal >= 0.97 and np.median(apart) <= 0.02 and np.quantile(apart, 0.99) <= 0.1
    assert all(p > 0.001 for p in alike(sampled(ours, 24), sampled(theirs, 24)).values())
