"""Servers to ask, and projects whose teachers ask them."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from r2v_core.config.schema import TeacherLimitsConfig
from r2v_core.teachers import make_teacher
from r2v_core.teachers.base import Situation, Teacher
from r2v_core.teachers.context import TeacherContext
from r2v_core.trajectory import Observation, Step
from tests.teachers.server import Server, running

ROOT = Path(__file__).parents[2]
KEYS = (
    "OPENAI_API_KEY",
    "ANTHROPIC_API_KEY",
    "GEMINI_API_KEY",
    "GOOGLE_API_KEY",
    "DEEPSEEK_API_KEY",
    "OPENAI_COMPATIBLE_API_KEY",
)
CANARY = "sk-canary-2f6b1c"
QUICK = TeacherLimitsConfig(backoff_s=0.001, attempts=3, patience_s=0)


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key of whoever runs the tests is ever used."""
    for key in KEYS:
        monkeypatch.delenv(key, raising=False)


@pytest.fixture
def server() -> Iterator[Server]:
    """A server that answers 'look' unless its script says otherwise."""
    with running() as found:
        yield found


@pytest.fixture
def project(tmp_path: Path, server: Server) -> Path:
    """The repository's configs, with the teachers 'mine' (compatible), 'paid' (OpenAI) and 'claude' at the server."""
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    (tmp_path / "configs" / "teachers.yaml").write_text(
        f"""
teachers:
  mine: {{provider: openai_compatible, model: tiny, base_url: "{server.url}/v1"}}
  paid: {{provider: openai, model: gpt-4o, base_url: "{server.url}/v1"}}
  claude: {{provider: anthropic, model: claude-haiku-4-5, base_url: "{server.url}"}}
  new: {{provider: openai, model: gpt-99, base_url: "{server.url}/v1"}}
"""
    )
    return tmp_path


@pytest.fixture
def teacher(project: Path) -> Callable[..., Teacher]:
    """Make a teacher of the project, as a stage would."""

    def make(name: str = "mine", limits: TeacherLimitsConfig = QUICK, log: Any = None, **options: Any) -> Teacher:
        run_dir = project / "run"
        run_dir.mkdir(exist_ok=True)
        place = TeacherContext(project, project / "cache", run_dir, log=log or (lambda line: None))
        return make_teacher(name, options, limits, place)

    return make


def situation(state: str = "You are in a kitchen.", history: Sequence[Step] = (), goal: str = "Eat.") -> Situation:
    """What a model may see; there is no environment that it could ask."""
    return Situation(None, "You play a game.", goal, history, Observation(state=state))  # type: ignore[arg-type]


def step(index: int, action: str, state: str = "", feedback: str = "") -> Step:
    return Step(index=index, observation=Observation(state=state, feedback=feedback), action=action, actor="teacher")
