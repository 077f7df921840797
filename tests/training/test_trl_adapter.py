"""The parts of TRL beyond its public interface: that they are there, and that one module uses them."""

from __future__ import annotations

import ast
import inspect
from importlib.metadata import version
from pathlib import Path

from packaging.specifiers import SpecifierSet
from trl import DPOTrainer
from trl.trainer import utils

from r2v_core.training import trl_adapter
from r2v_core.training.trl_adapter import TokenizedPairs, score_labels_only

ROOT = Path(__file__).parents[2]


def test_the_installed_version_is_one_that_was_checked() -> None:
    assert version("trl") in SpecifierSet(trl_adapter.CHECKED)
    assert f'"trl{trl_adapter.CHECKED}"' in (ROOT / "pyproject.toml").read_text()


def test_the_fused_head_asks_what_is_replaced() -> None:
    askers = [name for name, found in vars(utils).items() if callable(found) and "_use_triton" in _source(found)]
    assert len(askers) >= 2, "TRL no longer decides by _use_triton which positions are scored"
    before = utils._use_triton
    with score_labels_only():
        assert utils._use_triton(None) is True
    assert utils._use_triton is before


def _source(found: object) -> str:
    try:
        return inspect.getsource(found)  # type: ignore[arg-type]
    except (OSError, TypeError):
        return ""


def test_the_dpo_trainer_prepares_its_data_in_the_method_that_is_replaced() -> None:
    assert "self._prepare_dataset(" in inspect.getsource(DPOTrainer)
    assert "self._metrics[mode]" in inspect.getsource(DPOTrainer) or 'self._metrics["train"]' in inspect.getsource(
        DPOTrainer
    )
    assert TokenizedPairs()._prepare_dataset("data", "more") == "data"


def test_no_other_module_touches_private_parts() -> None:
    for path in (ROOT / "r2v_core").rglob("*.py"):
        if path.name == "trl_adapter.py":
            continue
        names = {node.attr for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute)}
        assert not names & {"_use_triton", "_prepare_dataset", "_metrics"}, path
