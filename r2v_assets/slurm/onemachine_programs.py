"""The programs that the one-machine cluster is made of, and whether they are there."""

from __future__ import annotations

import os
import shutil

from r2v_core.errors import R2VError

PACKAGES = ("slurm-wlm", "slurmdbd", "munge", "mariadb-server", "openssh-server", "openssh-client")
INSTALL = f"apt-get update && apt-get install -y --no-install-recommends {' '.join(PACKAGES)}"
PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacctmgr", "sshd")
SBIN = "/usr/sbin:/sbin"


def missing_programs() -> list[str]:
    """Programs of the cluster that are not installed."""
    path = f"{os.environ.get('PATH', '')}:{SBIN}"
    return [name for name in PROGRAMS if shutil.which(name, path=path) is None]


def check_installed() -> None:
    """Refuse to go on without the packages.

    Raises:
        R2VError: with the line that installs them; also if this is not root, whom slurmd and sshd need here.
    """
    if missing := missing_programs():
        raise R2VError(f"the one-machine SLURM cluster needs {', '.join(missing)}; as root: {INSTALL}")
    if os.geteuid() != 0:
        raise R2VError("the one-machine SLURM cluster starts slurmd and sshd, which need root; run this as root")
