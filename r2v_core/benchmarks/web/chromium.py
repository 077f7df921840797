"""A headless Chromium, spoken to over its own debugging pipe.

One process serves all pages of this Python process that may reach the same hosts (most may reach none): it starts with
the first of them and ends with the last. It can't outlive us: when the pipe closes, also because we were killed,
Chromium ends by itself, and the shell that started it removes its profile. No port is opened, no thread and no event
loop are involved, so an exception raised by a signal handler in the middle of a call finds nothing to hang on.

What is not isolated: pages run in Chromium's own sandbox, except as root, where Chromium has none. Pages reach no hosts
but those that they were opened for: every other name resolves to nothing.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from r2v_core.benchmarks.web.traffic import Traffic
from r2v_core.errors import R2VError

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "chrome")
INSTALL = "apt install chromium"
PATIENCE_S = 120.0
"""Seconds that one call may take: a bound on hanging, not on slowness."""

FLAGS = (
    "--headless=new",
    "--remote-debugging-pipe",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-breakpad",
    "--disable-crash-reporter",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--disable-background-timer-throttling",
    "--disable-backgrounding-occluded-windows",
    "--disable-renderer-backgrounding",
    "--disable-features=Translate,MediaRouter,OptimizationHints,PaintHolding",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--lang=en-US",
    "--mute-audio",
    "--no-default-browser-check",
    "--no-first-run",
    "--no-proxy-server",
    "--no-startup-window",
    "--password-store=basic",
    "--use-mock-keychain",
)

_THEN_TIDY_UP = '"$@"; n=0; until rm -rf -- "$0" || [ $n -ge 40 ]; do n=$((n + 1)); sleep 0.25; done'
"""Its helpers end a moment after it, and what one of them still writes makes the removal of the profile fail."""


class BrowserError(R2VError):
    """Chromium ended, hung or refused a call; its pages are of no use any more."""


class PageMoved(BrowserError):
    """The page went to another document, or closed itself, while it was spoken to."""


_MOVED = ("navigated or closed", "context was destroyed", "Cannot find context", "Session with given id not found")


def find_chromium() -> str | None:
    """The path of an installed Chromium or Chrome, None if there is none."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


class Chromium:
    """The process and its connection. Use :func:`open_page`, not this class."""

    def __init__(self, hosts: frozenset[str] = frozenset()) -> None:
        program = find_chromium()
        if program is None:
            raise R2VError(f"no Chromium on this machine: {INSTALL}")
        self.owner = os.getpid()
        self.hosts = hosts
        self.pages: dict[str, Page] = {}
        self._profile = tempfile.mkdtemp(prefix="r2v-chromium-")
        self._last = 0
        self._unread = b""
        self.lost = False
        """Whether it ended, hung, or lost a page."""
        commands, self._out = _pipe()
        self._in, replies = _pipe()
        sandbox = () if os.geteuid() else ("--no-sandbox",)
        reach = ", ".join(["--host-resolver-rules=MAP * ~NOTFOUND", *(f"EXCLUDE {host}" for host in sorted(hosts))])
        command = ["/bin/sh", "-c", _THEN_TIDY_UP, self._profile, program, *FLAGS, reach, *sandbox]
        try:
            self.pid = os.posix_spawn(
                "/bin/sh",
                [*command, f"--user-data-dir={self._profile}"],
                {**os.environ, "TZ": "UTC", "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8", "LANGUAGE": "en"},
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
                    (os.POSIX_SPAWN_DUP2, commands, 3),
                    (os.POSIX_SPAWN_DUP2, replies, 4),
                ],
                setsid=True,
            )
        finally:
            os.close(commands)
            os.close(replies)

    def call(self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None) -> Any:
        """Send one command and wait for its result; events that come in between reach their pages.

        Raises:
            BrowserError: if Chromium refuses, is gone, or does not answer for :data:`PATIENCE_S`.
            PageMoved: if the page went elsewhere meanwhile.
        """
        number = self.send(method, parameters, session)
        reply = self._read(lambda message: message.get("id") == number or _ends(message, session), method)
        if _ends(reply, session):
            raise PageMoved(f"the page closed during {method}")
        if "error" in reply:
            said = str(reply["error"].get("message", reply["error"]))
            kind = PageMoved if any(words in said for words in _MOVED) else BrowserError
            raise kind(f"Chromium refused {method}: {said}")
        return reply["result"]

    def send(self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None) -> int:
        """Send one command without waiting; its number."""
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters or {}}
        if session is not None:
            message["sessionId"] = session
        data = memoryview(json.dumps(message).encode() + b"\0")
        try:
            while data:
                data = data[os.write(self._out, data) :]
        except OSError as error:
            self.lost = True
            raise BrowserError(f"Chromium ended before {method} ({error.strerror})") from None
        except BaseException:
            self.lost = True  # half a message may be on its way: whatever follows would be read as its end
            raise
        return self._last

    def wait_for(self, method: str, session: str) -> None:
        """Read until this event of a page arrives."""
        self._read(lambda message: (message.get("method"), message.get("sessionId")) == (method, session), method)

    def listen(self, seconds: float) -> None:
        """Let one message reach its page, if one comes within so many seconds."""
        self._next(time.monotonic() + seconds, "")

    def _read(self, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        deadline = time.monotonic() + PATIENCE_S
        while (message := self._next(deadline, what)) is not None:
            if wanted(message):
                return message
        self.lost = True
        raise BrowserError(f"Chromium did not answer {what} within {PATIENCE_S:.0f} s")

    def _next(self, deadline: float, what: str) -> dict[str, Any] | None:
        """The next message, dispatched; None if there is none before the deadline."""
        while True:
            raw, end, rest = self._unread.partition(b"\0")
            if end:
                self._unread = rest
                message: dict[str, Any] = json.loads(raw)
                self._dispatch(message)
                return message
            if not select.select([self._in], [], [], max(deadline - time.monotonic(), 0))[0]:
                return None
            chunk = os.read(self._in, 1 << 18)
            if not chunk:
                self.lost = True
                raise BrowserError(f"Chromium ended during {what}" if what else "Chromium ended")
            self._unread += chunk

    def _dispatch(self, message: dict[str, Any]) -> None:
        page = self.pages.get(message.get("sessionId", ""))
        if page and "method" in message:
            page.traffic.heard(message["method"], message["params"], time.monotonic())
        if message.get("method") == "Page.javascriptDialogOpening" and page:
            self.send("Page.handleJavaScriptDialog", {"accept": True}, page.session)
        elif message.get("method") == "Target.detachedFromTarget":
            closed = self.pages.get(message["params"]["sessionId"])
            if closed:
                closed.traffic = Traffic()  # nothing more to wait for
        elif message.get("method") == "Inspector.targetCrashed" and page:
            self.lost = True
            raise BrowserError("a page of Chromium crashed (out of memory?); fewer environments side by side need less")

    def stop(self) -> None:
        """End the process, whatever state it is in, and wait until it is gone."""
        if os.getpid() != self.owner:
            return
        for descriptor in (self._out, self._in):  # a closed pipe tells Chromium to end
            with suppress(OSError):
                os.close(descriptor)
        for patience, then in ((10.0, signal.SIGTERM), (10.0, signal.SIGKILL), (60.0, None)):
            deadline = time.monotonic() + patience
            while time.monotonic() < deadline:
                if _ended(self.pid):
                    shutil.rmtree(self._profile, ignore_errors=True)
                    return
                time.sleep(0.005)
            if then:
                with suppress(ProcessLookupError):
                    os.killpg(self.pid, then)


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


def _ends(message: dict[str, Any], session: str | None) -> bool:
    """Whether this event is the end of a session: its page has closed, and calls to it stay without a reply."""
    return message.get("method") == "Target.detachedFromTarget" and message["params"]["sessionId"] == session


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are away from the numbers that the child's are moved to, and closed in other children."""
    ends = os.pipe()
    moved = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends]
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


def _ended(pid: int) -> bool:
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True
