"""docs/protect.md, as a newcomer follows it: its files are accepted, and its commands print what it says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from admission_helpers import limits, members
from harness import ROOT, Starter, parse_head, plain_env
from test_command_line import run

PAGE = (ROOT / "docs" / "protect.md").read_text()
SECTIONS = {m[1]: m[2] for m in re.finditer(r"^## (?:\d+\. )?(.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S)}
APP = """\
import time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/api/ai/build-board":
        time.sleep(0.3)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"a board"]
"""


def blocks(section: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", SECTIONS[section], re.M | re.S)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "api").mkdir()
    (tmp_path / "api" / "index.py").write_text(APP)
    (tmp_path / "jwt").write_text("a secret of the tests, long enough for HS256")
    (tmp_path / "keys.txt").write_text("robot 0123456789abcdef-robot pro\n")
    return tmp_path


@pytest.mark.parametrize("block", re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S))
def test_every_file_of_the_page_is_accepted(folder: Path, block: str) -> None:
    (folder / "weir.yaml").write_text(block.replace("/run/secrets/jwt", str(folder / "jwt")))
    r = run("--check-config", "api.index:app", cwd=folder)
    assert (r.returncode, r.stderr) == (0, "")


def test_ten_lines_behave_as_the_page_says(weir: Starter, folder: Path) -> None:
    (folder / "weir.yaml").write_text(*blocks("One file", "yaml"))
    commands, = blocks("Try it", "sh")
    first, _, rest = commands.partition("\n")
    assert first == "weir --threads 16 api.index:app &"
    server = weir("api.index:app", cwd=folder, threads=16)
    script = rest.replace("http://127.0.0.1:8000", server.url)
    assert script.count(server.url) == 3 and shutil.which("curl")
    r = subprocess.run(["sh", "-ec", script], cwd=folder, env=plain_env(), capture_output=True, text=True, timeout=60)
    assert r.returncode == 0, r.stderr
    assert sorted(r.stdout.split()[:4]) == ["200", "200", "200", "429"]
    assert sorted((folder / f"answer.{i}").read_text() == "a board" for i in range(1, 5)) == [False, True, True, True]

    # The answers that the page prints, and those that came.
    _, again, without = re.split(r"(?=^HTTP/1\.1 )", r.stdout.replace("\r\n", "\n"), flags=re.M)
    printed, = blocks("Try it", "text")
    for text in (printed, again):
        head, _, body = text.partition("\n\n")
        got = parse_head(head.replace("\n", "\r\n").encode())
        assert (got.status, got.get("content-type")) == (429, "application/problem+json")
        assert list(members(got.get("ratelimit-policy") or "")) == [
            ("user", {"q": 10, "w": 60}), ("address", {"q": 30, "w": 60})]
        left = limits(got)
        assert (left["user"]["r"], left["address"]["r"]) == (0, 27)
        assert 12 <= left["user"]["t"] <= 18 and 1 <= left["address"]["t"] <= 6
        after = int(got.get("retry-after") or 0)
        assert 1 <= after <= 6
        body = re.sub(r'"detail":"[^"]+"', '"detail":"…"', body.strip())
        assert body == ('{"type":"about:blank","title":"Too Many Requests","status":429,"detail":"…",'
                        f'"reason":"rate_limited","limit":"user","retry_after":{after}}}')
    assert without.startswith("HTTP/1.1 401 ") and 'WWW-Authenticate: Bearer realm="api"' in without
    assert server.get("/health").status == 200


def test_what_the_page_says_of_the_application_is_what_it_can_read() -> None:
    names = re.findall(r"^\| `(weir\.\w+)` \|", SECTIONS["What the application is told"], re.M)
    source = (ROOT / "src" / "wsgi" / "environ.c").read_text()
    assert names == ["weir.user", "weir.user_by", "weir.tier", "weir.claims"]
    assert all(f'W_KEY({name.replace(".", "_")})' in source for name in names)
