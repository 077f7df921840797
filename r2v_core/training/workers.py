"""Processes that train together, as ``accelerate launch`` starts them."""

from __future__ import annotations

import signal

import torch

from r2v_core.runs import stopping


def world_size() -> int:
    """Processes that train together (``accelerate launch``); 1 when run alone."""
    from accelerate import PartialState

    return int(PartialState().num_processes)


def wait_for_everyone() -> None:
    """Block until all processes that train together are here."""
    from accelerate import PartialState

    PartialState().wait_for_everyone()


def agree_to_stop() -> bool:
    """Whether any of the processes that train together was asked to end; all of them are told so."""
    if world_size() > 1:
        from accelerate import PartialState

        number = torch.tensor(int(stopping.asked() or 0), device=PartialState().device)
        torch.distributed.all_reduce(number, op=torch.distributed.ReduceOp.MAX)
        if number.item():
            stopping.ask(signal.Signals(int(number.item())))
    return stopping.asked() is not None
