"""How many bad inputs the tests try: ``python -m tests.docs.refusals``. docs/troubleshooting.md has the figure.

A case counts if its test expects an ``R2VError``, the exit status 2 or a line that begins with ``error:``.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).parents[2]
_REFUSAL = re.compile(r"raises\(\(?R2VError|(returncode|exit_code) == 2|[\"']error: ")


def refusing_tests() -> set[str]:
    """``file::function`` of every test that expects a refusal."""
    found = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        text = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test"):
                continue
            if _REFUSAL.search(ast.get_source_segment(text, node) or ""):
                found.add(f"{path.relative_to(ROOT).as_posix()}::{node.name}")
    return found


def count(cases: Iterable[str]) -> tuple[int, int]:
    """(cases, tests) that expect a refusal, of pytest's list of all cases."""
    refusing = refusing_tests()
    counted = [test for case in cases if (test := case.strip().partition("[")[0]) in refusing]
    return len(counted), len(set(counted))


if __name__ == "__main__":
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    print("{} bad inputs in {} tests".format(*count(listed.splitlines())))
