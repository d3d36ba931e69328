"""`weir status` and `weir stacks` against an admin listener that the test plays: what they ask, what they
show in a pipe and on a terminal, and how they say what is wrong."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from harness import PATIENCE, PYTHON, ROOT, wait_for, weir_command

BUILD = ROOT / os.environ.get("WEIR_BUILD", "build")

STATUS = {
    "weir": "0.2.0", "now": 1764442153.12, "started": 1764438000.5, "ready": True, "unready": None,
    "totals": {"requests": 12034, "open": 12}, "processes": {"crashed": 0, "recycled": {}},
    "workers": [
        {"slot": 0, "pid": 4711, "state": "ready", "held": False, "recycle": "none", "beat_age": 0.4, "places": 8,
         "busy": 3, "stuck": 0, "waiting": 0, "open": 6, "requests": 6000, "rss_bytes": 41000000},
        {"slot": 1, "pid": 4712, "state": "draining", "held": False, "recycle": "none", "beat_age": 0.1, "places": 8,
         "busy": 0, "stuck": 0, "waiting": 0, "open": 6, "requests": 6034, "rss_bytes": 41000000},
    ],
    "routes": [{"route": "POST /api/ai/*", "requests": 300, "in_flight": 3, "statuses": {"200": 290}, "refused": {},
                "total": {"p50": 0.9, "p95": 4.1, "p99": 9.0},
                "gate": {"running": 3, "concurrency": 8, "waiting": 0, "size": 100, "head_age": None}}],
    "queues": [], "flights_total": 3, "flights_by_state": {"application": 3},
    "flights": [
        {"worker": 0, "id": 1234 + i, "state": "application", "age": 12.4 - i, "in_state": 11.9 - i, "method": "POST",
         "path": "/api/ai/board-%d" % i, "route": "POST /api/ai/*", "user": "jwt:%d" % i, "slow": False}
        for i in range(3)
    ],
}
HISTORY = {"columns": ["at", "requests", "failed", "refused", "p50", "p95", "p99"],
           "seconds": [[100.0, 7, 0, 0, 0.5, 0.6, 0.7]], "steps": [[90.0, 1, 0, 0, 1, 1, 1], [110.0, 42, 0, 0, 0.012, 0.3, 1.2]]}
STACKS = {"now": 1.0, "workers": [
    {"slot": 0, "pid": 4711, "state": "ready", "error": None, "took": 0.004, "threads": [
        {"thread": 4720, "name": "weir-app-3", "python": True, "state": "S", "cpu": 0.1, "waits_in": "clock_nanosleep",
         "lock": "free", "request": {"id": 1234, "method": "POST", "path": "/api/ai/board-0", "user": "jwt:0",
                                     "age": 12.4, "state": "application"},
         "frames": [{"function": "build", "file": "/srv/app/board.py", "line": 41, "source": "time.sleep(30)"}],
         "more_frames": False, "complete": True}]}]}


class Listener:
    """The admin listener, as the test wants it to be."""

    def __init__(self) -> None:
        self.status = copy.deepcopy(STATUS)
        self.stacks = copy.deepcopy(STACKS)
        self.token = ""
        self.answer: tuple[int, bytes] | None = None  # in place of every other one
        self.asked: list[str] = []
        self.hosts: list[str] = []
        self.events = 0  # streams that are open now
        self.server: ThreadingHTTPServer | None = None
        self.port = 0
        self.changed = threading.Condition()
        self.stopping = False

    def start(self) -> None:
        listener = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                with contextlib.suppress(OSError):
                    listener.do(self)

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False

            def handle_error(self, *_: object) -> None:
                pass

        self.stopping = False
        self.server = Server(("127.0.0.1", self.port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        assert self.server
        with self.changed:
            self.stopping = True
            self.changed.notify_all()
        self.server.shutdown()
        self.server.server_close()

    def change(self, **members: object) -> None:
        """What the next event says."""
        with self.changed:
            self.status.update(members)
            self.changed.notify_all()

    def do(self, h: BaseHTTPRequestHandler) -> None:
        self.asked.append(h.path)
        self.hosts.append(h.headers["Host"])
        if self.answer:
            return self.send(h, *self.answer)
        if self.token and h.headers["Authorization"] != "Bearer " + self.token:
            return self.send(h, 401, b"who asks?")
        path = urlsplit(h.path).path
        if path == "/events":
            return self.stream(h)
        bodies = {"/status.json": self.status, "/history.json": HISTORY, "/stacks.json": self.stacks}
        if path not in bodies:
            return self.send(h, 404, b"")
        return self.send(h, 200, json.dumps(bodies[path]).encode())

    def send(self, h: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
        h.send_response(status)
        h.send_header("Content-Length", str(len(body)))
        h.end_headers()
        h.wfile.write(body)

    def stream(self, h: BaseHTTPRequestHandler) -> None:
        h.send_response(200)
        h.send_header("Content-Type", "text/event-stream")
        h.end_headers()
        with self.changed:
            self.events += 1
            try:
                while not self.stopping:
                    point = {"at": 1.0, "requests": 99, "failed": 0, "refused": 0, "p50": 0.003, "p95": 0.004, "p99": 0.005}
                    h.wfile.write(b": hello\n\nevent: point\ndata: %s\n\nevent: status\ndata: %s\n\n"
                                  % (json.dumps(point).encode(), json.dumps(self.status).encode()))
                    h.wfile.flush()
                    self.changed.wait(1)
            finally:
                self.events -= 1

    def last(self, path: str) -> dict[str, list[str]] | None:
        """The query of the newest question for `path`."""
        found = [urlsplit(target) for target in self.asked if urlsplit(target).path == path]
        return parse_qs(found[-1].query) if found else None


@pytest.fixture
def listener() -> Iterator[Listener]:
    it = Listener()
    it.start()
    yield it
    it.stop()


def command(word: str) -> list[str]:
    return [*weir_command(), word]


def environment(**more: str) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items()
           if not k.startswith(("WEIR_", "PORT")) and k not in ("COLUMNS", "LINES", "NO_COLOR")}
    if os.environ.get("WEIR_ASAN_RUNTIME"):
        env["LD_PRELOAD"] = os.environ["WEIR_ASAN_RUNTIME"]
    return {**env, "LC_ALL": "C.UTF-8", **more}


def run(word: str, *arguments: str, cwd: Path | None = None, python: bool = False,
        **env: str) -> subprocess.CompletedProcess:
    words = [PYTHON, "-m", "weir", word] if python else command(word)
    more = {"PYTHONPATH": str(BUILD / "python"), **env} if python else env
    return subprocess.run([*words, *arguments], text=True, capture_output=True, cwd=cwd or "/",
                          env=environment(**more), timeout=60 * PATIENCE, stdin=subprocess.DEVNULL)


def good(done: subprocess.CompletedProcess) -> str:
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def wrong(done: subprocess.CompletedProcess, status: int = 1) -> str:
    assert done.returncode == status and done.stdout == "", done
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("weir: "), done
    return done.stderr


# ---- where there is no terminal ----


@pytest.mark.parametrize("python", [False, True], ids=["native", "python"])
def test_status_is_printed_once_where_there_is_no_terminal(listener: Listener, python: bool) -> None:
    out = good(run("status", "--admin", f"127.0.0.1:{listener.port}", python=python))
    assert "\x1b" not in out
    assert all(len(line) <= 80 for line in out.split("\n"))
    assert out.startswith(f"weir 0.2.0  127.0.0.1:{listener.port}  ready  up 1h 9m")
    assert "requests 42.0/s  p50 12ms  p95 300ms  p99 1.2s" in out  # the newest point: of a step
    for line in ("4711 ready", "4712 draining", "POST /api/ai/*", "jwt:2          POST /api/ai/board-2"):
        assert line in out
    assert listener.last("/status.json") == {"flights": ["20"], "sort": ["age"], "brief": ["yes"]}
    assert listener.hosts[0] == f"127.0.0.1:{listener.port}"


def test_options_of_status_are_asked_for(listener: Listener) -> None:
    where = ("--admin", f"127.0.0.1:{listener.port}")
    good(run("status", *where, "--sort=user", "--rows", "7", "--worker", "1"))
    assert listener.last("/status.json") == {"flights": ["7"], "sort": ["user"], "worker": ["1"], "brief": ["yes"]}
    out = good(run("status", *where, "--worker=1", COLUMNS="120"))
    assert "4712" in out and "4711" not in out
    assert re.search(r"AGE +STATE +IN IT +WORKER +USER +ROUTE +ID +REQUEST", out)
    assert json.loads(good(run("status", *where, "--json"))) == STATUS
    assert listener.last("/status.json") == {"flights": ["1000"], "sort": ["age"]}


def test_texts_of_clients_cannot_steer_a_terminal(listener: Listener) -> None:
    listener.status["flights"][0].update(path="/\x1b[2J\r\n\u202e", user="\x07")
    listener.stacks["workers"][0]["threads"][0]["frames"][0].update(source="\x1b]0;x\x07", function="a\nb")
    where = ("--admin", f"127.0.0.1:{listener.port}")
    out = good(run("status", *where)) + good(run("stacks", *where))
    assert not [c for c in out if c != "\n" and not c.isprintable()]
    assert "POST /?[2J???" in out and "a?b  /srv/app/board.py:41" in out


def test_an_old_encoding_gets_what_it_can_show(listener: Listener) -> None:
    listener.status["flights_total"] = 20
    out = good(run("status", "--admin", f"127.0.0.1:{listener.port}", LC_ALL="C", PYTHONUTF8="0",
                   PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="latin-1"))
    assert "... and 17 more" in out


def test_a_reader_that_leaves_is_no_error(listener: Listener) -> None:
    listener.stacks["workers"] *= 20000
    with subprocess.Popen([*command("stacks"), "--admin", f"127.0.0.1:{listener.port}"], stdout=subprocess.PIPE,
                          stderr=subprocess.PIPE, env=environment(), cwd="/") as p:
        assert p.stdout and p.stderr
        assert p.stdout.readline().startswith(b"worker 0")
        p.stdout.close()
        assert p.stderr.read() == b""
        assert p.wait(30 * PATIENCE) == 1


@pytest.mark.parametrize("python", [False, True], ids=["native", "python"])
def test_stacks_are_printed(listener: Listener, python: bool) -> None:
    where = ("--admin", f"127.0.0.1:{listener.port}")
    out = good(run("stacks", *where, python=python))
    assert out.splitlines() == [
        "worker 0, pid 4711, ready, looked at in 4ms",
        "  thread 4720 weir-app-3: waits, in clock_nanosleep, cpu 0.10s",
        "    request 1234: POST /api/ai/board-0 of jwt:0, application, for 12s",
        "    stack, newest call first:",
        "      build  /srv/app/board.py:41",
        "          time.sleep(30)",
    ]
    assert json.loads(good(run("stacks", *where, "--json", "--worker=0"))) == STACKS
    assert listener.last("/stacks.json") == {"worker": ["0"]}
    listener.stacks["workers"] = []
    assert "there is no worker 5; weir status lists them" in wrong(run("stacks", *where, "--worker=5"))


# ---- how the listener is found ----


def test_the_address_is_that_of_the_option_or_of_the_settings(listener: Listener, tmp_path: Path) -> None:
    here = f"127.0.0.1:{listener.port}"
    nobody = "127.0.0.1:1"
    (tmp_path / "weir.yaml").write_text(f"admin: {here}\n")
    (tmp_path / "other.yaml").write_text(f"admin: {here}\n")
    (tmp_path / "sub").mkdir()
    for arguments, env, cwd in (
        (["--admin", here], {}, "sub"),
        (["--admin=" + here], {"WEIR_ADMIN": nobody}, "sub"),
        (["--admin", f"http://{here}/"], {}, "sub"),
        ([], {"WEIR_ADMIN": here}, "sub"),
        ([], {"WEIR_ADMIN": f"*:{listener.port}", "WEIR_ADMIN_TOKEN": "t" * 16}, "sub"),
        ([], {}, ""),
        (["-c", "../other.yaml"], {}, "sub"),
        (["--config=../other.yaml"], {}, "sub"),
        (["--chdir", "sub", "api.index:app"], {"WEIR_ADMIN": here}, ""),  # as the server was started
    ):
        out = good(run("status", *arguments, cwd=tmp_path / cwd, **env))
        assert f"  {here}  ready" in out, arguments


def test_a_unix_socket_is_asked(tmp_path: Path) -> None:
    for path in (str(tmp_path / "admin.sock"), f"@weir-test-{os.getpid()}"):
        with socket.socket(socket.AF_UNIX) as s:
            s.bind("\0" + path[1:] if path.startswith("@") else path)
            s.listen()
            heads: list[bytes] = []

            def serve(s: socket.socket = s, heads: list[bytes] = heads) -> None:
                connection, _ = s.accept()
                with connection:
                    heads.append(connection.recv(65536))
                    body = json.dumps(STACKS).encode()
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

            thread = threading.Thread(target=serve, daemon=True)
            thread.start()
            assert "weir-app-3" in good(run("stacks", "--admin", "unix:" + path))
            thread.join(10)
            assert b"Host: localhost\r\n" in heads[0]


def test_the_token_comes_from_the_option_the_environment_or_the_settings(listener: Listener, tmp_path: Path) -> None:
    listener.token = "open-sesame"
    (tmp_path / "token").write_text("open-sesame\n")
    (tmp_path / "wrong").write_text("open\n")
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "weir.yaml").write_text(f"admin: 127.0.0.1:{listener.port}\nadmin-token-file: token\n")
    (tmp_path / "sub").mkdir()
    where = ["--admin", f"127.0.0.1:{listener.port}"]
    for arguments, env, cwd in (
        ([*where, "--admin-token-file", "../token"], {}, "sub"),
        ([*where, "--admin-token-file", "../token"], {"WEIR_ADMIN_TOKEN": "open"}, "sub"),
        (where, {"WEIR_ADMIN_TOKEN": "open-sesame"}, "sub"),
        (where, {"WEIR_ADMIN_TOKEN_FILE": "../token"}, "sub"),
        ([], {}, ""),
    ):
        assert "weir 0.2.0" in good(run("status", *arguments, cwd=tmp_path / cwd, **env)), (arguments, env)
    said = wrong(run("status", *where))
    assert "asks for a token: give --admin-token-file FILE, or WEIR_ADMIN_TOKEN" in said
    said = wrong(run("status", *where, "--admin-token-file", "wrong", cwd=tmp_path))
    assert "refuses the token of wrong: it is another one than the server's" in said
    said = wrong(run("status", *where, WEIR_ADMIN_TOKEN="open"))
    assert "WEIR_ADMIN_TOKEN" in said and "open" not in said.replace("open-", "").split("token of")[1][:5]
    assert "'empty' is empty" in wrong(run("status", *where, "--admin-token-file=empty", cwd=tmp_path))
    assert "cannot read the admin token from 'none': No such file" in wrong(
        run("status", *where, "--admin-token-file=none", cwd=tmp_path))


# ---- what may be wrong ----


def test_what_is_wrong_is_told_with_its_cure(listener: Listener) -> None:
    with socket.create_server(("127.0.0.1", 0)) as s:
        closed = s.getsockname()[1]
    said = wrong(run("status"))
    assert "no admin listener is configured: start the server with --admin 127.0.0.1:5001" in said
    said = wrong(run("stacks", "--admin", f"127.0.0.1:{closed}"))
    assert f"127.0.0.1:{closed}: connection refused; is the server running" in said
    assert "there is no such socket" in wrong(run("status", "--admin", "unix:/nowhere/a.sock"))
    where = ["--admin", f"127.0.0.1:{listener.port}"]
    for answer, words in (
        ((404, b""), "is no admin listener of this version of weir"),
        ((200, b"<html>"), "is no admin listener of weir"),
        ((200, b"[1]"), "is no admin listener of weir"),
        ((421, b""), "does not answer to the name '127.0.0.1'"),
        ((503, b'{"error": "the server\\u001b stops"}'), "answered with 503: the server? stops"),
    ):
        listener.answer = answer
        assert words in wrong(run("status", *where)), answer
    listener.answer = (200, b"nonsense")
    assert "is no admin listener" in wrong(run("stacks", *where, "--json"))


def test_wrong_usage_has_a_sentence_and_status_2(listener: Listener, tmp_path: Path) -> None:
    for arguments, words in (
        (["--rows", "many"], "--rows: 'many' is not a number from 0 to 1000"),
        (["--sort", "size"], "--sort"),
        (["--worker=-1"], "--worker: '-1' is not a number"),
        (["--admin"], "--admin: expected one argument"),
    ):
        assert words in wrong(run("status", *arguments), 2), arguments
    for address in ("", "unix:", "a:b", "1.2.3.4:99999", "127.0.0.1:0", "::1:5001", "http://"):
        if address:
            assert wrong(run("status", "--admin", address)).startswith("weir: admin: "), address
    assert "--once" in wrong(run("stacks", "--once"))
    assert "unknown option; did you mean --threads?" in wrong(run("status", "--thread", "8"))
    (tmp_path / "weir.yaml").write_text("admin: [\n")
    assert "weir.yaml" in wrong(run("status", cwd=tmp_path))
    # An address that is given does not need settings that can be read.
    good(run("status", "--admin", f"127.0.0.1:{listener.port}", cwd=tmp_path))
    help_text = good(run("status", "--help"))
    assert "--admin-token-file" in help_text and all(len(line) <= 100 for line in help_text.split("\n"))


# ---- on a terminal ----


class Terminal:
    """A terminal with the program in it. Each frame begins with the cursor at home and ends with the rest erased."""

    def __init__(self, *arguments: str, columns: int = 80, lines: int = 24, word: str = "status", **env: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            argv = [*command(word), *arguments]
            os.chdir("/")
            os.execve(argv[0], argv, environment(TERM="xterm", **env))
        self.size(columns, lines)
        self.seen = ""
        self.status: int | None = None

    def size(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def read(self) -> bool:
        """What there is now; False: the program has ended."""
        while select.select([self.fd], [], [], 0)[0]:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                return False
            if not data:
                return False
            self.seen += data.decode(errors="replace")
        return True

    def frame(self) -> list[str]:
        """The newest whole frame, without styles."""
        self.read()
        frames = re.findall(r"\x1b\[H((?:(?!\x1b\[H).)*?)\x1b\[J", self.seen, re.S)
        return re.sub(r"\x1b\[[0-9;]*[mK]", "", frames[-1]).split("\r\n") if frames else []

    def until(self, words: str) -> list[str]:
        def found() -> list[str] | None:
            frame = self.frame()
            return frame if words in "\n".join(frame) else None

        try:
            return wait_for(found, 20, words)
        except AssertionError:
            raise AssertionError("no %r in %s" % (words, "\n".join(self.frame()) or repr(self.seen))) from None

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def end(self) -> int:
        """Wait for the end; the exit code."""
        def ended() -> bool:
            self.read()
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            return bool(pid)

        wait_for(ended, 20, "the end of the program")
        self.read()
        assert self.status is not None
        return self.status

    def close(self) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@contextlib.contextmanager
def terminal(listener: Listener, *arguments: str, **more: object) -> Iterator[Terminal]:
    t = Terminal("--admin", f"127.0.0.1:{listener.port}", *arguments, **more)  # type: ignore[arg-type]
    try:
        yield t
    finally:
        t.close()


def test_status_is_alive_on_a_terminal_and_gives_it_back(listener: Listener) -> None:
    with terminal(listener) as t:
        before = termios.tcgetattr(t.fd)
        frame = t.until("requests 99.0/s  p50 3ms")
        assert frame[0].startswith("weir 0.2.0") and len(frame) <= 24
        assert frame[-1] == "q quit  s sort: age  +/- rows"
        assert t.seen.startswith("\x1b[?1049h\x1b[?25l")
        assert not termios.tcgetattr(t.fd)[3] & termios.ICANON
        listener.change(ready=False, unready="draining")
        assert "\x1b[31mweir" in t.seen or t.until("not ready: draining")
        t.until("not ready: draining")
        t.type("\x1b[A")  # an arrow: nothing
        t.type("q")
        assert t.end() == 0
        assert t.seen.endswith("\x1b[?25h\x1b[?1049l")
        assert termios.tcgetattr(t.fd)[3] == before[3]
    wait_for(lambda: listener.change() or listener.events == 0, 10, "the stream is closed")


def test_keys_change_order_and_rows(listener: Listener) -> None:
    with terminal(listener) as t:
        t.until("board-2")
        t.type("s")
        t.until("s sort: user")
        assert wait_for(lambda: (listener.last("/events") or {}).get("sort") == ["user"])
        t.type("sss")
        t.until("s sort: age")
        t.type("-")
        frame = t.until("… and 1 more")
        assert "board-2" not in "\n".join(frame)
        t.type("--")
        t.until("… and 3 more")
        t.type("+")
        assert "board-0" in "\n".join(t.until("… and 2 more"))
        t.type("q")
        assert t.end() == 0


def test_a_terminal_that_changes_its_size_is_filled_again(listener: Listener) -> None:
    listener.change(flights=STATUS["flights"] * 30, flights_total=90)
    with terminal(listener, columns=80, lines=24) as t:
        t.until("q quit")
        for columns, lines in ((120, 40), (40, 10), (80, 24)):
            t.size(columns, lines)
            os.kill(t.pid, signal.SIGWINCH)

            def fits(columns: int = columns, lines: int = lines) -> bool:
                frame = t.frame()
                return len(frame) == lines and max(map(len, frame)) in (columns, columns - 1, columns - 2)

            wait_for(fits, 10, f"a frame of {columns} x {lines}")
        t.type("q")
        assert t.end() == 0


def test_ctrl_c_and_signals_end_it_and_give_the_terminal_back(listener: Listener) -> None:
    for end in ("\x03", signal.SIGTERM):
        with terminal(listener) as t:
            t.until("q quit")
            if isinstance(end, str):
                t.type(end)
                assert t.end() == 130
            else:
                os.kill(t.pid, end)
                assert t.end() == 128 + signal.SIGTERM
            assert t.seen.endswith("\x1b[?25h\x1b[?1049l")


def test_no_color_is_honoured(listener: Listener) -> None:
    listener.change(ready=False, unready="draining")
    for env, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
        with terminal(listener, **env) as t:
            t.until("not ready: draining")
            assert ("\x1b[31m" in t.seen) == coloured
            t.type("q")
            assert t.end() == 0


def test_a_server_that_vanishes_is_told_and_found_again(listener: Listener) -> None:
    with terminal(listener) as t:
        t.until("q quit")
        listener.stop()
        t.until("trying again")
        frame = t.until("connection refused")
        assert "board-0" in "\n".join(frame)  # what was last seen stays
        listener.status["weir"] = "9.9.9"
        listener.start()
        t.until("weir 9.9.9")
        t.until("q quit")
        t.type("q")
        assert t.end() == 0


def test_what_is_wrong_at_the_start_needs_no_screen(listener: Listener) -> None:
    listener.token = "x"
    with terminal(listener) as t:
        assert t.end() == 1
        assert "asks for a token" in t.seen and "\x1b" not in t.seen


def test_a_terminal_that_can_do_nothing_gets_plain_text(listener: Listener) -> None:
    t = Terminal("--admin", f"127.0.0.1:{listener.port}", "--once")
    try:
        assert t.end() == 0
        assert "\x1b" not in t.seen and "board-2" in t.seen
    finally:
        t.close()


def test_stacks_fit_the_terminal(listener: Listener) -> None:
    listener.stacks["workers"][0]["threads"][0]["frames"][0]["file"] = "/srv/" + "deep/" * 40 + "board.py"
    with terminal(listener, word="stacks", columns=60) as t:
        assert t.end() == 0
        assert max(len(line) for line in t.seen.split("\r\n")) <= 60
        assert re.sub(r"\s", "", t.seen).count("deep/") == 40


def test_it_can_be_stopped_and_goes_on(listener: Listener) -> None:
    with terminal(listener) as t:
        t.until("q quit")
        os.kill(t.pid, signal.SIGTSTP)
        pid, status = os.waitpid(t.pid, os.WUNTRACED)
        assert pid and os.WIFSTOPPED(status)
        t.read()
        assert t.seen.endswith("\x1b[?25h\x1b[?1049l")
        t.seen = ""
        os.kill(t.pid, signal.SIGCONT)
        t.until("q quit")
        t.type("q")
        assert t.end() == 0


def test_it_takes_little_of_a_processor(listener: Listener) -> None:
    with terminal(listener) as t:
        t.until("q quit")
        ticks = os.sysconf("SC_CLK_TCK")

        def used() -> float:
            fields = Path(f"/proc/{t.pid}/stat").read_text().rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) / ticks

        begin, at = used(), time.monotonic()
        frames = t.seen.count("\x1b[H")
        wait_for(lambda: (t.read(), t.seen.count("\x1b[H") >= frames + 3)[1], 20, "three more frames")
        share = (used() - begin) / (time.monotonic() - at)
        assert share < 0.2, share
        t.type("q")
        assert t.end() == 0
