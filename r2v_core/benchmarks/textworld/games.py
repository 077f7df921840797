"""Making one TextWorld game, and the worker process that does it.

TextWorld iterates over sets while it writes a game, so its output depends on ``PYTHONHASHSEED``. Games are therefore
made only by ``python -m r2v_core.benchmarks.textworld.games`` under ``PYTHONHASHSEED=0``: it reads one request per
line on stdin (JSON: ``setting``, ``seed``, ``folder``) and answers each with one line on stdout (JSON: the game's
facts, or ``{"error": ...}``). :mod:`r2v_core.benchmarks.textworld.build` runs it.
"""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

from r2v_core.benchmarks.textworld.goals import brief_goal, detailed_goal, recipe_goal
from r2v_core.digest import digest_of

GAME_FILE = "game.z8"
FACTS_FILE = "facts.json"
_CHALLENGES = {
    "simple": "tw-simple",
    "coin_collector": "tw-coin_collector",
    "treasure_hunter": "tw-treasure_hunter",
    "cooking": "tw-cooking",
}


def _generate(setting: dict[str, Any], options: Any) -> Any:
    """The ``textworld.Game`` of a family's setting; ``options`` (``GameOptions``) carry the seeds."""
    from textworld.challenges import CHALLENGES
    from textworld.generator import make_game

    family = setting["family"]
    if family == "custom":
        options.nb_rooms = setting["rooms"]
        options.nb_objects = setting["objects"]
        options.quest_length = setting["quest_length"]
        return make_game(options)
    fixed: dict[str, Any] = {}
    if family == "simple":
        fixed = {"goal": "detailed", "test": False}
    elif family == "cooking":
        fixed = {"drop": False, "split": None, "recipe_seed": 0}
    _, make, _ = CHALLENGES[_CHALLENGES[family]]
    return make({**setting, **fixed}, options)


def _names(game: Any) -> dict[str, str]:
    return {identity: info.name or identity for identity, info in game.infos.items()}


def world_digest(game: Any) -> str:
    """Digest of a game's world: its facts and its quests by the names a player reads, prose left out."""
    names = _names(game)

    def line(fact: Any) -> str:
        return f"{fact.name}({','.join(names.get(variable.name, variable.name) for variable in fact.arguments)})"

    def events(found: Any) -> list[list[str]]:
        return sorted(sorted(line(fact) for fact in event.condition.preconditions) for event in found)

    return digest_of(
        {
            "facts": sorted(line(fact) for fact in game.world.facts),
            "quests": [[events(q.win_events), events(q.fail_events), q.reward] for q in game.quests],
        }
    )


def _goals(family: str, game: Any, plan: list[str], last_room: str) -> dict[str, str]:
    """Both goal styles of a game, see ``goals`` of the benchmark's options."""
    if family == "cooking":
        brief = " ".join(game.objective.split())
        return {"brief": brief, "detailed": recipe_goal(plan)}
    things = [info.name for identity, info in game.infos.items() if info.name and identity not in ("P", "I")]
    detailed = detailed_goal(game.objective, things)
    if family == "simple":
        note = next(info.desc for info in game.infos.values() if info.name == "note")
        return {"brief": note, "detailed": detailed}
    return {"brief": brief_goal(plan[-1], last_room), "detailed": detailed}


def _play(game_file: str) -> None:
    """Follow the expert to the end, from start to verdict.

    Raises:
        ValueError: if that does not win the game.
    """
    import textworld

    environment = textworld.start(game_file, textworld.EnvInfos(policy_commands=True))
    try:
        state = environment.reset()
        for _ in range(200):
            if not state.policy_commands:
                break
            state, _, _ = environment.step(state.policy_commands[0])
        if not state.won:
            raise ValueError("TextWorld's own plan does not win this game")
    finally:
        environment.close()


def make_game_files(setting: dict[str, Any], seed: int, folder: Path) -> dict[str, Any]:
    """Generate, compile and try out one game in ``folder``; return its facts.

    The facts are ``world`` and ``prose`` (digests), ``goals`` (style → text) and ``plan`` (commands of the expert).
    The game file itself holds no objective, so that a goal style is a matter of the task alone.
    """
    import textworld
    from textworld.generator import compile_game
    from textworld.generator.game import GameProgression

    random.seed(seed)
    np.random.seed(seed)
    textworld.g_rng.set_seed(seed)
    options = textworld.GameOptions()
    options.seeds = seed
    options.path = str(folder / GAME_FILE)
    options.force_recompile = True
    game = _generate(setting, options)
    names = _names(game)
    actions = list(GameProgression(game).winning_policy or ())
    if not actions:
        raise ValueError("TextWorld has no plan for this game")
    plan = [action.format_command(names) for action in actions]
    rooms = [names[variable.name] for variable in actions[-1].variables if variable.type == "r"]
    facts = {
        "world": world_digest(game),
        "prose": digest_of(sorted([names[key], info.desc or ""] for key, info in game.infos.items())),
        "goals": _goals(setting["family"], game, plan, rooms[-1] if rooms else "room"),
        "plan": plan,
    }
    game.objective = ""
    game.metadata.pop("walkthrough", None)
    compile_game(game, options)
    _play(options.path)
    return facts


def main() -> None:
    """Answer requests until stdin closes. Libraries that print do so on stderr."""
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = make_game_files(request["setting"], request["seed"], Path(request["folder"]))
        except (OSError, ImportError, MemoryError) as error:
            answer = {"error": f"{type(error).__name__}: {error}", "fatal": True}
        except Exception as error:  # a generator gives up in many ways: no free exit, no noun left, an assertion
            answer = {"error": f"{type(error).__name__}: {error}", "fatal": False}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
