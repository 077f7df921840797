"""Which WebArena tasks there are, how they are split, and what is said where they can't be played."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from r2v_core.benchmarks import make_benchmark
from r2v_core.benchmarks.base import SPLITS, Benchmark
from r2v_core.benchmarks.webarena import benchmark as webarena
from r2v_core.benchmarks.webarena.benchmark import FILE, WebArena, WebArenaOptions
from r2v_core.benchmarks.webarena.format import read_file
from r2v_core.benchmarks.webarena.sites import SITES, Sites, variable
from r2v_core.errors import R2VError
from r2v_core.perturbations import FAMILIES, probabilities
from r2v_core.stages.experiments import load_config
from tests.benchmarks import webshop

ROOT = Path(__file__).parents[2]
HERE: dict[str, Any] = {"sites": ["shopping"], "judge": None}


def bench(splits: dict[str, int], max_steps: int = 12, **options: Any) -> Benchmark:
    return make_benchmark("webarena", HERE | options, splits, max_steps)


def test_tasks_are_split_by_intent_template(shop: webshop.Shop, tmp_path: Path) -> None:
    splits = {"train": 2, "router": 1, "validation": 1, "test": 2}
    tasks = bench(splits).make_tasks(1, tmp_path)
    assert tasks == bench(splits).make_tasks(1, tmp_path)
    found = defaultdict(set)
    for task in tasks:
        found[task.template_id].add(task.split)
        assert (task.benchmark, task.family, task.max_steps) == ("webarena", "shopping", 12)
    assert all(len(some) == 1 for some in found.values())
    assert {s: sum(some == {s} for some in found.values()) for s in SPLITS} == splits | {"teacher": 0}
    assert len({task.task_id for task in tasks}) == len({task.content for task in tasks}) == len(tasks) == 10
    other = bench(splits).make_tasks(2, tmp_path)
    assert [task.task_id for task in other] != [task.task_id for task in tasks]
    assert not [task for task in tasks if shop.url in task.model_dump_json()]  # whoever's site it is: the same tasks


def test_options_choose_tasks(shop: webshop.Shop, tmp_path: Path) -> None:
    one_each = bench({"train": 6}, tasks_per_template=1).make_tasks(1, tmp_path)
    assert len(one_each) == len({task.template_id for task in one_each}) == 6
    judged = bench({"train": 8}, judge="gpt-4o").make_tasks(1, tmp_path)
    assert {"webarena-9", "webarena-10"} <= {task.task_id for task in judged}
    both = bench({"train": 7}, sites=["shopping", "shopping_admin"]).make_tasks(1, tmp_path)
    assert "shopping+shopping_admin" in {task.family for task in both}
    with pytest.raises(R2VError, match=r"asks for 7 templates, webshop_tasks.json has 6 for benchmark.options.sites"):
        bench({"train": 7}).make_tasks(1, tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tasks: tasks.append(tasks[0]), ["task_id 0 is given twice"]),
        (lambda tasks: tasks[0].pop("intent"), ["0.intent", "required"]),
        (lambda tasks: tasks[1]["eval"].update(eval_types=["vibes"]), ["1.eval.eval_types.0", "string_match"]),
        (lambda tasks: tasks[2].update(sites=["shop"]), ["2.sites.0", "shopping"]),
    ],
)
def test_files_of_another_format_are_refused(change: Any, words: list[str], tmp_path: Path) -> None:
    tasks = json.loads(webshop.TASKS.read_text())
    change(tasks)
    path = tmp_path / "tasks.json"
    path.write_text(json.dumps(tasks))
    with pytest.raises(R2VError) as caught:
        read_file(path)
    told = str(caught.value)
    assert "\n" not in told and all(word in told for word in [str(path), *words]), told
    path.write_text("{")
    with pytest.raises(R2VError, match="not a WebArena task file"):
        read_file(path)


def ready(**options: Any) -> str:
    return WebArena(WebArenaOptions.model_validate(options), {}, 1).ready() or ""


def test_what_it_needs_is_said_in_one_line(shop: webshop.Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert ready() == ""
    with monkeypatch.context() as without:
        without.delenv("WA_REDDIT_USER")
        without.setenv("WA_REDDIT_PASSWORD", "")
        assert ready().startswith("set WA_REDDIT_USER, WA_REDDIT_PASSWORD to the account that tasks log in with")
        assert ready(sites=["shopping"]) == ""
    monkeypatch.setenv("WA_MAP", "http://127.0.0.1:9")
    assert ready().startswith("WA_MAP=http://127.0.0.1:9 does not answer (Connection refused): start that site")
    assert ready(sites=["shopping"]) == ""
    monkeypatch.setenv("WA_MAP", "somewhere")
    assert "http://" in ready() and "WA_MAP=somewhere" in ready()
    monkeypatch.delenv("WA_MAP")
    monkeypatch.setenv("WA_GITLAB", "")
    assert ready().startswith("set WA_GITLAB, WA_MAP to where the sites answer (export WA_GITLAB=http")
    assert ready(tasks=str(tmp_path / "no.json")).startswith(f"benchmark.options.tasks: {tmp_path}/no.json does not")
    monkeypatch.delenv("WA_TASKS")
    monkeypatch.setattr(webarena, "find_spec", lambda name: None)
    assert ready() == (
        "the tasks are missing: pip install --no-deps -c constraints.txt libwebarena (or set WA_TASKS to a file of "
        "their format)"
    )
    assert all("\n" not in ready(**options) for options in ({}, {"tasks": "x"}))


def test_the_installed_tasks_are_found_without_importing_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "webarena").mkdir()
    (tmp_path / "webarena" / "__init__.py").write_text("raise RuntimeError('not to be imported')")
    (tmp_path / "webarena" / FILE).write_text(webshop.TASKS.read_text())
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delenv("WA_TASKS", raising=False)
    tasks = WebArena(WebArenaOptions.model_validate(HERE), {"train": 6}, 5).make_tasks(1, tmp_path)
    assert len(tasks) == 10


def test_the_published_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WA_TASKS", raising=False)
    everything = WebArena(WebArenaOptions(), {"train": 190}, 30)
    assert everything._file() is not None, "make setup installs libwebarena"
    tasks = everything.make_tasks(1, tmp_path)
    assert len(tasks) == len({task.content for task in tasks}) == 812
    assert len({task.template_id for task in tasks}) == 190
    unjudged = WebArena(WebArenaOptions(judge=None), {"train": 1}, 30).make_tasks(1, tmp_path)
    assert unjudged
    config = load_config("configs/webarena/clean.yaml", project=ROOT).config.benchmark
    assert sum(config.splits.values()) == 190


def test_addresses_and_placeholders() -> None:
    sites = Sites({"shopping": "http://h:7770", "shopping_admin": "http://h:7780/admin", "map": "http://h:777"})
    assert sites.hosts == {"h"}
    config = {"url": "__SHOPPING_ADMIN__/x |OR| __SHOPPING__/y", "deep": [["__MAP__"]], "n": 3}
    assert sites.resolve(config) == {
        "url": "http://h:7780/admin/x |OR| http://h:7770/y",
        "deep": [["http://h:777"]],
        "n": 3,
    }
    said = "http://h:7780/admin/x http://h:7770/y http://h:777/z http://h:7779/"
    assert sites.shown(said) == "__SHOPPING_ADMIN__/x __SHOPPING__/y __MAP__/z http://h:7779/"
    assert sites.covers("http://h:7770/any") and sites.covers("http://h:7780/other")
    assert not any(
        map(sites.covers, ["http://h/", "http://i:7770/", "file:///etc/passwd", "javascript:1", "", "http://["])
    )


def test_the_task_says_which_site_is_not_set(
    shop: webshop.Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (task,) = bench({"train": 1}, tasks_per_template=1).make_tasks(1, tmp_path)
    benchmark = bench({})
    monkeypatch.delenv("WA_SHOPPING")
    with pytest.raises(R2VError, match=r"Task webarena-\d+ plays on the site 'shopping': set WA_SHOPPING"):
        benchmark.open(task, tmp_path)


@pytest.mark.parametrize("name", ["clean", "noisy", "mrp"])
def test_configs(name: str) -> None:
    config = load_config(f"configs/webarena/{name}.yaml", project=ROOT).config
    WebArena(WebArenaOptions.model_validate(config.benchmark.options), {}, config.benchmark.max_steps)
    assert config.collection.parallel == config.agent.parallel == 1  # the sites keep what is done to them
    assert not config.collection.explore_all_episodes and not config.collection.explore_start_steps
    families = (getattr(config.perturbations, family).model_dump() for family in FAMILIES)
    assert any(p for family in families for p in probabilities(family).values()) is (name != "clean")


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("benchmark.options.sites=[shop]", ["benchmark.options.sites", "shop"]),
        ("benchmark.options.sites=[]", ["benchmark.options.sites"]),
        ("benchmark.options.quiet_s=0", ["quiet_s"]),
        ("benchmark.options.hosts=['a, EXCLUDE *']", ["benchmark.options.hosts"]),
        ("benchmark.options.judges=x", ["benchmark.options.judges"]),
    ],
)
def test_wrong_options_are_named(override: str, words: list[str]) -> None:
    with pytest.raises(R2VError) as caught:
        load_config("configs/webarena/clean.yaml", [override], project=ROOT)
    assert all(word in str(caught.value) for word in words), caught.value


def test_nothing_of_its_package_is_imported() -> None:
    code = (
        "import sys; from r2v_core.benchmarks import options_model; options_model('webarena')(); "
        "print([m for m in ('webarena', 'playwright', 'nltk', 'openai') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert done.stdout.strip() == "[]", done.stderr


def test_every_site_has_a_variable() -> None:
    assert [variable(site) for site in SITES] == [
        "WA_SHOPPING", "WA_SHOPPING_ADMIN", "WA_REDDIT", "WA_GITLAB", "WA_WIKIPEDIA", "WA_MAP",
    ]  # fmt: skip
