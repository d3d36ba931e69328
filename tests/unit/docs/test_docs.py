"""The documentation says what is so: links, options, targets, commands, generated pages."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
BUILD = ROOT / "build"  # what a reader has; sanitizers have nothing to find here
WEIR = BUILD / "weir"

PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md"),
     *(ROOT / "bench").glob("*.md")]
)
READMES = (ROOT / "README.md", ROOT / "README.ru.md")
# Options of others that pages mention, and such as are no settings.
OTHERS = {
    "--help", "--help-all", "--version", "--check-config", "--print-config", "--dump-reference",
    "--host", "--port", "--app", "--call",
    "--name", "--no-name", "--x", "--no-x",  # how options are written
    "--access-logformat",  # Gunicorn's
    "--once", "--json", "--sort", "--rows", "--worker",  # of weir status and weir stacks
    "--quick", "--only", "--list", "--report", "--servers", "--max-minutes", "--instr-peers",
    "--system-site-packages", "--no-build-isolation", "--no-cache-dir",  # of venv and pip
    "--build-arg", "--now",  # of docker and systemctl
    "--if-missing", "--delay-ai", "--delay-db", "--seed", "--check",
}

needs_weir = pytest.mark.skipif(not WEIR.exists(), reason="build/weir is missing")


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    plain = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", lambda m: m[1] or "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    return {anchor(h) for h in re.findall(r"^#+ (.*)$", without_code(path.read_text()), re.M)}


# ---- links ----


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_relative_link_leads_somewhere(page):
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, fragment = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (fragment and fragment not in anchors(target)):
            broken.append(link)
    assert not broken


def test_every_page_is_reachable_from_the_readme():
    seen: set[Path] = set()
    todo = [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in seen or page.suffix != ".md" or not page.exists():
            continue
        seen.add(page)
        for link in re.findall(r"\]\(([^)\s#]+)", without_code(page.read_text())):
            if not re.match(r"[a-z]+:", link):
                todo.append((page.parent / link).resolve())
    missing = {name(p) for p in (ROOT / "docs").glob("*.md")} - {name(p) for p in seen}
    assert not missing


# ---- what is named exists ----


def settings() -> set[str]:
    rows = (ROOT / "src/conf/settings.def").read_text()
    found = set(re.findall(r'^SETTING\(\w+, \w+, "([^"]+)"', rows, re.M))
    assert len(found) > 30
    return found


def gunicorn_options() -> set[str]:
    """With their dashes."""
    rows = (ROOT / "src/conf/gunicorn.def").read_text()
    flags = re.findall(r'^GUNICORN\(\w+, "([^"]*)"', rows, re.M)
    # Pages are searched for words without underscores.
    return {f.partition("_")[0] for found in flags for f in found.split(",") if f.startswith("--")}


def waitress_options() -> set[str]:
    rows = (ROOT / "src/conf/waitress.def").read_text()
    found = set(re.findall(r'^WAITRESS\("([^"]+)"', rows, re.M))
    assert len(found) > 30
    return found


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_option_that_a_page_mentions_exists(page):
    known = {f"--{n}" for n in settings() | waitress_options()}
    known |= {f"--no-{n[2:]}" for n in known} | gunicorn_options() | OTHERS
    # Only where Weir's options can stand: not in command lines of other programs.
    lines = [line for line in page.read_text().splitlines()
             if not re.search(r"systemd-socket-activate|gunicorn |callgrind|chromium|valgrind", line)]
    mentioned = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*[a-z0-9]", "\n".join(lines)))
    assert not mentioned - known


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_variable_that_a_page_mentions_exists(page):
    known = {"WEIR_" + n.upper().replace("-", "_") for n in settings()}
    known |= {"WEIR_PYTHON", "WEIR_MONITOR", "WEIR_OTHER"}
    mentioned = set(re.findall(r"\bWEIR_[A-Z][A-Z_]*[A-Z]\b", page.read_text()))
    assert not mentioned - known


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_make_target_that_a_page_mentions_exists(page):
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z0-9_-]*):", makefile, re.M))
    code = "\n".join(re.findall(r"^```.*?^```|`[^`\n]+`|^    .*$", page.read_text(), re.S | re.M))
    wanted = set()
    for words in re.findall(r"(?:^|[`\s=])make((?: [a-z][a-z0-9_-]*)+)", code, re.M):
        first, *more = words.split()
        wanted |= {first, *(w for w in more if "-" in w)}
    wanted = {w for w in wanted if not w.startswith("fuzz-")}
    assert not wanted - targets


# ---- generated ----


@needs_weir
def test_reference_is_up_to_date():
    run = subprocess.run([ROOT / "tools/reference", "--check"], capture_output=True, text=True,
                         env={**os.environ, "BUILD": "build"})
    assert run.returncode == 0, run.stdout + run.stderr


def test_figures_come_from_results(tmp_path):
    """The script fills both blocks; nothing else of the pages changes; twice is the same as once."""
    results = tmp_path / "results"
    results.mkdir()
    for page in READMES:
        shutil.copy(page, tmp_path)
    env = {**os.environ, "WEIR_RESULTS": str(results), "WEIR_READMES": str(tmp_path)}

    def fill(*args: str) -> int:
        return subprocess.run([sys.executable, ROOT / "tools/readme-figures", *args], env=env,
                              stdout=subprocess.DEVNULL).returncode

    def outside(text: str) -> str:
        return re.sub(r"<!-- figures -->.*<!-- /figures -->", "", text, flags=re.S)

    assert fill() == 0
    assert "make bench" in (tmp_path / "README.md").read_text()

    def row(key, label, value):
        metrics = {"rps": {"median": value, "min": 1, "max": 2}}
        return {"key": key, "label": label, "metrics": metrics, "samples": [{}, {}, {}],
                "busy_samples": 0}

    (results / "hello.json").write_text(json.dumps({
        "scenario": "hello", "date": "2026-01-02T03:04:05+00:00",
        "machine": {"cpu": "A processor", "cores": 2,
                    "versions": {"python3": "3.11.2-1", "python3-waitress": "2.1.2-2", "weir": "0.1.0"}},
        "rows": [row("weir", "Weir", 81234.5), row("waitress", "Waitress, 8 threads", 9876.5),
                 row("gunicorn-gthread", "Gunicorn gthread, 4 threads", None)]}))
    assert fill("--check") == 1
    assert fill() == 0
    assert fill("--check") == 0
    english = (tmp_path / "README.md").read_text()
    assert "| 81,234 | 9,876 (8 threads) | not in the time given (gthread, 4 threads) |" in english
    assert "3 rounds" in english and "waitress 2.1.2" in english
    for page in READMES:
        assert "81,234" in (tmp_path / page.name).read_text()
        assert outside((tmp_path / page.name).read_text()) == outside(page.read_text())


# ---- the two READMEs ----


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.S | re.M)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


def test_both_readmes_name_the_same_commands():
    english, russian = map(commands, READMES)
    assert english == russian
    assert "make run" in english and "make test" in english


# ---- examples, and the pages "From Waitress" and "From Gunicorn" ----


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@contextlib.contextmanager
def serving(command: list[str] | str, folder: Path, env: dict[str, str]) -> Iterator[str]:
    """Run a server until the block ends; yields its URL; the end must be orderly."""
    log = folder / "server.log"
    with open(log, "w") as out:
        process = subprocess.Popen(command, shell=isinstance(command, str), cwd=folder, env=env,
                                   stdin=subprocess.DEVNULL, stdout=out, stderr=out,
                                   start_new_session=True)
    try:
        until = time.monotonic() + 20
        while not (found := re.search(r"serving .* on (http://[^\s,]+)", log.read_text())):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.02)
        yield found[1]
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(20) in (0, -signal.SIGTERM), log.read_text()
        assert "stopped" in log.read_text()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def environment() -> dict[str, str]:
    env = {k: v for k, v in os.environ.items()
           if not k.startswith("WEIR") and k not in ("PORT", "VIRTUAL_ENV", "PYTHONPATH")}
    env["PATH"] = f"{BUILD}:/usr/bin:/bin"
    env["PYTHONPATH"] = str(BUILD / "python")
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    return env


def curl(url: str) -> str:
    run = subprocess.run(["curl", "-sS", "-f", "-m", "20", url], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    return run.stdout


@needs_weir
@pytest.mark.parametrize("app, answer", [("app:app", "Hello from Weir"), ("app:flask_app", "from Flask")])
def test_hello_example_answers(tmp_path, app, answer):
    command = [str(WEIR), "--bind", "127.0.0.1:0", "--chdir", str(ROOT / "examples/hello"), app]
    with serving(command, tmp_path, environment()) as url:
        assert answer in curl(url + "/")
        assert curl(url + "/-/ping") == "pong\n"


def steps(page: Path) -> list[tuple[str, str]]:
    """The blocks below `<!-- run: … -->`: what is said there, and the block."""
    found = re.findall(r"^<!-- run: (.*?) -->\n```\w+\n(.*?)^```", page.read_text(), re.S | re.M)
    assert len(found) > 5
    return found


@needs_weir
@pytest.mark.parametrize("page, servers, seconds", [("from-waitress.md", 3, 3.9), ("from-gunicorn.md", 2, 4.5)])
def test_a_move_can_be_followed_step_by_step(tmp_path, page, servers, seconds):
    port = str(free_port())
    env = environment()
    done = []
    with contextlib.ExitStack() as running:
        for what, block in steps(ROOT / "docs" / page):
            block = block.replace("5000", port)
            verb, _, rest = what.partition(" ")
            if verb == "file":
                (tmp_path / rest).write_text(block)
            elif verb == "server":
                running.close()  # the one before
                running.enter_context(serving("exec " + block.strip(), tmp_path, env))
            elif verb == "prints":
                start = time.monotonic()
                run = subprocess.run(["bash", "-ec", block], cwd=tmp_path, env=env, text=True,
                                     capture_output=True, timeout=60)
                assert rest in run.stdout, (block, run.stdout, run.stderr)
                if "& done; wait" in block:
                    assert run.stdout.count(rest) == 10
                    assert time.monotonic() - start < seconds
            else:
                pytest.fail(f"unknown step: {what}")
            done.append(verb)
    assert done.count("server") == servers


# ---- admission: refusals, policies, and the page "Protect an AI endpoint" ----


def refusals() -> list[tuple[str, str, str, str, str]]:
    """(word, status, code, what it means, what a client should do) of each."""
    rows = (ROOT / "src/admit/refusals.def").read_text()
    found = re.findall(r'^REFUSAL\(\w+, "(\w+)", (\d+), "(\w+)", "([^"]+)", "([^"]+)"\)$', rows, re.M)
    assert len(found) > 10 and len(found) == rows.count("\nREFUSAL(")
    return found


def test_each_refusal_has_its_row_and_its_section_with_the_status():
    page = (ROOT / "docs/refusals.md").read_text()
    table = re.findall(r"^\| (\d+) \| \[`(\w+)`\]\(#(\w+)\) \| (.+) \| (.+) \|$", page, re.M)
    assert table == [(status, word, word, means, cure) for word, status, _, means, cure in refusals()]
    sections = re.findall(r"^## (\w+)\n\nStatus (\d+); `code` of OpenAI's error object: `(\w+)`\.\n\n(.+)", page, re.M)
    assert [s[:3] for s in sections] == [(word, status, code) for word, status, code, _, _ in refusals()]


def test_the_page_of_the_example_has_words_for_refusals():
    script = (ROOT / "examples/board/static/board.js").read_text()
    words = set(re.findall(r'case "(\w+)":', script))
    known = {word for word, *_ in refusals()}
    assert not words - known
    assert {"rate_limited", "queue_full", "queue_late", "queue_wait", "deadline", "no_credentials"} <= words


def policies() -> list[tuple[str, str]]:
    """Each block of YAML of the pages that is a file of Weir: (page and number, text)."""
    found = []
    for page in PAGES:
        for i, text in enumerate(re.findall(r"^```yaml\n(.*?)^```", page.read_text(), re.S | re.M)):
            found.append((f"{name(page)}-{i + 1}", text))
    assert len(found) > 50
    return found


@needs_weir
@pytest.mark.parametrize("text", [pytest.param(text, id=name) for name, text in policies()])
def test_each_file_that_a_page_shows_is_accepted(tmp_path, text):
    """Settings are read; a policy is checked with the files that it names."""
    (tmp_path / "app.py").write_text("def app(environ, start):\n    start('200 OK', [])\n    return [b'']\n")
    for file in ("jwt.secret", "secret"):
        (tmp_path / file).write_text("a secret of more than 32 bytes, for tests\n")
    (tmp_path / "public/assets").mkdir(parents=True)
    (tmp_path / "keys.txt").write_text("shop k-0123456789abcdef\n")
    key = {"kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
           "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}  # of RFC 7515, A.3
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": [key]}))
    (tmp_path / "weir.yaml").write_text(text.replace("/run/secrets/jwt", "secret").replace("/srv/shop", "."))
    policy = re.search(r"^(identify|tiers|cors|routes):", text, re.M)
    run = subprocess.run([WEIR, "--check-config" if policy else "--print-config", "app:app"], cwd=tmp_path,
                         env=environment(), capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr


MODEL = """\
import time

def app(environ, start):
    if environ["REQUEST_METHOD"] == "POST":
        time.sleep(1)
    start("200 OK", [("Content-Type", "text/plain")])
    return [environ.get("weir.user_by", "nobody").encode()]
"""


@needs_weir
def test_an_ai_endpoint_is_protected_by_what_the_page_shows(tmp_path):
    """docs/protect.md from its start, literally but for the port."""
    page = (ROOT / "docs/protect.md").read_text()
    ((_, file), (_, start), (_, asks), *_) = re.findall(r"^```(yaml|sh)\n(.*?)^```", page, re.S | re.M)
    shown = re.search(r"^```text\n(.*?)^```", page, re.S | re.M)
    (tmp_path / "api").mkdir()
    (tmp_path / "api/index.py").write_text(MODEL)
    (tmp_path / "weir.yaml").write_text(file)
    port = str(free_port())
    env = {**environment(), "WEIR_BIND": f"127.0.0.1:{port}"}
    with serving("exec " + start.strip(), tmp_path, env) as url:
        run = subprocess.run(["bash", "-ec", asks.replace("8000", port)], cwd=tmp_path, env=env, text=True,
                             capture_output=True, timeout=60)
        assert curl(url + "/health") == "nobody"
    assert re.findall(r"^200$", run.stdout, re.M) == ["200"] * 3, run.stdout
    heads = re.findall(r"^HTTP/1.1 (429|401) ", run.stdout, re.M)
    assert heads == ["429", "401"], run.stdout
    assert '"reason":"no_credentials"' in run.stdout and "\nWWW-Authenticate: Bearer" in run.stdout.replace("\r", "")
    # The page shows the fields and the body in the form in which they came.
    told = run.stdout.replace("\r", "")
    for line in shown[1].strip().splitlines():
        form = "".join("[0-9]+" if part.isdigit() else re.escape(part).replace("…", '[^"]+')
                       for part in re.split(r"(?<=[=:; ])(\d+)", line))
        assert re.search(f"^{form}$", told, re.M), (line, told)
