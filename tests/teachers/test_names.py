"""Teachers, options and prices that users write down, right and wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from r2v_core.errors import R2VError
from r2v_core.stages.experiments import load_experiments
from r2v_core.teachers import check_teacher, teacher_identity
from r2v_core.teachers.names import PROVIDERS, TEACHERS, known_teachers
from r2v_core.teachers.options import OPTIONS
from r2v_core.teachers.prices import FREE, load_prices

ROOT = Path(__file__).parents[2]


def write(project: Path, name: str, text: str) -> Path:
    path = project / "configs" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    return path


def test_shipped_tables_are_whole() -> None:
    assert known_teachers(ROOT / "configs/teachers.yaml") == TEACHERS
    prices = load_prices(ROOT)
    assert all(prices.find(entry.provider, entry.model) for entry in TEACHERS.values())
    listed = [price for models in prices.table.values() for price in models.values()]
    assert (
        all(price.source.startswith("https://") for price in listed)
        and sum(price.as_of is None for price in listed) < 2
    )
    assert set(OPTIONS) == set(PROVIDERS)


def test_definitions_need_no_sdk() -> None:
    code = (
        "import sys, r2v_core.teachers, r2v_core.stages.experiments;"
        "print([m for m in ('openai', 'anthropic', 'tenacity', 'torch', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_own_teachers_are_known_where_experiments_are_listed(tmp_path: Path) -> None:
    write(tmp_path, "teachers.yaml", "teachers: {my-llama: {provider: local, model: owner/llama}}")
    write(tmp_path, "mrp.yaml", "name: mrp")
    listed = write(tmp_path, "experiments.yaml", 'seeds: [1]\nexperiments: {"textworld:my-llama": {config: mrp.yaml}}')
    assert list(load_experiments(listed).experiments) == ["textworld:my-llama"]
    assert teacher_identity("my-llama", tmp_path) == ("local", "owner/llama")


def test_unknown_teacher_is_answered_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(R2VError, match=r"Unknown teacher 'gpt4o'. Did you mean 'gpt-4o'\?.*configs/teachers.yaml"):
        teacher_identity("gpt4o", tmp_path)
    write(tmp_path, "teachers.yaml", "teachers: {my-vllm: {provider: local, model: a/b}}")
    with pytest.raises(R2VError, match=r"Did you mean 'my-vllm'"):
        teacher_identity("my-vlm", tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("teacher: {}", ["'teachers'"]),
        ("teachers: [a]", ["'teachers'"]),
        ("teachers:\n  mine: gpt", [":2: teacher 'mine'", "provider: …"]),
        ("teachers:\n  mine: {provider: opnai, model: x}", [":2", "provider", "'opnai'", "openai_compatible"]),
        ("teachers:\n  mine: {provider: openai}", ["model: missing"]),
        ("teachers:\n  mine: {provider: openai, model: x, url: y}", ["url: no such key", "base_url"]),
        ("teachers:\n  mine: {provider: openai_compatible, model: x}", ["base_url: missing"]),
        ("teachers:\n  mine: {provider: env, model: expert}", ["built in as 'expert'"]),
        ("teachers:\n  gpt-4o: {provider: openai, model: x}", ["built in; choose another"]),
        ("teachers:\n  a|b: {provider: local, model: x}", ["letters, digits"]),
    ],
)
def test_bad_teachers_are_named(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path, "teachers.yaml", text)
    with pytest.raises(R2VError) as caught:
        known_teachers(path)
    assert all(word in str(caught.value) for word in [str(path), *words])


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("gpt-4o", {"temprature": 1}, ["teacher.options.temprature", "'teacher.options.temperature'"]),
        ("gpt-4o", {"temperature": 3}, ["teacher.options.temperature", "3", "≤ 2", "sampling"]),
        ("gpt-4o", {"max_tokens": "many"}, ["teacher.options.max_tokens", "'many'", "a whole number ≥ 1", "tokens"]),
        ("claude-haiku-4-5", {"temperature": 1.0}, ["teacher.options.temperature", "anthropic"]),
        ("smollm2", {"temperature": -1}, ["teacher.options.temperature", "≥ 0"]),
        ("smollm2-taught", {"history_steps": 2}, ["no such key", "teacher.options.history_steps", "trained"]),
        ("expert", {"max_tokens": 5}, ["no options", "max_tokens"]),
    ],
)
def test_bad_options_are_named(tmp_path: Path, name: str, options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(R2VError) as caught:
        check_teacher(name, options, tmp_path)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("price: {}", ["'prices'"]),
        ("prices:\n  openia: {}", ["openia", "openai"]),
        ("prices:\n  openai:\n    gpt-4o: 3", [":3", "openai.gpt-4o", "3"]),
        ("prices:\n  openai:\n    gpt-4o: {input: 1}", [":3", "openai.gpt-4o.output"]),
        ("prices:\n  openai:\n    gpt-4o: {input: -1, output: 1}", [":3", "openai.gpt-4o.input", "-1"]),
        ("prices:\n  openai:\n    gpt-4o: {input: 1, output: 1, as_of: May}", [":3", "openai.gpt-4o.as_of", "May"]),
    ],
)
def test_bad_prices_are_named(tmp_path: Path, text: str, words: list[str]) -> None:
    path = write(tmp_path, "prices.yaml", text)
    with pytest.raises(R2VError) as caught:
        load_prices(tmp_path)
    assert all(word in str(caught.value) for word in [str(path), *words]), caught.value


@pytest.mark.parametrize("provider", PROVIDERS)
def test_without_a_price_only_free_providers_cost_nothing(tmp_path: Path, provider: str) -> None:
    price = load_prices(tmp_path).find(provider, "new")  # type: ignore[arg-type]
    assert (price is not None and price.of(1000, 1000) == 0) if provider in FREE else price is None
