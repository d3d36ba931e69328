"""The whole server with an application in C (tests/tools/fake_server.c), no Python in it.

Built plainly, or with TSan by `make test-tsan`: every report of the sanitizer fails the test.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / os.environ.get("WEIR_BUILD", "build")
SECONDS = float(os.environ.get("WEIR_SOAK_SECONDS", "8"))
sys.path.insert(0, str(ROOT / "tests" / "tools"))


@pytest.fixture(scope="session")
def program() -> Path:
    """The built fake_server."""
    subprocess.run(["ninja", "-C", str(BUILD), "--quiet", "tests/unit/fake_server"], check=True)
    return BUILD / "tests" / "unit" / "fake_server"


class Server:
    """One running fake_server."""

    def __init__(self, program: Path, *settings: str) -> None:
        self.process = subprocess.Popen(
            [str(program), *settings, "--log-level", "error"], text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http://"), self.process.communicate()
        self.port = int(self.url.rsplit(":", 1)[1])

    def stop(self) -> tuple[str, str]:
        """TERM, then what it wrote; fails unless it drained."""
        self.process.send_signal(signal.SIGTERM)
        out, err = self.process.communicate(timeout=60)
        assert self.process.returncode == 0, (self.process.returncode, err[-3000:])
        assert "ThreadSanitizer" not in err and "ERROR" not in err, err[-6000:]
        return out, err


@pytest.fixture(params=[(), ("--threads", "1"), ("--threads", "2:3"), ("--threads", "4:32"),
                        ("--request-buffering", "off", "--threads", "4:64"),
                        ("--response-memory", "4096", "--response-backlog", "8192")],
                ids=lambda p: "_".join(p).replace("--", "") or "defaults")
def server(request: pytest.FixtureRequest, program: Path) -> Iterator[Server]:
    s = Server(program, *request.param)
    yield s
    if s.process.poll() is None:
        s.process.kill()
        s.process.communicate()


def test_every_answer_belongs_to_its_request(server: Server) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/tools/checker.py"), "127.0.0.1", str(server.port),
         "--seconds", str(SECONDS), "--connections", "40", "--seed", str(server.port)],
        text=True, capture_output=True, timeout=SECONDS * 10 + 60)
    assert done.returncode == 0, done.stdout + done.stderr
    server.stop()


def test_stopping_under_load_lets_requests_in_flight_finish(program: Path) -> None:
    server = Server(program)
    load = subprocess.Popen(
        [sys.executable, "-c", LOAD, str(server.port)], text=True, stdout=subprocess.PIPE)
    assert load.stdout
    assert load.stdout.readline().strip() == "busy"
    server.stop()
    out, _ = load.communicate(timeout=60)
    assert out.strip() == "cut 0"


# Thirty clients with a request of 200 ms each in flight when the server is told to stop.
LOAD = """
import socket, sys
port = int(sys.argv[1])
clients = []
for i in range(30):
    s = socket.create_connection(("127.0.0.1", port))
    s.sendall(f"GET /sleep/200?{i} HTTP/1.1\\r\\nHost: t\\r\\n\\r\\n".encode())
    clients.append(s)
s = socket.create_connection(("127.0.0.1", port))
s.sendall(b"GET /hello?x HTTP/1.1\\r\\nHost: t\\r\\n\\r\\n")
s.recv(1000)
print("busy", flush=True)
cut = 0
for i, s in enumerate(clients):
    s.settimeout(30)
    data = b""
    while piece := s.recv(4096):
        data += piece
    cut += not data.startswith(b"HTTP/1.1 200") or str(i).encode() not in data
print("cut", cut)
"""
