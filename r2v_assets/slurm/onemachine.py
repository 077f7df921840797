"""A complete SLURM cluster on this machine: accounting, two nodes, a CPU and a GPU partition, a login node.

``make slurm-demo``, the tests and the benchmark use it; it is SLURM itself, from Debian's packages, with munged,
MariaDB, slurmdbd, slurmctld, two slurmd and sshd as children of this process. Everything lies under one folder and
listens on loopback only; everything ends when :meth:`Cluster.stop` is called or this process dies.

What it is not: nodes share this machine's processors and files, GPUs are names without devices (as many as one likes),
and without cgroups jobs are not confined to what they asked for; memory is watched once a second instead.
"""

from __future__ import annotations

import getpass
import os
import platform
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from r2v_assets.slurm.onemachine_files import SLURM, SLURMDBD, SSHD
from r2v_assets.slurm.onemachine_programs import SBIN, check_installed
from r2v_core.errors import R2VError

ACCOUNT = "r2v"
NODES = {"cpu1": "cpu", "gpu1": "gpu"}
"""Node → its own partition; the partition ``all`` has both."""


@dataclass
class Cluster:
    """The cluster under ``root``. ``start`` it, use ``environment`` or ``ssh``, ``stop`` it."""

    root: Path
    cpus_per_node: int = 8
    """Pretended; more jobs than processors run at once, only slower."""
    gpus: int = 4
    memory_mb: int = 16_000
    ports: list[int] = field(default_factory=list)
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """What a shell on the login node exports so that SLURM's commands find this cluster."""
        path = os.environ.get("PATH", "/usr/bin:/bin")
        return {"SLURM_CONF": str(self.root / "slurm.conf"), "PATH": path if SBIN in path else f"{path}:{SBIN}"}

    @property
    def ssh_port(self) -> int:
        """Where the login node's sshd listens."""
        return self.ports[-1]

    @property
    def ssh_key(self) -> Path:
        """Private key that the login node accepts."""
        return self.root / "id_ed25519"

    def start(self) -> None:
        """Bring everything up, and return when a job would run.

        Raises:
            R2VError: if packages are missing or a daemon does not come up; with the end of its log.
        """
        check_installed()
        self.root.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o755)  # munge wants nobody else to be able to write here
        for folder in ("log", "state", "spool", "mysql", "munge", "run"):
            (self.root / folder).mkdir(exist_ok=True)
            (self.root / folder).chmod(0o755)
        self.ports = _free_ports(6)
        try:
            self._start_munge()
            self._start_accounting()
            self._start_slurm()
            self._start_sshd()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Cancel all jobs and end every daemon, the last started first."""
        if "slurmctld" in self.daemons and self.daemons["slurmctld"].poll() is None:
            with suppress(R2VError, subprocess.SubprocessError):
                self.run("scancel", "--quiet", "--full", "--user", getpass.getuser())
                self.wait(lambda: not self.run("squeue", "--noheader"), 15, "jobs to end")
        for name in reversed(list(self.daemons)):
            self.kill(name)
        self.daemons.clear()

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def run(self, *command: str) -> str:
        """A command of SLURM; its output.

        Raises:
            R2VError: if it fails, with what it said.
        """
        done = subprocess.run(
            command, env={**os.environ, **self.environment}, capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode:
            raise R2VError(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.strip()

    def kill(self, name: str, how: signal.Signals = signal.SIGTERM) -> None:
        """End one daemon; sshd with all its connections."""
        process = self.daemons[name]
        with suppress(psutil.NoSuchProcess):
            for connection in psutil.Process(process.pid).children(recursive=True) if name == "sshd" else []:
                with suppress(psutil.NoSuchProcess):
                    connection.kill()
        if process.poll() is None:
            process.send_signal(how)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def start_node(self, node: str) -> None:
        """Start a node's slurmd (again)."""
        self._daemon(node, "slurmd", "-D", "-N", node, "-f", self.environment["SLURM_CONF"])

    def wait(self, condition: Callable[[], object], seconds: float, what: str) -> None:
        """Wait until a condition holds.

        Raises:
            R2VError: if it does not in time, or a daemon has died; with the ends of the logs.
        """
        end, said = time.monotonic() + seconds, ""
        while time.monotonic() < end:
            try:
                if condition():
                    return
            except R2VError as error:
                said = f"\n{error}"
            time.sleep(0.1)
        dead = [name for name, process in self.daemons.items() if process.poll() is not None]
        tails = "\n".join(f"== {name}\n{self._tail(name)}" for name in self.daemons)
        raise R2VError(f"waited {seconds:.0f} s for {what}; ended: {', '.join(dead) or 'none'}{said}\n{tails}")

    def _tail(self, name: str, lines: int = 12) -> str:
        path = self.root / "log" / f"{name}.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"

    def _daemon(self, name: str, *command: str, environment: Mapping[str, str] | None = None) -> None:
        """Start a daemon in the foreground as our child, tied to our life."""
        guard = [sys.executable, "-m", "r2v_assets.compute.guard", str(os.getpid())]
        with (self.root / "log" / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                [*guard, *command],
                cwd=self.root,
                env={**os.environ, **self.environment, "PYTHONPATH": _import_path(), **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _start_munge(self) -> None:
        key, folder = self.root / "munge" / "key", self.root / "munge"
        if not key.exists():
            key.write_bytes(os.urandom(1024))
            key.chmod(0o600)
        self._daemon(
            "munged", "munged", "--foreground", "--force", "--num-threads=10", f"--key-file={key}",
            f"--socket={folder / 'socket'}",
            f"--pid-file={folder / 'pid'}", f"--log-file={folder / 'log'}", f"--seed-file={folder / 'seed'}",
        )  # fmt: skip
        self.wait((folder / "socket").exists, 20, "munged")

    def _start_accounting(self) -> None:
        data, mysql = self.root / "mysql" / "data", self.root / "mysql" / "socket"
        if not (data / "mysql").exists():
            command = ["mariadb-install-db", "--no-defaults", f"--datadir={data}", "--skip-test-db",
                       "--auth-root-authentication-method=normal", f"--user={getpass.getuser()}"]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=_with_sbin())
            if done.returncode:
                raise R2VError(f"mariadb-install-db failed:\n{done.stdout}{done.stderr}")
        self._daemon(
            "mariadbd", "mariadbd", "--no-defaults", f"--datadir={data}", f"--socket={mysql}", "--skip-networking",
            f"--user={getpass.getuser()}", f"--pid-file={self.root / 'mysql' / 'pid'}",
            "--innodb-lock-wait-timeout=900",
            "--innodb-buffer-pool-size=32M", "--innodb-flush-log-at-trx-commit=0",
        )  # fmt: skip
        self.wait(lambda: _answers(mysql), 60, "mariadbd")
        conf = self.root / "slurmdbd.conf"
        conf.write_text(SLURMDBD.format(**self._facts()))
        conf.chmod(0o600)
        self.start_slurmdbd()
        (self.root / "slurm.conf").write_text(SLURM.format(**self._facts()))
        gpus = self.root / "gpus"  # plain files stand for the devices
        gpus.mkdir(exist_ok=True)
        for n in range(self.gpus):
            (gpus / f"a100_{n}").touch()
        (self.root / "gres.conf").write_text(f"NodeName=gpu1 Name=gpu Type=a100 File={gpus}/a100_[0-{self.gpus - 1}]\n")
        self.wait(lambda: "Cluster" in self.run("sacctmgr", "show", "cluster"), 15, "slurmdbd")
        user = getpass.getuser()
        known = self.run("sacctmgr", "-n", "-P", "show", "cluster", "format=Cluster").split()
        if "r2v" not in known:
            self.run("sacctmgr", "-i", "add", "cluster", "r2v")
            self.run("sacctmgr", "-i", "add", "account", ACCOUNT, "Cluster=r2v", "Description=r2v", "Organization=r2v")
            self.run("sacctmgr", "-i", "add", "user", user, f"Account={ACCOUNT}", "Cluster=r2v")

    def start_slurmdbd(self) -> None:
        """Start the accounting daemon (again)."""
        socket_file = str(self.root / "mysql" / "socket")
        self._daemon("slurmdbd", "slurmdbd", "-D", environment={"MYSQL_UNIX_PORT": socket_file})

    def _start_slurm(self) -> None:
        self._daemon("slurmctld", "slurmctld", "-D", "-i", "-f", self.environment["SLURM_CONF"])
        self.wait(lambda: "UP" in self.run("scontrol", "ping"), 60, "slurmctld")
        for node in NODES:
            self.start_node(node)
        self.wait_for_nodes()

    def wait_for_nodes(self) -> None:
        """Wait until both nodes take jobs."""
        idle = ("idle", "mixed", "allocated")
        self.wait(
            lambda: all(state in idle for state in self.run("sinfo", "-h", "-N", "-p", "all", "-o", "%T").split()),
            20,
            "the nodes",
        )

    def _start_sshd(self) -> None:
        Path("/run/sshd").mkdir(exist_ok=True)  # sshd's privilege separation insists on it
        for name in ("host_key", "id_ed25519"):
            if not (self.root / name).exists():
                keygen = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.root / name)]
                subprocess.run(keygen, check=True, capture_output=True)
        shutil.copy(self.root / "id_ed25519.pub", self.root / "authorized_keys")
        (self.root / "authorized_keys").chmod(0o600)
        (self.root / "sshd_config").write_text(SSHD.format(**self._facts()))
        self.start_sshd()

    def start_sshd(self) -> None:
        """Start the login node's sshd (again)."""
        sshd = shutil.which("sshd", path=SBIN) or "sshd"  # it re-executes itself and wants its whole path
        self._daemon("sshd", sshd, "-D", "-e", "-f", str(self.root / "sshd_config"))
        self.wait(lambda: _answers(("127.0.0.1", self.ssh_port)), 20, "sshd")

    def _facts(self) -> dict[str, object]:
        names = ("ctld_port", "dbd_port", "cpu1_port", "gpu1_port", "srun_port", "ssh_port")
        return {
            **dict(zip(names, self.ports, strict=True)),
            "root": self.root,
            "host": platform.node().split(".")[0],
            "user": getpass.getuser(),
            "path": self.environment["PATH"],
            "cpus": self.cpus_per_node,
            "memory": self.memory_mb,
            "gpus": self.gpus,
        }


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [int(one.getsockname()[1]) for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _answers(address: Path | tuple[str, int]) -> bool:
    """Whether somebody listens on a Unix socket or a TCP address."""
    with socket.socket(socket.AF_UNIX if isinstance(address, Path) else socket.AF_INET) as probe:
        try:
            probe.connect(str(address) if isinstance(address, Path) else address)
        except OSError:
            return False
        return True


def _with_sbin() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:{SBIN}"}


def _import_path() -> str:
    here = str(Path(__file__).resolve().parents[2])
    return os.pathsep.join(dict.fromkeys([here, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]))
