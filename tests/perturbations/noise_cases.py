"""Configs, moments and episodes that the tests of the noise share."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from r2v_core.config.schema import FamilyConfig, PerturbationsConfig
from r2v_core.perturbations import FAMILIES
from r2v_core.perturbations.base import StepContext
from r2v_core.trajectory import Episode, Observation, Step

OPERATORS: dict[str, str] = {
    operator: family
    for family in FAMILIES
    for operator in type(getattr(PerturbationsConfig.model_validate({}), family)).model_fields
    if not operator.endswith("_share") and operator not in FamilyConfig.model_fields
}
"""Operator → family, read off the schema."""

FAILURES = ("timeout", "error")

CURRENT = Observation(
    feedback="You open the door. It creaks.",
    state=(
        "-= Kitchen =-\nYou are in a kitchen. There is an apple on the table.\nThere is an exit to the east.\n\n"
        "The shelf holds:\n- 12 plates\n- a jug of 1.5 litres\n- 3 cups\n\nYou carry: a key."
    ),
)
PREVIOUS = Observation(
    feedback="You take the key. It is cold.",
    state=(
        "-= Hall =-\nA long hall. It is cold. It has 9 doors.\nOne is closed. One is open.\n"
        "- 2 coats\n- 1 hat\n- a rug\nA bell hangs here. It is silent. It is old.\n\nYou carry: nothing."
    ),
)
ADMISSIBLE = ("close door", "drop key", "go east", "inventory", "look", "take apple")


def settings(**probabilities: float) -> PerturbationsConfig:
    """A config section with the named operators at the given probabilities."""
    sections: dict[str, Any] = {"severity_spread": 0.0}
    for operator, probability in probabilities.items():
        sections.setdefault(OPERATORS[operator], {})[operator] = probability
    return PerturbationsConfig.model_validate(sections)


def everything(probability: float) -> PerturbationsConfig:
    return settings(**dict.fromkeys(OPERATORS, probability))


def step_context(step: int = 3, z: int = 1, task: str = "t", **changes: Any) -> StepContext:
    fields: dict[str, Any] = {
        "goal": "Eat the apple.",
        "admissible": ADMISSIBLE,
        "previous": PREVIOUS,
        "current": CURRENT,
    }
    return StepContext(z, task, step, **(fields | changes))


TEXT = st.text(st.sampled_from("ab .!?\n\u2028é😀-'0"), max_size=40) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=20
)
OBSERVATION = st.builds(Observation, state=TEXT, feedback=TEXT)
PROBABILITY = st.floats(0, 1)
ACTION = st.sampled_from([*ADMISSIBLE, "open box", ""])
STEP = st.builds(
    Step,
    index=st.just(0),
    observation=OBSERVATION,
    action=ACTION,
    actor=st.just("teacher"),
    progress=st.none() | st.booleans(),
    alternatives=st.dictionaries(ACTION, st.booleans(), max_size=3),
    cost=st.just(50.0),
    tokens_out=st.just(7),
)


@st.composite
def episodes(draw: st.DrawFn) -> Episode:
    steps = draw(st.lists(STEP, max_size=6))
    return Episode(
        episode_id="e1",
        benchmark="textworld",
        task_id=draw(st.sampled_from(["t1", "t2"])),
        template_id="x",
        goal=draw(st.sampled_from(["Eat the apple.", "Open the box: first, go east.", ""])),
        steps=[step.model_copy(update={"index": i}) for i, step in enumerate(steps)],
        success=draw(st.booleans()),
        score=0.5,
        seed=3,
        metadata={"run_id": "r"},
    )
