"""The documentation as a site: built strictly, nothing fetched, the reference made from the code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from r2v_assets.manual.generated import columns, commands, keys
from r2v_assets.manual.site import FIRST, LAST, navigation
from r2v_core.config.explain import schema_keys
from r2v_core.config.schema import Config
from r2v_core.registry.schema import relations
from r2v_core.stages.table import STAGES
from tests.docs.documented import ROOT

FETCHED = re.compile(r"""<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)=["']?(?:https?:)?//[^>]*>""")


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable,
        "-m",
        "mkdocs",
        "build",
        "--config-file",
        str(config),
        "--site-dir",
        str(site),
    ]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_every_page_is_built_and_fetches_nothing(tmp_path: Path) -> None:
    done = build(ROOT / "mkdocs.yml", tmp_path)
    assert done.returncode == 0, done.stderr
    made = {path.relative_to(tmp_path).with_suffix("").as_posix() for path in tmp_path.rglob("*.html")}
    written = {path.relative_to(ROOT / "docs").with_suffix("").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert {name.replace("README", "index") for name in written} <= made and "reference/keys" in made
    for page in tmp_path.rglob("*.html"):
        assert not FETCHED.findall(page.read_text(encoding="utf-8")), page


def test_links_that_lead_nowhere_fail_the_build(tmp_path: Path) -> None:
    config: dict[str, Any] = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    config["hooks"] = [str(ROOT / "r2v_assets/manual/site.py")]
    (tmp_path / "docs").mkdir()
    for name in FIRST + LAST:
        (tmp_path / f"docs/{name}.md").write_text("# Page\n", encoding="utf-8")
    links = "[a](nowhere.md) [b](concepts.md#no-such) [c](../no_such.py) [d](../mkdocs.yml) [e](concepts.md#page)"
    (tmp_path / "docs/index.md").write_text(f"# Page\n\n{links}\n", encoding="utf-8")
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(config), encoding="utf-8")
    done = build(tmp_path / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0 and done.stderr.count("WARNING") == 3, done.stderr
    assert all(said in done.stderr for said in ("nowhere.md", "#no-such", "there is no no_such.py"))


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_of_pages_outside_the_site_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\(([^)#\s]+)", (ROOT / page).read_text(encoding="utf-8"))
    assert not [link for link in links if "://" not in link and not (ROOT / link).exists()]


def test_navigation_holds_every_page_once() -> None:
    pages = ["concepts.md", "how-to/a.md", "index.md", "new.md", "reference/b.md", "results/c/README.md"]
    flat: list[str] = []
    for entry in navigation(pages):
        flat += next(iter(entry.values())) if isinstance(entry, dict) else [entry]
    assert set(pages) <= set(flat) and len(flat) == len(set(flat))


def test_every_config_key_is_listed_with_its_meaning() -> None:
    rows = {line.split("|")[1].strip(" `"): line for line in keys().splitlines() if line.startswith("| `")}
    known = schema_keys(Config)
    leaves = {
        key for key, node in known.items() if "properties" not in node and not key.startswith("benchmark.splits.")
    }
    assert set(rows) == leaves
    assert not [key for key, line in rows.items() if line.endswith("|  |")], "say what they mean in the schema"
    assert "| `training.router.cvar_alpha` | a number > 0 and ≤ 1 | `0.2` |" in rows["training.router.cvar_alpha"]


def test_every_command_and_stage_is_listed() -> None:
    text = commands()
    for command in ("r2v demo", "r2v registry merge", "r2v slurm doctor", "r2v swebench build", "r2v compare"):
        assert f"\n## {command}\n" in text and f"Usage: {command} " in text
    assert all(f"r2v_core.stages.{name}`" in text for name in STAGES)


def test_every_column_of_the_registry_is_listed() -> None:
    text = columns()
    assert all(f"\n## {name}\n" in text for name in relations())
    assert "| `cost_usd` | DOUBLE | Measured dollars |" in text and not re.search(r"\|\s*\|$", text, re.MULTILINE)
