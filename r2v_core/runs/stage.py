"""What a pipeline stage is: one record. Which stages there are says :mod:`r2v_core.stages.table`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One row: a stage of the pipeline."""

    name: str
    asset: str
    function: str
    """'module:function' taking a StageContext and returning a StageResult."""
    title: str
    group: str
    """Topic under which the asset stands in the graph."""
    kinds: tuple[str, ...]
    """Icons of the asset in the graph."""
    resources: Mapping[str, Any]
    """What its job asks a cluster for unless a profile says otherwise (:class:`r2v_assets.slurm.profile.Resources`)."""
    memory_key: str | None = None
    """The config key that decides how much memory it takes, for those who run out of it."""
    inputs: tuple[tuple[str, str], ...] = ()
    """(role, upstream stage) pairs."""
    switch: str = ""
    """Config key that decides whether the stage has anything to do: where it is 0, nobody reads its runs."""
    sections: tuple[str, ...] = ()
    """Config sections the result depends on; part of the fingerprint."""
    root: str = "outputs"
    """'data': <data>/runs/<run_id>; 'outputs': <outputs>/<stage>/<run_id>."""
    version: str = "1"
    """Code version: raise it when the same inputs would now give another result."""
    merged: tuple[str, ...] = ()
    """Roles of inputs that ``data.merge`` replaces by the merge of several runs."""
    shared: bool = False
    """Whether several processes can run it together, one a GPU (:mod:`r2v_core.runs.processes`)."""
    sharded: bool = False
    """Whether shards can each play a part of it on their own (:mod:`r2v_core.stages.sharded`): a stage whose work is
    records that are made chunk by chunk."""
    extends: tuple[str, ...] = ()
    """Config keys that a run which builds on a finished one has to share with it; none: the stage has no such runs."""
    arguments: tuple[str, ...] = ()
    """Arguments of the module on a command line, where one module runs several stages."""

    @property
    def command(self) -> tuple[str, ...]:
        """What follows ``python -m``."""
        return (self.function.partition(":")[0], *self.arguments)
