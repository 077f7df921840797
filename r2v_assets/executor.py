"""How the stages of a Dagster run are run: one after the other, or at once those that do not depend on each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import dagster as dg

from r2v_assets.choice import stages_at_once
from r2v_core.stages.table import BY_ASSET


class OneOrSeveral(dg.Executor):
    """Each step in a process of its own, several at a time; a run of a single stage in this process.

    A process of its own loads all definitions anew, which takes seconds.
    """

    def __init__(self, one: dg.Executor, several: dg.Executor) -> None:
        self.one = one
        self.several = several

    @property
    def retries(self) -> Any:
        """Whether steps may be retried, as Dagster asks of every executor."""
        return self.several.retries

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        """Run the plan's steps and yield their events."""
        stages = [key for key in execution_plan.step_keys_to_execute if key in BY_ASSET]
        chosen = self.several if len(stages) > 1 else self.one
        yield from chosen.execute(plan_context, execution_plan)


def executor() -> dg.ExecutorDefinition:
    """What runs the steps of every run, whatever launched it (:func:`r2v_assets.choice.stages_at_once`)."""
    at_once = stages_at_once()
    if at_once == 1:
        return dg.in_process_executor
    side_by_side = dg.ExecutorDefinition(
        name="side_by_side",
        config_schema=dg.multiprocess_executor.config_schema.as_field(),
        requirements=dg.multiple_process_executor_requirements(),
        executor_creation_fn=lambda init: OneOrSeveral(
            _made(dg.in_process_executor, init), _made(dg.multiprocess_executor, init)
        ),
    )
    return side_by_side.configured({"max_concurrent": at_once}, name=f"{at_once}_stages_at_once")


def _made(definition: dg.ExecutorDefinition, init: dg.InitExecutorContext) -> dg.Executor:
    assert definition.executor_creation_fn is not None
    return definition.executor_creation_fn(init)
