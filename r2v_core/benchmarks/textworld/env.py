"""A live TextWorld game behind :class:`r2v_core.benchmarks.base.Environment`."""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import Any

import textworld
from jericho import UnsupportedGameWarning
from textworld.envs.wrappers.tw_inform7 import (
    Inform7Data,
    StateTracking,
    _detect_extra_infos,
    _detect_i7_events_debug_tags,
)
from textworld.generator.game import GameProgression

from r2v_core.benchmarks.base import Outcome, Task, closed, not_started
from r2v_core.benchmarks.textworld.text import (
    FACTS,
    UNKNOWN_VERB,
    clean_command,
    describe_feedback,
    describe_state,
    is_playable,
    mentions,
)
from r2v_core.trajectory import Observation

_WON, _LOST = "*** The End ***", "*** You lost! ***"


def advance(progression: GameProgression, action: Any) -> GameProgression:
    """A copy of ``progression`` after ``action``, the original left alone.

    ``GameProgression.copy`` and ``.update`` enumerate all applicable actions, the costly part; here it is put off until
    someone asks (see :func:`valid_actions`).
    """
    ahead = copy.copy(progression)
    ahead.state = progression.state.copy()
    ahead.quest_progressions = [quest.copy() for quest in progression.quest_progressions]
    ahead.state.apply(action)
    for quest in ahead.quest_progressions:
        quest.update(action, ahead.state)
    ahead._valid_actions = None
    return ahead


def valid_actions(progression: GameProgression) -> list[Any]:
    """The actions applicable in a progression, enumerated if :func:`advance` put that off."""
    if progression._valid_actions is None:
        knowledge = progression.game.kb
        found = progression.state.all_applicable_actions(knowledge.rules.values(), knowledge.types.constants_mapping)
        progression._valid_actions = list(found)
    actions: list[Any] = progression._valid_actions
    return actions


class TextWorldEnv:
    """One game. ``Outcome.remaining`` is the length of TextWorld's winning plan from here, None where there is none.

    Progress means that this plan became shorter, or that the game is won. A game can become unwinnable without being
    lost (something needed was eaten): it goes on, with ``remaining`` None and no progress.
    """

    waiting_action = "look"
    """Changes nothing; what the expert plays where no plan exists any more."""

    def __init__(self, task: Task, game_file: Path) -> None:
        self.task = task
        wanted = textworld.EnvInfos(
            description=True,
            inventory=True,
            admissible_commands=True,
            policy_commands=True,
            score=True,
            max_score=True,
            won=True,
            lost=True,
        )
        with warnings.catch_warnings():  # Jericho lacks score detection for these games; TextWorld brings its own
            warnings.simplefilter("ignore", UnsupportedGameWarning)
            self._game: Any = textworld.start(str(game_file), wanted)
        self._game.seed(1)
        self._tracking = _find(self._game, StateTracking)
        self._interpreter = self._game.unwrapped
        self._facts = mentions([*self._tracking._game.objects_names, *FACTS])
        self._state: Any = None
        self._last = Outcome(observation=Observation(state=""))
        self._peeked: dict[str, bool] = {}

    def reset(self) -> Outcome:
        """Start over."""
        self._require_open()
        self._state = self._game.reset()
        self._last = self._outcome("")
        return self._last.model_copy(deep=True)

    def step(self, action: str) -> Outcome:
        """Carry out one command; whatever the text, the answer is an observation."""
        self._require_started()
        if self._last.done:
            return self._answer("The game is over.")
        command = clean_command(action)
        if not is_playable(command):
            return self._answer(UNKNOWN_VERB if command else "Say what to do.")
        before = self._last.remaining
        self._state, _, _ = self._game.step(command)
        feedback = describe_feedback(self._state.feedback, self._state.inventory or "", command)
        self._last = self._outcome(feedback)
        closer = before is not None and self._last.remaining is not None and self._last.remaining < before
        self._last.progress = self._last.success or closer
        return self._last.model_copy(deep=True)

    def admissible(self) -> list[str]:
        """Commands that TextWorld knows to work now, sorted; none after the end."""
        self._require_started()
        return [] if self._last.done else sorted(self._state.admissible_commands)

    def hard_negatives(self) -> list[str]:
        """None: most admissible commands lead nowhere."""
        self._require_started()
        return []

    def would_progress(self, action: str) -> bool:
        """What ``step(action).progress`` would be.

        The command runs in the interpreter, whose memory is then put back; the events it reports are applied to a copy
        of the tracked world, as TextWorld does in a real step.
        """
        self._require_started()
        command = clean_command(action)
        if self._last.done or not is_playable(command):
            return False
        if command not in self._peeked:
            self._peeked[command] = self._try(command)
        return self._peeked[command]

    def expert_action(self) -> str | None:
        """The first command of TextWorld's winning plan; None after the end and where the game can't be won."""
        self._require_started()
        return self._state.policy_commands[0] if self._last.remaining else None

    def close(self) -> None:
        """Release the interpreter."""
        if self._game is not None:
            self._game.close()
        self._game = self._tracking = self._interpreter = self._state = None

    def _try(self, command: str) -> bool:
        interpreter = self._interpreter._jericho
        saved = interpreter.get_state()
        raw = self._interpreter._send(command)
        interpreter.set_state(saved)
        if _WON in raw:
            return True
        if _LOST in raw or self._last.remaining is None:
            return False
        _, text = _detect_extra_infos(raw, _find(self._game, Inform7Data)._tracked_infos)
        events, _ = _detect_i7_events_debug_tags(text)
        progression = self._tracking._game_progression
        for event in events:
            action = self._tracking._inform7.detect_action(event, valid_actions(progression))
            if action is not None:
                progression = advance(progression, action)
        if progression is self._tracking._game_progression:
            return False
        plan = progression.winning_policy
        return plan is not None and len(plan) < self._last.remaining

    def _outcome(self, feedback: str) -> Outcome:
        state = self._state
        self._peeked = {}
        won, lost = bool(state.won), bool(state.lost)
        plan = self._tracking._current_winning_policy
        score = state.score / state.max_score if state.max_score else 0.0
        return Outcome(
            observation=Observation(
                state=describe_state(state.description or "", state.inventory or "", self._facts), feedback=feedback
            ),
            done=won or lost,
            success=won,
            score=1.0 if won else min(max(score, 0.0), 1.0),
            remaining=0 if won else None if lost or plan is None else len(plan),
        )

    def _answer(self, feedback: str) -> Outcome:
        """The present state with an answer of ours; nothing happened in the game."""
        observation = Observation(state=self._last.observation.state, feedback=feedback)
        self._last = self._last.model_copy(update={"observation": observation, "progress": False})
        return self._last.model_copy(deep=True)

    def _require_open(self) -> None:
        if self._game is None:
            raise closed(self.task)

    def _require_started(self) -> None:
        self._require_open()
        if self._state is None:
            raise not_started(self.task)


def _find(environment: Any, wrapper: type) -> Any:
    """The layer of type ``wrapper`` in TextWorld's stack of wrappers."""
    while not isinstance(environment, wrapper):
        environment = environment._wrapped_env
    return environment
