from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from r2v_core.errors import R2VError
from r2v_core.registry import DataRegistry
from r2v_core.trajectory import action_hash

RUN = "textworld_openai_gpt-4o_20250102T030405"

OLD_EPISODE: dict[str, Any] = {
    "episode_id": "ep-ü",
    "task_id": "cook-7",
    "goal": "cook",
    "success": True,
    "total_reward": 1.0,
    "steps": [
        {
            "observation": {"raw_text": "A kitchen.", "step_idx": 0},
            "action": {"raw_text": "go north", "action_type": "move"},
            "reward": 0.5,
            "done": False,
            "prompt_tokens": 11,
        },
        {"observation": "A hall. ", "action": "take key", "perturbation_type": None},
    ],
    "metadata": {"teacher_model": "gpt-4o", "teacher_provider": "openai", "run_id": RUN, "temperature": 0.7},
}


def lay_out(project: Path, index: Any, episodes: list[str], run_id: str = RUN) -> Path:
    directory = project / "data" / "runs" / run_id
    directory.mkdir(parents=True)
    (directory / "trajectories.jsonl").write_text("\n".join(episodes) + "\n", encoding="utf-8")
    (directory / "collection_log.jsonl").write_text("{}\n")
    path = project / "data" / "registry.json"
    path.write_text(json.dumps(index), encoding="utf-8")
    return path


ENTRY = {
    "run_id": RUN,
    "benchmark": "textworld",
    "teacher_provider": "openai",
    "teacher_model": "gpt-4o",
    "output_dir": f"data/runs/{RUN}",
    "n_episodes": 1,
    "success_rate": 1.0,
    "timestamp": "2025-01-02T03:04:05",
    "status": "completed",
    "tags": ["old", "paper"],
    "config": {"temperature": 0.7, "api_key": "sk-secret", "max_tokens": 5},
}


@pytest.mark.parametrize(
    "index",
    [{RUN: ENTRY}, {"runs": {RUN: ENTRY}}, {"version": 2, "runs": [ENTRY]}, [ENTRY], {"version": "1", RUN: ENTRY}],
    ids=["dict", "runs-dict", "runs-list", "list", "dict-with-facts"],
)
def test_every_shape_of_index(registry: DataRegistry, project: Path, index: Any) -> None:
    path = lay_out(project, index, [json.dumps(OLD_EPISODE)])
    before = {file: file.read_bytes() for file in (project / "data").rglob("*") if file.is_file()}
    report = registry.import_legacy(path)
    assert (report.episodes, report.problems) == ({RUN: 1}, [])
    assert all(file.read_bytes() == content for file, content in before.items())
    run = registry.get_run(RUN)
    assert (run.provider, run.model, run.status, run.tags) == ("openai", "gpt-4o", "done", ["old", "paper"])
    assert run.created_at == "2025-01-02T03:04:05.000000+00:00"
    assert run.output_dir == f"data/imported/{RUN}"
    entry = run.config["imported"]["entry"]
    assert entry["config"] == {"temperature": 0.7, "api_key": "(removed)", "max_tokens": 5}
    assert "sk-secret" not in (project / run.output_dir / "run_manifest.json").read_text()
    assert registry.latest_run("textworld", "gpt-4o") == run


def test_nothing_of_an_episode_is_lost(registry: DataRegistry, project: Path) -> None:
    registry.import_legacy(lay_out(project, {RUN: ENTRY}, [json.dumps(OLD_EPISODE)]))
    (episode,) = registry.iter_episodes([RUN])
    assert episode.actions == ["go north", "take key"]
    assert episode.action_hash == action_hash(["go north", "take key"])
    assert (episode.success, episode.task_id, episode.goal, episode.benchmark) == (True, "cook-7", "cook", "textworld")
    assert episode.steps[0].observation.state == "A kitchen."
    assert episode.steps[1].observation.state == "A hall. "
    assert episode.steps[0].tokens_in == 11
    assert episode.metadata["temperature"] == 0.7
    assert episode.metadata["imported"] == {
        "total_reward": 1.0,
        "steps": {
            "0": {"reward": 0.5, "done": False, "action": {"action_type": "move"}, "observation": {"step_idx": 0}},
            "1": {"perturbation_type": None},
        },
    }


def test_todays_episodes_are_taken_as_they_are(registry: DataRegistry, project: Path) -> None:
    from .conftest import make_episode

    episode = make_episode("someone", 1, ["x"], benchmark="webarena")
    registry.import_legacy(lay_out(project, {RUN: ENTRY}, [episode.model_dump_json()]))
    assert list(registry.iter_episodes([RUN])) == [episode]


def test_malformed_episodes_are_named_and_the_rest_is_imported(registry: DataRegistry, project: Path) -> None:
    bad = [
        '{"episode_id": "torn", "ste',
        "[1, 2]",
        json.dumps(OLD_EPISODE | {"steps": "none"}),
        json.dumps(OLD_EPISODE | {"success": "perhaps"}),
        json.dumps(OLD_EPISODE | {"steps": [{"observation": "x"}]}),
        '{"episode_id": "lone \\ud800 surrogate"}',
    ]
    path = lay_out(
        project, {RUN: ENTRY}, [json.dumps(OLD_EPISODE), *bad, "", json.dumps(OLD_EPISODE), json.dumps(OLD_EPISODE)]
    )
    report = registry.import_legacy(path)
    named = [problem for problem in report.problems if "trajectories.jsonl:" in problem and "imported" not in problem]
    assert [int(problem.split("trajectories.jsonl:")[1].split(":")[0]) for problem in named] == [2, 3, 4, 5, 6, 7]
    assert all("\n" not in problem for problem in report.problems)
    assert report.episodes == {RUN: 3}
    assert any("3 episodes imported, registry.json says 1" in problem for problem in report.problems)
    assert len(list(registry.iter_episodes([RUN], deduplicate=False))) == 3


def test_runs_without_entry_and_entries_without_files(registry: DataRegistry, project: Path) -> None:
    lost = {"benchmark": "humaneval", "model": "m", "n_episodes": 10, "success_rate": 0.9, "status": "running"}
    path = lay_out(project, {"lost": lost}, [json.dumps(OLD_EPISODE)])
    report = registry.import_legacy(path)
    assert report.episodes == {"lost": 10, RUN: 1}
    assert len(report.problems) == 2
    run = registry.get_run("lost")
    assert (run.n_episodes, run.success_rate, run.status, run.benchmark) == (10, 0.9, "partial", "humaneval")
    assert registry.get_run(RUN).created_at.startswith("2025-01-02T03:04:05")


def test_importing_again_changes_nothing_and_survives_a_rebuild(registry: DataRegistry, project: Path) -> None:
    from .conftest import dump

    path = lay_out(project, {RUN: ENTRY}, [json.dumps(OLD_EPISODE)])
    registry.import_legacy(path)
    before = dump(registry)
    registry.import_legacy(path.parent)
    assert dump(registry) == before
    registry.rebuild()
    assert dump(registry) == before


@pytest.mark.parametrize(
    ("content", "words"), [("{", "not a JSON file"), ("3", "no runs in it"), (None, "no such file")]
)
def test_a_bad_index_is_one_line(registry: DataRegistry, project: Path, content: str | None, words: str) -> None:
    path = project / "registry.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(R2VError, match=words) as caught:
        registry.import_legacy(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_values_that_json_or_a_file_system_has_no_place_for(registry: DataRegistry, project: Path) -> None:
    name = "textworld_" + "é" * 300
    entry = {"run_id": name, "benchmark": "textworld", "note": float("nan"), "output_dir": "\0" + "x" * 5000}
    path = lay_out(project, {RUN: ENTRY | {"loss": float("inf")}, name: entry}, [json.dumps(OLD_EPISODE)])
    report = registry.import_legacy(path)
    assert report.episodes == {RUN: 1, name: 0}
    folder = Path(registry.get_run(name).output_dir).name
    assert len(folder.encode()) <= 200
    before = registry.get_run(RUN)
    registry.import_legacy(path)
    assert registry.get_run(RUN) == before
