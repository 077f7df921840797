"""Model-written code stays in its box: every attack, as root and as an ordinary user."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.sandbox.attacks import ATTACKS, KEY, LIMITS, STOPPED
from tests.sandbox.users import PYTHONPATH, REPOSITORY, USERS, as_user

SECRET = "canary-5b1d0e"


@pytest.fixture(scope="module", params=USERS)
def attacked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What every attack printed, by its name, and the host after all of them."""
    folder = Path("/tmp") / f"r2v-attacked-{os.getpid()}-{request.param}"
    folder.mkdir()
    folder.chmod(0o777)
    canary, hidden = folder / "canary.txt", folder / "hidden_tests.py"
    for path in (canary, hidden):
        path.write_text(SECRET)
        path.chmod(0o666)
    environment = {**os.environ, "R2V_TEST_API_KEY": SECRET, "PYTHONPATH": PYTHONPATH}
    with socket.socket() as server, socket.socket(socket.AF_UNIX) as abstract:
        server.bind(("127.0.0.1", 0))
        server.listen()
        abstract.bind("\0r2v-canary")
        abstract.listen()
        port = str(server.getsockname()[1])
        rights, python = as_user(request.param)
        command = [*rights, python, str(REPOSITORY / "tests/sandbox/attacks.py"), str(canary), port]
        with (folder / "fd-canary").open("w") as held:  # a descriptor that could be inherited
            done = subprocess.run(
                command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False,
                pass_fds=[held.fileno()],
            )  # fmt: skip
    assert done.returncode == 0, done.stderr
    yield {
        "by_name": {found["name"]: found for found in map(json.loads, done.stdout.splitlines())},
        "canary": canary.read_text(),
        "left": [one for one in psutil.process_iter(["cmdline"]) if "attack.py" in (one.info["cmdline"] or [])],
    }
    shutil.rmtree(folder)


@pytest.mark.parametrize("name", ATTACKS)
def test_attack_fails_and_ends_in_time(attacked: dict[str, Any], name: str) -> None:
    found = attacked["by_name"][name]
    assert "BROKE" not in found["out"] and SECRET not in found["out"] and KEY not in found["out"]
    assert "Traceback" not in found["err"] or found["exit"] != 0, found["err"]  # it was really tried
    assert found["wall_s"] < found["limit_s"] + 5 and found["size"] <= 2 * LIMITS.output_kb << 10


@pytest.mark.parametrize(("name", "stopped"), STOPPED.items())
def test_the_limit_that_was_crossed_is_named(attacked: dict[str, Any], name: str, stopped: str | None) -> None:
    assert attacked["by_name"][name]["stopped"] == stopped


def test_the_host_is_as_it_was(attacked: dict[str, Any]) -> None:
    assert attacked["canary"] == SECRET and not attacked["left"]
    assert len(attacked["by_name"]) == len(ATTACKS) >= 70
