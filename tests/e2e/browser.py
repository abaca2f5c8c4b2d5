"""Debian's Chromium, for the tests of the dashboard: a page as a person has it, and all it asked for.

One browser serves many tests; each opens its page anew. What a page said on its console, and every
request that it made, is kept: `Page.check` fails on any error, and on a request to anybody but the node.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains

#: A small, busy machine draws late.
PATIENCE_S = 20.0

_CHROMIUM = shutil.which("chromium")
_DRIVER = shutil.which("chromedriver")

#: Skips where there is no Chromium; in CI that is a failure (of whoever needs the browser).
needs_chromium = pytest.mark.skipif(
    not (_CHROMIUM and _DRIVER) and os.environ.get("CI") != "true",
    reason="needs Chromium and its driver: apt-get install chromium chromium-driver",
)


class Page:
    """The page that the browser shows."""

    def __init__(self, browser: Chrome) -> None:
        self.browser = browser
        self.url = ""

    def open(self, url: str, *, live: bool = True) -> None:
        """Show a node's dashboard, with nothing remembered from others."""
        self.browser.get("about:blank")
        self.console()
        self.requests()
        self.url = url
        self.browser.get(f"{url}/ui")
        if live:
            self.until(lambda: self.text("#connection") == "connected", "the page is connected")

    def resize(self, width: int, height: int = 900) -> None:
        self._command(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer(self, *, dark: bool = False, still: bool = False) -> None:
        """What the system would say of its user."""
        scheme, motion = "dark" if dark else "light", "reduce" if still else "no-preference"
        features = [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": motion},
        ]
        self._command("Emulation.setEmulatedMedia", features=features)

    def js(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def text(self, selector: str) -> str:
        """The text of the first such element, as it is written; "" if there is none."""
        script = "return document.querySelector(arguments[0])?.textContent ?? ''"
        return str(self.js(script, selector)).strip()

    def attribute(self, selector: str, name: str) -> str | None:
        value = self.js(
            "return document.querySelector(arguments[0])?.getAttribute(arguments[1])",
            selector,
            name,
        )
        return None if value is None else str(value)

    def count(self, selector: str) -> int:
        return int(self.js("return document.querySelectorAll(arguments[0]).length", selector))

    def shown(self, selector: str) -> bool:
        script = "return document.querySelector(arguments[0])?.checkVisibility() ?? false"
        return bool(self.js(script, selector))

    def click(self, selector: str) -> None:
        """As a pointer does: on what lies on top at its place, once it is shown.

        The parts of a page are drawn at their own rates, so what one shows may be a moment
        ahead of the button that another offers for it.
        """
        self.until(lambda: self.shown(selector), f"{selector} is shown")
        element = self.browser.find_element("css selector", selector)
        self.js("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def fill(self, selector: str, text: str) -> None:
        element = self.browser.find_element("css selector", selector)
        element.clear()
        element.send_keys(text)

    def press(self, *keys: str) -> None:
        """Keys, one after the other, to whatever has the focus."""
        for key in keys:
            ActionChains(self.browser).send_keys(key).perform()

    def focused(self) -> str:
        """The id of what has the focus."""
        return str(self.js("return document.activeElement?.id ?? ''"))

    def until(self, true: Callable[[], object], what: str) -> None:
        """Look again and again. Raises TimeoutError with what was waited for."""
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {PATIENCE_S:g} s")
            time.sleep(0.03)

    def overflow(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.js("return document.documentElement.scrollWidth - innerWidth"))

    def console(self) -> list[str]:
        """What the page has complained of since it was last asked."""
        entries = self.browser.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries]

    def requests(self) -> list[str]:
        """Whom the page has asked since it was last asked."""
        urls = []
        for entry in self.browser.get_log("performance"):  # type: ignore[no-untyped-call]
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                urls.append(message["params"]["request"]["url"])
        return urls

    def check(self, *expected: str) -> None:
        """No error on the console but those that have one of these in it; no request to others."""
        said = [line for line in self.console() if not any(part in line for part in expected)]
        assert said == []
        asked = self.requests()
        assert [url for url in asked if not url.startswith((self.url, "about:"))] == []

    def picture(self, path: Path, *, whole: bool = False, clip: str | None = None) -> None:
        """A PNG of the window, of the whole page, or of one element."""
        area: dict[str, Any] = {}
        if whole:
            width, height = self.js("return [innerWidth, document.documentElement.scrollHeight]")
            self.resize(width, height)
            time.sleep(0.3)  # two pictures of the screen at the new size
        if clip is not None:
            area["clip"] = self.js(
                "const b = document.querySelector(arguments[0]).getBoundingClientRect();"
                "return {x: b.x + scrollX - 8, y: b.y + scrollY - 8, width: b.width + 16,"
                " height: b.height + 16, scale: 1}",
                clip,
            )
        found = self._command("Page.captureScreenshot", captureBeyondViewport=bool(clip), **area)
        path.write_bytes(base64.b64decode(found["data"]))

    def _command(self, name: str, **parameters: Any) -> Any:
        return self.browser.execute_cdp_cmd(name, parameters)


@contextmanager
def open_page(width: int = 1280, height: int = 900) -> Iterator[Page]:
    """A browser with one page, ended with the block."""
    assert _CHROMIUM, "chromium is not installed: apt-get install chromium"
    assert _DRIVER, "chromedriver is not installed: apt-get install chromium-driver"
    options = ChromeOptions()
    options.binary_location = _CHROMIUM
    # No sandbox: tests run as root in containers, where there is none.
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"):
        options.add_argument(argument)
    options.add_argument("--disable-dev-shm-usage")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = Chrome(options=options, service=Service(_DRIVER))
    try:
        page = Page(browser)
        page.resize(width, height)
        page.prefer()
        yield page
    finally:
        browser.quit()
