#!/usr/bin/python3
"""Does a request get lost? A client that never tries again, and an account of every request.

Many connections, each with one request at a time, GET and POST, no pipelining. After an answer that
keeps the connection a client pauses: mostly not at all, sometimes a little, sometimes for about as long
as the server keeps idle connections. Before it sends again it looks whether the server has closed
meanwhile, as every client does; once it has sent, only a whole and correct answer will do.

    lost        the connection ended, or broke, after a request was sent and before its answer was complete
    wrong       an answer that is not the one to this request
    refused     a connection could not be made while the server was to be there
    early       an idle connection was closed before its keep-alive time was over (a reload may not do that)

scenarios:

    none        nothing happens but keep-alive
    reload      HUP three times
    recycle     --max-requests 300 with jitter
    lifetime    --max-lifetime 1s
    rss         --max-rss far too low: each worker is replaced as soon as its memory is looked at
    upgrade     USR2, and TERM to the old supervisor when the new one serves
    term        TERM in the middle; ends when the server has ended

usage: loss.py [--scenario NAME] [--requests N] [--clients N] [--workers N] [--churn] [--fake]
               [-- settings of the server …]

The program starts the server itself: build/weir with tests/apps/basic.py, or with --fake the program
build/tests/unit/fake_workers. It ends with 0 when nothing was lost, wrong, refused or early.
"""

from __future__ import annotations

import argparse
import heapq
import os
import random
import re
import select
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable, Sequence

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Account:
    """What became of the requests."""

    sent: int = 0
    answered: int = 0
    connections: int = 0
    closed_idle: int = 0  # by the server, when it was allowed to
    early: int = 0
    refused: int = 0
    lost: int = 0
    wrong: int = 0
    replaced: int = 0  # workers, as the log tells
    notes: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        return self.lost + self.wrong + self.refused + self.early

    def note(self, text: str) -> None:
        if len(self.notes) < 10:
            self.notes.append(text)

    def __str__(self) -> str:
        return (f"requests {self.sent} answered {self.answered} connections {self.connections} "
                f"closed-idle {self.closed_idle} | lost {self.lost} wrong {self.wrong} refused {self.refused} "
                f"early {self.early} | workers replaced {self.replaced}")


def unchunk(data: bytes) -> bytes | None:
    """The content of a whole chunked body; None: it is not whole."""
    content = b""
    while True:
        line, mark, data = data.partition(b"\r\n")
        if not mark:
            return None
        size = int(line, 16)
        if len(data) < size + 2:
            return None
        content += data[:size]
        data = data[size + 2 :]
        if size == 0:
            return content


class Client:
    """One connection after the other, one request at a time."""

    def __init__(self, load: Load, number: int) -> None:
        self.load = load
        self.number = number
        self.serial = 0
        self.socket: socket.socket | None = None
        self.state = "off"  # off, connecting, waiting (for an answer), idle
        self.sent_at = 0.0
        self.idle_from = 0.0
        self.out = b""
        self.buffer = bytearray()
        self.expected = b""
        self.served = 0

    # the connection

    def connect(self) -> None:
        load = self.load
        if load.over():
            return
        family = socket.AF_INET if isinstance(load.address, tuple) else socket.AF_UNIX
        self.socket = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self.served = 0
        self.buffer.clear()
        self.state = "connecting"
        load.account.connections += 1
        load.clients[self.socket.fileno()] = self
        try:
            self.socket.connect(load.address)
        except BlockingIOError:
            pass
        except OSError as e:
            self.failed_connect(e)
            return
        load.poll.register(self.socket, select.EPOLLIN | select.EPOLLOUT)

    def close(self) -> None:
        if self.socket:
            self.load.clients.pop(self.socket.fileno(), None)
            self.socket.close()
        self.socket = None
        self.state = "off"

    def failed_connect(self, e: OSError) -> None:
        self.close()
        if not self.load.server_may_be_gone:
            self.load.account.refused += 1
            self.load.account.note(f"{self.load.clock():.3f} refused: {e}")
        self.load.later(0.05, self.connect)

    def connected(self) -> None:
        assert self.socket
        error = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            self.failed_connect(OSError(error, os.strerror(error)))
            return
        if isinstance(self.load.address, tuple):
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.load.poll.modify(self.socket, select.EPOLLIN)
        self.state = "idle"
        self.idle_from = self.load.now
        if self.load.random.random() < 0.05:  # some connect and think first
            self.load.later(self.load.random.random() * 0.02, self.ask)
        else:
            self.ask()

    # a request

    def ask(self) -> None:
        if self.state != "idle" or not self.socket:
            return
        load = self.load
        if load.over():
            self.close()
            return
        if self.has_ended():
            return
        if self.served and time.monotonic() - self.idle_from > load.keep_alive + load.late() / 2:
            return  # we were late ourselves: beyond what is promised nobody should send
        self.serial += 1
        token = f"{self.number}-{self.serial}".encode()
        last = b"Connection: close\r\n" if load.churn else b""
        if load.random.random() < 0.3:
            body = token + b"." * load.random.randrange(0, 2000)
            self.out = (b"POST /echo HTTP/1.1\r\nHost: t\r\n%sContent-Length: %d\r\n\r\n" % (last, len(body))) + body
            self.expected = body
        else:
            self.out = b"GET %s?%s HTTP/1.1\r\nHost: t\r\n%s\r\n" % (load.target(), token, last)
            self.expected = token
        load.account.sent += 1
        self.state = "waiting"
        self.sent_at = load.now
        self.buffer.clear()
        self.write()

    def has_ended(self) -> bool:
        """Has the server closed the idle connection? Looked at just before each request."""
        assert self.socket
        try:
            data = self.socket.recv(1, socket.MSG_PEEK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self.load.account.wrong += 1
            self.load.account.note(f"{self.load.clock():.3f} bytes without a request: {self.socket.recv(300)!r}")
        self.ended_idle()
        return True

    def write(self) -> None:
        assert self.socket
        try:
            n = self.socket.send(self.out)
        except BlockingIOError:
            n = 0
        except OSError as e:
            self.lose(f"{e} while sending")
            return
        self.out = self.out[n:]
        self.load.poll.modify(self.socket, select.EPOLLIN | (select.EPOLLOUT if self.out else 0))

    def lose(self, why: str) -> None:
        load = self.load
        load.account.lost += 1
        load.account.note(f"{load.clock():.3f} lost: {why}; {self.served} served on it, idle "
                          f"{self.sent_at - self.idle_from:.4f} s, sent {load.now - self.sent_at:.4f} s ago, "
                          f"have {bytes(self.buffer[:60])!r}")
        self.close()
        load.later(0.01, self.connect)

    def ended_idle(self) -> None:
        load = self.load
        idle = load.now - self.idle_from
        if idle < load.keep_alive and not load.server_may_be_gone and self.served:
            load.account.early += 1
            load.account.note(f"{load.clock():.3f} closed after {idle:.4f} s of idling")
        else:
            load.account.closed_idle += 1
        self.close()
        load.later(0.0, self.connect)

    def readable(self) -> None:
        assert self.socket
        try:
            data = self.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError as e:
            if self.state == "waiting":
                self.lose(str(e))
            else:
                self.ended_idle()
            return
        if self.state != "waiting":
            if data:
                self.load.account.wrong += 1
                self.load.account.note(f"bytes without a request: {data[:200]!r}")
            self.ended_idle()
            return
        if not data:
            self.lose("closed")
            return
        self.buffer += data
        self.look()

    def look(self) -> None:
        """Is the answer complete?"""
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self.buffer[:end]).lower()
        body = bytes(self.buffer[end + 4 :])
        if b"\r\ntransfer-encoding: chunked" in head:
            whole = unchunk(body)
            if whole is None:
                return
            body = whole
        else:
            at = head.find(b"\r\ncontent-length:")
            if at < 0 or len(body) < int(head[at + 17 :].split(b"\r\n", 1)[0]):
                return
        load = self.load
        if not head.startswith(b"http/1.1 200 ") or body != self.expected:
            load.account.wrong += 1
            load.account.note(f"{load.clock():.3f} wrong: {bytes(self.buffer[:300])!r} for {self.expected[:60]!r}")
        load.account.answered += 1
        self.served += 1
        if b"\r\nconnection: close" in head:
            self.close()
            self.connect()
            return
        self.state = "idle"
        self.idle_from = load.now
        if load.random.random() < 0.003:
            load.later(3 * load.keep_alive + 2, self.not_closed(self.socket))
            return  # until the server closes
        pause = load.pause()
        if pause:
            load.later(pause, self.ask)
        else:
            self.ask()

    def not_closed(self, of: socket.socket | None) -> Callable[[], None]:
        """Nothing else may happen to a connection that idles for ever."""
        since = self.idle_from

        def look() -> None:
            if self.socket is of and self.state == "idle" and self.idle_from == since and not self.load.stop:
                self.load.account.wrong += 1
                self.load.account.note(f"{self.load.clock():.3f} an idle connection is still open")
        return look


class Load:
    """The clients, their clock and their account."""

    def __init__(self, address: tuple[str, int] | str, clients: int, requests: int, keep_alive: float,
                 seed: int = 1, slow: bool = True, churn: bool = False) -> None:
        self.address = address
        self.requests = requests
        self.keep_alive = keep_alive
        self.slow = slow
        self.churn = churn
        self.random = random.Random(seed)
        self.account = Account()
        self.poll = select.epoll()
        self.clients: dict[int, Client] = {}
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.n_timers = 0
        self.begin = self.now = time.monotonic()
        self.server_may_be_gone = False
        self.stop = False
        self.all = [Client(self, i) for i in range(clients)]
        for i, c in enumerate(self.all):
            self.later(i * 0.001, c.connect)

    def clock(self) -> float:
        return self.now - self.begin

    def over(self) -> bool:
        return self.stop or self.account.sent >= self.requests

    def later(self, seconds: float, what: Callable[[], None]) -> None:
        self.n_timers += 1
        heapq.heappush(self.timers, (self.now + seconds, self.n_timers, what))

    def target(self) -> bytes:
        r = self.random.random()
        if self.slow and r < 0.02:
            return b"/sleep/%d" % self.random.randrange(1, 60)
        return b"/token"

    def pause(self) -> float:
        r = self.random.random()
        if r < 0.8:
            return 0.0
        if r < 0.98:
            return self.random.random() * 0.02
        # Around the limit. It is not closed before, and most clients learn late that it will be.
        return self.keep_alive + (self.random.random() * 0.9 - 0.45) * self.late()

    def late(self) -> float:
        """An idle connection is closed by half to all of this later than keep-alive says."""
        return min(1.0, self.keep_alive)

    def turn(self, until: float) -> None:
        """Work until then, or until all requests are through."""
        while self.now < until and not self.done():
            wait = min(until, self.timers[0][0] if self.timers else until) - self.now
            for fd, what in self.poll.poll(max(0.0, wait)):
                self.now = time.monotonic()
                c = self.clients.get(fd)
                if not c:
                    continue
                if c.state == "connecting":
                    c.connected()
                    continue
                if what & select.EPOLLOUT and c.out:
                    c.write()
                if c.socket and what & ~select.EPOLLOUT:
                    c.readable()
            self.now = time.monotonic()
            while self.timers and self.timers[0][0] <= self.now:
                heapq.heappop(self.timers)[2]()

    def done(self) -> bool:
        """Nothing is on its way any more, and nothing will be."""
        return self.over() and not any(c.state in ("waiting", "connecting") for c in self.all)

    def finish(self, seconds: float) -> None:
        """Let what is on its way end."""
        self.stop = True
        self.turn(time.monotonic() + seconds)
        for c in self.all:
            if c.state == "waiting":
                c.lose("no answer")
            c.close()
        self.poll.close()


class Server:
    """build/weir, or fake_workers, with its ready line."""

    def __init__(self, fake: bool, workers: int, settings: list[str], keep_alive: float) -> None:
        self.fake = fake
        self.log = tempfile.NamedTemporaryFile("w+", suffix=".log")
        self.successor = 0  # pid of the supervisor after an upgrade
        settings = [f"--keep-alive={keep_alive:g}s", *settings]
        if fake:
            pairs = [part for s in settings for part in s.split("=", 1)]
            self.process = subprocess.Popen(
                [str(ROOT / os.environ.get("WEIR_BUILD", "build") / "tests/unit/fake_workers"), str(workers), *pairs], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=self.log, text=True)
            assert self.process.stdout
            url = self.process.stdout.readline().strip()
            for _ in range(workers):
                self.process.stdout.readline()
        else:
            self.process = subprocess.Popen(
                [*shlex.split(os.environ.get("WEIR") or str(ROOT / "build/weir")), "--bind=127.0.0.1:0", f"--workers={workers}", *settings, "basic:app"],
                cwd=ROOT / "tests/apps", stderr=self.log)
            url = self.wait_url()
        host, _, port = url.removeprefix("http://").rpartition(":")
        self.address = (host, int(port))

    def wait_url(self) -> str:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            found = re.search(r"\bon (http://[^ ,]+)", Path(self.log.name).read_text())
            if found:
                return found[1]
            if self.process.poll() is not None:
                break
            time.sleep(0.01)
        sys.exit(Path(self.log.name).read_text())

    def reload(self) -> None:
        if self.fake:
            assert self.process.stdin
            self.process.stdin.write("reload\n")
            self.process.stdin.flush()
        else:
            self.process.send_signal(signal.SIGHUP)

    def upgrade(self, meanwhile: Callable[[], None]) -> None:
        """USR2; when the new supervisor serves, TERM to the old one, which has to end."""
        self.process.send_signal(signal.SIGUSR2)
        log = Path(self.log.name)
        until = time.monotonic() + 30
        while log.read_text().count(" serving ") < 2:
            if time.monotonic() > until:
                raise RuntimeError("no new supervisor: " + log.read_text()[-2000:])
            meanwhile()
        new = int(re.findall(r" serving .*pid (\d+)\)", log.read_text())[-1])
        self.process.send_signal(signal.SIGTERM)
        while self.process.poll() is None:
            meanwhile()
        self.successor = new

    def stop(self) -> int:
        if self.successor:
            os.kill(self.successor, signal.SIGTERM)
            while Path(f"/proc/{self.successor}").exists():
                time.sleep(0.01)
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


SETTINGS = {
    "recycle": ("--max-requests=300", "--max-requests-jitter=100"),
    "lifetime": ("--max-lifetime=1s",),
    "rss": ("--max-rss=1M",),
}
SCENARIOS = ("none", "reload", "recycle", "lifetime", "rss", "upgrade", "term")


def run(scenario: str, requests: int, clients: int = 64, workers: int = 2, fake: bool = False,
        settings: Sequence[str] = (), keep_alive: float = 1.0, seed: int = 1, churn: bool = False) -> Account:
    """One scenario; every request is accounted for."""
    server = Server(fake, workers, [*SETTINGS.get(scenario, ()), *settings], keep_alive)
    load = Load(server.address, clients, requests, keep_alive, seed, churn=churn)
    steps = 4 if scenario == "reload" else 2
    try:
        for step in range(1, steps):
            while not load.over() and load.account.sent < requests * step // steps:
                load.turn(load.now + 0.05)
            if scenario == "reload":
                server.reload()
            elif scenario == "upgrade":
                server.upgrade(lambda: load.turn(time.monotonic() + 0.02))
            elif scenario == "term":
                load.server_may_be_gone = True
                server.process.send_signal(signal.SIGTERM)
                while server.process.poll() is None:
                    load.turn(load.now + 0.02)
                load.stop = True
        while not load.done():
            load.turn(load.now + 0.5)
        load.finish(20)
    finally:
        status = server.stop()
        if status:
            load.account.wrong += 1
            load.account.note(f"the server ended with {status}: {Path(server.log.name).read_text()[-1500:]}")
    text = Path(server.log.name).read_text()
    load.account.replaced = text.count("replacing worker") + workers * text.count("] INFO reloading")
    seconds = load.now - load.begin
    load.account.note(f"{load.account.answered / seconds:.0f} requests/s")
    return load.account


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--scenario", default="reload", choices=SCENARIOS)
    arguments.add_argument("--requests", type=int, default=100_000)
    arguments.add_argument("--clients", type=int, default=64)
    arguments.add_argument("--workers", type=int, default=2)
    arguments.add_argument("--keep-alive", type=float, default=1.0)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--churn", action="store_true", help="a new connection for each request")
    arguments.add_argument("--fake", action="store_true", help="fake_workers instead of weir")
    arguments.add_argument("settings", nargs="*", help="settings of the server, --name=value")
    a = arguments.parse_args()
    account = run(a.scenario, a.requests, a.clients, a.workers, a.fake, a.settings, a.keep_alive, a.seed, a.churn)
    print(f"{a.scenario}: {account}")
    for note in account.notes:
        print("  " + note)
    return 1 if account.bad else 0


if __name__ == "__main__":
    sys.exit(main())
