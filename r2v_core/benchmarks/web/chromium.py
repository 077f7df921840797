"""Pages of a headless Chromium.

One process (:mod:`r2v_core.benchmarks.web.process`) serves all pages of this Python process that may reach the same
hosts (most may reach none): it starts with the first of them and ends with the last.

What is not isolated: pages run in Chromium's own sandbox, except as root, where Chromium has none. Pages reach no hosts
but those that they were opened for: every other name resolves to nothing.
"""

from __future__ import annotations

import atexit
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from r2v_core.benchmarks.web.process import BrowserError, Chromium
from r2v_core.benchmarks.web.traffic import Traffic


class Page:
    """One page with a debugging session; it behaves as if it were in front and had the focus.

    Pages of one ``context`` (None: the browser's own) share cookies; others share nothing.
    """

    def __init__(
        self, chromium: Chromium, width: int, height: int, context: str | None = None, target: str | None = None
    ) -> None:
        self.chromium = chromium
        self.size = width, height
        self.context = context
        self.traffic = Traffic()
        if target is None:
            blank: dict[str, Any] = {"url": "about:blank", "background": True}
            blank |= {} if context is None else {"browserContextId": context}
            target = chromium.call("Target.createTarget", blank)["targetId"]
        self.target: str = target
        attached = chromium.call("Target.attachToTarget", {"targetId": self.target, "flatten": True})
        self.session: str = attached["sessionId"]
        chromium.pages[self.session] = self
        for method in ("Page.enable", "DOM.enable", "Accessibility.enable"):
            self.call(method)
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    @property
    def alive(self) -> bool:
        """Whether it can still be spoken to."""
        return self.session in self.chromium.pages and not self.chromium.lost

    def beside(self, target: str | None = None) -> Page:
        """Another page of the same context and size: a new blank one, or a ``target`` that a page opened."""
        return Page(self.chromium, *self.size, self.context, target)

    def call(self, method: str, **parameters: Any) -> Any:
        """Send one command to this page and wait for its result."""
        return self.chromium.call(method, parameters, self.session)

    def go(self, url: str) -> None:
        """Open an address and wait until it is loaded."""
        problem = self.call("Page.navigate", url=url).get("errorText")
        if problem:
            raise BrowserError(f"Chromium can't open {url}: {problem}")
        self.chromium.wait_for("Page.loadEventFired", self.session)

    def settle(self, quiet_s: float, patience_s: float) -> bool:
        """Wait until nothing has been loading for ``quiet_s`` seconds; False if ``patience_s`` are over before."""
        deadline = time.monotonic() + patience_s
        self.traffic.stir(time.monotonic())
        while (left := self.traffic.unrest(quiet_s, now := time.monotonic())) > 0:
            if now >= deadline:
                return False
            self.chromium.listen(min(left, deadline - now))
        return True

    def run(self, script: str) -> Any:
        """The JSON value of a JavaScript expression.

        Raises:
            BrowserError: with the page's message, if the script throws.
            PageMoved: if the page goes elsewhere meanwhile.
        """
        reply = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in reply:
            details = reply["exceptionDetails"]
            text = details.get("exception", {}).get("description") or details.get("text")
            raise BrowserError(f"the page's script failed: {text}")
        return reply["result"].get("value")

    def close(self) -> None:
        """Close the page, its context and Chromium with their last ones; safe to call twice."""
        chromium = self.chromium
        if chromium.pages.pop(self.session, None) is None or os.getpid() != chromium.owner:
            return
        if not chromium.pages:
            _stop(chromium)
            return
        with suppress(BrowserError):
            chromium.call("Target.closeTarget", {"targetId": self.target})
            if self.context and all(page.context != self.context for page in chromium.pages.values()):
                chromium.call("Target.disposeBrowserContext", {"browserContextId": self.context})


_running: dict[frozenset[str], Chromium] = {}
"""Hosts that pages may reach → the process that serves them."""


def open_page(width: int, height: int, hosts: frozenset[str] = frozenset(), apart: bool = False) -> Page:
    """A new blank page; starts Chromium if it does not run.

    Args:
        hosts: names (or addresses) of the machines that the page may reach, whatever the port.
        apart: with cookies and a storage of its own.

    Raises:
        R2VError: if no Chromium is installed or it does not start.
    """
    chromium = _running.get(hosts)
    if chromium is None or chromium.owner != os.getpid():
        chromium = _running[hosts] = Chromium(hosts)
    try:
        context = chromium.call("Target.createBrowserContext")["browserContextId"] if apart else None
        return Page(chromium, width, height, context)
    except BaseException:
        if not chromium.pages:
            _stop(chromium)
        raise


@contextmanager
def browser(hosts: frozenset[str] = frozenset()) -> Iterator[None]:
    """Chromium stays between the pages for these hosts that are opened and closed in here."""
    page = open_page(1, 1, hosts)
    try:
        yield
    finally:
        page.close()


def _stop(chromium: Chromium) -> None:
    if _running.get(chromium.hosts) is chromium:
        del _running[chromium.hosts]
    chromium.stop()


@atexit.register
def _stop_all() -> None:
    for chromium in list(_running.values()):
        _stop(chromium)
