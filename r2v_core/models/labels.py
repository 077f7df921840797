"""What a router can learn of a step: what its labels, its probability and every AUC and ECE of it are about."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Label:
    """One of them."""

    meaning: str
    """Of a router's probability."""
    observed: str
    """What a mean of labels is, for axes."""
    summed: str
    """What labels add up to."""

    def share(self, mean: float) -> str:
        """A mean of labels, in words."""
        return f"{self.observed} {mean:.1%}"


PROGRESS, BENEFIT = "progress", "benefit"
LABELS = {
    PROGRESS: Label(
        "probability that the step fails to make progress",
        "share of steps that fail to make progress",
        "steps that fail to make progress",
    ),
    BENEFIT: Label("expected benefit of a call", "mean benefit of a call", "benefit of calls measured there"),
}
"""Name in ``router_features.label`` → what it is. Where a benchmark can't tell progress, ``progress`` means that the
step's episode fails (rows of ``label_source`` 'outcome')."""
IN_METADATA = "label"
"""Under which rollouts, and evaluations of rules that use a router's probability, say the label in their metadata."""
