"""Trajectories as other trainers read them: JSONL of chats, an episode or a taught step a line.

A chat is what a language model reads in the closed loop: the benchmark's instructions, the goal with the first
observation, then actions and what was seen after each, noise included. What is taught is what behaviour cloning learns
here: the expert's action where it is known, else the teacher's own unless it was malformed
(:func:`r2v_core.trajectory.teacher_action`). An action that was played and is not taught (exploration, a small model's
step) has ``weight`` 0.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

from r2v_core.benchmarks import benchmark_class
from r2v_core.digest import digest_of
from r2v_core.errors import R2VError
from r2v_core.teachers.base import Situation
from r2v_core.teachers.conversation import Message, conversation
from r2v_core.trajectory import Episode, teacher_action

_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt"}
_TOLD = ("run_id", "teacher_provider", "teacher_model", "split")
Record = dict[str, Any]


def chat(episode: Episode, length: int) -> list[Message]:
    """The chat up to and including the observation of step ``length``, 0-based."""
    steps = episode.steps
    instructions = str(benchmark_class(episode.benchmark).instructions)
    nowhere = cast(Any, None)  # no environment: a language model is not shown it
    seen = Situation(nowhere, instructions, episode.goal, steps[:length], steps[length].observation)
    return conversation(seen, length)


def messages(episode: Episode) -> Iterator[Record]:
    """One record an episode: ``messages`` with ``role``, ``content`` and, for the assistant's, ``weight`` 0 or 1."""
    taught = [teacher_action(step) == step.action for step in episode.steps]
    if any(taught):
        last = {"role": "assistant", "content": episode.steps[-1].action or "(no action)"}
        weights = iter(taught)
        told = [*chat(episode, len(episode.steps) - 1), last]
        yield {
            "messages": [{**one, "weight": int(next(weights))} if one["role"] == "assistant" else one for one in told]
        }


def sharegpt(episode: Episode) -> Iterator[Record]:
    """One record an episode: ``conversations`` with ``from`` (system, human, gpt), ``value`` and ``weight``."""
    for record in messages(episode):
        yield {
            "conversations": [
                {"from": _SHAREGPT[one["role"]], "value": one["content"]}
                | ({"weight": one["weight"]} if "weight" in one else {})
                for one in record["messages"]
            ]
        }


def prompt_completion(episode: Episode) -> Iterator[Record]:
    """One record a taught step: ``prompt`` and ``completion``, both lists of messages; only the latter is learned."""
    for index, step in enumerate(episode.steps):
        action = teacher_action(step)
        if action:
            yield {"prompt": chat(episode, index), "completion": [{"role": "assistant", "content": action}]}


FORMATS: dict[str, Callable[[Episode], Iterator[Record]]] = {
    "messages": messages,
    "sharegpt": sharegpt,
    "prompt-completion": prompt_completion,
}
"""Name → what makes records of an episode."""


def export(episodes: Iterable[Episode], output: Path, form: str, successful: bool) -> Counter[str]:
    """Write records to a ``.jsonl`` file, whole or not at all; equal ones once.

    Args:
        form: a name of :data:`FORMATS`.
        successful: leave out episodes that the benchmark's verdict calls failed.

    Returns:
        counts: ``records``, ``episodes`` that gave any, and what was left out: ``failed`` and ``errors`` (episodes),
        ``untaught`` (episodes in which nothing is taught), ``equal`` (records that were there already).

    Raises:
        R2VError: if the file is no ``.jsonl``, can't be written, or would be empty.
    """
    if output.suffix != ".jsonl":
        raise R2VError(f"--output {output}: the name has to end in .jsonl")
    counts: Counter[str] = Counter(dict.fromkeys(("records", "episodes", "failed", "errors", "untaught", "equal"), 0))
    temporary = output.with_name(f".{output.name}.{os.getpid()}.tmp")
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            for line in _lines(episodes, FORMATS[form], successful, counts):
                file.write(line + "\n")
        if not counts["records"]:
            left_out = ", ".join(f"{n} {what}" for what, n in counts.items() if n)
            raise R2VError(
                f"nothing to export: no episode teaches anything ({left_out or 'there are none'}); choose other runs, "
                "stages or splits"
            )
        temporary.replace(output)
    except OSError as error:
        raise R2VError(f"--output {output}: can't be written ({error.strerror or error})") from None
    finally:
        with suppress(OSError):
            temporary.unlink()
    return counts


def _lines(
    episodes: Iterable[Episode], records: Callable[[Episode], Iterator[Record]], successful: bool, counts: Counter[str]
) -> Iterator[str]:
    seen: set[str] = set()
    for episode in episodes:
        if episode.error is not None or (successful and not episode.success):
            counts["errors" if episode.error is not None else "failed"] += 1
            continue
        taught = 0
        for number, record in enumerate(records(episode)):
            taught += 1
            key = digest_of(record)
            if key in seen:
                counts["equal"] += 1
                continue
            seen.add(key)
            counts["records"] += 1
            about = {
                "id": f"{episode.metadata.get('run_id', '')}/{episode.episode_id}/{number}",
                "metadata": _about(episode),
            }
            yield json.dumps({**record, **about}, ensure_ascii=False)
        counts["episodes" if taught else "untaught"] += 1


def _about(episode: Episode) -> dict[str, Any]:
    named = {name: episode.metadata.get(name) for name in _TOLD}
    fields = ("benchmark", "task_id", "template_id", "success", "score", "perturbation_seed", "seed")
    return {**{name: getattr(episode, name) for name in fields}, **named}
