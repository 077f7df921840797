"""``make slurm-demo``: the one-machine cluster up, the small pipeline through it, SLURM's accounting, and down."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from r2v_assets.choice import VARIABLE
from r2v_assets.slurm.onemachine import Cluster
from r2v_assets.slurm.onemachine_programs import PACKAGES, missing_programs
from r2v_assets.slurm.profile import VARIABLE as PROFILE
from r2v_core.console import say
from r2v_core.errors import R2VError

SACCT = "JobID%8,JobName%42,Partition%9,State%10,ExitCode,NodeList%8,Elapsed,TotalCPU,MaxRSS"


def install(yes: bool) -> None:
    """Install what is missing with apt, after asking.

    Raises:
        R2VError: if the answer is no, or apt fails.
    """
    missing = missing_programs()
    if not missing:
        return
    say(f"This needs {', '.join(missing)}: apt-get install {' '.join(PACKAGES)} (as root; no service is started)")
    if not yes and input("Install them now? [y/N] ").strip().lower() not in ("y", "yes"):
        raise R2VError("not installed; nothing was changed")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _services_stay_off():
        for command in (["update", "-qq"], ["install", "-y", "-qq", "--no-install-recommends", *PACKAGES]):
            if subprocess.run(
                ["apt-get", *command], env=environment, stdout=subprocess.DEVNULL, check=False
            ).returncode:
                raise R2VError(f"apt-get {' '.join(command)} failed; install the packages by hand")


@contextmanager
def _services_stay_off() -> Iterator[None]:
    """Debian starts what it installs, unless this file says no."""
    policy = Path("/usr/sbin/policy-rc.d")
    ours = not policy.exists()
    if ours:
        policy.write_text("#!/bin/sh\nexit 101\n")
        policy.chmod(0o755)
    try:
        yield
    finally:
        if ours:
            policy.unlink()


def enter(cluster: Cluster) -> None:
    """Make this process and its children use the cluster, through ``configs/slurm/onemachine.yaml``."""
    os.environ.update(cluster.environment)
    os.environ["R2V_ONEMACHINE"] = str(cluster.root)
    os.environ.setdefault("VIRTUAL_ENV", sys.prefix)
    os.environ[VARIABLE] = "slurm"
    os.environ[PROFILE] = "onemachine"


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--partition", default="textworld:expert|2", help="default: %(default)s; make demo has seed 1")
    parser.add_argument("--config", default="configs/mrp.yaml")
    parser.add_argument("--force", action="store_true", help="run assets that are up to date too")
    parser.add_argument("--yes", action="store_true", help="install packages without asking (default where CI is set)")
    args = parser.parse_args()
    try:
        install(args.yes or bool(os.environ.get("CI")))
        with tempfile.TemporaryDirectory(prefix="r2v-slurm-") as folder:
            say("starting munged, MariaDB, slurmdbd, slurmctld, two slurmd and sshd on this machine")
            with Cluster(Path(folder)) as cluster:
                run(cluster, args.partition, args.config, args.force)
            say("the cluster is down")
    except R2VError as error:
        say(f"error: {error}", error=True)
        sys.exit(2)


def run(cluster: Cluster, partition: str, config: str, force: bool) -> None:
    """The pipeline on a running cluster."""
    enter(cluster)
    from r2v_assets.demo import demo
    from r2v_assets.project import root
    from r2v_assets.slurm.deploy import deploy
    from r2v_assets.slurm.profile import load_profile

    say(cluster.run("sinfo", "--format=%P %N %c CPUs %m MB %G"))
    deploy(load_profile(None, root()), root(), install=False, say=say)
    try:
        demo(partition, config, force=force)
    finally:
        say(cluster.run("sacct", "--allocations", f"--format={SACCT}"))


if __name__ == "__main__":
    main()
