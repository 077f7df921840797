"""Episodes that ended in an error: how many a stage puts up with, and playing them again."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from typing import Any

from r2v_core.config.schema import EpisodesConfig
from r2v_core.errors import R2VError
from r2v_core.runs.manifest import write_atomic
from r2v_core.trajectory import Episode


class Failures:
    """Counts a stage's episodes that ended in an error, and stops it where they are too many.

    Args:
        config: how many that is.
        total: the stage's episodes.
        log: where each one is told of.
    """

    def __init__(self, config: EpisodesConfig, total: int, log: Callable[[str], None]) -> None:
        self.config, self.total, self.log = config, total, log
        self.errors = 0

    def count(self, episode: Episode, new: bool) -> None:
        """Count an episode that is on disk; told of if it is new.

        Raises:
            R2VError: if more ended in an error than ``episodes.max_error_share`` allows.
        """
        if episode.error is None:
            return
        if new:
            self.log(f"warning: {episode.episode_id} ended in an error and counts as failed: {episode.error}")
        self.errors += 1
        share = self.config.max_error_share
        if self.errors > math.ceil(round(share * self.total, 9)):
            raise R2VError(
                f"{self.errors} of {self.total} episodes ended in an error, and episodes.max_error_share is {share:g}; "
                f"{episode.episode_id}: {episode.error}. Once that is fixed, the same command with "
                "episodes.retry_errors=true among its overrides plays them again"
            )

    def recount(self, episodes: Iterable[Episode]) -> None:
        """Count all of the stage's episodes once more, where several processes played them. Raises as :meth:`count`."""
        self.errors = 0
        for episode in episodes:
            self.count(episode, False)


def drop_errors(path: Path, episode_ids: Collection[str]) -> int:
    """Take those of these episodes that ended in an error out of a file of episodes; see :func:`drop`."""
    return drop(path, lambda episode: episode["episode_id"] in episode_ids and bool(episode["metadata"].get("error")))


def drop(path: Path, unwanted: Callable[[dict[str, Any]], bool]) -> int:
    """Take episodes out of a file of episodes; every other line stays as it is.

    Returns:
        how many there were.
    """
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    kept = [line for line in lines if not _is(unwanted, line)]
    if len(kept) < len(lines):
        write_atomic(path, "".join(kept))
    return len(lines) - len(kept)


def _is(unwanted: Callable[[dict[str, Any]], bool], line: str) -> bool:
    try:
        return unwanted(json.loads(line))
    except (ValueError, KeyError, TypeError, AttributeError):
        return False  # half a line: the store deals with it
