"""The documentation's pictures: Dagster's UI and the report of a project whose demo has finished, in a real browser.

Each is taken twice, for light and for dark pages.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

from r2v_core.benchmarks.web.chromium import Page, open_page
from r2v_core.engines.vllm.server import free_port
from r2v_core.errors import R2VError

HOST = "127.0.0.1"
SIZE = (1560, 1000)
PATIENCE_S = 180.0
KEY = "textworld:expert|1"
SCHEMES = {"light": "", "dark": "_dark"}
"""What a reader's browser prefers → end of the file's name."""
EPISODES = "episodes?method=r2v&condition=noisy&against=%2Bslm_only&beside=slm_only&step=3"


def take(project: Path, folder: Path) -> Iterator[Path]:
    """Take all pictures of a project into a folder; gives their paths.

    Raises:
        R2VError: if the webserver does not come up, or a page does not show what it should.
    """
    with _webserver(project) as address:
        graph = f"{address}/assets/report?view=lineage&lineageScope=upstream&lineageDepth=9"
        asset = f"{address}/assets/evaluation_noisy?view=partitions&partition={quote(KEY)}"
        report = f"{(project / 'results/mrp/report.html').as_uri()}#{EPISODES}"
        for scheme, suffix in SCHEMES.items():
            yield _shot(graph, "task_suite", folder / f"asset_graph{suffix}.png", scheme)
            yield _shot(asset, "teacher calls", folder / f"asset_page{suffix}.png", scheme, top="episodes")
            yield _shot(report, "Proposed", folder / f"report{suffix}.png", scheme)


def _shot(address: str, text: str, path: Path, scheme: str, top: str = "") -> Path:
    """Open an address, wait until the page shows a text and is quiet, and write what is to be seen as PNG.

    ``scheme``: the colours that the browser says its user prefers. ``top``: the first cell of a table's row that is
    scrolled to.
    """
    page = open_page(*SIZE, frozenset({HOST}))
    try:
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        page.go(address)
        _wait(page, text, address)
        page.settle(2.0, 30.0)
        if top:
            cell = f"[...document.querySelectorAll('td')].find((td) => td.innerText.trim() === '{top}')"
            page.run(f"{cell}.scrollIntoView()")
            page.settle(1.0, 10.0)
        path.write_bytes(base64.b64decode(page.call("Page.captureScreenshot", format="png")["data"]))
    finally:
        page.close()
    return path


def _wait(page: Page, text: str, address: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while text not in (page.run("document.body.innerText") or ""):
        if time.monotonic() > end:
            raise R2VError(f"{address}: does not show '{text}' within {PATIENCE_S:.0f} s")
        page.settle(0.5, 2.0)


@contextmanager
def _webserver(project: Path) -> Iterator[str]:
    """Dagster's webserver of a project, on a free port of this machine, while in here."""
    port = free_port()
    command = [sys.executable, "-m", "dagster_webserver", "-w", "workspace.yaml", "-h", HOST, "-p", str(port)]
    environment = os.environ | {"DAGSTER_HOME": str(project / "dagster_home")}
    server = subprocess.Popen(
        command, cwd=project, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        end = time.monotonic() + PATIENCE_S
        while not _answers(f"http://{HOST}:{port}/server_info"):
            if server.poll() is not None or time.monotonic() > end:
                raise R2VError("Dagster's webserver does not start; see what `make ui` prints")
            time.sleep(0.5)
        yield f"http://{HOST}:{port}"
    finally:
        server.terminate()
        server.wait()


def _answers(address: str) -> bool:
    try:
        with urlopen(address, timeout=5) as reply:
            return bool(reply.status == 200)
    except (URLError, OSError):
        return False
