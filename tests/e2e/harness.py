"""A real server and raw clients for the end-to-end tests.

Server   one process of `weir`, its log, descriptors, memory, and its end
Client   one connection: send bytes, read responses strictly, see how it ended
raw      many bytes in, all answers and the end of the connection out

Nothing here sleeps to wait: `wait_for` looks at a condition until its deadline.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Union

ROOT = Path(__file__).resolve().parents[2]
APPS = ROOT / "tests" / "apps"
PYTHON = "/usr/bin/python3"

SANITIZED = bool(os.environ.get("WEIR_SANITIZED"))
# Sanitizers and a busy machine make everything slower; deadlines grow, expectations do not.
PATIENCE = 4.0 if SANITIZED else 1.0
START_SECONDS = 20 * PATIENCE
STOP_SECONDS = 20 * PATIENCE

# Lines that no log may hold, whatever the test was about.
BROKEN = re.compile(
    r"invariant broken|AddressSanitizer|ThreadSanitizer|runtime error:|UndefinedBehavior"
    r"|Fatal Python error|Segmentation fault|SystemError|MemoryError"
)

Address = Union["tuple[str, int]", str, bytes]  # (host, port), path of a Unix socket, b"\0name"


def plain_env() -> dict[str, str]:
    """The environment for programs that are not under test: without a sanitizer's runtime."""
    return {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}


def weir_command() -> list[str]:
    """The command under test: build/weir, or what WEIR names."""
    given = os.environ.get("WEIR")
    if not given:
        return [str(ROOT / "build" / "weir")]
    first, *rest = shlex.split(given)
    return [str((ROOT / first).resolve()) if "/" in first else first, *rest]


def wait_for(condition: Callable[[], Any], timeout: float = 10, what: str = "") -> Any:
    """The first true value of `condition`; fails when there is none in time."""
    until = time.monotonic() + timeout * PATIENCE
    pause = 0.002
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"not within {timeout * PATIENCE:g} s: {what or condition}")
        time.sleep(pause)
        pause = min(pause * 1.5, 0.05)


# ---- responses ----


class Incomplete(Exception):
    """The connection ended inside a response; `partial` is what came."""

    def __init__(self, what: str, partial: Response | None = None) -> None:
        super().__init__(what)
        self.partial = partial


@dataclass
class Response:
    version: str
    status: int
    reason: str
    fields: list[tuple[str, str]]
    body: bytes = b""
    chunks: list[bytes] = field(default_factory=list)  # as they were framed
    trailers: list[tuple[str, str]] = field(default_factory=list)
    interim: list[int] = field(default_factory=list)  # 1xx before it
    head: bytes = b""

    def all(self, name: str) -> list[str]:
        return [v for k, v in self.fields if k.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, f"{name} stands {len(values)} times"
        return values[0] if values else None

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def keep(self) -> bool:
        """Does the response say that the connection stays open?"""
        connection = (self.get("connection") or "").lower()
        return connection != "close" if self.version == "HTTP/1.1" else connection == "keep-alive"

    def json(self) -> Any:
        return json.loads(self.body)


STATUS_LINE = re.compile(rb"(HTTP/1\.[01]) (\d{3}) ([\t\x20-\x7e\x80-\xff]*)")
FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[ \t]*([\t\x20-\x7e\x80-\xff]*?)[ \t]*")


def parse_head(head: bytes) -> Response:
    """Status line and fields, without the empty line; strict, so that nothing odd passes."""
    lines = head.split(b"\r\n")
    match = STATUS_LINE.fullmatch(lines[0])
    assert match, f"bad status line {lines[0]!r}"
    fields = []
    for line in lines[1:]:
        parts = FIELD_LINE.fullmatch(line)
        assert parts, f"bad field line {line!r}"
        fields.append((parts[1].decode(), parts[2].decode("latin-1")))
    return Response(match[1].decode(), int(match[2]), match[3].decode("latin-1"), fields, head=head)


# ---- a connection ----


class Client:
    """One connection. Reads are exact; whatever follows a response stays for the next one.

    `preamble` is sent in the clear before the handshake of `tls`.
    """

    def __init__(self, address: Address, timeout: float = 10, receive_buffer: int = 0,
                 tls: ssl.SSLContext | None = None, name: str | None = "localhost", preamble: bytes = b"",
                 session: ssl.SSLSession | None = None) -> None:
        family = socket.AF_UNIX
        if isinstance(address, tuple):
            family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_STREAM)
        self.socket.settimeout(timeout * PATIENCE)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect(address)
        if family != socket.AF_UNIX:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if preamble:
            self.socket.sendall(preamble)
        if tls:
            try:
                self.socket = tls.wrap_socket(self.socket, server_hostname=name, session=session,
                                              suppress_ragged_eofs=False)
            except BaseException:
                self.socket.close()
                raise
        self.buffer = bytearray()
        # Once the server ended it: "closed", "reset", or under TLS "cut": without close_notify.
        self.end = ""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Close with RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def half_close(self) -> None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def request(self, method: str, target: str, *fields: str, body: bytes | None = None,
                version: str = "HTTP/1.1", host: str | None = "t") -> None:
        """Send a request; Content-Length is added for a body."""
        lines = [f"{method} {target} {version}"]
        if host is not None:
            lines.append(f"Host: {host}")
        lines += fields
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1") + (body or b""))

    def ask(self, method: str, target: str, *fields: str, **more: Any) -> Response:
        self.request(method, target, *fields, **more)
        return self.response(method)

    def get(self, target: str, *fields: str, **more: Any) -> Response:
        return self.ask("GET", target, *fields, **more)

    def more(self) -> bool:
        """Read what there is; False at the end of the connection."""
        if self.end:
            return False
        try:
            data = self.socket.recv(262144)
        except (ConnectionResetError, BrokenPipeError):
            self.end = "reset"
            return False
        except ssl.SSLEOFError:
            self.end = "cut"
            return False
        if not data:
            self.end = "closed"
            return False
        self.buffer += data
        return True

    def take(self, n: int) -> bytes:
        while len(self.buffer) < n:
            if not self.more():
                raise Incomplete(f"{self.end} after {len(self.buffer)} of {n} bytes")
        data = bytes(self.buffer[:n])
        del self.buffer[:n]
        return data

    def take_until(self, mark: bytes) -> bytes:
        """Bytes before `mark`, which is consumed too."""
        start = 0
        while (at := self.buffer.find(mark, start)) < 0:
            start = max(0, len(self.buffer) - len(mark) + 1)
            if not self.more():
                raise Incomplete(f"{self.end} with {bytes(self.buffer[:200])!r} read")
        data = bytes(self.buffer[:at])
        del self.buffer[: at + len(mark)]
        return data

    def head(self, keep_interim: bool = False) -> Response:
        interim = []
        while True:
            r = parse_head(self.take_until(b"\r\n\r\n"))
            if r.status >= 200 or keep_interim:
                r.interim = interim
                return r
            interim.append(r.status)

    def chunk(self) -> bytes:
        """One chunk; b"" is the last one, its trailer section is left unread."""
        line = self.take_until(b"\r\n")
        assert re.fullmatch(rb"[0-9a-fA-F]+", line), f"bad chunk size {line!r}"
        size = int(line, 16)
        data = self.take(size)
        if size:
            assert self.take(2) == b"\r\n", "a chunk does not end with CRLF"
        return data

    def body_of(self, r: Response, method: str = "GET") -> Response:
        try:
            if method == "HEAD" or r.status in (204, 304):
                pass
            elif r.get("transfer-encoding"):
                assert r.get("transfer-encoding") == "chunked"
                assert r.get("content-length") is None, "both framings"
                while chunk := self.chunk():
                    r.chunks.append(chunk)
                    r.body += chunk
                while line := self.take_until(b"\r\n"):
                    name, _, value = line.decode("latin-1").partition(":")
                    r.trailers.append((name, value.strip()))
            elif r.get("content-length") is not None:
                r.body = self.take(int(r.get("content-length") or 0))
            else:
                while self.more():
                    pass
                r.body = bytes(self.buffer)
                self.buffer.clear()
                if self.end != "closed":
                    raise Incomplete(f"{self.end} inside a body that ends with the connection")
        except Incomplete as e:
            if not r.body:
                r.body = bytes(self.buffer)
            e.partial = r
            raise
        return r

    def response(self, method: str = "GET") -> Response:
        """The next final response, complete."""
        return self.body_of(self.head(), method)

    def rest(self) -> bytes:
        """Everything until the connection ends."""
        while self.more():
            pass
        data = bytes(self.buffer)
        self.buffer.clear()
        return data

    def ended(self) -> str:
        """Wait for the end; nothing may come before it. "closed" or "reset"."""
        rest = self.rest()
        assert not rest, f"unexpected bytes: {rest[:300]!r}"
        return self.end

    def quiet(self, seconds: float = 0.15) -> bool:
        """Nothing came and the connection is open, for so long."""
        if self.buffer or self.end:
            return False
        old = self.socket.gettimeout()
        self.socket.settimeout(seconds)
        try:
            return not self.more() and not self.end
        except TimeoutError:
            return True
        finally:
            self.socket.settimeout(old)

    def alive(self) -> bool:
        """Is the connection still good for another request?"""
        try:
            return self.get("/-/ping").body == b"pong\n" and not self.buffer
        except (Incomplete, OSError):
            return False


@dataclass
class Exchange:
    """What came back for some bytes."""

    responses: list[Response]
    end: str  # "closed", "reset", or "open"
    partial: Response | None = None  # a response cut in the middle
    rest: bytes = b""  # what is no response

    @property
    def statuses(self) -> list[int]:
        return [r.status for r in self.responses]


def split_at(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


def raw(address: Address, data: bytes | Sequence[bytes], n: int | None = None,
        methods: Sequence[str] = (), timeout: float = 10, half_close: bool = False) -> Exchange:
    """Send bytes (a list: one write each) and read `n` responses; without n until the end.

    `methods` are those of the requests, where one of them is HEAD.
    """
    pieces = [data] if isinstance(data, (bytes, bytearray)) else list(data)
    with Client(address, timeout) as c:
        try:
            for piece in pieces:
                c.send(piece)
        except (ConnectionResetError, BrokenPipeError):
            pass  # it has seen enough; what it answered can still be read
        if half_close:
            c.half_close()
        responses: list[Response] = []
        try:
            while n is None or len(responses) < n:
                if not c.buffer and not c.more():
                    break
                method = methods[len(responses)] if len(responses) < len(methods) else "GET"
                responses.append(c.response(method))
        except Incomplete as e:
            return Exchange(responses, c.end, e.partial, bytes(c.buffer))
        return Exchange(responses, c.end or "open", None, bytes(c.buffer))


# ---- the server ----

# "… serving X on http://127.0.0.1:1, http://[::1]:2 (workers 1, threads 4:256, pid 3)". From then on it minds
# signals; the line that Waitress prints comes before.
READY = re.compile(r"serving .*?\bon (https?://.*?) \((?:workers (?P<n>\d+), )?threads ")


class Server:
    """A running `weir`. Made by the fixture `weir`; see there."""

    def __init__(self, process: subprocess.Popen, log_path: Path, out_path: Path | None,
                 address: Address | None) -> None:
        self.process = process
        self.pid = process.pid
        self.log_path = log_path
        self.out_path = out_path
        self.urls: list[str] = []
        self.given = address  # where the log cannot tell it
        self.clients: list[Client] = []
        self.expected_status: tuple[int, ...] = (0,)
        self.supervised = False  # the process is a supervisor with workers

    # what it tells

    @property
    def log(self) -> str:
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def out(self) -> str:
        """Standard output: the access log with `access_log="-"`."""
        return self.out_path.read_text(errors="replace") if self.out_path else ""

    def wait_log(self, text: str | re.Pattern, timeout: float = 10, count: int = 1) -> str:
        """Wait until the log holds `text` (or matches the pattern) `count` times; returns the log."""
        def there() -> bool:
            if isinstance(text, str):
                return self.log.count(text) >= count
            return len(text.findall(self.log)) >= count

        try:
            wait_for(there, timeout)
        except AssertionError:
            raise AssertionError(f"the log does not hold {text!r}:\n{self.log[-4000:]}") from None
        return self.log

    def wait_out(self, text: str, timeout: float = 10) -> str:
        wait_for(lambda: text in self.out, timeout, f"{text!r} in standard output")
        return self.out

    def wait_for(self, condition: Callable[[], Any], timeout: float = 10, what: str = "") -> Any:
        return wait_for(condition, timeout, what)

    def wait_ready(self) -> None:
        def urls() -> list[str] | None:
            lines = list(READY.finditer(self.log))
            found = [url for line in lines for url in line[1].split(", ")]
            self.supervised = bool(lines) and lines[0]["n"] is not None
            if not found and self.process.poll() is not None:
                raise AssertionError(f"weir ended with {self.process.returncode}:\n{self.log}")
            return found

        self.urls = wait_for(urls, START_SECONDS / PATIENCE, f"ready line in {self.log_path}")

    @property
    def addresses(self) -> list[Address]:
        found: list[Address] = []
        for url in self.urls:
            _, _, place = url.partition("://")
            if place.startswith("unix:"):
                path = place[len("unix:"):]
                found.append(b"\0" + path[1:].encode() if path.startswith("@") else path)
                continue
            host, _, port = place.rpartition(":")
            found.append((host.strip("[]"), int(port)))
        return found

    @property
    def address(self) -> Address:
        return self.given or self.addresses[0]

    @property
    def port(self) -> int:
        return int(self.address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    # what the system tells of it

    def worker_pids(self) -> list[int]:
        """The workers, the oldest first; the process itself where it serves alone."""
        if not self.supervised:
            return [self.pid]
        text = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text()
        others = {self.template_pid(), *self.keeper_pids()}
        return [int(pid) for pid in text.split() if int(pid) not in others]

    def _children_titled(self, title: bytes) -> list[int]:
        found = []
        for pid in Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split():
            with contextlib.suppress(OSError):
                if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(title):
                    found.append(int(pid))
        return found

    def template_pid(self) -> int:
        """The process that forks the workers of --preload; 0: there is none."""
        return next(iter(self._children_titled(b"weir: template")), 0)

    def keeper_pids(self) -> list[int]:
        """The processes that write the quotas and fetch key sets."""
        return self._children_titled(b"weir: keeper")

    @property
    def worker_pid(self) -> int:
        """The worker, where there is one."""
        pids = self.worker_pids()
        assert len(pids) == 1, f"{len(pids)} workers"
        return pids[0]

    def _status(self, name: str) -> int:
        """A number of the worker's /proc/PID/status."""
        text = Path(f"/proc/{self.worker_pid}/status").read_text()
        return int(re.search(name + r":\s+(\d+)", text)[1])  # type: ignore[index]

    def rss_kib(self) -> int:
        return self._status("VmRSS")

    def peak_kib(self) -> int:
        return self._status("VmHWM")

    def threads(self) -> int:
        return self._status("Threads")

    def fds(self) -> list[str]:
        """What its open descriptors point to."""
        found = []
        for entry in Path(f"/proc/{self.worker_pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(os.readlink(entry))
        return found

    def sockets(self) -> int:
        return sum(name.startswith("socket:") for name in self.fds())

    def cpu_seconds(self) -> float:
        """Of the process and its workers."""
        total = 0
        for pid in {self.pid, *self.worker_pids()}:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += int(fields[11]) + int(fields[12])
        return total / os.sysconf("SC_CLK_TCK")

    def running(self) -> bool:
        return self.process.poll() is None

    # talking to it

    def client(self, timeout: float = 10, address: Address | None = None,
               receive_buffer: int = 0, **more: Any) -> Client:
        c = Client(address or self.address, timeout, receive_buffer, **more)
        self.clients.append(c)
        return c

    def get(self, target: str, *fields: str, **more: Any) -> Response:
        """One request on a connection of its own."""
        return self.ask("GET", target, *fields, **more)

    def ask(self, method: str, target: str, *fields: str, timeout: float = 10, **more: Any) -> Response:
        with Client(self.address, timeout) as c:
            return c.ask(method, target, "Connection: close", *fields, **more)

    def raw(self, data: bytes | Sequence[bytes], n: int | None = None, **more: Any) -> Exchange:
        return raw(self.address, data, n, **more)

    # its end

    def kill(self, number: int) -> None:
        self.process.send_signal(number)

    def wait_end(self, timeout: float = STOP_SECONDS / PATIENCE) -> int:
        try:
            return self.process.wait(timeout * PATIENCE)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"weir has not ended:\n{self.log[-4000:]}") from None

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.running():
            self.kill(number)
        return self.wait_end()

    def finish(self) -> None:
        """End it however the test left it, and look at what it says."""
        for c in self.clients:
            c.close()
        problem = ""
        try:
            if self.running():
                self.kill(signal.SIGTERM)
            status = self.wait_end()
            if status not in self.expected_status:
                problem = f"exit status {status}, expected {self.expected_status}"
        except AssertionError as e:
            problem = str(e)
            self.process.kill()
            self.process.wait()
        broken = BROKEN.search(self.log)
        if broken:
            problem = f"the log shows {broken[0]!r}; {problem}"
        if problem:
            raise AssertionError(f"{problem}\n{self.log[-8000:]}")


def options_of(settings: dict[str, Any]) -> list[str]:
    """keep_alive="1s", factory=True, bind=[…] as command line options."""
    options = []
    for name, value in settings.items():
        flag = name.replace("_", "-")
        if value is None:
            continue
        if isinstance(value, bool):
            options.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, (list, tuple)):
            options += [f"--{flag}={v}" for v in value]
        else:
            options.append(f"--{flag}={value}")
    return options


class Starter:
    """The fixture `weir`: call it to start a server; all are ended after the test.

    weir("basic:app", threads=4, keep_alive="300ms")      settings of Weir
    weir("basic:app", waitress=True, threads=4)           through `weir waitress-serve`
    weir(command=[…])                                     another program that prints the ready line
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.servers: list[Server] = []

    def __call__(self, app: str = "basic:app", *arguments: str, waitress: bool = False,
                 command: list[str] | None = None, env: dict[str, str] | None = None,
                 address: Address | None = None, ready: bool = True, stderr: Any = None,
                 pass_fds: Sequence[int] = (), preexec: Callable[[], None] | None = None,
                 cwd: Path = APPS, **settings: Any) -> Server:
        number = len(self.servers)
        log_path = self.folder / f"weir-{number}.log"
        out_path = self.folder / f"weir-{number}.out"
        if command is None:
            command = [*weir_command()]
            if waitress:
                command.append("waitress-serve")
                if not {"listen", "host", "port", "unix_socket"} & settings.keys():
                    settings["listen"] = "127.0.0.1:0"
            else:
                if not pass_fds:
                    settings.setdefault("bind", "127.0.0.1:0")
                settings.setdefault("grace", "10s")
            command += [*options_of(settings), *arguments, app]
        environment = {k: v for k, v in os.environ.items()
                       if not k.startswith(("WEIR_", "LISTEN_", "PORT")) or k == "WEIR_PYTHON"}
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        environment["PYTHONUNBUFFERED"] = "1"
        if os.environ.get("WEIR_ASAN_RUNTIME") and "PYTHONPATH" in (env or {}):
            environment["LD_PRELOAD"] = os.environ["WEIR_ASAN_RUNTIME"]  # a program that imports weir
        environment.update(env or {})
        with open(log_path, "ab") as log, open(out_path, "ab") as out:
            process = subprocess.Popen(
                command, cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=out,
                stderr=log if stderr is None else stderr, pass_fds=pass_fds, preexec_fn=preexec,
            )
        server = Server(process, log_path, out_path, address)
        self.servers.append(server)
        if ready:
            server.wait_ready()
        return server

    def finish(self) -> None:
        problems = []
        for server in self.servers:
            try:
                server.finish()
            except AssertionError as e:
                problems.append(str(e))
        assert not problems, "\n".join(problems)


@contextlib.contextmanager
def starter(folder: Path) -> Iterator[Starter]:
    s = Starter(folder)
    try:
        yield s
    finally:
        s.finish()
