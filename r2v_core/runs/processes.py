"""One stage as several processes, one a GPU, as ``accelerate launch`` starts them: who is who, and who writes what.

Training stages share gradients (that is the trainer's business). Stages that generate share out their work; each
process appends its records to a file of its own, and the main process gathers them before it goes on alone. The main
process alone holds the run's lock, writes its manifest and talks to an orchestrator.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel

from r2v_core.runs.jsonl import JsonlStore

T = TypeVar("T", bound=BaseModel)
Made = TypeVar("Made")
PATIENCE = timedelta(days=7)
"""How long a process that has finished its part waits for the others."""


class PartDone(BaseException):
    """This process is a helper and its part of the stage is done; the main process goes on alone."""


def rank() -> int:
    """Which of the processes this is: 0 is the main one."""
    return int(os.environ.get("RANK", "0"))


def count() -> int:
    """Processes that run this stage together; 1 when it runs alone."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main() -> bool:
    """Whether this is the process that writes the run's files."""
    return rank() == 0


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
    return path if is_main() else path.with_name(f"{path.stem}.part{rank()}{path.suffix}")


def gather(path: Path, model: type[T], key: Callable[[T], Hashable]) -> None:
    """Move every helper's records into ``path``, each once; also those of helpers of an earlier, killed attempt.

    Raises:
        PartDone: in helpers, once all processes are here.
    """
    exit_workers()
    merge_rank_files(path, model, key)


def merge_rank_files(path: Path, model: type[T], key: Callable[[T], Hashable]) -> None:
    """Move the records of helpers' files into ``path``, each once: killed in between, it can be done again."""
    parts = sorted(path.parent.glob(f"{path.stem}.part*{path.suffix}"))
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
