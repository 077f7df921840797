"""One stage as several processes: who is who, and who writes what.

Processes that ``accelerate launch`` starts, one a GPU, work together. Training stages share gradients (that is the
trainer's business). Stages that generate share out their work; each process appends its records to a file of its own,
and the main process gathers them before it goes on alone. The main process alone holds the run's lock, writes its
manifest and talks to an orchestrator.

Shards know nothing of each other: each is a process of its own, mostly an element of a cluster's job array, that makes
its part of the records, in a file of its own too, and ends (:mod:`r2v_core.stages.sharded`). A later run of the stage
finds them all on disk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from r2v_core.errors import R2VError
from r2v_core.runs.jsonl import JsonlStore

T = TypeVar("T", bound=BaseModel)
Made = TypeVar("Made")
PATIENCE = timedelta(days=7)
"""How long a process that has finished its part waits for the others."""


SHARD = "R2V_SHARD"
"""The environment variable by which a process is a shard: ``<which>/<of how many>``, from ``0/4`` to ``3/4``."""


class PartDone(BaseException):
    """This process is a helper or a shard and its part of the stage is done; the main process does the rest."""


@dataclass(frozen=True)
class Shard:
    """One of several processes that each make a part of a run's records, and know nothing of each other."""

    index: int
    count: int


def shard() -> Shard | None:
    """Which shard this process is; None if it is none.

    Raises:
        R2VError: if the variable says something else.
    """
    if not (said := os.environ.get(SHARD)):
        return None
    index, _, total = said.partition("/")
    if not (index.isdecimal() and total.isdecimal() and int(index) < int(total)):
        raise R2VError(f"{SHARD}={said}: write <which>/<of how many>, counted from 0, e.g. 0/4")
    return Shard(int(index), int(total))


def rank() -> int:
    """Which of the processes this is: 0 is the main one."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """Processes that run this stage together; 1 when it runs alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the process that writes the run's files."""
    return rank() == 0 and shard() is None


def part() -> tuple[int, int]:
    """Which part of the records this process makes, of how many."""
    return (own.index, own.count) if (own := shard()) else (rank(), count())


def own_name() -> str:
    """What the names of files that this process writes beside the main one's have in them; empty for the main one."""
    return f"shard{own.index}" if (own := shard()) else str(rank() or "")


def launch_arguments(command: tuple[str, ...], processes: int) -> tuple[str, ...]:
    """What follows ``python -m`` to run a stage's ``command`` as several processes of one machine."""
    if processes < 2:
        return command
    launcher = ("accelerate.commands.launch", "--multi_gpu", "--num_machines=1", f"--num_processes={processes}")
    return (*launcher, "--main_process_port=0", "--mixed_precision=no", "--dynamo_backend=no", "--module", *command)


def wait_for_all() -> None:
    """Block until all processes are here."""
    if count() == 1:
        return
    import torch.distributed as dist

    if not dist.is_initialized():
        dist.init_process_group("gloo", timeout=PATIENCE)
    dist.barrier()


def from_main(make: Callable[[], Made]) -> Made:
    """What ``make`` returns in the main process, in every process; it travels pickled."""
    if count() == 1:
        return make()
    import torch.distributed as dist

    wait_for_all()
    shared: list[Made | None] = [make() if is_main() else None]
    dist.broadcast_object_list(shared, src=0)
    assert shared[0] is not None
    return shared[0]


def exit_workers() -> None:
    """Wait for all, then let the main process go on alone.

    Raises:
        PartDone: in helpers.
    """
    wait_for_all()
    if not is_main():
        raise PartDone


def rank_file(path: Path) -> Path:
    """Where this process appends the records that :func:`gather` puts into ``path``."""
    return path if is_main() else path.with_name(f"{path.stem}.part{own_name()}{path.suffix}")


def rank_files(path: Path) -> list[Path]:
    """The files of :func:`rank_file` that are not gathered yet, of all processes but the main one."""
    return sorted(path.parent.glob(f"{path.stem}.part*{path.suffix}"))


def gather(path: Path, model: type[T], key: Callable[[T], Hashable]) -> None:
    """Move every helper's records into ``path``, each once; also those of helpers of an earlier, killed attempt.

    Raises:
        PartDone: in helpers, once all processes are here.
    """
    exit_workers()
    merge_rank_files(path, model, key)


def merge_rank_files(path: Path, model: type[T], key: Callable[[T], Hashable]) -> None:
    """Move the records of helpers' files into ``path``, each once: killed in between, it can be done again."""
    parts = rank_files(path)
    if not parts:
        return
    with JsonlStore(path, model) as store:
        store.recover()
        known = {key(record) for record in store}
        for part in parts:
            for record in JsonlStore(part, model):
                if key(record) not in known:
                    store.append(record)
                    known.add(key(record))
            part.unlink()
