"""The list of experiments."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2v_core.errors import R2VError
from r2v_core.stages.experiments import load_config, load_experiments

ROOT = Path(__file__).parents[2]


def test_shipped_list_is_valid_and_its_configs_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    experiments = load_experiments()
    assert experiments["textworld:expert"].seeds == list(range(1, 11))
    for name, experiment in experiments.items():
        assert load_config(experiment.config).config.benchmark.name == name.split(":")[0]


GOOD = '"textworld:expert": {config: mrp.yaml, seeds: [1]}'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["'experiments'"]),
        ("experiments: {}", ["'experiments'"]),
        (f"experiments:\n  {GOOD}\nextra: 1", ["'experiments'"]),
        (f"experiments:\n  {GOOD}\n  {GOOD}", [":3:3", "already given in line 2"]),
        ('experiments:\n  "textwrld:expert": {config: mrp.yaml, seeds: [1]}', [":2", "textwrld", "'textworld'"]),
        ('experiments:\n  "textworld:exprt": {config: mrp.yaml, seeds: [1]}', ["unknown teacher", "'expert'"]),
        ("experiments:\n  textworld: {config: mrp.yaml, seeds: [1]}", ["'textworld'", "<benchmark>:<teacher>"]),
        ('experiments:\n  "textworld:expert": {config: mpr.yaml, seeds: [1]}', ["'mpr.yaml'", "'mrp.yaml'"]),
        ('experiments:\n  "textworld:expert": {config: mrp.yaml, seeds: []}', ["seeds"]),
        ('experiments:\n  "textworld:expert": {config: mrp.yaml, seeds: [1, 2, 1]}', ["seeds: 1 given twice"]),
        ('experiments:\n  "textworld:expert": {config: mrp.yaml, seeds: [1, -2]}', ["seeds[1]", "-2", "≥ 0"]),
        ('experiments:\n  "textworld:expert": {config: mrp.yaml, seeds: 3}', ["seeds", "3", "a list"]),
        ('experiments:\n  "textworld:expert": {config: mrp.yaml, seed: [3]}', ["seed", "'seeds'"]),
        ('experiments:\n  "textworld:expert": mrp.yaml', ["'mrp.yaml'", "seeds"]),
        ('experiments:\n  "textworld:expert": {seeds: [1]}', ["config: missing"]),
    ],
)
def test_bad_entries_are_named(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "mrp.yaml").write_text("name: mrp")
    path = tmp_path / "experiments.yaml"
    path.write_text(text)
    with pytest.raises(R2VError) as caught:
        load_experiments(path)
    assert str(path) in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_missing_list_is_named(tmp_path: Path) -> None:
    with pytest.raises(R2VError, match=r"nothing\.yaml: no such file"):
        load_experiments(tmp_path / "nothing.yaml")
