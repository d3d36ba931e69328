"""Behind nginx, with the configuration that docs/deploy.md shows."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import ROOT, Client, Server, Starter, plain_env, wait_for

pytestmark = pytest.mark.skipif(not shutil.which("nginx", path="/usr/sbin:/usr/bin"), reason="nginx is not installed")

CONFIGURATION = ROOT / "deploy/nginx/shop.conf"
TRUST = {"trusted_proxy": "localhost", "trusted_proxy_headers": "x-forwarded-for x-forwarded-proto"}

APP = '''
import hashlib, os

def events():
    yield b"data: first\\n\\n"
    with open("gate") as gate:  # a pipe: waits until somebody writes
        yield b"data: %s\\n\\n" % gate.read().encode()

def app(environ, start):
    path = environ["PATH_INFO"]
    kind = "text/plain"
    if path == "/who":
        body = " ".join(str(environ.get(name)) for name in (
            "REMOTE_ADDR", "wsgi.url_scheme", "HTTP_HOST", "HTTP_X_FORWARDED_FOR", "REMOTE_PORT"))
        body = [body.encode()]
    elif path == "/pid":
        environ["wsgi.input"].read()
        body = [b"%d" % os.getpid()]
    elif path == "/sum":
        total = hashlib.sha256()
        while data := environ["wsgi.input"].read(65536):
            total.update(data)
        body = [total.hexdigest().encode()]
    elif path == "/large":
        body = [bytes([n % 251]) * 65536 for n in range(320)]
    elif path in ("/events", "/plain-events"):
        kind = "text/event-stream"
        body = events()
    headers = [("Content-Type", kind)]
    if path == "/plain-events":
        headers.append(("X-Accel-Buffering", "no"))
    start("200 OK", headers)
    return body
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.py").write_text(APP)
    return tmp_path


class Nginx:
    def __init__(self, folder: Path, upstream: str) -> None:
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        site = CONFIGURATION.read_text()
        for old, new in (("unix:/run/weir/shop.sock", upstream), ("listen 80;", f"listen 127.0.0.1:{self.port};")):
            assert old in site
            site = site.replace(old, new)
        self.log = folder / "nginx.log"
        paths = "".join(f"    {name}_temp_path {folder}/{name};\n" for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
        (folder / "nginx.conf").write_text(
            f"daemon off;\npid {folder}/nginx.pid;\nuser root;\nworker_processes 1;\nerror_log {self.log} info;\n"
            f"events {{ worker_connections 256; }}\nhttp {{\n    access_log off;\n    keepalive_requests 1000000;\n{paths}{site}}}\n")
        program = shutil.which("nginx", path="/usr/sbin:/usr/bin")
        assert program
        self.process = subprocess.Popen([program, "-e", str(self.log), "-p", str(folder), "-c", str(folder / "nginx.conf")],
                                        env=plain_env(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_for(self.answers, 10, "nginx listens")

    def answers(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0

    def client(self) -> Client:
        return Client(("127.0.0.1", self.port), 20)

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@pytest.fixture
def site(weir: Starter, folder: Path) -> Iterator[tuple[Nginx, Server]]:
    """Two workers behind nginx, by a Unix socket."""
    path = str(folder / "s")
    server = weir("shop:app", bind=f"unix:{path}", workers=2, cwd=folder, **TRUST)
    nginx = Nginx(folder, f"unix:{path}")
    yield nginx, server
    nginx.end()


def test_the_page_shows_the_configuration_that_is_tested() -> None:
    assert f"```nginx\n{CONFIGURATION.read_text()}```" in (ROOT / "docs/deploy.md").read_text()


def test_the_application_sees_the_client_and_not_nginx(site) -> None:
    nginx, _ = site
    with nginx.client() as c:
        c.socket.close()
        c.socket = socket.socket()
        c.socket.settimeout(20)
        c.socket.bind(("127.0.0.7", 0))
        c.socket.connect(("127.0.0.1", nginx.port))
        # What the client says of itself is not believed, because nginx replaces it.
        r = c.get("/who", "X-Forwarded-For: 6.6.6.6", "X-Forwarded-Proto: https", host="example.org:8080")
        assert r.text.split()[:4] == ["127.0.0.7", "http", "example.org:8080", "127.0.0.7"]


def test_nginx_keeps_its_connections(weir: Starter, folder: Path) -> None:
    server = weir("shop:app", bind="127.0.0.1:0", workers=0, cwd=folder)
    nginx = Nginx(folder, f"127.0.0.1:{server.port}")
    try:
        ports = set()
        for _ in range(20):
            with nginx.client() as c:
                ports.add(c.get("/who", "Connection: close").text.split()[4])
        assert len(ports) == 1
    finally:
        nginx.end()


def test_large_bodies_pass_both_ways(site) -> None:
    nginx, _ = site
    sent = bytes(range(256)) * (20 << 12)
    with nginx.client() as c:
        assert c.ask("POST", "/sum", body=sent).text == hashlib.sha256(sent).hexdigest()
        expected = b"".join(bytes([n % 251]) * 65536 for n in range(320))
        assert hashlib.sha256(c.get("/large").body).digest() == hashlib.sha256(expected).digest()


@pytest.mark.parametrize("path", ["/events", "/plain-events"])
def test_an_event_arrives_before_the_next_one_is_made(site, path: str) -> None:
    """By `proxy_buffering off`, and by the header of the application."""
    nginx, server = site
    os.mkfifo(server.log_path.parent / "gate")
    with nginx.client() as c:
        c.request("GET", path)
        assert c.head().status == 200
        assert c.chunk() == b"data: first\n\n"
        (server.log_path.parent / "gate").write_text("second")
        assert c.chunk() == b"data: second\n\n"
        assert c.chunk() == b""


def test_reloads_under_load_lose_nothing(site) -> None:
    """POST too, which nginx never sends twice."""
    nginx, server = site
    stop = threading.Event()
    problems: list[str] = []
    pids: set[str] = set()
    counts = [0] * 4

    def load(number: int) -> None:
        try:
            with nginx.client() as c:
                while not stop.is_set():
                    r = c.ask("POST", "/pid", body=b"x") if number % 2 else c.get("/pid")
                    if r.status != 200:
                        problems.append(f"{r.status} {r.text[:80]}")
                    pids.add(r.text)
                    counts[number] += 1
        except Exception as e:  # noqa: BLE001 - whatever it is, it is the finding
            problems.append(repr(e))

    threads = [threading.Thread(target=load, args=(n,)) for n in range(4)]
    def workers() -> set[str]:
        return set(Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split())

    for thread in threads:
        thread.start()
    try:
        wait_for(lambda: pids, 20, "an answer")
        for _ in range(3):
            before = workers()
            server.kill(signal.SIGHUP)
            wait_for(lambda old=before: problems or not workers() & old and pids & workers(), 20, "only new workers")
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert not problems and not any(thread.is_alive() for thread in threads)
    assert min(counts) > 20 and len(pids) >= 4
    assert not re.search(r"\[(error|crit|alert)\]", nginx.log.read_text())
