"""The status page in Chromium: page_tests.mjs does it with Playwright; each of its tests is one here.

Needs node, the npm package of package.json beside this file (tools/deps test installs both), and Debian's chromium.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SCRIPT = HERE / "page_tests.mjs"

sys.path.insert(0, str(HERE))

import fake_admin  # noqa: E402
import webdriver  # noqa: E402


def names() -> list[str]:
    """The tests of the script; one of them stands in two loops."""
    text = SCRIPT.read_text(encoding="utf-8")
    plain = re.findall(r'^test\("([^"]+)"', text, re.M)
    assert "for (const width of [1280, 390])" in text and "for (const dark of [false, true])" in text
    looks = [
        f"at {width} pixels, {tone}: nothing is too wide, and every text can be read"
        for width in (1280, 390) for tone in ("light", "dark")
    ]
    return plain + looks


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, Any]]:
    """Run them all once, in one browser."""
    if not shutil.which("node") or not (HERE / "node_modules/playwright-core").is_dir():
        pytest.skip("node or playwright-core is missing: tools/deps test")
    if not os.access(webdriver.CHROMIUM, os.X_OK):
        pytest.skip("Debian's chromium is not installed")
    run = subprocess.run(["node", str(SCRIPT)], capture_output=True, text=True, timeout=600)
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    found = {line["name"]: line for line in lines}
    found[""] = {"error": f"it did not run; node said:\n{run.stderr[-3000:]}"}
    return found


@pytest.mark.timeout(620)
@pytest.mark.parametrize("name", names())
def test_page(results: dict[str, dict[str, Any]], name: str) -> None:
    result = results.get(name) or results[""]
    assert not result["error"], result["error"]


def test_no_test_of_the_script_is_left_out(results: dict[str, dict[str, Any]]) -> None:
    assert set(results) - {""} == set(names())


def test_the_same_sources_make_the_same_page() -> None:
    first, second = fake_admin.build_page(), fake_admin.build_page()
    assert first.gzip == second.gzip and first.csp == second.csp and first.etag == second.etag


def test_the_page_has_the_words_of_the_tables() -> None:
    html = fake_admin.build_page().html.decode()
    assert '"application":"the application, which runs it"' in html
    assert '"rate_limited":"more requests than the rate' in html
    assert '"client_left":"the client closed while' in html


def test_the_vendored_files_are_those_that_the_readme_names() -> None:
    import hashlib

    folder = ROOT / "third_party" / "uplot"
    told = dict(re.findall(r"^\| `([\w.]+)` \| `([0-9a-f]{64})` \|", (folder / "README.md").read_text(), re.M))
    assert set(told) == {"uPlot.iife.min.js", "uPlot.min.css", "LICENSE"}
    for name, digest in told.items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest, name


def test_the_built_server_has_the_page_of_these_sources() -> None:
    built = ROOT / os.environ.get("WEIR_BUILD", "build") / "admin_page.c"
    if not built.exists():
        pytest.skip("build/ is not built")
    assert fake_admin.build_page().etag.strip('"') in built.read_text(encoding="ascii")
