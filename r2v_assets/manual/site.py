"""What MkDocs is told beyond ``mkdocs.yml``: the order of the pages, the generated ones, and links out of ``docs/``."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.plugins import get_plugin_logger
from mkdocs.structure.files import File, Files

from r2v_assets.manual.generated import GENERATED

FIRST = ("index", "quickstart", "concepts", "method", "coming-from-r2v-scripts")
LAST = ("architecture", "limits", "troubleshooting")
FOLDERS = {"how-to": "How to", "reference": "Reference", "results": "Results"}
_log = get_plugin_logger("r2v")  # a warning fails a strict build
_LINK = re.compile(r"\[([^\]]*)\]\(((?:\.\./)+[^)#\s]+)\)")


def navigation(pages: list[str]) -> list[Any]:
    """Every page once: the way in, the folders, the rest."""
    named = {f"{name}.md" for name in FIRST + LAST}
    top = sorted(page for page in pages if "/" not in page and page not in named)
    folders: list[Any] = [
        {title: [page for page in pages if page.startswith(f"{folder}/")]} for folder, title in FOLDERS.items()
    ]
    return [f"{name}.md" for name in FIRST] + folders + top + [f"{name}.md" for name in LAST]


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Lay the pages out."""
    folder = Path(config.docs_dir)
    pages = {path.relative_to(folder).as_posix() for path in folder.rglob("*.md")} | set(GENERATED)
    config.nav = navigation(sorted(pages))
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for path, make in GENERATED.items():
        files.append(File.generated(config, path, content=make()))
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:
    """What a page links to outside ``docs/``, in the repository, is named: the site does not have it."""
    root = Path(config.docs_dir).parent
    here = posixpath.join(Path(config.docs_dir).name, posixpath.dirname(page.file.src_uri))

    def name(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(here, link[2]))
        if target.startswith("docs/"):
            return link[0]
        if not (root / target).exists():
            _log.warning("%s: %s: there is no %s", page.file.src_uri, link[2], target)
        return link[1] if target in link[1] else f"{link[1]} (`{target}`)"

    return _LINK.sub(name, markdown)
