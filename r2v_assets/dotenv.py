"""``python -m r2v_assets.dotenv DAGSTER_HOME``: what ``make setup`` writes to .env, so that dagster finds the instance.

An instance of your own (another folder than a checkout's ``dagster_home``) is left as it is. That of another checkout,
which is where a moved or copied one was before, is replaced.
"""

from __future__ import annotations

import sys
from pathlib import Path

KEY = "DAGSTER_HOME="
FOLDER = "dagster_home"
PATIENCE = "DAGSTER_GRPC_TIMEOUT_SECONDS="
PATIENCE_S = 300
"""A machine at full load takes minutes to begin a run; after 60 s, its default, Dagster marks the run as failed."""


def corrected(text: str, home: str) -> str:
    r"""The content of .env with this checkout's instance, unless it names one of another kind.

    >>> corrected("A=b\nDAGSTER_HOME=/old/dagster_home\n", "/new/dagster_home")
    'A=b\nDAGSTER_HOME=/new/dagster_home\nDAGSTER_GRPC_TIMEOUT_SECONDS=300\n'
    """
    lines = text.splitlines()
    for n, line in enumerate(lines):
        if line.startswith(KEY):
            if Path(line.removeprefix(KEY).strip().strip("'\"")).name == FOLDER:
                lines[n] = f"{KEY}{home}"
            break
    else:
        lines.append(f"{KEY}{home}")
    if not any(line.startswith(PATIENCE) for line in lines):
        lines.append(f"{PATIENCE}{PATIENCE_S}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Correct .env of the working directory."""
    path = Path(".env")
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    after = corrected(before, sys.argv[1])
    if after != before:
        path.write_text(after, encoding="utf-8")


if __name__ == "__main__":
    main()
