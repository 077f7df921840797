"""Declared automation: bring begun seeds up to date. Off until it is switched on (UI, *Automation*)."""

from __future__ import annotations

import dagster as dg

from r2v_core.runs.stage import Stage

_NEEDED = dg.AutomationCondition.missing().newly_true() | dg.AutomationCondition.any_deps_match(
    dg.AutomationCondition.data_version_changed()
)
_HANDLED = dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()
_READY = (
    ~dg.AutomationCondition.any_deps_missing()
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
)
UP_TO_DATE = (_NEEDED.since(_HANDLED) & _READY).with_label("missing, or made from an input that has changed since")
"""Each reason leads to one run: what failed is not started over and over. An input that was made again with the same
data version is no reason."""


def automation_condition(stage: Stage) -> dg.AutomationCondition | None:
    """When the automation materialises a partition of a stage's asset.

    None where a stage reads nothing: a person begins a seed by materialising its task suite, so that no seed starts,
    or spends, by itself. None for ablations: they are made on request.
    """
    return UP_TO_DATE if stage.inputs and stage.group != "ablation" else None


bring_seeds_up_to_date = dg.AutomationConditionSensorDefinition(
    "bring_seeds_up_to_date",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.STOPPED,
    description="Completes every seed whose task suite exists, and makes again what was made from a changed input. "
    "Ablations, and new seeds, are left to you.",
)
