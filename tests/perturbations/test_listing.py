"""Distractor files in a workspace's list."""

from __future__ import annotations

import numpy as np
import pytest

from r2v_core.perturbations.listing import decoys, is_workspace

LISTED = "Nothing is changed yet.\nFiles:\npkg/a.py\nMakefile\nREADME.md"
OPENED = "Changed: a.py.\nOpen: a.py, lines 1-3 of 9:\nimport os\n\nx = 1"


@pytest.mark.parametrize("seed", range(8))
def test_files_that_do_not_exist_stand_beside_those_they_resemble(seed: int) -> None:
    state, added = decoys(LISTED, np.random.default_rng(seed))
    assert 1 <= len(added) <= 3 and len(set(added)) == len(added)
    lines = state.splitlines()
    assert [line for line in lines if line not in added] == LISTED.splitlines()
    for name in added:
        assert name.startswith(("pkg/", "legacy_", "deprecated/", "README", "Makefile")) and name not in LISTED
    assert (state, added) == decoys(LISTED, np.random.default_rng(seed))


def test_where_no_files_are_listed_none_are_added() -> None:
    assert is_workspace(LISTED) and is_workspace(OPENED) and not is_workspace("You see a file.\nA door.")
    assert decoys(OPENED, np.random.default_rng(0)) == (OPENED, [])
