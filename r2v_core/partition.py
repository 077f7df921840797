"""Partition keys: ``<benchmark>:<teacher>|<seed>``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from r2v_core.errors import R2VError

_KEY = re.compile(r"^(?P<benchmark>[\w.+-]+):(?P<teacher>[\w.+/-]+)\|(?P<seed>\d+)$")


@dataclass(frozen=True)
class Partition:
    """One replicate: a benchmark, a teacher's name, and the seed that all randomness flows from."""

    benchmark: str
    teacher: str
    seed: int

    @property
    def key(self) -> str:
        """The key as Dagster and the command lines write it."""
        return f"{self.benchmark}:{self.teacher}|{self.seed}"

    @property
    def benchmark_teacher(self) -> str:
        """The first dimension of the key."""
        return f"{self.benchmark}:{self.teacher}"

    @classmethod
    def parse(cls, key: str) -> Partition:
        """Parse a key such as ``textworld:expert|1``.

        Raises:
            R2VError: if the key has another form.
        """
        match = _KEY.match(key)
        if match is None:
            raise R2VError(
                f"'{key}' is not a partition key; write <benchmark>:<teacher>|<seed>, e.g. 'textworld:expert|1' "
                "(in quotes: the shell reads | otherwise)"
            )
        return cls(match["benchmark"], match["teacher"], int(match["seed"]))
