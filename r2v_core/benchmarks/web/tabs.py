"""Several pages as the tabs of one browser window, one of them in front."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from r2v_core.benchmarks.web.chromium import Page, open_page
from r2v_core.benchmarks.web.page import script
from r2v_core.benchmarks.web.process import PageMoved

ATTEMPTS = 5
"""Times that a page is read which goes elsewhere meanwhile."""


class Tabs:
    """The tabs of one user: cookies of their own, no downloads, ``page.js`` in every page.

    Pages are waited for until nothing has been loading for ``quiet_s`` seconds, at most ``patience_s``.
    """

    def __init__(self, hosts: frozenset[str], size: tuple[int, int], quiet_s: float, patience_s: float) -> None:
        self.quiet_s = quiet_s
        self.patience_s = patience_s
        self._script = script()
        self._closed: set[str] = set()
        first = open_page(*size, hosts, apart=True)
        self.pages = [first]
        self.front = first
        try:
            self._prepare(first)
            first.chromium.call("Browser.setDownloadBehavior", {"behavior": "deny", "browserContextId": first.context})
        except BaseException:
            self.close()
            raise

    def _prepare(self, page: Page) -> Page:
        page.call("Network.enable")
        page.call("Page.addScriptToEvaluateOnNewDocument", source=self._script)
        return page

    def open(self) -> None:
        """A new blank tab, in front."""
        self.front = self._prepare(self.front.beside())
        self.pages.append(self.front)

    def drop(self, page: Page) -> None:
        """Close a tab; the one before it comes to the front. The last one becomes blank instead."""
        if len(self.pages) == 1:
            page.call("Page.navigate", url="about:blank")
            return
        at = self.pages.index(page)
        del self.pages[at]
        if self.front is page:
            self.front = self.pages[max(at - 1, 0)]
        self._shut(page)

    def _shut(self, page: Page) -> None:
        self._closed.add(page.target)  # Chromium may list it a while longer
        page.close()

    def settle(self) -> None:
        """Wait for the front tab; tabs that pages opened meanwhile are in front then, those they closed are gone."""
        with suppress(PageMoved):  # what the page put off until after the action has its turn
            self.front.run("new Promise(done => setTimeout(done))")
        self.front.settle(self.quiet_s, self.patience_s)
        if self._adopt():
            self.front.settle(self.quiet_s, self.patience_s)

    def _adopt(self) -> bool:
        """Take note of tabs that the pages themselves opened or closed; whether another one is in front now."""
        before = self.front
        found = before.chromium.call("Target.getTargets", {"filter": [{"type": "page"}]})["targetInfos"]
        there = {one["targetId"] for one in found if one.get("browserContextId") == before.context} - self._closed
        for target in sorted(there - {page.target for page in self.pages}):
            page = self._prepare(before.beside(target))
            self.pages.append(page)
            self.front = page
            page.settle(self.quiet_s, self.patience_s)
            page.run(f"if (!window.r2v) {{ {self._script} }}")  # it began before we could tell it
        for page in [page for page in self.pages if page.target not in there]:
            self.pages.remove(page)
            self._shut(page)
        if not self.pages:
            self.pages.append(self._prepare(before.beside()))
        if self.front not in self.pages:
            self.front = self.pages[-1]
        return self.front is not before

    def go(self, url: str) -> str:
        """Open an address in the front tab; '' or why that fails."""
        return str(self.front.call("Page.navigate", url=url).get("errorText") or "")

    def turn(self, steps: int) -> bool:
        """Go so many pages back (-1) or forward (1) in the front tab's history; False if there is none."""
        history = self.front.call("Page.getNavigationHistory")
        at = history["currentIndex"] + steps
        if not 0 <= at < len(history["entries"]):
            return False
        self.front.call("Page.navigateToHistoryEntry", entryId=history["entries"][at]["id"])
        return True

    def address(self, page: Page) -> str:
        """Where a tab is."""
        history = page.call("Page.getNavigationHistory")
        return str(history["entries"][history["currentIndex"]]["url"])

    def run(self, expression: str) -> object:
        """The JSON value of a JavaScript expression in the front tab, asked again where the page goes elsewhere.

        Raises:
            BrowserError: if the script throws, or the page does not come to rest.
        """
        for _ in range(ATTEMPTS - 1):
            try:
                return self.front.run(expression)
            except PageMoved:
                self.settle()
        return self.front.run(expression)

    @contextmanager
    def aside(self, url: str) -> Iterator[bool]:
        """An address in a further tab in front, closed afterwards; whether it could be opened."""
        before = self.front
        self.open()
        extra = self.front
        try:
            opened = not self.go(url)
            extra.settle(self.quiet_s, self.patience_s)
            yield opened
        finally:
            self.pages.remove(extra)
            self.front = before
            self._shut(extra)

    def close(self) -> None:
        """Close all of them; safe to call twice."""
        while self.pages:
            self.pages.pop().close()
