"""Boxes by Apptainer: the command line, and when it is chosen or refused. Apptainer itself is not run."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from r2v_core.errors import R2VError
from r2v_core.sandbox import Limits, find_backend, run
from r2v_core.sandbox.isolation import IMAGE, Box, boxed, interpreter

STUB = """#!/bin/sh
[ -n "$SECRET" ] && exit 9
printf '%s\\n' "$@" > "$0.told"
echo "home $HOME"
exit 7
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, alone on the search path, that writes down how it was called."""
    program = tmp_path / "bin" / "apptainer"
    program.parent.mkdir()
    program.write_text(STUB)
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(program.parent))
    monkeypatch.setenv(IMAGE, "/images/python.sif")
    return program


def after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1]


def test_the_command_line_isolates_by_documented_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(IMAGE, "/images/python.sif")
    box = Box(32, folder=Path("/tmp/r2v-box"), readable=[Path("/data/env")])
    words = boxed("apptainer", box, [interpreter("apptainer"), "main.py"])
    assert words[:3] == ["apptainer", "--silent", "exec"]
    assert {"--containall", "--cleanenv", "--no-home", "--no-privs", "--no-eval", "--net", "--uts"} <= set(words)
    assert after(words, "--network") == "none" and after(words, "--pwd") == "/box"
    assert "/tmp/r2v-box:/box:rw" in words and "/data/env:/data/env:ro" in words and "--writable-tmpfs" not in words
    assert words[-3:] == ["/images/python.sif", "python3", "main.py"]
    again = boxed("apptainer", Box(32, image="docker://one", writable=True), ["true"])
    assert again[-3:] == ["--writable-tmpfs", "docker://one", "true"]


def test_a_run_hands_over_its_files_and_limits(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "canary")
    monkeypatch.setenv("HOME", "/home/somebody")
    ended = run(["python3", "main.py"], files={"main.py": "1"}, limits=Limits(cpu_s=3, memory_mb=10), backend="auto")
    assert (ended.exit_code, ended.stdout, ended.stopped) == (7, "home /home/somebody\n", None)
    told = installed.with_name("apptainer.told").read_text().splitlines()
    limits = told[told.index("-c") + 1]
    assert "ulimit -t 3;" in limits and "ulimit -v 40960;" in limits and limits.endswith('exec "$@"')
    assert told[-2:] == ["python3", "main.py"]
    folder = next(word for word in told if word.endswith(":/box:rw")).partition(":")[0]
    assert not Path(folder).exists()  # gone with the run


def test_bubblewrap_is_preferred_and_apptainer_next(installed: Path) -> None:
    assert find_backend() == "apptainer" and interpreter("apptainer") == "python3"
    (installed.parent / "bwrap").symlink_to("/bin/true")
    assert find_backend() == "bubblewrap"
    assert find_backend("apptainer") == "apptainer"


def test_without_an_image_it_is_refused(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(IMAGE)
    for name in ("auto", "apptainer"):
        with pytest.raises(R2VError, match=f"needs an image with Python: set {IMAGE}"):
            find_backend(name)
    assert find_backend("apptainer", image="docker://one") == "apptainer"


def test_where_it_is_missing_that_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(R2VError, match=r"apptainer is not installed\..*module load apptainer"):
        find_backend("apptainer")


def test_what_it_complains_about_is_passed_on(installed: Path) -> None:
    installed.write_text('#!/bin/sh\necho "FATAL:   could not open image" >&2\nexit 255\n')
    with pytest.raises(R2VError, match=r"'apptainer' does not work here: FATAL: +could not open image"):
        run(["/bin/echo"], backend="apptainer")


def test_further_folders_are_read_only_and_others_empty(tmp_path: Path) -> None:
    shown, hidden = tmp_path / "shown", tmp_path / "shown" / "hidden"
    hidden.mkdir(parents=True)
    (shown / "data.txt").write_text("seen")
    (hidden / "secret.txt").write_text("canary")
    source = (
        f"import os\nprint(open({str(shown / 'data.txt')!r}).read(), os.listdir({str(hidden)!r}))\n"
        f"for name in ({str(shown)!r}, {str(hidden)!r}):\n"
        "    try: open(name + '/new', 'w'); print('BROKE')\n    except OSError: print('refused')\n"
    )
    ended = run([interpreter(), "-c", source], readable=[shown], hidden=[hidden], backend="bubblewrap")
    assert ended.stdout == "seen []\nrefused\nrefused\n", ended.stderr
