"""Stage 4 with a judge: a real policy and verifier (tiny, hardly trained), a server that gives scores."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest

from r2v_core.config.schema import SLMConfig
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.runs.jsonl import JsonlStore
from r2v_core.runs.manifest import RunManifest
from r2v_core.runs.reporting import Reporter
from r2v_core.stages.experiments import load_config
from r2v_core.stages.plan import plan
from r2v_core.stages.runner import execute
from r2v_core.training.preferences import CandidateRow
from tests.teachers.conftest import ROOT
from tests.teachers.server import Handler, Server, says

SMALL = """
defaults: [textworld/noisy]
name: small
benchmark:
  max_steps: 5
  splits: {train: 2, router: 1, validation: 1, test: 1}
  options:
    goals: [detailed]
    mix: [{family: custom, rooms: 2, objects: 3, quest_length: 2}]
slm: {model: "MODEL", dtype: float32, max_action_tokens: 4, max_prompt_tokens: 160}
training:
  bc: {max_steps: 1, batch_size: 1}
  verifier: {max_steps: 1, batch_size: 2}
candidates: {k: 2, max_states: 5}
judge: {teacher: mine, limits: {attempts: 2, patience_s: 0, backoff_s: 0.001}}
paths: {cache: cache}
"""


def scores(handler: Handler) -> None:
    """0.9 for the first candidate, 0.2 for the others."""
    text = handler.seen.messages[1]["content"]
    count = len(re.findall(r'^\d+\. "', text.partition("Candidate actions:")[2], re.MULTILINE))
    says(json.dumps([[0.9, 0.9], *[[0.2, 0.2]] * (count - 1)]))(handler)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_slm: SLMConfig) -> Path:
    """A project with everything that stage 4 reads."""
    root = tmp_path_factory.mktemp("judged")
    shutil.copytree(ROOT / "configs", root / "configs")
    (root / "configs" / "small.yaml").write_text(SMALL.replace("MODEL", tiny_slm.model))
    for stage in ("task_suite", "collect", "perturb", "train_bc", "train_verifier"):
        run(root, stage)
    return root


def run(root: Path, stage: str, *overrides: str) -> RunManifest:
    loaded = load_config("configs/small.yaml", overrides, root)
    return execute(plan(stage, Partition("textworld", "expert", 1), loaded, project=root), Reporter(stage))


def test_candidates_are_scored_by_the_judge_and_compared_with_the_verifier(trained: Path, server: Server) -> None:
    (trained / "configs" / "teachers.yaml").write_text(
        f"teachers: {{mine: {{provider: openai_compatible, model: tiny, base_url: '{server.url}/v1'}}}}"
    )
    server.otherwise = scores
    stopped = ("candidates.scored_by=judge", "judge.limits.budget_calls=1")
    with pytest.raises(R2VError, match=r"judge\.limits\.budget_calls: the run's 1 judge calls are used up"):
        run(trained, "candidates", *stopped)
    manifest = run(trained, "candidates", "candidates.scored_by=judge")
    rows = list(JsonlStore(trained / manifest.output_dir / "candidates.jsonl", CandidateRow))
    assert len(rows) == manifest.counts["states"] == 5
    for row in rows:
        first = row.candidates[0].text
        assert {c.score for c in row.candidates} <= {0.9, 0.2}
        assert all((c.score == 0.9) == (c.text == first) for c in row.candidates)
    states = {row.prompt for row in rows}
    assert manifest.counts["judge_calls"] == len(server.requests) <= 2 * len(states)
    assert manifest.counts["judge_undecided"] == 0 and 0 <= manifest.counts["judge_same_best"] <= 1
    assert "Judge and trained verifier" in (trained / manifest.output_dir / "preview.md").read_text()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["judge.teacher=expert"], "judge.teacher: 'expert' is not a language model"),
        (["judge.teacher=gpt-4"], "Unknown teacher 'gpt-4'"),
        (["judge.options.max_tokns=3"], r"judge\.options\.max_tokns \(provider openai_compatible\): no such key"),
    ],
)
def test_a_judge_that_is_none_is_refused(trained: Path, server: Server, overrides: list[str], words: str) -> None:
    (trained / "configs" / "teachers.yaml").write_text(
        f"teachers: {{mine: {{provider: openai_compatible, model: tiny, base_url: '{server.url}/v1'}}}}"
    )
    with pytest.raises(R2VError, match=words):
        run(trained, "candidates", "candidates.scored_by=judge", "candidates.max_states=3", *overrides)
