"""Holds a server for as long as somebody holds the other end of standard input; then ends it and all it started.

Run as a file, with nothing but the standard library: ``python keeper.py LOG COMMAND…``. Whoever starts it keeps the
pipe, so that the server ends with its user however that one ends, a kill included.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time

GRACE_S = 10.0
"""Between asking a server to end and killing it."""
LOOK_S = 0.2


def main(log: str, command: list[str]) -> int:
    """Run the command, its output appended to ``log``; returns its exit status, as a shell would tell it."""
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(how, signal.SIG_IGN)  # meant for the user of the server, who lets go when it ends
    with open(log, "ab") as written:  # noqa: PTH123
        server = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=written, stderr=written, start_new_session=True, preexec_fn=_heed
        )
    while server.poll() is None:
        readable, _, _ = select.select([0], [], [], LOOK_S)
        if readable and not os.read(0, 1):
            break
    _end(server)
    return server.returncode if server.returncode >= 0 else 128 - server.returncode


def _heed() -> None:
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(how, signal.SIG_DFL)


def _end(server: subprocess.Popen[bytes]) -> None:
    """End the server's whole process group: what it started does not always end with it."""
    until = time.monotonic() + GRACE_S
    how = signal.SIGTERM if server.poll() is None else signal.SIGKILL  # without its head the rest serves nobody
    while _signalled(server.pid, how):
        if time.monotonic() > until:
            how = signal.SIGKILL
        server.poll()
        time.sleep(LOOK_S)
    server.wait()


def _signalled(group: int, how: signal.Signals) -> bool:
    try:
        os.killpg(group, how)
    except (ProcessLookupError, PermissionError):
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
