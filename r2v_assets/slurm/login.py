"""Commands on the login node: over SSH, or here if this is the login node.

``dagster_slurm.SSHConnectionResource`` decides how ssh is called (authentication, host keys, one shared connection).
Its connection pool is not used: a command reaches it as an argument, and arguments are in the process list. Here the
commands go through the standard input of a shell, and so can the values of secrets, which are then in no file, no
argument and no log of either machine.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from r2v_assets.slurm.profile import Login as LoginConfig
from r2v_core.errors import R2VError, TransientError

CONNECT_S = 15
_MARK = "r2v-answer:"
_KEPT = ("HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "TERM", "TMPDIR", "TZ", "SLURM_CONF", "KRB5CCNAME")
"""Variables of Dagster's own environment that commands and jobs get on a local login node."""


class UnreachableError(TransientError):
    """The login node can't be reached. Nothing is known about jobs then."""


@dataclass(frozen=True)
class Answer:
    """What a command said."""

    status: int
    out: str
    err: str

    def checked(self, what: str) -> str:
        """The output.

        Raises:
            R2VError: if the command failed, with its own message.
        """
        if self.status:
            raise R2VError(f"{what}: {self.err.strip() or self.out.strip() or f'status {self.status}'}")
        return self.out


@dataclass(frozen=True)
class Login:
    """The login node of a cluster."""

    config: LoginConfig

    @property
    def name(self) -> str:
        """How messages name it."""
        if self.config.local:
            return "this machine"
        return f"{self.config.user}@{self.config.host}" + (f":{self.config.port}" if self.config.port != 22 else "")

    def run(self, script: str, secrets: Mapping[str, str] | None = None, timeout_s: float = 120.0) -> Answer:
        """Run a bash script there; ``secrets`` are in its environment and nowhere else.

        Raises:
            UnreachableError: if there is no connection, or no answer within ``timeout_s``.
        """
        exports = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in (secrets or {}).items())
        body = f"{exports}unset ${{!SBATCH_@}}\necho {_MARK}\n(\n{script}\n) </dev/null\necho {_MARK}$?\nexit 0\n"
        with tempfile.TemporaryFile() as errors:  # a file: ssh's background connection may keep a pipe open
            try:
                done = subprocess.run(
                    self._command,
                    input=body.encode(),
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    env=self._environment,
                    timeout=timeout_s,
                    check=False,
                    start_new_session=True,  # a terminal's Ctrl-C is ours to handle
                )
            except subprocess.TimeoutExpired:
                raise UnreachableError(f"{self.name} gave no answer within {timeout_s:.0f} s") from None
            except OSError as error:
                raise R2VError(f"{self._command[0]}: {error.strerror}; install the OpenSSH client") from None
            errors.seek(0)
            err = errors.read().decode(errors="replace")
        said = done.stdout.decode(errors="replace")
        _, began, rest = said.partition(f"{_MARK}\n")  # a login shell may greet before
        out, ended, status = rest.rpartition(_MARK)
        if not began or not ended:
            raise UnreachableError(f"can't reach the login node {self.name}: {self._why(err, done.returncode)}")
        return Answer(int(status), out, err)

    def interactive(self, line: str, terminal: bool) -> list[str]:
        """The command that runs a shell line there with this process's input and output."""
        if self.config.local:
            return ["bash", "-c", line]
        first, *rest = self._command[:-1]
        return [first, *(["-t"] if terminal else []), *rest, f"bash -lc {shlex.quote(line)}"]

    def _why(self, err: str, status: int) -> str:
        lines = [line for line in err.splitlines() if line.strip()]
        why = lines[-1].strip() if lines else f"ssh ended with status {status}"
        if "Host key verification failed" in err:
            return f"{why}; connect once by hand (ssh {self.config.host}), or set login.host_keys: accept-new"
        if "Permission denied" in err:
            return f"{why}; is login.user right, and login.key (or a key in ssh-agent) accepted there?"
        return (
            f"{why}; check login.host and login.port, the network, and whether `ssh {self.config.host}` works by hand"
        )

    @cached_property
    def _command(self) -> list[str]:
        if self.config.local:
            return ["bash", "--noprofile", "--norc", "-s"]
        from dagster_slurm import SSHConnectionResource

        ssh = SSHConnectionResource(
            host=self.config.host,
            user=self.config.user,
            port=self.config.port,
            key_path=self.config.key,
            host_key_checking=self.config.host_keys,
            known_hosts_file=self.config.known_hosts,
            extra_opts=["-o", f"ConnectTimeout={CONNECT_S}", "-o", "ServerAliveInterval=15"],
        )
        return [*ssh.get_ssh_base_command(), "bash -l -s"]

    @cached_property
    def _environment(self) -> dict[str, str]:
        if not self.config.local:
            return dict(os.environ)
        return {name: value for name, value in os.environ.items() if name in _KEPT or name.startswith("LC_")}


def named_secrets(names: list[str]) -> dict[str, str]:
    """Values of the variables that a profile hands on, from this process's environment; unset ones are left out."""
    return {name: os.environ[name] for name in names if name in os.environ}
