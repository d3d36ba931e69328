"""A page of another origin in a real browser: it reads why it was refused and when to come back, and not "network error"."""

from __future__ import annotations

import http.server
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path[:0] = [str(Path(__file__).resolve().parent), str(Path(__file__).parents[1] / "e2e")]

import webdriver  # noqa: E402
from admission_helpers import SECRET, runs, start, token  # noqa: E402
from harness import Client, Server, starter, wait_for  # noqa: E402

pytestmark = pytest.mark.skipif(
    not all(os.access(name, os.X_OK) for name in (webdriver.CHROMIUM, webdriver.CHROMEDRIVER)),
    reason="Debian's chromium and chromium-driver are not installed",
)

POLICY = """\
identify:
  - jwt: {{secret_file: jwt.secret, cookie: session}}
  - address
tiers: {{from: jwt.app_metadata.tier, default: free}}
cors: {{origins: ["{origin}"], credentials: true}}
store: quotas.db
max-body-size: 1K
routes:
  - {{match: /ai/limited, require: user, rate: {{user: 2/day}}}}
  - {{match: /ai/paid, require: user, quota: {{free: 0, pro: 1/day}}}}
  - {{match: "/ai/narrow/*", require: user, concurrency: 1}}
  - {{match: /ai/slow/*, require: user, deadline: 300ms}}
  - {{match: /foreign, cors: {{origins: [https://elsewhere.example]}}}}
  - {{match: /*}}
"""
ASK = """
const [url, options] = arguments;
window.answer = null;
fetch(url, options).then(async r => {
  const text = await r.text();
  let reason = "";
  try { reason = JSON.parse(text).reason ?? ""; } catch (e) { reason = text; }
  window.answer = {status: r.status, reason, after: r.headers.get("retry-after"),
                   limit: r.headers.get("ratelimit"), policy: r.headers.get("ratelimit-policy")};
}, e => { window.answer = {failed: String(e)}; });
"""


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    """The origin of an empty page."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"<!DOCTYPE html><title>page</title><link rel=icon href='data:,'>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Browser]:
    with webdriver.Browser(tmp_path_factory.mktemp("browser")) as window:
        yield window


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jwt.secret").write_text(SECRET)
    (tmp_path / "files").mkdir()
    return tmp_path


@pytest.fixture
def server(folder: Path, page: str) -> Iterator[Server]:
    with starter(folder) as weir:
        yield start(weir, folder, POLICY.format(origin=page), threads=4, static="/files=files")


def fetch(browser: webdriver.Browser, url: str, user: str | None = None, tier: str | None = None,
          **options: Any) -> dict[str, Any]:
    """What the page sees of it; a POST of JSON, which needs a preflight."""
    headers = {"Content-Type": "application/json"}
    if user:
        headers["Authorization"] = "Bearer " + token(user, **({"app_metadata": {"tier": tier}} if tier else {}))
    browser.run(ASK, url, {"method": "POST", "body": "{}", "credentials": "include", "headers": headers, **options})
    return webdriver.until(f"an answer of {url}", 20, lambda: browser.run("return window.answer"))


def test_the_page_reads_the_reason_of_every_refusal(browser: webdriver.Browser, page: str, server: Server,
                                                    folder: Path) -> None:
    browser.open(page + "/")

    def ask(path: str, *who: str, **options: Any) -> dict[str, Any]:
        got = fetch(browser, server.url + path, *who, **options)
        assert "failed" not in got, (path, got)
        return got

    got = ask("/ai/limited", "ann")
    assert (got["status"], got["limit"].partition(";t=")[0]) == (200, '"user";r=1') and got["policy"]
    assert ask("/ai/limited", "ann")["status"] == 200
    got = ask("/ai/limited", "ann")
    assert (got["status"], got["reason"]) == (429, "rate_limited") and int(got["after"]) > 0

    got = ask("/ai/limited")
    assert (got["status"], got["reason"]) == (401, "no_credentials")
    got = ask("/ai/paid", "ann")
    assert (got["status"], got["reason"]) == (403, "tier")
    assert ask("/ai/paid", "bob", "pro")["status"] == 200
    got = ask("/ai/paid", "bob", "pro")
    assert (got["status"], got["reason"]) == (429, "quota_day") and int(got["after"]) > 0
    got = ask("/files/none", method="GET", body=None)
    assert got["status"] == 404
    got = ask("/", body="x" * 2000)
    assert got["status"] == 413 and "max-body-size" in got["reason"]
    with Client(server.address) as c:
        c.request("GET", "/ai/narrow/hold/a", "Authorization: Bearer " + token("ann"))
        wait_for((folder / "a.in").exists)
        got = ask("/ai/narrow/x", "ann")
        assert (got["status"], got["reason"]) == (503, "queue_full") and int(got["after"]) > 0
        (folder / "a.go").touch()
        assert c.response().status == 200
    got = ask("/ai/slow/hold/late", "ann")
    assert (got["status"], got["reason"]) == (504, "deadline")


def test_cookies_come_along_where_the_page_may(browser: webdriver.Browser, page: str, server: Server,
                                               folder: Path) -> None:
    browser.open(page + "/")
    # Cookies know no ports, so one of the page is one of the server, too.
    browser.run("document.cookie = 'session=' + arguments[0] + '; path=/'", token("ann"))
    assert fetch(browser, server.url + "/ai/limited")["status"] == 200
    got = fetch(browser, server.url + "/ai/limited", credentials="omit")
    assert (got["status"], got["reason"]) == (401, "no_credentials")
    browser.run("document.cookie = 'session=; path=/; max-age=0'")
    assert runs(folder) == 1


def test_a_page_that_may_not_reads_nothing(browser: webdriver.Browser, page: str, server: Server,
                                           folder: Path) -> None:
    browser.open(page + "/")
    assert "failed" in fetch(browser, server.url + "/foreign")
    assert runs(folder) == 0  # its preflight was refused
    assert "failed" in fetch(browser, server.url + "/own-cors", method="GET", body=None)  # the application's own field
