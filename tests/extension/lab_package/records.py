"""The records; the modules that they are made of import no more than that, so that listing assets stays quick."""

from __future__ import annotations

from r2v_core.agent.rules.scored import thresholded
from r2v_core.runs.stage import Stage

LATE = thresholded(
    "late_router",
    lambda features: features["horizon_fraction"],
    title="asks late in an episode",
    colour="#882255",
    marker="p",
    line=":",
    score_title="Share of the horizon that is used up",
)

CENSUS = Stage(
    name="census",
    asset="task_census",
    function="lab_package.census:run",
    title="Count the tasks of each family",
    group="lab",
    kinds=("json",),
    resources={"gpus": 0, "cpus": 3, "time": "00:10:00"},
    inputs=(("tasks", "task_suite"),),
    sections=("benchmark",),
    root="data",
)
