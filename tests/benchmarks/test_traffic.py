"""When a page counts as loaded."""

from __future__ import annotations

import pytest

from r2v_core.benchmarks.web.traffic import ANNOUNCED_S, LONG_S, Traffic


def test_nothing_heard_is_quiet_and_what_was_done_is_waited_for() -> None:
    traffic = Traffic()
    assert traffic.unrest(0.5, now=0.0) <= 0
    traffic.stir(10.0)
    assert traffic.unrest(0.5, now=10.0) == pytest.approx(0.5) and traffic.unrest(0.5, now=10.6) <= 0


def test_a_frame_loads_until_it_says_so() -> None:
    traffic = Traffic()
    traffic.heard("Page.frameRequestedNavigation", {"frameId": "a"}, 1.0)
    assert traffic.unrest(0.1, now=1.5) == pytest.approx(ANNOUNCED_S - 0.5)
    traffic.heard("Page.frameStartedLoading", {"frameId": "a"}, 1.6)
    assert traffic.unrest(0.1, now=99.0) == float("inf")
    traffic.heard("Page.frameStoppedLoading", {"frameId": "a"}, 99.0)
    assert traffic.unrest(0.1, now=99.0) == pytest.approx(0.1) and traffic.unrest(0.1, now=99.2) <= 0


def test_requests_are_waited_for_unless_they_never_end() -> None:
    traffic = Traffic()
    traffic.heard("Network.requestWillBeSent", {"requestId": "1", "type": "EventSource"}, 0.0)
    assert traffic.unrest(0.1, now=0.2) <= 0
    traffic.heard("Network.requestWillBeSent", {"requestId": "2", "type": "Fetch"}, 1.0)
    assert traffic.unrest(0.1, now=2.0) == pytest.approx(LONG_S - 1.0) and traffic.unrest(0.1, now=7.0) <= 0
    traffic.heard("Network.loadingFinished", {"requestId": "2"}, 3.0)
    assert traffic.unrest(0.1, now=3.2) <= 0
    traffic.heard("Network.requestWillBeSent", {"requestId": "3", "type": "Fetch"}, 4.0)
    traffic.heard("Page.frameNavigated", {"frame": {"id": "a"}}, 4.0)  # nobody waits for the last document's
    traffic.heard("Page.frameNavigated", {"frame": {"id": "b", "parentId": "a"}}, 4.1)
    assert traffic.documents == 1 and traffic.unrest(0.1, now=4.3) <= 0
