"""Partition keys: ``<benchmark>:<teacher>[@<variant>]|<seed>``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from r2v_core.errors import R2VError

_KEY = re.compile(
    r"^(?P<benchmark>[\w.+-]+):(?P<teacher>[\w.+/-]+)(?:@(?P<variant>[\w.+-]+))?\|(?P<seed>\d+)$", re.ASCII
)


@dataclass(frozen=True)
class Partition:
    """One replicate: an experiment, and the seed that all randomness flows from."""

    benchmark: str
    teacher: str
    seed: int
    variant: str = ""
    """What tells experiments of one benchmark and teacher apart: another small model, condition or config."""

    @property
    def key(self) -> str:
        """The key as Dagster and the command lines write it."""
        return f"{self.experiment}|{self.seed}"

    @property
    def experiment(self) -> str:
        """The first dimension of the key."""
        return f"{self.benchmark}:{self.teacher}" + (f"@{self.variant}" if self.variant else "")

    @classmethod
    def parse(cls, key: str) -> Partition:
        """Parse a key such as ``textworld:expert|1`` or ``textworld:expert@study|1``.

        Raises:
            R2VError: if the key has another form.
        """
        match = _KEY.fullmatch(key)
        if match is None:
            raise R2VError(
                f"'{key}' is not a partition key; write <benchmark>:<teacher>[@<variant>]|<seed>, e.g. "
                "'textworld:expert|1' (in quotes: the shell reads | otherwise)"
            )
        return cls(match["benchmark"], match["teacher"], int(match["seed"]), match["variant"] or "")
