"""Nothing that costs money starts without a budget: "all partitions" in the UI must not spend by accident."""

from __future__ import annotations

from pathlib import Path

from r2v_core.config import LoadedConfig
from r2v_core.config.schema import TeacherLimitsConfig
from r2v_core.errors import R2VError
from r2v_core.partition import Partition
from r2v_core.teachers.names import find_teacher
from r2v_core.teachers.prices import load_prices


def check_budgets(partition: Partition, loaded: LoadedConfig, project: Path) -> None:
    """Refuse a run whose teacher or judge may cost money while its budget is not set.

    Raises:
        R2VError: naming the model, what is known of its price, and the keys to set.
    """
    config = loaded.config
    _check(partition.teacher, config.teacher.limits, "teacher", project)
    if config.candidates.scored_by == "judge":
        _check(config.judge.teacher, config.judge.limits, "judge", project)
    answers = config.benchmark.options.get("judge")
    if isinstance(answers, str):
        _check(answers, config.judge.limits, "judge", project)


def _check(name: str, limits: TeacherLimitsConfig, role: str, project: Path) -> None:
    if limits.budget_usd is not None or limits.budget_calls is not None:
        return
    entry = find_teacher(name, project)
    price = load_prices(project).find(entry.provider, entry.model)
    if price is not None and price.input == price.output == 0:
        return
    cost = price or "at an unknown price"
    raise R2VError(
        f"{role} '{name}' costs money ({entry.provider} {entry.model}, {cost}), and no budget is set; set "
        f"{role}.limits.budget_usd or {role}.limits.budget_calls, per run (0: no limit)"
    )
