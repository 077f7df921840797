"""What of some runs is training data: collected or perturbed trajectories of the training split, unless asked."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable

from r2v_core.errors import R2VError
from r2v_core.registry.database import Connection
from r2v_core.registry.queries import require_runs

STAGES = ("collect", "import", "perturb")
"""Stages whose episodes are taken where none is named."""
SPLITS = ("train",)
"""Splits whose episodes are taken where none is named; an episode that names no split (an imported one) is taken."""

LeftOut = Counter[str]
"""What was left out, e.g. 'stage evaluate_noisy', 'split test' → episodes."""


def choose_stages(con: Connection, run_ids: Iterable[str], stages: Collection[str] | None) -> tuple[list[str], LeftOut]:
    """The runs whose episodes all come from these stages (None: any), oldest first, and what that leaves out.

    A merge counts as the stages of what was merged into it.

    Raises:
        R2VError: for an empty list, an unknown run, or if nothing is left.
    """
    _is_list("stages", stages)
    wanted = require_runs(con, run_ids)
    if stages is None:
        return wanted, Counter()
    rows = con.execute(
        "SELECT run_id, stage, config->'$.merge.stages', (SELECT count(*) FROM episodes WHERE run_id = runs.run_id) "
        "FROM runs WHERE list_contains(?, run_id)",
        [wanted],
    ).fetchall()
    left_out: LeftOut = Counter()
    taken = set()
    for run_id, stage, merged, n_episodes in rows:
        origins = json.loads(merged) if stage == "merge" and merged else [stage]
        if set(origins) <= set(stages):
            taken.add(run_id)
        elif n_episodes:
            left_out[f"stage {'+'.join(origins)}"] += n_episodes
    if not taken:
        raise R2VError(
            f"nothing to merge: none of the {len(wanted)} runs is of {' or '.join(stages)}"
            + (f"; {describe(left_out)}" if left_out else "")
        )
    return [run_id for run_id in wanted if run_id in taken], left_out


def other_splits(con: Connection, run_ids: Collection[str], splits: Collection[str] | None) -> LeftOut:
    """How many episodes of these runs are of other splits than these (None: any)."""
    _is_list("splits", splits)
    if splits is None:
        return Counter()
    rows = con.execute(
        "SELECT split, count(*) FROM episodes WHERE list_contains(?, run_id) AND split IS NOT NULL "
        "AND NOT list_contains(?, split) GROUP BY split ORDER BY split",
        [list(run_ids), list(splits)],
    ).fetchall()
    return Counter({f"split {split}": n for split, n in rows})


def describe(left_out: LeftOut) -> str:
    """What was left out, as a line for people, with the way to take it."""
    parts = ", ".join(f"{n} episode{'' if n == 1 else 's'} of {what}" for what, n in sorted(left_out.items()))
    asks = " and ".join(f"{kind}s" for kind in ("stage", "split") if any(k.startswith(kind) for k in left_out))
    return f"left out: {parts}; to take them, name their {asks}" if left_out else "nothing was left out"


def _is_list(name: str, value: Collection[str] | None) -> None:
    if isinstance(value, str):
        raise R2VError(f"{name} is one text ('{value}'); pass a list, e.g. ['{value}']")
