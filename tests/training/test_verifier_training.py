"""The verifier's labels, loss and training."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional
from transformers.models.llama.modeling_llama import LlamaAttention

from r2v_core.errors import R2VError
from r2v_core.models.verifier import Verifier
from r2v_core.runs.parquet import write_parquet
from r2v_core.runs.spec import StageContext, UpstreamRun
from r2v_core.stages import train_verifier as stage
from r2v_core.training import callbacks
from r2v_core.training import verifier as training
from r2v_core.training.examples import Renderer
from r2v_core.training.loop import arguments
from r2v_core.training.verifier import MAX_CLASS_WEIGHT, class_weights, quality, verifier_loss
from r2v_core.training.verifier_labels import (
    LabelledState,
    class_episodes,
    label_states,
    outcome_label,
    outcome_labels,
    shares,
    split_by_template,
    step_labels,
    with_share,
)
from r2v_core.trajectory import Episode, Observation, Step

Context = Callable[..., StageContext]
QUICK = {"max_steps": 8, "batch_size": 4, "save_steps": 3, "learning_rate": 5e-3, "validation_share": 0.3}


def _step(**facts: Any) -> Step:
    return Step(**{"index": 0, "observation": Observation(state="s"), "action": "a", "actor": "teacher", **facts})


def test_step_labels_come_from_the_environment_only() -> None:
    assert step_labels(_step(progress=True, alternatives={"b": False})) == {"a": True, "b": False}
    assert step_labels(_step(progress=None)) == {}
    assert step_labels(_step(expert_action="e", remaining=None)) == {}, "nobody verified the teacher"
    assert step_labels(_step(expert_action="e", remaining=4, progress=False)) == {"a": False, "e": True}


def test_a_swallowed_action_is_not_labelled_by_its_failure() -> None:
    assert step_labels(_step(executed=False, progress=False)) == {}
    assert step_labels(_step(executed=False, progress=False, expert_action="a", remaining=2)) == {"a": True}


def test_outcome_is_known_only_where_one_policy_played_to_the_end(clean_episodes: list[Episode]) -> None:
    for episode in clean_episodes:
        for step in episode.steps:
            expected = episode.success if episode.metadata["mode"] == "explore_all" else None
            assert outcome_label(episode, step) is expected


def on_policy(episodes: list[Episode]) -> list[Episode]:
    """The same episodes as if the small model had played them and, at their first states, gone on from there."""
    return [
        episode.model_copy(
            update={
                "episode_id": f"{episode.task_id}~z1~p0",
                "steps": [step.model_copy(update={"actor": "slm", "expert_action": None}) for step in episode.steps],
                "metadata": {
                    "split": "train",
                    "mode": "on_policy",
                    "continuations": {"0": {episode.steps[0].action: [3, 4], "wait": [0, 4], "jump": [1, 3]}},
                },
            }
        )
        for episode in episodes
    ]


def test_shares_of_continuations_are_outcome_labels(clean_episodes: list[Episode], renderer: Renderer) -> None:
    episodes = on_policy(clean_episodes)
    first, second = episodes[0].steps[:2]
    assert outcome_labels(episodes[0], first) == {first.action: 0.75, "wait": 0.0, "jump": 1 / 3}
    assert outcome_labels(episodes[0], second) == {}, "one verdict of the small model's is no label"
    state = label_states(episodes, renderer)[0]
    assert state.on_policy and state.episode_id == episodes[0].episode_id
    labels = dict(zip(state.actions, zip(state.step, state.outcome, strict=True), strict=True))
    assert labels == {
        first.action: (True, 0.75),
        "wait": (False, 0.0),
        "jump": (None, 1 / 3),
        "inventory": (False, None),
    }


def test_classes_are_counted_in_episodes(clean_episodes: list[Episode], renderer: Renderer) -> None:
    def state(episode_id: str, outcome: float | None) -> LabelledState:
        return LabelledState("p", "t", ("a",), (True,), (outcome,), episode_id)

    found = [state("e", 0.25), state("e", 0.0), state("f", 0.0), state("g", None), state("h", 1.0)]
    assert class_episodes(found) == {"step": (0, 4), "outcome": (2, 2)}
    assert class_weights(found)[0] == ["outcome"]
    with pytest.raises(R2VError, match="one class only"):
        class_weights([state("e", 0.0), state("f", 0.0), state("g", None)])
    copies = [e.model_copy(update={"episode_id": f"{e.episode_id}~z{z}"}) for e in clean_episodes for z in (1, 2)]
    assert class_episodes(label_states(copies, renderer))["outcome"] == (2, 2), "perturbed copies are no new episodes"


@pytest.mark.parametrize(("share", "own"), [(0.5, 10), (0.8, 40), (0.1, 1)])
def test_own_states_are_repeated_or_thinned_to_their_share(share: float, own: int) -> None:
    teacher = [LabelledState(f"t{i}", "t", ("a",), (1.0,), (None,)) for i in range(10)]
    mine = [LabelledState(f"o{i}", "o", ("a",), (0.0,), (0.5,), on_policy=True) for i in range(3)]
    found = with_share([*mine, *teacher], share, 7)
    assert [state for state in found if not state.on_policy] == teacher
    times = Counter(state.prompt for state in found if state.on_policy)
    assert sum(times.values()) == own and max(times.values()) - min([*times.values(), own // 3]) <= 1
    assert found == with_share([*mine, *teacher], share, 7)
    assert with_share(mine, share, 7) == mine and with_share(teacher, share, 7) == teacher


def test_every_state_keeps_actions_and_labels_together(clean_episodes: list[Episode], renderer: Renderer) -> None:
    found = label_states(clean_episodes, renderer)
    assert len(found) == sum(len(episode.steps) for episode in clean_episodes)
    for state in found:
        assert len(state.actions) == len(state.step) == len(state.outcome)
        assert state.step[state.actions.index("wait")] is False
        assert sum(label is not None for label in state.outcome) <= 1
    assert 0 < shares(found)["step"][1] < 1 and 0 < shares(found)["outcome"][1] < 1


def test_held_out_templates_are_not_trained_on(clean_episodes: list[Episode], renderer: Renderer) -> None:
    found = label_states(clean_episodes, renderer)
    training, held = split_by_template(found, 0.3, 1)
    assert training and held and len(training) + len(held) == len(found)
    assert not {s.template_id for s in training} & {s.template_id for s in held}
    assert split_by_template(found, 0.0, 1)[1] == []
    assert split_by_template(found, 1.0, 1)[0] != []


def test_classes_weigh_the_same(clean_episodes: list[Episode], renderer: Renderer) -> None:
    found = label_states(clean_episodes, renderer)
    heads, weights = class_weights(found)
    assert heads == ["step", "outcome"]
    for i, (_, share) in enumerate(shares(found).values()):
        assert (weights[i, 1] * share).item() == pytest.approx((weights[i, 0] * (1 - share)).item())
    assert weights.max() <= MAX_CLASS_WEIGHT


def test_labels_of_one_class_are_refused(clean_episodes: list[Episode], renderer: Renderer) -> None:
    only = [
        episode.model_copy(
            update={"steps": [s.model_copy(update={"alternatives": {}, "progress": True}) for s in episode.steps]}
        )
        for episode in clean_episodes
        if episode.success
    ]
    with pytest.raises(R2VError, match=r"collection.alternatives"):
        class_weights(label_states(only, renderer))


def test_loss_is_bce_with_the_papers_weights_where_labels_are_known() -> None:
    logits = torch.tensor([[0.3, -0.2], [1.0, 0.5]])
    labels = torch.tensor([[1.0, math.nan], [0.0, 1.0]])
    loss, each = verifier_loss(logits, labels, torch.ones(2, 2), torch.tensor([0.3, 1.0]), torch.tensor([2.0, 1.0]))
    step = functional.binary_cross_entropy_with_logits(logits[:, 0], labels[:, 0])
    outcome = functional.binary_cross_entropy_with_logits(logits[1, 1], labels[1, 1])
    torch.testing.assert_close(loss, 0.3 * step + outcome)
    torch.testing.assert_close(each, torch.stack([step, outcome]))


def test_a_batch_without_labels_of_a_head_has_no_loss_there() -> None:
    logits = torch.zeros(2, 2, requires_grad=True)
    labels = torch.tensor([[1.0, math.nan], [1.0, math.nan]])
    loss, each = verifier_loss(logits, labels, torch.ones(2, 2), torch.tensor([0.3, 1.0]), torch.ones(2))
    loss.backward()
    assert each[1] == 0 and logits.grad is not None and (logits.grad[:, 1] == 0).all()


def test_class_weights_reach_the_loss() -> None:
    logits, labels = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    _, each = verifier_loss(logits, labels, torch.tensor([[1.0, 3.0], [5.0, 1.0]]), torch.ones(2), torch.ones(2))
    torch.testing.assert_close(each, torch.tensor([3.0, 5.0]) * math.log(2))


def test_a_soft_label_is_a_success_and_a_failure_by_its_share() -> None:
    logits, labels = torch.tensor([[0.7, -1.2]]), torch.tensor([[0.25, 0.5]])
    weights = torch.tensor([[1.0, 3.0], [5.0, 2.0]])
    _, each = verifier_loss(logits, labels, weights, torch.ones(2), torch.ones(2))
    won, lost = functional.logsigmoid(logits[0]), functional.logsigmoid(-logits[0])
    expected = -torch.stack([3 * 0.25 * won[0] + 0.75 * lost[0], 2 * 0.5 * won[1] + 5 * 0.5 * lost[1]])
    torch.testing.assert_close(each, expected)


def test_quality_of_a_worked_example() -> None:
    # successes: 3/4 at 0.8, 1/4 at 0.3; failures: 1/4 at 0.8, 3/4 at 0.3
    found = quality(torch.tensor([0.8, 0.3]), torch.tensor([0.75, 0.25]))
    assert found["auc"] == pytest.approx(0.75 * (0.75 + 0.25 / 2) + 0.25 * (0.75 / 2))
    assert found["brier"] == pytest.approx(0.75 * 0.04 + 0.25 * 0.64)
    assert quality(torch.tensor([0.8, 0.3, 0.5]), torch.tensor([1.0, 0.0, 1.0]))["auc"] == 1.0
    assert "auc" not in quality(torch.tensor([0.8, 0.3]), torch.tensor([0.0, 0.0]))


def test_own_states_are_measured_apart_and_learnt_from_if_wanted(
    context: Context, make_folder_run: Callable[..., UpstreamRun], clean_episodes: list[Episode], tmp_path: Path
) -> None:
    write_parquet(tmp_path / "own" / "episodes.parquet", on_policy(clean_episodes), Episode)
    rollouts = make_folder_run(tmp_path / "own", "policy_rollouts", {"episodes": "episodes.parquet"})
    quick = {**QUICK, "layers": 1, "max_steps": 2}
    alone = stage.run(context("train_verifier", name="alone", verifier=quick))
    measured, learnt = (
        stage.run(
            context(
                "train_verifier",
                name=f"learn {learn}",
                verifier={**quick, "on_policy": {"learn": learn}},
                inputs={"rollouts": rollouts},
            )
        )
        for learn in (False, True)
    )
    assert measured.digest == alone.digest != learnt.digest
    off_policy = {name: value for name, value in measured.counts.items() if name.startswith(("auc", "brier", "held"))}
    assert {name for name in off_policy if not name.endswith("on_policy")} == {
        name for name in alone.counts if name.startswith(("auc", "brier", "held"))
    }
    assert all(off_policy[name] == alone.counts[name] for name in off_policy if not name.endswith("on_policy"))
    assert 0 <= learnt.counts["auc_outcome_on_policy"] <= 1 and "brier_step_on_policy" in learnt.counts
    assert learnt.counts["states_on_policy"] == 36 and learnt.counts["held_out_outcome_on_policy"] > 0
    shown = (tmp_path / "learn True" / "preview.md").read_text()
    assert "| outcome, on policy |" in shown and "36 states are the small model's own" in shown


def test_training_separates_the_classes(context: Context, renderer: Renderer, clean_episodes: list[Episode]) -> None:
    ctx = context("train_verifier", verifier={**QUICK, "max_steps": 200, "save_steps": 200, "learning_rate": 1e-3})
    result = stage.run(ctx)
    assert result.counts["loss_last"] < result.counts["loss_first"]
    assert 0 < result.counts["label_share_step"] < 1 and 0 < result.counts["label_share_outcome"] < 1
    assert result.counts["auc_step"] > 0.9, "'wait' and 'inventory' never help here, on unseen templates too"
    assert "brier_outcome" in result.counts
    for name in result.artifacts.values():
        assert (ctx.run_dir / name).exists()
    verifier = Verifier.load(ctx.run_dir, ctx.config.slm, ctx.cache)
    prompt = renderer.prompt(clean_episodes[0], 0)
    (good, _), (bad, _) = verifier.score([prompt], [[str(clean_episodes[0].steps[0].expert_action), "wait"]])[0]
    assert good > bad


def test_an_interrupted_run_resumes_to_the_same_verifier(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = stage.run(context("train_verifier", name="whole", verifier={**QUICK, "layers": 1}))
    ctx = context("train_verifier", name="killed", verifier={**QUICK, "layers": 1})
    original = callbacks.TrainingLog.on_log

    def stop(self: Any, args: Any, state: Any, control: Any, logs: Any = None, **rest: Any) -> None:
        original(self, args, state, control, logs, **rest)
        if state.global_step == 5:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(callbacks.TrainingLog, "on_log", stop)
        with pytest.raises(KeyboardInterrupt):
            stage.run(ctx)
    assert (ctx.run_dir / "checkpoints" / "checkpoint-3").is_dir()
    assert stage.run(ctx).digest == whole.digest


def test_checkpointed_activations_train_the_same_verifier(context: Context, monkeypatch: pytest.MonkeyPatch) -> None:
    section = {**QUICK, "max_steps": 2, "save_steps": 100}
    calls: list[str] = []
    forward = LlamaAttention.forward

    def train(name: str) -> str:
        def counted(self: LlamaAttention, *args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return forward(self, *args, **kwargs)

        monkeypatch.setattr(LlamaAttention, "forward", counted)
        return stage.run(context("train_verifier", name=name, verifier=section)).digest

    kept = train("kept")
    monkeypatch.setattr(training, "arguments", lambda *of: {**arguments(*of), "activation_checkpointing": True})
    assert train("computed again") == kept
    assert calls.count("computed again") == calls.count("kept") + 2 * 2, "two layers, two steps"
