"""--reload in a real browser: the page of an error becomes the application by itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).parents[1] / "e2e")]

import webdriver  # noqa: E402
from harness import starter  # noqa: E402

pytestmark = pytest.mark.skipif(
    not all(os.access(name, os.X_OK) for name in (webdriver.CHROMIUM, webdriver.CHROMEDRIVER)),
    reason="Debian's chromium and chromium-driver are not installed",
)

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html")])
    return [b"<!DOCTYPE html><title>fine</title><h1>%s</h1>"]
"""


def test_page_of_an_error_shows_the_application_when_it_is_fixed(tmp_path: Path) -> None:
    site = tmp_path / "site"
    site.mkdir()
    source = site / "app.py"
    source.write_text(APP % "first")
    with starter(tmp_path) as weir, webdriver.Browser(tmp_path) as browser:
        server = weir("app:app", cwd=site, reload=True)
        browser.open(server.url + "/page?a=b")
        assert browser.text("h1") == "first"
        source.write_text("def app(:\n")
        server.wait_log("it is loaded again when a file changes")
        browser.open(server.url + "/page?a=b")
        assert "syntax error in app.py, line 1" in browser.text("h1")
        assert "SyntaxError" in browser.text("pre")
        # Another error takes the place of the first.
        source.write_text("import nothing_of_this_name\n")
        webdriver.until("the next error", 20, lambda: "nothing_of_this_name" in browser.text("h1"))
        source.write_text(APP % "second")
        webdriver.until("the application", 20, lambda: browser.text("h1") == "second")
        # The page of the error was a 500, which a browser's console tells; nothing else is wrong.
        assert not [c for c in browser.complaints() if "500" not in str(c)]
