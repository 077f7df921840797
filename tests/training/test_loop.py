"""Data order, checkpoints, logs and adapters."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from r2v_core.config.schema import OptimConfig
from r2v_core.training.checkpoints import (
    CHECKPOINTS,
    COMPLETE,
    LOG_NAME,
    last_checkpoint,
    prepare_checkpoints,
    read_log,
)
from r2v_core.training.curves import draw_curves
from r2v_core.training.loop import length_grouped_order


@given(
    lengths=st.lists(st.integers(1, 300), min_size=1, max_size=60),
    steps=st.integers(1, 12),
    batch=st.integers(1, 5),
    accumulation=st.integers(1, 2),
    processes=st.integers(1, 2),
    seed=st.integers(0, 99),
)
def test_order_uses_every_example_equally_often(
    lengths: list[int], steps: int, batch: int, accumulation: int, processes: int, seed: int
) -> None:
    optim = OptimConfig(max_steps=steps, batch_size=batch, grad_accumulation=accumulation)
    order = length_grouped_order(lengths, optim, processes, seed)
    assert len(order) == steps * batch * accumulation * processes
    uses = Counter(order)
    assert max(uses.values()) - min(uses.get(i, 0) for i in range(len(lengths))) <= 1
    assert order == length_grouped_order(lengths, optim, processes, seed)


def test_batches_hold_similar_lengths() -> None:
    lengths = list(range(128))
    order = length_grouped_order(lengths, OptimConfig(max_steps=16, batch_size=8), 1, 0)
    spans = [max(order[i : i + 8]) - min(order[i : i + 8]) for i in range(0, 128, 8)]
    assert spans == [7] * 16
    assert order != sorted(order)


def test_another_seed_gives_another_order() -> None:
    optim = OptimConfig(max_steps=4, batch_size=4)
    assert length_grouped_order([5] * 16, optim, 1, 1) != length_grouped_order([5] * 16, optim, 1, 2)


def _checkpoint(run_dir: Path, step: int, complete: bool) -> Path:
    path = run_dir / CHECKPOINTS / f"checkpoint-{step}"
    path.mkdir(parents=True)
    if complete:
        (path / COMPLETE).write_text("{}")
    return path


def test_half_written_checkpoints_are_ignored_and_the_log_is_cut_back(tmp_path: Path) -> None:
    whole = [_checkpoint(tmp_path, 4, True), _checkpoint(tmp_path, 10, True)]
    torn = _checkpoint(tmp_path, 12, False)
    log = tmp_path / LOG_NAME
    log.write_text("".join(json.dumps({"step": s, "loss": 1.0}) + "\n" for s in range(1, 14)) + '{"step": 14, "lo')
    assert last_checkpoint(tmp_path / CHECKPOINTS) == whole[1]
    assert prepare_checkpoints(tmp_path) == whole[1]
    assert not torn.exists()
    assert [line["step"] for line in read_log(log)] == list(range(1, 11))


def test_without_a_checkpoint_the_log_starts_anew(tmp_path: Path) -> None:
    (tmp_path / LOG_NAME).write_text('{"step": 1, "loss": 1.0}\n')
    assert prepare_checkpoints(tmp_path) is None
    assert read_log(tmp_path / LOG_NAME) == []


def test_curve_is_a_png_even_where_a_key_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "loss.png"
    log = [{"step": s, "loss": 1 / s} for s in range(1, 30)]
    draw_curves(log, path, "title", {"loss": {"loss": "loss"}, "other": {"absent": "absent"}})
    assert path.read_bytes()[:4] == b"\x89PNG"
