"""docs/hung.md, walked with a real server: an application that hangs in three ways is diagnosed from the status page.

`HUNG_SCREENSHOTS=docs/img` makes the page's pictures anew.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent / "e2e")]

import webdriver  # noqa: E402
from harness import Client, Server, Starter, starter, wait_for  # noqa: E402

HUNG = ROOT / "examples" / "hung"
PAGE = (ROOT / "docs" / "hung.md").read_text(encoding="utf-8")


def line_of(text: str) -> int:
    """The number of the line of the example that holds `text`."""
    return 1 + next(i for i, line in enumerate((HUNG / "app.py").read_text().splitlines()) if text in line)


@pytest.fixture
def weir(tmp_path: Path) -> Iterator[Starter]:
    with starter(tmp_path) as s:
        yield s


def status(admin: Client) -> dict[str, Any]:
    return admin.get("/status.json", host="localhost").json()


def inside(admin: Client, path: str) -> list[dict[str, Any]]:
    return [f for f in status(admin)["flights"] if f["path"] == path and f["state"] == "application"]


def hang(server: Server, admin: Client) -> list[Client]:
    """As the page says: one of each that computes, then those that wait, one after the other."""
    clients = []

    def ask(path: str) -> bool:
        n = len(status(admin)["flights"])
        clients.append(server.client())
        clients[-1].request("GET", path)
        wait_for(lambda: len(status(admin)["flights"]) > n, what=f"{path} has come")
        return bool(inside(admin, path))

    ask("/match")
    wait_for(lambda: inside(admin, "/match"), what="/match runs")
    while not ask("/spin"):  # it has met the worker of /match, and waits there
        assert len(clients) < 20
    for _ in range(10):
        ask("/wait")
    return clients


@pytest.mark.timeout(150)
def test_the_walk_of_the_page_finds_what_hangs_and_where_within_a_minute(weir: Starter) -> None:
    if not shutil.which("node") or not (HERE / "node_modules/playwright-core").is_dir():
        pytest.skip("node or playwright-core is missing: tools/deps test")
    if not os.access(webdriver.CHROMIUM, os.X_OK):
        pytest.skip("Debian's chromium is not installed")
    server = weir("app:app", workers=3, threads=4, admin="127.0.0.1:0", grace="1s", cwd=HUNG, pythonpath=HUNG)
    server.expected_status = (0, 1)  # workers that hang are killed
    port = int(re.search(r"admin listener at http://127\.0\.0\.1:(\d+)/", server.wait_log("admin listener at"))[1])
    with Client(("127.0.0.1", port)) as admin:
        clients = hang(server, admin)
        wait_for(lambda: len(inside(admin, "/wait")) >= 4 and any(
            w["waiting"] and w["busy"] < w["places"] and w["waiting_age"] > 3 for w in status(admin)["workers"]), 30)
        pids = {w["slot"]: w["pid"] for w in status(admin)["workers"]}
        run = subprocess.run(["node", str(HERE / "hung_walk.mjs"), f"http://127.0.0.1:{port}/",
                              *filter(None, [os.environ.get("HUNG_SCREENSHOTS")])], capture_output=True, text=True, timeout=120)
        assert run.returncode == 0, run.stderr[-3000:]
        told = json.loads(run.stdout.splitlines()[-1])
        assert told["complaints"] == []
        assert told["seconds"] < 60
        assert "for a thread, though only" in told["headline"] + told["steps"]
        # Who holds the lock in C, who spins, who waits: each by the line of the application.
        assert "holds the interpreter lock" in told["match"] and f"app.py:{line_of('NAMES.match(text)')}" in told["match"]
        assert "computes" in told["spin"] and re.search(rf"steps .*app\.py:({'|'.join(str(line_of(t)) for t in ('while n', 'n = n // 2', 'if n == 1', 'n = 27'))})", told["spin"])
        assert "waits in futex" in told["wait"] and f"app.py:{line_of('    connections.acquire()')}" in told["wait"]
        assert "holds the interpreter lock" in told["stacks"]
        # And the cure: a fresh process serves.
        assert status(admin)["processes"]["recycled"] == {"asked": 1}
        gone = pids[int(told["recycled"])]
        wait_for(lambda: gone not in [w["pid"] for w in status(admin)["workers"]], 20, "the one that hung has gone")
        assert server.get("/").text == "well\n"
        for c in clients:
            c.close()


def test_the_page_shows_the_example_as_it_is() -> None:
    assert "weir --workers 3 --threads 4 --admin 127.0.0.1:5001 app:app" in PAGE
    for image in re.findall(r"\]\((img/[\w-]+\.png)\)", PAGE):
        assert (ROOT / "docs" / image).stat().st_size < 200_000
    for text, number in re.findall(r"`([^`]+)` \(line (\d+)\)", PAGE):
        assert int(number) == line_of(text)
