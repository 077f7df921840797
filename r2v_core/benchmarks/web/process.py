"""The process of a headless Chromium, and the debugging pipe over which it is spoken to.

It can't outlive us: when the pipe closes, also because we were killed, Chromium ends by itself, and the shell that
started it removes its profile. No port is opened, no thread and no event loop are involved, so an exception raised by a
signal handler in the middle of a call finds nothing to hang on.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from r2v_core.benchmarks.web.traffic import Traffic
from r2v_core.errors import R2VError

if TYPE_CHECKING:
    from r2v_core.benchmarks.web.chromium import Page

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
    """The process and its connection. Use :func:`r2v_core.benchmarks.web.chromium.open_page`, not this class."""

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
