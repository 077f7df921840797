"""Which run came from which: the graph around a run, and its three drawings."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from r2v_core.errors import R2VError
from r2v_core.registry.database import Connection
from r2v_core.registry.queries import unknown_run

Direction = Literal["up", "down", "both"]

_REACH = """
WITH RECURSIVE up AS (
    SELECT ?::VARCHAR AS run_id
    UNION
    SELECT {far} FROM up JOIN lineage ON lineage.{near} = up.run_id
)
SELECT DISTINCT lineage.run_id, role, upstream_run_id, upstream_digest
FROM lineage JOIN up ON lineage.{near} = up.run_id ORDER BY ALL
"""


@dataclass(frozen=True)
class Node:
    """A run in the graph; only the id is known of a run that is not registered."""

    run_id: str
    stage: str | None = None
    status: str | None = None
    partition: str | None = None
    n_episodes: int | None = None
    success_rate: float | None = None
    digest: str | None = None

    @property
    def label(self) -> str:
        """One line about it."""
        if self.stage is None:
            return f"{self.run_id} (not registered)"
        parts = [self.stage, f"{self.status}"]
        if self.n_episodes:
            parts.append(f"{self.n_episodes} episodes, {self.success_rate:.0%} solved")
        return f"{self.run_id} ({', '.join(parts)})"


@dataclass(frozen=True)
class Edge:
    """``run_id`` read ``upstream_run_id`` as ``role``."""

    run_id: str
    role: str
    upstream_run_id: str
    upstream_digest: str


@dataclass(frozen=True)
class Lineage:
    """The graph around one run: everything upstream, downstream, or both."""

    run_id: str
    direction: Direction
    nodes: dict[str, Node]
    edges: list[Edge]

    def to_dict(self) -> dict[str, Any]:
        """JSON values only."""
        return {
            "run_id": self.run_id,
            "direction": self.direction,
            "nodes": [asdict(node) for node in self.nodes.values()],
            "edges": [asdict(edge) for edge in self.edges],
        }

    def to_mermaid(self) -> str:
        """A Mermaid flowchart, data flowing downwards."""
        names = {run_id: f"n{i}" for i, run_id in enumerate(self.nodes)}
        lines = ["flowchart TD"]
        for run_id, node in self.nodes.items():
            text = node.label.replace('"', "#quot;")
            lines.append(f'    {names[run_id]}["{text}"]')
        for edge in self.edges:
            role = edge.role.replace('"', "#quot;")
            lines.append(f'    {names[edge.upstream_run_id]} -- "{role}" --> {names[edge.run_id]}')
        lines.append(f"    style {names[self.run_id]} stroke-width:4px")
        return "\n".join(lines)

    def to_tree(self) -> str:
        """Indented text; a run met again is named but not unfolded again."""
        lines = [self.nodes[self.run_id].label]
        seen = {self.run_id}
        for title, up in (("reads", True), ("is read by", False)):
            if self.direction in ("both", "up" if up else "down"):
                start = len(lines)
                self._branch(self.run_id, up, "", seen, lines)
                if self.direction == "both" and len(lines) > start:
                    lines.insert(start, title)
        return "\n".join(lines)

    def _branch(self, run_id: str, up: bool, indent: str, seen: set[str], lines: list[str]) -> None:
        steps = [
            (edge.role, edge.upstream_run_id if up else edge.run_id)
            for edge in self.edges
            if (edge.run_id if up else edge.upstream_run_id) == run_id
        ]
        for i, (role, other) in enumerate(steps):
            last = i == len(steps) - 1
            again = other in seen
            mark = " …" if again and any(other == (e.run_id if up else e.upstream_run_id) for e in self.edges) else ""
            lines.append(f"{indent}{'└─' if last else '├─'} {role}: {self.nodes[other].label}{mark}")
            if not again:
                seen.add(other)
                self._branch(other, up, indent + ("   " if last else "│  "), seen, lines)


def lineage(con: Connection, run_id: str, direction: Direction = "up") -> Lineage:
    """The graph around a run: ``up`` what it came from, ``down`` what came of it, or ``both``.

    Raises:
        R2VError: for a run that is neither registered nor named as anyone's input, or an unknown direction.
    """
    if direction not in ("up", "down", "both"):
        raise R2VError(f"direction '{direction}': write up, down or both")
    edges: dict[Edge, None] = {}
    if direction != "down":
        rows = con.execute(_REACH.format(near="run_id", far="upstream_run_id"), [run_id]).fetchall()
        edges |= {Edge(*row): None for row in rows}
    if direction != "up":
        rows = con.execute(_REACH.format(near="upstream_run_id", far="lineage.run_id"), [run_id]).fetchall()
        edges |= {Edge(*row): None for row in rows}
    ids = list(dict.fromkeys([run_id, *(x for edge in edges for x in (edge.run_id, edge.upstream_run_id))]))
    rows = con.execute(
        "SELECT run_id, stage, status, partition, n_episodes, success_rate, digest FROM runs "
        "WHERE list_contains(?, run_id)",
        [ids],
    ).fetchall()
    known = {row[0]: Node(*row) for row in rows}
    if run_id not in known and not edges:
        raise unknown_run(con, run_id)
    return Lineage(run_id, direction, {i: known.get(i, Node(i)) for i in ids}, list(edges))
