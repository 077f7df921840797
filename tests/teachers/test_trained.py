"""The teacher that was trained here, without the pipeline around it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from r2v_core.config.schema import JudgeConfig, LoRAConfig, SLMConfig, TeacherLimitsConfig
from r2v_core.engines.transformers.sampler import Sampler
from r2v_core.errors import R2VError
from r2v_core.runs.memory import Scope
from r2v_core.teachers import make_teacher
from r2v_core.teachers.context import TeacherContext, TrainedPolicy
from r2v_core.teachers.options import TrainedOptions
from r2v_core.teachers.trained import TrainedTeacher
from r2v_core.training.adapters import save_untrained
from tests.stages.fixed_output_model import model_that_says
from tests.teachers.conftest import situation

Open = Callable[..., TrainedTeacher]
ROOMS = [situation(state=f"You are in room {n}.") for n in (1, 2, 1)]


@pytest.fixture
def opened(tmp_path: Path, model_cache: Path, tiny_slm: SLMConfig) -> Open:
    def open_(slm: SLMConfig = tiny_slm, seed: int = 1, scope: Scope | None = None, **options: Any) -> TrainedTeacher:
        adapter = tmp_path / f"adapter-{Path(slm.model).name}"
        if not adapter.exists():
            save_untrained(slm, LoRAConfig(), model_cache, adapter, 1)
        context = TeacherContext(tmp_path, model_cache, tmp_path, scope=scope)
        return TrainedTeacher(TrainedPolicy("run", slm, adapter, seed), TrainedOptions(**options), context)

    return open_


def actions(teacher: TrainedTeacher) -> list[str]:
    return [advice.action for advice in teacher.act(ROOMS)]


def test_within_a_scope_an_equal_prompt_is_not_generated_for_again(
    opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generated: list[str] = []
    sample = Sampler.sample

    def counted(self: Sampler, prompts: list[str], *args: Any, **options: Any) -> Any:
        generated.extend(prompts)
        return sample(self, prompts, *args, **options)

    monkeypatch.setattr(Sampler, "sample", counted)
    first = opened(scope=Scope(tmp_path, "one", "play")).act(ROOMS)
    assert len(generated) == 2 and first[0] == first[2] and all(advice.tokens_in > 0 for advice in first)
    again = opened(scope=Scope(tmp_path, "one", "play")).act(ROOMS)  # as a resumed run opens it
    assert len(generated) == 2 and again == first
    assert opened().act(ROOMS) and len(generated) == 4


def test_greedy_owes_nothing_to_the_seed_and_sampling_everything(opened: Open) -> None:
    assert actions(opened(seed=1)) == actions(opened(seed=2))
    warm = actions(opened(seed=1, temperature=1.0))
    assert warm == actions(opened(seed=1, temperature=1.0)) != actions(opened(seed=2, temperature=1.0))


def test_an_empty_reply_is_marked(opened: Open, tiny_slm: SLMConfig, tmp_path: Path) -> None:
    silent = tiny_slm.model_copy(update={"model": str(model_that_says("", tiny_slm, tmp_path / "silent"))})
    assert {advice.detail.get("malformed") for advice in opened(slm=silent).act(ROOMS)} == {"the reply is empty"}
    talking = tiny_slm.model_copy(update={"model": str(model_that_says("go west", tiny_slm, tmp_path / "west"))})
    assert [(advice.action, advice.detail) for advice in opened(slm=talking).act(ROOMS)] == [("go west", {})] * 3


def test_elsewhere_and_with_another_model_it_is_refused(tmp_path: Path, tiny_slm: SLMConfig) -> None:
    judge = TeacherContext(tmp_path, tmp_path, tmp_path, role="judge")
    with pytest.raises(R2VError, match="judge 'smollm2-taught' is trained by the stage train_teacher for partitions"):
        make_teacher("smollm2-taught", {}, JudgeConfig().limits, judge)
    other = TrainedPolicy("run_7", tiny_slm, tmp_path, 1)
    context = TeacherContext(tmp_path, tmp_path, tmp_path, trained=other)
    with pytest.raises(R2VError, match=r"'smollm2-taught' is 'smollm2-135m-instruct', but run_7 trained '.*'; make"):
        make_teacher("smollm2-taught", {}, TeacherLimitsConfig(), context)
