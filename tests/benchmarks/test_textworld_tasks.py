"""Which tasks there are: options, splits, goals, digests, the cache."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from pydantic import ValidationError

from r2v_core.benchmarks import make_benchmark, options_model
from r2v_core.benchmarks.base import Benchmark, Task
from r2v_core.benchmarks.textworld import benchmark as module
from r2v_core.benchmarks.textworld.build import Game, Request, build_games
from r2v_core.errors import R2VError

ROOT = Path(__file__).resolve().parents[2]
CUSTOM = {"family": "custom", "rooms": 2, "objects": 5, "quest_length": 3}
COIN = {"family": "coin_collector", "level": 3}
SCRIPT = """
import json, sys
from pathlib import Path
from r2v_core.benchmarks import make_benchmark
benchmark = make_benchmark("textworld", {"mix": json.loads(sys.argv[2]), "goals": ["detailed", "brief"]},
                           {"train": int(sys.argv[3])}, 20)
print(json.dumps([task.model_dump() for task in benchmark.make_tasks(3, Path(sys.argv[1]))]))
"""


def start(cache: Path, mix: list[dict[str, object]], templates: int, hash_seed: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(cache), json.dumps(mix), str(templates)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "PYTHONPATH": str(ROOT)},
        start_new_session=True,
    )


def answer(process: subprocess.Popen[str]) -> list[dict[str, object]]:
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    found: list[dict[str, object]] = json.loads(out)
    return found


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"mix": [{"family": "chess"}]}, "family"),
        ({"mix": []}, "mix"),
        ({"mix": [{"family": "treasure_hunter", "level": 31}]}, "level"),
        ({"mix": [{"family": "coin_collector", "level": 160}]}, "100"),
        ({"mix": [{"family": "cooking", "recipe": 1, "take": 2}]}, "take"),
        ({"mix": [{"family": "cooking", "drop": True}]}, "drop"),
        ({"goals": ["brief", "brief"]}, "twice"),
        ({"goal": ["brief"]}, "goal"),
    ],
)
def test_options_name_what_is_wrong(options: dict[str, object], named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        options_model("textworld").model_validate(options)


def test_options_need_no_textworld() -> None:
    code = "import sys, r2v_core.benchmarks as b; b.options_model('textworld'); assert 'textworld' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})


def test_unknown_split() -> None:
    with pytest.raises(R2VError, match="'tests'"):
        make_benchmark("textworld", {}, {"tests": 3}, 20)


def test_suite(tasks: list[Task]) -> None:
    assert Counter(task.split for task in tasks) == {"train": 10, "test": 4}
    assert Counter(task.family for task in tasks if task.split == "train") == dict.fromkeys(
        ("treasure_hunter", "coin_collector", "custom", "cooking", "simple"), 2
    )
    assert len({task.task_id for task in tasks}) == len({task.content for task in tasks}) == len(tasks)
    templates = {
        task.template_id: {other.split for other in tasks if other.template_id == task.template_id} for task in tasks
    }
    assert len(templates) == 7
    assert all(len(splits) == 1 for splits in templates.values())
    assert len({task.options["world"] for task in tasks}) == 7


def test_goals(tasks: list[Task], by_family: dict[str, Task]) -> None:
    assert by_family["coin_collector"].goal == "Find and take the coin."
    assert by_family["simple"].goal.startswith("The dinner is almost ready!")
    for task in tasks:
        assert "TextWorld" not in task.goal and "\n" not in task.goal and 10 < len(task.goal) < 900
    detailed = {task.family: task.goal for task in tasks if task.options["goal_style"] == "detailed"}
    assert "eat meal" in detailed["cooking"]
    assert "coin" in detailed["coin_collector"]


def test_equal_in_processes_with_other_hash_seeds(tmp_path: Path) -> None:
    mix = [
        CUSTOM,
        {"family": "cooking", "recipe": 2, "take": 1, "go": 6, "cook": True},
        {"family": "treasure_hunter", "level": 12},
    ]
    first, second = (answer(start(tmp_path / name, mix, 3, name)) for name in ("1", "2"))
    assert first == second
    keys = [sorted(path.name for path in (tmp_path / name / "games").iterdir()) for name in ("1", "2")]
    assert keys[0] == keys[1]
    for key in keys[0]:
        assert (tmp_path / "1/games" / key / "facts.json").read_bytes() == (
            tmp_path / "2/games" / key / "facts.json"
        ).read_bytes()


def test_another_seed_gives_other_games_and_the_order_of_making_does_not_matter(tmp_path: Path) -> None:
    one, two = (Request(CUSTOM, seed) for seed in (5, 6))
    forward = build_games([one, two], tmp_path / "a")
    backward = build_games([two, one], tmp_path / "b")
    worlds = [game.world for game in forward if isinstance(game, Game)]
    assert len(set(worlds)) == 2
    assert worlds == [game.world for game in reversed(backward) if isinstance(game, Game)]


def test_replicates_differ(benchmark: Benchmark, tasks: list[Task], cache: Path) -> None:
    other = make_benchmark("textworld", {"mix": [CUSTOM]}, {"train": 1}, 20)
    assert {t.content for t in other.make_tasks(1, cache)}.isdisjoint(t.content for t in other.make_tasks(2, cache))


def test_second_call_starts_no_process(
    benchmark: Benchmark, tasks: list[Task], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a game was made again")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    seen: list[tuple[int, int]] = []
    assert benchmark.make_tasks(1, cache, lambda done, total: seen.append((done, total))) == tasks
    assert seen[-1] == (7, 7)


def test_worlds_that_come_up_twice_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "derive_seed", lambda *parts: parts[-1])  # every slot begins with game seed 0
    tasks = make_benchmark("textworld", {"mix": [COIN]}, {"train": 1, "test": 1}, 20).make_tasks(1, tmp_path)
    assert [task.options["game_seed"] for task in tasks] == [0, 1]
    assert tasks[0].options["world"] != tasks[1].options["world"]


def test_impossible_settings_say_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 2)
    benchmark = make_benchmark("textworld", {"mix": [COIN]}, {"test": 1}, 2)
    with pytest.raises(R2VError, match=r"coin_collector.*'test'.*needs 3 steps.*allows 2"):
        benchmark.make_tasks(1, tmp_path)


def test_lost_files_are_made_again(benchmark: Benchmark, by_family: dict[str, Task], tmp_path: Path) -> None:
    task = by_family["coin_collector"]
    benchmark.open(task, tmp_path).close()
    next((tmp_path / "games").glob("*/game.z8")).unlink()
    benchmark.open(task, tmp_path).close()
    shutil.rmtree(tmp_path / "games")
    environment = benchmark.open(task, tmp_path)
    assert environment.reset().remaining == task.options["plan_length"]
    environment.close()


def test_another_game_than_the_tasks_is_refused(benchmark: Benchmark, by_family: dict[str, Task], cache: Path) -> None:
    task = by_family["simple"].model_copy(deep=True)
    task.options["world"] = "0" * 32
    with pytest.raises(R2VError, match="another game"):
        benchmark.open(task, cache)


def test_two_processes_make_the_same_games(tmp_path: Path) -> None:
    processes = [start(tmp_path, [COIN], 2, "random") for _ in range(2)]
    first, second = (answer(process) for process in processes)
    assert first == second
    assert len(list((tmp_path / "games").iterdir())) == 2


def test_a_killed_process_leaves_nothing_half(tmp_path: Path) -> None:
    process = start(tmp_path, [COIN], 3, "random")
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("games/.making-*/game.json")):  # in the middle of a game
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    for folder in (tmp_path / "games").glob("[!.]*"):
        assert (folder / "facts.json").is_file() and (folder / "game.z8").is_file()
    assert len(answer(start(tmp_path, [COIN], 3, "random"))) == 6
