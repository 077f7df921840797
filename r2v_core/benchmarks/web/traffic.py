"""What a page is loading, told from Chromium's events about it."""

from __future__ import annotations

from typing import Any

ANNOUNCED_S = 2.0
"""How long a navigation that a page asked for is waited for: some never begin (downloads, empty answers)."""

LONG_S = 5.0
"""A request that takes longer is taken for one that never ends."""

ENDLESS = frozenset(["EventSource", "WebSocket", "Ping", "Media", "Prefetch"])
"""Kinds of requests that nobody waits for."""


class Traffic:
    """Frames that load, navigations that were asked for, requests under way (those only after ``Network.enable``)."""

    def __init__(self) -> None:
        self.documents = 0
        """How many documents the page has shown."""
        self._frames: set[str] = set()
        self._announced: dict[str, float] = {}
        self._requests: dict[str, float] = {}
        self._last = float("-inf")

    def heard(self, method: str, parameters: dict[str, Any], now: float) -> None:
        """Take note of an event."""
        frame = str(parameters.get("frameId", ""))
        if method in ("Page.frameRequestedNavigation", "Page.frameScheduledNavigation"):
            self._announced[frame] = now
        elif method == "Page.frameStartedLoading":
            self._frames.add(frame)
        elif method in ("Page.frameStoppedLoading", "Page.frameDetached", "Page.frameClearedScheduledNavigation"):
            self._announced.pop(frame, None)
            if method != "Page.frameClearedScheduledNavigation":
                self._frames.discard(frame)
        elif method == "Page.frameNavigated" and "parentId" not in parameters["frame"]:
            self.documents += 1
            self._requests.clear()  # what the last document waited for
        elif method == "Network.requestWillBeSent" and parameters.get("type") not in ENDLESS:
            self._requests[parameters["requestId"]] = now
        elif method in ("Network.loadingFinished", "Network.loadingFailed"):
            if self._requests.pop(parameters["requestId"], None) is None:
                return
        else:
            return
        self._last = now

    def stir(self, now: float) -> None:
        """Something was done to the page; what comes of it may not have been heard yet."""
        self._last = now

    def unrest(self, quiet_s: float, now: float) -> float:
        """Seconds until the page has been quiet for ``quiet_s``, should nothing happen until then; 0 where it has."""
        if self._frames:
            return float("inf")
        announced = (since + ANNOUNCED_S for since in self._announced.values())
        requests = (since + LONG_S for since in self._requests.values())
        busy_until = max([*announced, *requests], default=float("-inf"))
        return max(busy_until, self._last + quiet_s) - now
