"""Whose rights attacks are tried with: root's where the tests have them, and those of somebody who owns nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
NOBODY = 65534
USERS = ["root", "ordinary"] if os.geteuid() == 0 else ["ordinary"]
PYTHONPATH = os.pathsep.join([str(REPOSITORY), str(Path(psutil.__file__).parents[1])])


def as_user(user: str) -> tuple[list[str], str]:
    """What a command line has to begin with, and a Python that they may run."""
    mine = os.path.realpath(sys.executable)
    if user == "root" or os.geteuid() != 0:
        return [], sys.executable
    drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--inh-caps=-all"]
    if subprocess.run([*drop, "test", "-r", os.__file__], check=False).returncode:
        mine = shutil.which("python3", path="/usr/bin") or mine  # root's own Python is in root's home
    return drop, mine
