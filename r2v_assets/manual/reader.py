"""``r2v docs``: the documentation in a terminal, or its built site in a browser, without a network."""

from __future__ import annotations

import re
import sys
import webbrowser
from pathlib import Path

from r2v_assets.manual.generated import GENERATED, keys
from r2v_core.console import print_table, rich_console, say
from r2v_core.errors import R2VError, nearest

ROOT = Path(__file__).parents[2]
DOCS, SITE = ROOT / "docs", ROOT / "build" / "docs"
TROUBLESHOOTING = "troubleshooting.md"
_HEADING = re.compile(r"^(?=#{1,4} )", re.MULTILINE)


def pages() -> list[str]:
    """The paths of all pages below ``docs/``; how-to pages come before others of the same name.

    Raises:
        R2VError: where the package lies without its documentation.
    """
    if not DOCS.is_dir():
        raise R2VError(f"{DOCS}: no such folder; the documentation lies in the project's checkout")
    found = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} | set(GENERATED)
    return sorted(found, key=lambda page: ("/" in page, page))


def text_of(page: str) -> str:
    """A page's Markdown."""
    return GENERATED[page]() if page in GENERATED else (DOCS / page).read_text(encoding="utf-8")


def find_page(name: str) -> str | None:
    """The page of a path, or of a file's name without its ending."""
    wanted = name.removesuffix(".md").lower()
    return next((page for page in pages() if page == f"{wanted}.md"), None) or next(
        (page for page in pages() if Path(page).stem.lower() == wanted), None
    )


def sections_with(words: str) -> list[tuple[str, str]]:
    """(page, section) of every section that holds the words as they stand; those with them in the heading win."""
    wanted = words.lower()
    found = [
        (page, section.strip())
        for page in pages()
        for section in _HEADING.split(text_of(page))
        if wanted in section.lower()
    ]
    return [hit for hit in found if wanted in hit[1].splitlines()[0].lower()] or found


def remedy(message: str) -> str | None:
    """What the page Troubleshooting says about a message, if it knows it."""
    page = DOCS / TROUBLESHOOTING
    for line in page.read_text(encoding="utf-8").splitlines() if page.is_file() else ():
        row = re.match(r"\| `(.+?)` \| (.+) \|$", line)
        if row:
            pattern = r"\s.*?".join(re.escape(part.strip()) for part in row[1].split("…") if part.strip())
            if re.search(pattern, message):
                return row[2]
    return None


def show(words: str, browser: bool) -> None:
    """Print the page, section or remedy that the words mean, or list what there is.

    Raises:
        R2VError: if nothing is found, with the nearest page; or if a site is to be opened that was not built.
    """
    page = find_page(words) if words else None
    if browser:
        return _open(page or "index.md") if page or not words else _unknown(words)
    if not words:
        return print_table([{"page": name.removesuffix(".md"), "title": _title(text_of(name))} for name in pages()])
    if page:
        return _print(text_of(page))
    if row := next((line for line in keys().splitlines() if line.startswith(f"| `{words}` |")), None):
        return say(*row.strip("| ").replace("`", "").split(" | "))
    if (told := remedy(words)) is not None:
        return _print(told)
    found = sections_with(words)
    if not found:
        return _unknown(words)
    if len(found) == 1:
        return _print(found[0][1])
    return print_table([{"page": name.removesuffix(".md"), "section": _title(section)} for name, section in found])


def _unknown(words: str) -> None:
    known = [Path(page).stem for page in pages()]
    raise R2VError(f"{words!r}: no page has this name or contains it.{nearest(words, known)}")


def _title(text: str) -> str:
    return text.splitlines()[0].lstrip("# ")


def _print(text: str) -> None:
    if not sys.stdout.isatty():
        return say(text.rstrip())
    from rich.markdown import Markdown

    return rich_console().print(Markdown(text))


def _open(page: str) -> None:
    built = SITE / page.replace("README.md", "index.md").replace(".md", ".html")
    if not built.is_file():
        raise R2VError(f"{built}: not built yet; run: make docs")
    say(str(built))
    webbrowser.open(built.as_uri())
