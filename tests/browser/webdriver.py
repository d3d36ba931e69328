"""A browser under control: Debian's chromedriver, spoken to directly in the WebDriver protocol.

Needs the Debian packages chromium and chromium-driver and nothing else. The browser keeps its
profile in a directory that goes with it, and resolves no name but this machine's.
"""

from __future__ import annotations

import base64
import http.client
import json
import re
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CHROMIUM = "/usr/bin/chromium"
CHROMEDRIVER = "/usr/bin/chromedriver"
START_SECONDS = 60
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's name for an element reference

ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--no-proxy-server",
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
)

# Keys of the protocol.
ENTER = "\ue007"
ESCAPE = "\ue00c"
TAB = "\ue004"


class Browser:
    """One chromedriver and one browser window. A context manager: leaving it ends both."""

    def __init__(self, folder: Path) -> None:
        self._log = open(folder / "chromedriver.log", "w+b")
        self._driver = subprocess.Popen(
            [CHROMEDRIVER, "--port=0"], stdout=self._log, stderr=subprocess.STDOUT
        )
        self._session = ""
        try:
            self._port = self._wait_for_port(folder / "chromedriver.log")
            options = {
                "binary": CHROMIUM,
                "args": [*ARGUMENTS, f"--user-data-dir={folder / 'profile'}"],
            }
            wanted = {
                "alwaysMatch": {
                    "goog:chromeOptions": options,
                    "goog:loggingPrefs": {"browser": "ALL"},
                }
            }
            made = self._call("POST", "/session", {"capabilities": wanted})
            self._session = f"/session/{made['sessionId']}"
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the window and end the driver. May be called twice."""
        try:
            if self._session:
                session, self._session = self._session, ""
                self._call("DELETE", session)
        except (OSError, RuntimeError):
            pass  # the driver is gone or confused; it is ended below all the same
        finally:
            self._driver.terminate()
            try:
                self._driver.wait(10)
            except subprocess.TimeoutExpired:
                self._driver.kill()
                self._driver.wait()
            self._log.close()

    def _wait_for_port(self, log: Path) -> int:
        def port() -> int | None:
            text = log.read_text(errors="replace")
            found = re.search(r"started successfully on port ([0-9]+)", text)
            if not found and self._driver.poll() is not None:
                raise RuntimeError(f"chromedriver ended at once: {text}")
            return int(found[1]) if found else None

        return int(until("chromedriver", START_SECONDS, port))

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            sent = json.dumps({} if body is None and method == "POST" else body)
            connection.request(method, path, sent if method == "POST" else None)
            value = json.loads(connection.getresponse().read())["value"]
        finally:
            connection.close()
        if isinstance(value, dict) and "error" in value:
            raise RuntimeError(f"{value['error']}: {value.get('message', '')[:500]}")
        return value

    def open(self, url: str) -> None:
        """Go to a page and wait until it is loaded."""
        self._call("POST", f"{self._session}/url", {"url": url})

    def run(self, script: str, *arguments: Any) -> Any:
        """The value a piece of JavaScript returns in the page."""
        body = {"script": script, "args": list(arguments)}
        return self._call("POST", f"{self._session}/execute/sync", body)

    def type(self, keys: str) -> None:
        """Type into whatever has the focus, as a keyboard does."""
        active = self._call("GET", f"{self._session}/element/active")[ELEMENT]
        self._call("POST", f"{self._session}/element/{active}/value", {"text": keys})

    def press(self, key: str) -> None:
        """Press and release one key, wherever the focus is."""
        steps = [{"type": "keyDown", "value": key}, {"type": "keyUp", "value": key}]
        actions = [{"type": "key", "id": "keyboard", "actions": steps}]
        self._call("POST", f"{self._session}/actions", {"actions": actions})

    def click(self, selector: str) -> None:
        """Click the first element that matches a CSS selector."""
        found = self._call(
            "POST", f"{self._session}/element", {"using": "css selector", "value": selector}
        )
        self._call("POST", f"{self._session}/element/{found[ELEMENT]}/click")

    def text(self, selector: str) -> str:
        """The visible text of the first match; empty when it is hidden or absent."""
        script = "return document.querySelector(arguments[0])?.innerText || ''"
        return str(self.run(script, selector))

    def visible(self, selector: str) -> bool:
        script = "return !!document.querySelector(arguments[0])?.getClientRects().length"
        return bool(self.run(script, selector))

    def wait(self, selector: str, seconds: float = 30) -> None:
        """Wait until an element is there to be seen."""
        until(selector, seconds, lambda: self.visible(selector))

    def complaints(self) -> list[str]:
        """What the page wrote to the browser's console as an error since the last call."""
        entries = self._call("POST", f"{self._session}/se/log", {"type": "browser"})
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def _devtools(self, command: str, params: dict[str, Any]) -> Any:
        body = {"cmd": command, "params": params}
        return self._call("POST", f"{self._session}/goog/cdp/execute", body)

    def look(self, width: int, height: int = 900, dark: bool = False) -> None:
        """Set the size of the window in CSS pixels and the palette the person prefers."""
        self._devtools(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        palette = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools("Emulation.setEmulatedMedia", {"features": [palette]})

    def screenshot(self, path: Path) -> None:
        """The whole page as a PNG file, below the window's edge too."""
        shot = self._devtools(
            "Page.captureScreenshot", {"format": "png", "captureBeyondViewport": True}
        )
        path.write_bytes(base64.b64decode(shot["data"]))


def until(what: str, seconds: float, ready: Callable[[], Any]) -> Any:
    """Ask again and again until the answer is true, and return it; AssertionError after that."""
    deadline = time.monotonic() + seconds
    while True:
        result = ready()
        if result:
            return result
        assert time.monotonic() < deadline, f"{what} did not come within {seconds:g} s"
        time.sleep(0.02)
