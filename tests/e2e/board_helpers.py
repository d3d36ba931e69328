"""Starting the board example for tests: the rehearsal server, the server command, fixtures."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
BOARD = ROOT / "examples" / "board"
PYTHON = "/usr/bin/python3"  # Debian's: Flask and requests are its packages
START_SECONDS = 30

# A small package list with one record of each sort the reader must understand.
PACKAGES = """\
Package: filmcut
Version: 1.0
Installed-Size: 2048
Description: video editor for short films
Homepage: https://example.org/filmcut
Description-md5: 11111111111111111111111111111111
Tag: role::program, works-with::video,
 uitoolkit::gtk
Section: video

Package: filmcut-data
Installed-Size: 10
Description: video editor for short films (data files)
Section: video

Package: libfilm-dev
Description: non-linear video editing library
Section: libdevel

Package: filmcut-doc
Description: handbook of the video editor
Section: doc

Package: filmcut
Version: 1.1
Description: a second record of the same name
Section: video

Package: subtitler
Installed-Size: many
Description: subtitle editor
 Subtitles are lines of text under a film.
 They have times.
 .
 It knows:
  * three formats
  * two speeds
Section: contrib/video

Package: skychart
Description: planetarium that shows stars & planets
Section: science

Package: nameless-description
Section: misc

Package: converter
Description: video converter, 100 % free
Section: video

Package: recorder
Description: screen recorder and media player
Section: video
"""

TRANSLATION = """\
Package: filmcut
Description-md5: 11111111111111111111111111111111
Description-en: video editor for short films
 Cuts films with a timeline.
 .
 Renders them as well.
"""

LONG_PROMPT_CHARS = 2001


def until(what: str, ready: Callable[[], Any], seconds: float = START_SECONDS) -> Any:
    """Ask again and again until the answer is true, and return it."""
    deadline = time.monotonic() + seconds
    while True:
        result = ready()
        if result:
            return result
        assert time.monotonic() < deadline, f"{what}: not within {seconds:g} s"
        time.sleep(0.02)


def server_command() -> list[str] | None:
    """The command of the server under test, or None when it is not built yet."""
    command = shlex.split(os.environ.get("WEIR", ""))
    if command:
        return command
    built = ROOT / "build" / "weir"
    return [str(built)] if os.access(built, os.X_OK) else None


def build_catalogue(folder: Path, packages: str = PACKAGES) -> Path:
    """A catalogue of the small package list in `folder`."""
    (folder / "Packages").write_text(packages, encoding="utf-8")
    (folder / "Translation-en").write_text(TRANSLATION, encoding="utf-8")
    path = folder / "catalogue.db"
    command = [PYTHON, str(BOARD / "catalogue.py"), "--output", str(path)]
    command += ["--packages", str(folder / "Packages")]
    command += ["--translation", str(folder / "Translation-en")]
    subprocess.run(command, check=True, timeout=60, stderr=subprocess.DEVNULL)
    return path


@dataclass
class Process:
    """A server started for a test. `output` is what it has written so far."""

    child: subprocess.Popen[bytes]
    log: Path
    port: int = 0

    def output(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, how: int = signal.SIGTERM, seconds: float = 20) -> int:
        """Send a signal and return the exit status; kills what does not obey."""
        if self.child.poll() is None:
            self.child.send_signal(how)
        try:
            return self.child.wait(seconds)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            raise AssertionError(f"did not end: {self.output()[-2000:]}") from None


def clean_env(**more: str) -> dict[str, str]:
    """This environment without anything that steers the example, and with `more`."""
    prefixes = ("DEEPSEEK_", "SUPABASE_", "BOARD_", "REHEARSAL_", "HOST", "PORT", "PYTHONPATH")
    env = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    for name in list(env):
        if name.lower().endswith("_proxy"):
            del env[name]
    return {**env, **more}


@contextlib.contextmanager
def started(command: list[str], log: Path, env: dict[str, str] | None = None) -> Iterator[Process]:
    """A process whose output goes to a file, and which is gone afterwards."""
    with open(log, "wb") as out:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=env or clean_env(),
            start_new_session=True,
        )
    process = Process(child, log)
    try:
        yield process
    finally:
        process.stop()


def read_port(process: Process, pattern: str) -> int:
    """The port a process prints, as the first group of `pattern`."""

    def port() -> int | None:
        found = re.search(pattern, process.output())
        if not found and process.child.poll() is not None:
            raise AssertionError(f"ended at once: {process.output()[-2000:]}")
        return int(found[1]) if found else None

    return int(until(f"{pattern} in {process.log.name}", port))


@contextlib.contextmanager
def rehearsal(folder: Path, catalogue: Path, *options: str) -> Iterator[Process]:
    """The rehearsal server on a free port."""
    command = [PYTHON, str(BOARD / "rehearsal.py"), "--catalogue", str(catalogue), *options]
    with started(command, folder / "rehearsal.log") as process:
        process.port = read_port(process, r"rehearsal: http://127\.0\.0\.1:([0-9]+)\n")
        yield process


@contextlib.contextmanager
def board(
    folder: Path, catalogue: Path, *options: str, delays: str = "", **env: str
) -> Iterator[Process]:
    """`run` with its rehearsal server on a free port; `delays` are options of rehearsal.py."""
    env = {"PORT": "0", "BOARD_CATALOGUE": str(catalogue), "REHEARSAL_ARGS": delays, **env}
    command = [PYTHON, str(BOARD / "run"), *options]
    with started(command, folder / "run.log", clean_env(**env)) as process:
        process.port = read_port(process, r"Board is ready: http://127\.0\.0\.1:([0-9]+)/")
        yield process


def other_policy(folder: Path, *changes: tuple[str, str]) -> str:
    """A copy of the example's weir.yaml with some texts replaced."""
    text = (BOARD / "weir.yaml").read_text()
    for old, new in changes:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    path = folder / "policy.yaml"
    path.write_text(text)
    return str(path)


@dataclass
class Answer:
    """One HTTP answer. Header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def ask(
    port: int,
    method: str,
    path: str,
    body: bytes | str | None = None,
    headers: dict[str, str] | None = None,
    timeout: float = 60,
) -> Answer:
    """One request on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        data = body.encode() if isinstance(body, str) else body
        connection.request(method, path, data, headers or {})
        reply = connection.getresponse()
        found = {name.lower(): value for name, value in reply.getheaders()}
        return Answer(reply.status, found, reply.read())
    finally:
        connection.close()


def build(port: int, prompt: str, token: str = "tester", timeout: float = 60) -> Answer:
    """Ask for a board."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    body = json.dumps({"prompt": prompt})
    return ask(port, "POST", "/api/ai/build-board", body, headers, timeout)


@contextlib.contextmanager
def fake_upstream(
    status: int = 200, body: bytes = b"", silent: bool = False
) -> Iterator[str]:
    """A service that answers everything alike, or never. Yields its URL."""
    release = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            if silent:
                release.wait(30)
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        release.set()
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextlib.contextmanager
def refused_port() -> Iterator[int]:
    """A port of this machine on which nothing listens while the block lasts."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        yield held.getsockname()[1]


def import_board() -> None:
    """Make the example's own modules importable."""
    if str(BOARD) not in sys.path:
        sys.path.insert(0, str(BOARD))
