"""``r2v docs``, and the pages that help and errors name."""

from __future__ import annotations

import re
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest
from typer.testing import CliRunner

from r2v_assets.cli import PAGES, app
from r2v_assets.manual import reader
from r2v_assets.manual.generated import commands
from r2v_core.errors import R2VError
from tests.docs.documented import ROOT


def docs(*words: str) -> str:
    done = CliRunner().invoke(app, ["docs", *words], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output


def test_all_pages_are_listed() -> None:
    listed = docs()
    assert all(
        page.relative_to(ROOT / "docs").with_suffix("").as_posix() in listed for page in ROOT.glob("docs/**/*.md")
    )
    assert "reference/keys" in listed


@pytest.mark.parametrize("name", ["slurm", "how-to/slurm", "how-to/slurm.md", "SLURM"])
def test_a_page_is_found_by_its_name(name: str) -> None:
    assert docs(name).strip() == (ROOT / "docs/how-to/slurm.md").read_text(encoding="utf-8").strip()


def test_a_key_a_heading_and_words_are_found() -> None:
    assert docs("training.router.cvar_alpha").splitlines()[:3] == [
        "training.router.cvar_alpha",
        "a number > 0 and ≤ 1",
        "0.2",
    ]
    assert docs("Stop", "a", "run").startswith("## Stop a run\n")
    assert "how-to/data" in docs("Ctrl-C") and "troubleshooting" in docs("Ctrl-C")


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("error: unknown partition 'x:y|1'", "configs/experiments.yaml"),
        ("run textworld_1 is making this already", "--wait"),
        ("bc_policy needs trajectory_run of partition a|1", "two commands"),
    ],
)
def test_a_message_gets_what_helps(message: str, told: str) -> None:
    assert told in docs(message)


def test_no_message_gets_what_belongs_to_another() -> None:
    assert reader.remedy("no such file") is None and reader.remedy("") is None


def test_what_is_nowhere_is_refused_with_the_nearest_page() -> None:
    with pytest.raises(R2VError, match="Did you mean 'troubleshooting'"):
        docs("troubleshoting")


def test_a_page_of_the_site_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(reader, "SITE", tmp_path)
    monkeypatch.setattr(webbrowser, "open", opened.append)
    with pytest.raises(R2VError, match="make docs"):
        docs("slurm", "--open")
    (tmp_path / "how-to").mkdir()
    (tmp_path / "how-to/slurm.html").touch()
    docs("slurm", "--open")
    assert opened == [(tmp_path / "how-to/slurm.html").as_uri()]


def test_help_names_pages_that_exist() -> None:
    text = commands()
    named = set(re.findall(r"More: r2v docs ([\w-]+)", re.sub(r"\s+", " ", text)))
    assert named == {*PAGES.values(), "slurm"} and all(reader.find_page(page) for page in named)
    assert "r2v docs troubleshooting" in text


def test_an_error_that_the_page_knows_names_it(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "r2v_assets.cli", "registry", "sql", "SELECT nope FROM runs"]
    done = subprocess.run([*command, "--project", str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.startswith("error: bad SQL: ")
    assert done.stderr.endswith("(more: r2v docs troubleshooting)\n") and done.stderr.count("\n") == 1
