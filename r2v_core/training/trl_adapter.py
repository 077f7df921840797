"""What is used of TRL beyond its public interface. No other module touches its private parts.

Checked with the versions in ``CHECKED`` (the same range as in pyproject.toml); tests/training/test_trl_adapter.py says
for each part what no longer holds after an upgrade.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

CHECKED = ">=1.14,<1.17"


@contextmanager
def score_labels_only() -> Iterator[None]:
    """Make TRL's fused language-model head score labelled positions only, on the CPU as on GPUs.

    TRL 1.16 scores every position where Triton is absent, to keep tensor shapes constant for ahead-of-time compilers.
    Eager CPU execution has no such need, and an action is 5 of 200 positions.
    """
    from trl.trainer import utils

    original = utils._use_triton
    utils._use_triton = lambda device: True
    try:
        yield
    finally:
        utils._use_triton = original


class TokenizedPairs:
    """Mixed into a DPOTrainer: its data are tokenised already, and its log takes further numbers."""

    _metrics: Any

    def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
        return dataset

    def log_number(self, name: str, value: float) -> None:
        """Add to the mean that the next line of the training log shows under a name."""
        self._metrics["train"][name].append(value)
