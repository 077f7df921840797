"""One family of tests: every difference that gets a verdict is corrected with all the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from r2v_core.evaluation.statistics import Estimate, holm, verdict


@dataclass(frozen=True)
class Contrast:
    """A difference with its p-value, and the columns that its correction and verdict go to."""

    row: dict[str, Any]
    """Of the table that shows it; filled in by :func:`correct`."""
    delta: Estimate
    p: float
    corrected: str
    verdict: str


def correct(family: Sequence[Contrast]) -> None:
    """Write Holm's correction over the whole family, and the verdict that follows, into each row.

    A difference without a p-value (NaN) is 'not shown' and does not count as one of the family.
    """
    known = [one for one in family if not np.isnan(one.p)]
    for one in family:
        one.row[one.corrected] = np.nan
    for one, p in zip(known, holm([one.p for one in known]), strict=True):
        one.row[one.corrected] = float(p)
    for one in family:
        one.row[one.verdict] = verdict(one.delta, one.row[one.corrected])
