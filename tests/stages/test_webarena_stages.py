"""WebArena's stages as users run them, on the tests' own shop, with a model behind an API as teacher and judge."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from r2v_core.agent.features import FEATURES
from r2v_core.benchmarks.base import Task
from r2v_core.benchmarks.webarena.sites import SITES, variable
from r2v_core.config.schema import SLMConfig
from r2v_core.models.router import Router, RouterNet, Scorer
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import RunManifest, read_manifest, write_manifest
from r2v_core.runs.parquet import read_parquet
from r2v_core.stages.cli import main
from r2v_core.trajectory import Episode
from tests.benchmarks import webshop
from tests.stages.fixed_output_model import model_that_says
from tests.teachers.server import Handler, Server, running, says

ROOT = Path(__file__).parents[2]
CONFIG = """
defaults: [webarena/mrp]
name: tiny
paths: {{data: data, outputs: outputs, results: results/tiny}}
benchmark:
  max_steps: 12
  splits: {{train: 4, router: 1, validation: 1, test: 2}}
  options: {{sites: [shopping], judge: mine, quiet_s: 0.05}}
slm: {{model: {model}, dtype: float32, max_prompt_tokens: 300, max_action_tokens: 12}}
collection: {{parallel: 4}}
agent: {{parallel: 4, verifier: false}}
candidates: {{k: 2}}
perturbations:
  seeds: {{train: 1, test: 1}}
  distractors: {{decoy_objects: 0.4, shuffle: 0.4}}
  prompt_injection: {{override: 0.4}}
training: {{bc: {{max_steps: 1, batch_size: 2, grad_accumulation: 1, learning_rate: 1.0e-9}}}}
evaluation: {{methods: [slm_only, llm_only, random_router]}}
"""
SAID = "stop('N/A')"


def knows_the_shop(handler: Handler) -> None:
    """Teacher and judge in one: it reads the chat and nothing else."""
    chat = [message["content"] for message in handler.seen.messages]
    if chat[0].startswith("You compare"):
        says("SAME" if "like" in chat[1].split("Answer:")[1] else "DIFFERENT")(handler)
        return
    goal = re.search(r"^Goal: (.*)$", chat[1], re.MULTILINE)
    assert goal
    says("stop('they like it')" if "customers say" in goal[1] else webshop.play(goal[1], chat[-1]))(handler)


@dataclass
class Project:
    """A project in which the data stages and both evaluations have run."""

    root: Path
    server: Server

    def run_of(self, stage: str) -> Path:
        (found,) = (
            path.parent
            for path in self.root.glob("*/*/*/run_manifest.json")
            if read_manifest(path.parent).stage == stage
        )
        return found

    def manifest(self, stage: str) -> RunManifest:
        return read_manifest(self.run_of(stage))

    def episodes(self, stage: str) -> list[Episode]:
        return list(read_parquet(self.run_of(stage) / "trajectories.parquet", Episode))


def later_runs(trained: Path, root: Path) -> dict[str, Path]:
    """Runs that stand for what evaluations need and this test does not make: the first policy as the final one, a
    verifier that nobody loads, and a router that asks for help at half of the steps."""
    manifest = read_manifest(trained)
    folders = {}
    for role, stage in (("policy", "train_dpo"), ("verifier", "train_verifier"), ("router", "train_router")):
        folders[role] = root / "outputs" / stage / f"{stage}_by_hand"
        shutil.copytree(trained, folders[role])
        changes = {"run_id": folders[role].name, "stage": stage, "output_dir": str(folders[role].relative_to(root))}
        write_manifest(manifest.model_copy(update=changes), folders[role])
    torch.manual_seed(0)
    net = RouterNet(len(FEATURES), [4], dropout=0.0)
    Router({"mlp": Scorer([net])}, list(FEATURES), "mlp", rules={"random_router": {"rate": 0.5}}).save(
        folders["router"]
    )
    return folders


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_slm: SLMConfig) -> Iterator[Project]:
    root = tmp_path_factory.mktemp("webarena")
    shutil.copytree(ROOT / "configs", root / "configs")
    model = model_that_says(SAID, tiny_slm, root / "model")
    (root / "configs/tiny.yaml").write_text(CONFIG.format(model=model))
    with running() as server, webshop.running() as shop, pytest.MonkeyPatch.context() as patch:
        server.otherwise = knows_the_shop
        (root / "configs/teachers.yaml").write_text(
            f'teachers: {{mine: {{provider: openai_compatible, model: tiny, base_url: "{server.url}/v1"}}}}'
        )
        for site in SITES:
            patch.delenv(variable(site), raising=False)
        patch.setenv("WA_SHOPPING", shop.url)
        patch.setenv("WA_SHOPPING_USER", webshop.USER)
        patch.setenv("WA_SHOPPING_PASSWORD", webshop.PASSWORD)
        patch.setenv("WA_TASKS", str(webshop.TASKS))
        patch.setenv("R2V_PROJECT", str(root))
        patch.chdir(root)
        found = Project(root, server)

        def run(stage: str, *arguments: str) -> None:
            command = ["--config", "configs/tiny.yaml", "--partition", "webarena:mine|1", *arguments]
            assert main(stage, command) == 0, stage

        for stage in ("task_suite", "collect", "perturb", "train_bc"):
            run(stage)
        inputs = later_runs(found.run_of("train_bc"), root)
        for stage in ("evaluate_clean", "evaluate_noisy"):
            run(stage, *(word for role, path in inputs.items() for word in ("--input", f"{role}={path}")))
        yield found


def test_tasks_are_those_of_the_file_and_name_no_machine(project: Project) -> None:
    path = project.run_of("task_suite") / "tasks.jsonl"
    tasks = list(JsonlStore(path, Task))
    assert len({task.template_id for task in tasks}) == 8 and {task.family for task in tasks} == {"shopping"}
    assert "127.0.0.1" not in path.read_text()


def test_a_language_model_teaches(project: Project) -> None:
    manifest, episodes = project.manifest("collect"), project.episodes("collect")
    assert (manifest.status, manifest.provider, manifest.model) == ("done", "openai_compatible", "tiny")
    assert len(episodes) == 4 and all(episode.success for episode in episodes)
    for episode in episodes:
        *before, last = episode.steps
        assert all(step.actor == "teacher" and step.progress is None for step in before)
        assert last.progress is True and last.action.startswith("stop('")
        assert "127.0.0.1" not in episode.model_dump_json()
    assert manifest.counts["teacher_calls"] >= sum(len(episode.steps) for episode in episodes)


def test_noise_acts_on_pages(project: Project) -> None:
    records = [r for episode in project.episodes("perturb") for step in episode.steps for r in step.perturbations]
    assert {"decoy_objects", "shuffle", "override"} <= {record.operator for record in records}
    injected = [record.detail["target_action"] for record in records if record.operator == "override"]
    assert all(action.startswith("click('") for action in injected)


def test_evaluations_play_in_closed_loop(project: Project) -> None:
    for condition in ("clean", "noisy"):
        episodes = project.episodes(f"evaluate_{condition}")
        assert {e.metadata["method"] for e in episodes} == {"slm_only", "llm_only", "random_router"}
        for episode in episodes:
            assert episode.success == bool(episode.steps[-1].executed and episode.steps[-1].progress)
            if episode.metadata["method"] == "slm_only":
                assert {step.action for step in episode.steps} == {SAID}
                assert episode.success == ("phone number" in episode.goal)
            if episode.metadata["method"] == "llm_only" and condition == "clean":
                assert episode.success
            for step in episode.steps:
                for candidate in step.decision.candidates if step.decision else ():
                    right = "phone number" in episode.goal
                    assert candidate.progress is None or (candidate.text, candidate.progress) == (SAID, right)
    assert any(step.perturbations for e in project.episodes("evaluate_noisy") for step in e.steps)


def test_the_judge_was_asked_and_is_counted_apart(project: Project) -> None:
    asked = [request for request in project.server.requests if request.messages[0]["content"].startswith("You compare")]
    usage = [json.loads(path.read_text()) for path in project.root.rglob("answer_judge_usage*.json")]
    assert len(asked) == sum(one["calls"] for one in usage) == 1  # again: from the cache
