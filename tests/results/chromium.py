"""A real headless Chromium (Debian's packages chromium and chromium-driver) for the report's tests."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys as Keys
from selenium.webdriver.support.ui import WebDriverWait

PATIENCE = 60
"""Seconds; a loaded machine is slow, and nothing here is about speed."""

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--force-color-profile=srgb",
)


@contextmanager
def chromium(profile: Path, width: int = 1400, height: int = 1000) -> Iterator[webdriver.Chrome]:
    """A browser with an empty profile, and both of its logs kept."""
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
        options.add_argument(flag)
    options.binary_location = _installed("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    options.unhandled_prompt_behavior = "ignore"
    driver = webdriver.Chrome(options=options, service=Service(_installed("chromedriver")))
    try:
        driver.set_script_timeout(PATIENCE)
        yield driver
    finally:
        driver.quit()


def _installed(program: str) -> str:
    path = shutil.which(program)
    assert path, f"no {program}: apt-get install chromium chromium-driver"
    return path


class Page:
    """The report, open in a browser."""

    def __init__(self, driver: webdriver.Chrome, path: Path) -> None:
        self.driver = driver
        self.path = path
        driver.get("about:blank")  # away from the browser's own first page
        self.console()
        self.requests()  # both logs begin here

    def open(self, address: str = "") -> None:
        """Open the page anew at an address (``#…``), and wait until an episode is drawn where one is shown."""
        self.driver.get("about:blank")
        self.driver.get(f"{self.path.as_uri()}{address}")
        if address.startswith("#episodes"):
            self.settle()

    def run(self, script: str, *args: Any) -> Any:
        """Run a script in the page and return its value."""
        return self.driver.execute_script(script, *args)

    def wait(self, condition: str, *args: Any) -> None:
        """Wait until a JavaScript expression holds."""
        WebDriverWait(self.driver, PATIENCE, 0.05).until(lambda _: self.run(f"return {condition}", *args), condition)

    def settle(self) -> None:
        """Wait until the browser of episodes has drawn what it was told to."""
        self.wait("document.getElementById('view-episodes').getAttribute('aria-busy') === 'false'")

    def text(self, selector: str) -> str:
        """The text of the first element that matches."""
        found = self.run("return document.querySelector(arguments[0])?.textContent", selector)
        assert found is not None, f"nothing matches {selector}"
        return str(found)

    def press(self, *keys: str) -> None:
        """Press keys as a keyboard does: they go to whatever has the focus when they arrive."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def choose(self, selector: str, value: str) -> None:
        """Choose a value of a select, as a reader does."""
        self.run(
            "const node = document.querySelector(arguments[0]); node.value = arguments[1];"
            "if (node.value !== arguments[1]) throw new Error('no such choice: ' + arguments[1]);"
            "node.dispatchEvent(new Event('change'))",
            selector,
            value,
        )

    def click(self, selector: str) -> None:
        """Click an element with the mouse."""
        self.driver.find_element(By.CSS_SELECTOR, selector).click()

    def prefer(self, scheme: str) -> None:
        """What the reader's system says about light and dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def console(self) -> list[str]:
        """Messages since the last call: errors, refusals by the policy."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requests(self) -> list[str]:
        """Addresses asked for since the last call."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        return [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
