"""``python -m r2v_assets.compute.guard PARENT COMMAND …``: become the command, but end when the parent does.

A stage must not go on unnoticed when the orchestrator's process is killed outright. On Linux the kernel is asked to
send SIGTERM then (the stage closes its files and can be taken up again); elsewhere the command just runs.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    """Tie this process to its parent, then exec the command."""
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:  # it died before the line above
            sys.exit(143)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
