"""Which MiniWoB++ tasks there are, and what is said where they can't be played."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from r2v_core.benchmarks import make_benchmark, options_model
from r2v_core.benchmarks.miniwob import benchmark as miniwob
from r2v_core.benchmarks.miniwob.benchmark import TEMPLATES, pages_folder
from r2v_core.errors import R2VError
from r2v_core.perturbations import FAMILIES, probabilities
from r2v_core.stages.experiments import load_config
from r2v_core.stages.task_suite import open_benchmark

ROOT = Path(__file__).parents[2]
SMALL = ["click-link", "enter-text", "choose-list", "read-table"]


def test_there_are_many_tasks_each_with_its_page() -> None:
    pages = [page for _, some in TEMPLATES.values() for page in some]
    assert len(TEMPLATES) >= 20 and len(set(pages)) == len(pages)
    assert all((pages_folder() / f"{page}.html").is_file() for page in pages)


def test_tasks_are_seeded_and_split_by_template(tmp_path: Path) -> None:
    one_each = {"train": 1, "router": 1, "validation": 1, "test": 1}
    benchmark = make_benchmark("miniwob", {"templates": SMALL, "tasks_per_template": 2}, one_each, max_steps=6)
    seen: list[tuple[int, int]] = []
    tasks = benchmark.make_tasks(1, tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(done, 8) for done in range(1, 9)]
    assert tasks == benchmark.make_tasks(1, tmp_path)
    splits = defaultdict(set)
    for task in tasks:
        splits[task.template_id].add(task.split)
        assert task.options["page"] in TEMPLATES[task.template_id][1] and task.family == TEMPLATES[task.template_id][0]
        assert task.goal and task.max_steps == 6 and task.benchmark == "miniwob"
    assert set(splits) == set(SMALL) and all(len(some) == 1 for some in splits.values())
    assert len({task.task_id for task in tasks}) == len({task.content for task in tasks}) == 8
    other = benchmark.make_tasks(2, tmp_path)
    assert {task.task_id for task in other}.isdisjoint(task.task_id for task in tasks)


def test_wishes_that_can_not_be_met_are_named(tmp_path: Path) -> None:
    with pytest.raises(R2VError, match="asks for 5 templates"):
        make_benchmark("miniwob", {"templates": SMALL}, {"train": 5}, max_steps=6)
    with pytest.raises(R2VError, match="unknown split 'trian'"):
        make_benchmark("miniwob", {}, {"trian": 5}, max_steps=6)
    strict = make_benchmark("miniwob", {"templates": ["enter-text"]}, {"train": 1}, max_steps=1)
    with pytest.raises(R2VError, match=r"'enter-text': the expert needs more than benchmark.max_steps = 1"):
        strict.make_tasks(1, tmp_path)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("benchmark.options.templates=[click-lnk]", ["click-lnk", "'click-link'"]),
        ("benchmark.options.templates=[click-link, click-link]", ["listed twice"]),
        ("benchmark.options.tasks_per_template=0", ["tasks_per_template"]),
        ("benchmark.options.seeds=3", ["benchmark.options.seeds"]),
    ],
)
def test_wrong_options_are_named(override: str, words: list[str]) -> None:
    with pytest.raises(R2VError) as caught:
        load_config("configs/miniwob/clean.yaml", [override], project=ROOT)
    assert all(word in str(caught.value) for word in words), caught.value


@pytest.mark.parametrize("name", ["clean", "noisy", "mrp"])
def test_configs(name: str) -> None:
    config = load_config(f"configs/miniwob/{name}.yaml", project=ROOT).config
    assert open_benchmark(config).name == "miniwob"
    families = (getattr(config.perturbations, family).model_dump() for family in FAMILIES)
    assert any(p for family in families for p in probabilities(family).values()) is (name != "clean")


def test_missing_package_or_browser_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def known(name: str) -> object:
        return None if name == "miniwob" else importlib.util.find_spec(name)

    with monkeypatch.context() as patch:
        patch.setattr(miniwob, "find_spec", known)
        with pytest.raises(R2VError, match=r"'miniwob' can't run here: .*pip install .*\[miniwob\]"):
            make_benchmark("miniwob", {}, {"train": 1}, max_steps=6)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(R2VError, match="no Chromium on this machine: apt install chromium"):
        make_benchmark("miniwob", {}, {"train": 1}, max_steps=6)


def test_options_need_no_package() -> None:
    code = (
        "import sys; sys.modules['miniwob'] = None; from r2v_core.benchmarks import options_model; "
        "print(options_model('miniwob')().tasks_per_template, any('playwright' in m for m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout.split() == [str(options_model("miniwob")().tasks_per_template), "False"], done.stderr  # type: ignore[attr-defined]
