"""TextWorld (Côté et al. 2018, arXiv:1806.11532): households of text, an expert from every state.

This module says which games there are; :mod:`.games` makes them, :mod:`.env` plays them. Importing it
does not need the ``textworld`` package.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from r2v_core.benchmarks.actions import ActionForm
from r2v_core.benchmarks.base import SPLITS, Concurrency, OpenModel, Split, Task, known_splits
from r2v_core.benchmarks.textworld.build import Game, Request, Unmakeable, build_games, describe
from r2v_core.digest import derive_seed, digest_of
from r2v_core.errors import R2VError

ATTEMPTS = 12
"""Game seeds tried for one template before its setting is called impossible."""


class Setting(BaseModel):
    """One family at one difficulty."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Custom(Setting):
    """A house with a random quest: find, open, unlock, put, eat, …"""

    family: Literal["custom"] = "custom"
    rooms: int = Field(default=3, ge=1, le=20, description="rooms")
    objects: int = Field(default=6, ge=1, le=60, description="objects, furniture and distractors included")
    quest_length: int = Field(default=4, ge=1, le=20, description="commands needed from the start")


class Simple(Setting):
    """Always the same house: escape the bedroom, find a food, put it on the stove (8 to 12 commands).

    Only the key's hiding place, the places of six foods and the food to find vary: about a thousand worlds (134 seeds
    gave 129 different ones), and test worlds resemble train worlds more than in the other families.
    """

    family: Literal["simple"] = "simple"
    rewards: Literal["dense", "balanced", "sparse"] = Field(default="dense", description="how often the score goes up")


class CoinCollector(Setting):
    """Walk along a chain of rooms and take the coin at its end."""

    family: Literal["coin_collector"] = "coin_collector"
    level: int = Field(
        5, ge=1, le=300, description="1-100: that many rooms; 101-200, 201-300: two and three rooms per chain link"
    )

    @model_validator(mode="after")
    def _fits(self) -> CoinCollector:
        rooms = ((self.level - 1) // 100 + 1) * ((self.level - 1) % 100 + 1)
        if rooms > 100:
            raise ValueError(f"level {self.level} has {rooms} rooms; TextWorld 1.7 allows 100: lower the level")
        return self


class TreasureHunter(Setting):
    """Find one object in a maze; taking the wrong one loses the game."""

    family: Literal["treasure_hunter"] = "treasure_hunter"
    level: int = Field(
        default=3, ge=1, le=30, description="1-10: 5 rooms; 11-20: 10 rooms, doors; 21-30: 20 rooms, locks"
    )


class Cooking(Setting):
    """Gather ingredients, process them as the cookbook says, eat the meal; spoiling one loses the game."""

    family: Literal["cooking"] = "cooking"
    recipe: int = Field(default=1, ge=1, le=5, description="ingredients in the recipe")
    take: int = Field(default=1, ge=0, le=5, description="ingredients to fetch, the others are carried from the start")
    go: Literal[1, 6, 9, 12] = Field(default=1, description="rooms")
    open: bool = Field(default=False, description="doors and containers are closed at the start")
    cook: bool = Field(default=False, description="ingredients need cooking")
    cut: bool = Field(default=False, description="ingredients need cutting")

    @model_validator(mode="after")
    def _fits(self) -> Cooking:
        if self.take > self.recipe:
            raise ValueError(f"take is {self.take}, more than the {self.recipe} ingredients of the recipe")
        return self


AnySetting = Annotated[Custom | Simple | CoinCollector | TreasureHunter | Cooking, Field(discriminator="family")]
GoalStyle = Literal["detailed", "brief"]


def _default_goals() -> list[GoalStyle]:
    return ["detailed"]


def _default_mix() -> list[AnySetting]:
    return [TreasureHunter(level=3), CoinCollector(level=4), Custom(), Cooking()]


class TextWorldOptions(BaseModel):
    """``benchmark.options`` of TextWorld."""

    model_config = ConfigDict(extra="forbid")

    mix: list[AnySetting] = Field(
        default_factory=_default_mix, min_length=1, description="families and difficulties, dealt out in turn"
    )
    goals: list[GoalStyle] = Field(
        default_factory=_default_goals,
        min_length=1,
        description="one task per style from each game. detailed: what to do, step by step (cooking: not the walk); "
        "brief: the end state only",
    )

    @field_validator("goals")
    @classmethod
    def _once(cls, goals: list[GoalStyle]) -> list[GoalStyle]:
        if len(set(goals)) < len(goals):
            raise ValueError("a goal style is listed twice")
        return goals


class _Slot(BaseModel):
    """A template to be: its place in the suite, its game once found."""

    split: Split
    index: int
    setting: dict[str, Any]
    attempt: int = 0
    problem: str = ""


class TextWorld:
    """Tasks are games; a template is one game world, its variants differ in the style of the goal."""

    name = "textworld"
    needs = "the package textworld"
    action_form: ActionForm = "line"
    concurrency: Concurrency = "serial"
    instructions = (
        "You play a text game. Reply with one short command and nothing else, for example: go east, open chest, "
        "take key from chest, put key on table, unlock door with key, examine table, eat apple, inventory, look."
    )
    Options = TextWorldOptions

    def __init__(self, options: TextWorldOptions, splits: Mapping[str, int], max_steps: int) -> None:
        self.options = options
        self.splits = known_splits(splits)
        self.max_steps = max_steps

    def ready(self) -> str | None:
        """None where TextWorld is installed."""
        if find_spec("textworld") and find_spec("jericho"):
            return None
        return "the package textworld is missing: pip install -c constraints.txt -e '.[textworld]'"

    def make_tasks(self, seed: int, cache: Path, progress: Any = None) -> list[Task]:
        """One replicate's tasks, in the order of splits, templates, goal styles.

        No two templates have the same world, whatever their splits: a world that came up before, a game that TextWorld
        can't make and one whose plan is longer than ``max_steps`` are replaced by the setting's next seed.

        Raises:
            R2VError: if a setting yields no further usable game in :data:`ATTEMPTS` seeds.
        """
        slots = [
            _Slot(split=split, index=index, setting=self.options.mix[index % len(self.options.mix)].model_dump())
            for split in SPLITS
            for index in range(self.splits.get(split, 0))
        ]
        games: dict[int, Game] = {}
        while missing := [number for number in range(len(slots)) if number not in games]:
            requests = [_request(seed, slots[number]) for number in missing]
            ready = len(games)
            report = (lambda done, ready=ready: progress(ready + done, len(slots))) if progress else None
            built = dict(zip(missing, build_games(requests, cache, report), strict=True))
            taken = {game.world for game in games.values()}
            for number, game in built.items():
                problem = self._problem(game, taken)
                if problem or isinstance(game, Unmakeable):
                    _next_attempt(slots[number], problem)
                else:
                    taken.add(game.world)
                    games[number] = game
        return [
            self._task(seed, slot, games[number], style)
            for number, slot in enumerate(slots)
            for style in self.options.goals
        ]

    def open(self, task: Task, cache: Path, open_model: OpenModel | None = None) -> Any:
        """The live game of a task, made again if the cache lost it.

        Raises:
            R2VError: if the game made here is another one than the task's (another TextWorld version).
        """
        from r2v_core.benchmarks.textworld.env import TextWorldEnv

        request = Request(task.options["setting"], task.options["game_seed"])
        game = build_games([request], cache)[0]
        if isinstance(game, Unmakeable) or game.world != task.options["world"]:
            raise R2VError(
                f"Task {task.task_id}: TextWorld makes another game from {describe(request)} here than where the tasks "
                "were made; install the same textworld version or make the task suite again"
            )
        return TextWorldEnv(task, game.path)

    def _problem(self, game: Game | Unmakeable, taken: set[str]) -> str:
        if isinstance(game, Unmakeable):
            return game.reason
        if len(game.plan) > self.max_steps:
            return f"the expert needs {len(game.plan)} steps, benchmark.max_steps allows {self.max_steps}"
        return "its world is already in the suite (too few different worlds)" if game.world in taken else ""

    def _task(self, seed: int, slot: _Slot, game: Game, style: GoalStyle) -> Task:
        template = f"{slot.setting['family']}-{game.world[:12]}"
        return Task(
            task_id=f"{template}-{style}",
            template_id=template,
            benchmark=self.name,
            family=slot.setting["family"],
            goal=game.goals[style],
            split=slot.split,
            max_steps=self.max_steps,
            content=digest_of([game.world, game.prose, game.goals[style]]),
            options={
                "setting": slot.setting,
                "game_seed": _request(seed, slot).seed,
                "goal_style": style,
                "world": game.world,
                "plan_length": len(game.plan),
            },
        )


def _request(seed: int, slot: _Slot) -> Request:
    parts = (slot.split, slot.index, digest_of(slot.setting), slot.attempt)
    return Request(slot.setting, derive_seed(seed, "textworld", *parts) % 2**31)


def _next_attempt(slot: _Slot, problem: str) -> None:
    slot.attempt += 1
    if slot.attempt >= ATTEMPTS:
        raise R2VError(
            f"benchmark.options.mix: {slot.setting} gave no usable game for template {slot.index} of split "
            f"'{slot.split}' in {ATTEMPTS} seeds; last problem: {problem}. Change its difficulty, or ask for fewer "
            "templates in benchmark.splits"
        )
