"""How SLURM's exit codes are read."""

from __future__ import annotations

import pytest

from r2v_assets.slurm.ending import _process_status


@pytest.mark.parametrize(
    ("exit_code", "expected"),
    [
        ("0:0", 0),
        ("2:0", 2),
        ("0:9", -9),
        ("9:0", -9),
        ("15:0", -15),
        ("75:0", 75),
        ("", 1),
        ("137:0", -9),
        ("139:0", -11),
        ("143:0", 143),  # a stage that SIGTERM stops ends itself, and has said so
    ],
)
def test_exit_codes_are_read_as_the_stage_ended(exit_code: str, expected: int) -> None:
    assert _process_status(exit_code) == expected
