"""Game files: found in the cache or made by worker processes, side by side, each whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from r2v_core.benchmarks.textworld.games import FACTS_FILE, GAME_FILE
from r2v_core.digest import digest_of
from r2v_core.errors import R2VError

FORMAT = 1
"""Raised when the way games are made changes, so that older cache entries are not taken for new ones."""
_STALE_S = 6 * 3600.0


@dataclass(frozen=True)
class Request:
    """One game to make: a family's setting (plain JSON values) and TextWorld's seed (below 2**31)."""

    setting: dict[str, Any]
    seed: int

    @property
    def key(self) -> str:
        """Name in the cache: digest of all that the game's files depend on."""
        return digest_of([FORMAT, version("textworld"), self.setting, self.seed])


@dataclass(frozen=True)
class Game:
    """A made game: its file, digests of its world and prose, goals by style, and the expert's plan."""

    path: Path
    world: str
    prose: str
    goals: dict[str, str]
    plan: list[str]


@dataclass(frozen=True)
class Unmakeable:
    """TextWorld could not make a game from this seed; another seed may do."""

    reason: str


class _Worker:
    """A process that makes games, one at a time."""

    def __init__(self) -> None:
        package_root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(part for part in (package_root, os.environ.get("PYTHONPATH", "")) if part)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "r2v_core.benchmarks.textworld.games"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": path},
        )

    def make(self, request: Request, folder: Path) -> dict[str, Any]:
        assert self.process.stdin is not None and self.process.stdout is not None
        line = json.dumps({"setting": request.setting, "seed": request.seed, "folder": str(folder)})
        try:
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()
            answer = self.process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise R2VError(
                f"The process that makes TextWorld games ended with status {self.process.wait()} while it made "
                f"{describe(request)}; see its messages above (out of memory?) and run again, finished games are kept"
            )
        result: dict[str, Any] = json.loads(answer)
        return result

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()


def describe(request: Request) -> str:
    """A request as error messages name it."""
    return f"{json.dumps(request.setting)} with seed {request.seed}"


def processors() -> int:
    """Processors that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def cached_game(request: Request, games: Path) -> Game | None:
    """The game of a request if the cache folder ``games`` holds it."""
    folder = games / request.key
    try:
        facts = json.loads((folder / FACTS_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    return Game(folder / GAME_FILE, **facts) if (folder / GAME_FILE).is_file() else None


def _make(request: Request, games: Path, worker: _Worker) -> Game | Unmakeable:
    folder = Path(tempfile.mkdtemp(prefix=".making-", dir=games))
    try:
        answer = worker.make(request, folder)
        if "error" in answer:
            if answer["fatal"]:
                raise R2VError(f"TextWorld could not make {describe(request)}: {answer['error']}")
            return Unmakeable(answer["error"])
        (folder / FACTS_FILE).write_text(json.dumps(answer, indent=1), encoding="utf-8")
        folder.chmod(0o755)
        target = games / request.key
        if target.exists() and cached_game(request, games) is None:
            shutil.rmtree(target, ignore_errors=True)  # damaged: files were deleted from it
        with contextlib.suppress(OSError):  # someone else made the same game first: theirs stays
            folder.rename(target)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    game = cached_game(request, games)
    if game is None:
        raise R2VError(f"{games / request.key}: can't be written; check free space and permissions of the cache")
    return game


def build_games(
    requests: Sequence[Request], cache: Path, progress: Callable[[int], None] | None = None
) -> list[Game | Unmakeable]:
    """The games of ``requests`` in order, from ``<cache>/games`` where they are there, else made in parallel.

    ``progress`` is called with the number of games ready, from any thread, one call at a time.

    Raises:
        R2VError: if the machine, not the seed, is in the way (no space, a worker killed).
    """
    games = cache.resolve() / "games"
    games.mkdir(parents=True, exist_ok=True)
    for leftover in games.glob(".making-*"):  # of killed processes
        with contextlib.suppress(FileNotFoundError):
            if time.time() - leftover.stat().st_mtime > _STALE_S:
                shutil.rmtree(leftover, ignore_errors=True)
    found: list[Game | Unmakeable | None] = [cached_game(request, games) for request in requests]
    missing = [index for index, game in enumerate(found) if game is None]
    lock = threading.Lock()
    done = len(found) - len(missing)
    if progress:
        progress(done)
    if missing:
        local = threading.local()
        workers: list[_Worker] = []

        def one(index: int) -> None:
            nonlocal done
            if not hasattr(local, "worker"):
                local.worker = _Worker()
                workers.append(local.worker)
            found[index] = _make(requests[index], games, local.worker)
            with lock:
                done += 1
                if progress:
                    progress(done)

        pool = ThreadPoolExecutor(min(processors(), len(missing)))
        try:
            for future in [pool.submit(one, index) for index in missing]:
                future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in workers:
                worker.close()
            pool.shutdown(wait=True)
            for worker in workers:  # one may have been starting while the others were closed
                worker.close()
    return [game for game in found if game is not None]
