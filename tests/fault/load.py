"""Clients that never retry, and the account of what became of their requests.

Each request has an id of its own; the application (app.py) notes the ids that it runs. What a client
saw and what the ledger holds are compared at the end: a request is *answered*, *failed* (with the
reason and the worker that held its connection), or *refused* (no connection was had).
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import socket
import threading
import time
import zlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Failure:
    id: str
    why: str
    worker: int  # the process that answered last on this connection; 0: it was new
    began: float  # monotonic seconds
    ended: float


@dataclass
class Account:
    answered: Counter[str] = field(default_factory=Counter)
    failures: list[Failure] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    closed_while_idle: int = 0
    connections: int = 0
    workers: Counter[int] = field(default_factory=Counter)


class Load:
    """`clients` threads that ask until `stop`; use as a context manager."""

    def __init__(self, address: tuple[str, int], ledger: Path, clients: int = 8, seed: int = 1,
                 slow: float = 0.02, post: float = 0.3, idle: float = 0.0, idle_around: float = 0.0,
                 new: float = 0.05) -> None:
        self.address, self.ledger = address, ledger
        self.slow, self.post, self.new = slow, post, new
        # Which share of the requests follows an idle time of about `idle_around` seconds.
        self.idle, self.idle_around = idle, idle_around
        self.seed = seed
        self.stopping = threading.Event()
        self.lock = threading.Lock()
        self.account = Account()
        self.serial = 0
        self.threads = [threading.Thread(target=self.run, args=(i,), daemon=True) for i in range(clients)]

    def __enter__(self) -> Load:
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> Account:
        self.stopping.set()
        for thread in self.threads:
            thread.join(60)
        return self.account

    def requests(self) -> int:
        return sum(self.account.answered.values())

    def next_id(self) -> str:
        with self.lock:
            self.serial += 1
            return f"r{self.seed}x{self.serial}"

    def run(self, number: int) -> None:
        rnd = random.Random(self.seed * 1000 + number)
        sock: socket.socket | None = None
        worker = 0
        while not self.stopping.is_set():
            if sock and rnd.random() < self.idle:
                self.stopping.wait(self.idle_around * rnd.uniform(0.9, 1.1))
            if sock and self.has_ended(sock):
                self.account.closed_while_idle += 1
                sock.close()
                sock = None
            if sock is None:
                try:
                    sock = socket.create_connection(self.address, 20)
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    worker = 0
                    with self.lock:
                        self.account.connections += 1
                except OSError:
                    with self.lock:
                        self.account.refused.append(time.monotonic())
                    self.stopping.wait(0.02)
                    continue
            sock, worker = self.one(sock, worker, rnd)
            if sock and rnd.random() < self.new:
                sock.close()
                sock = None
        if sock:
            sock.close()

    @staticmethod
    def has_ended(sock: socket.socket) -> bool:
        """Has the server closed this idle connection already? Then no client would use it."""
        return bool(select.select([sock], [], [], 0)[0])

    def one(self, sock: socket.socket, worker: int, rnd: random.Random) -> tuple[socket.socket | None, int]:
        name = self.next_id()
        target = f"/?id={name}"
        if rnd.random() < self.slow:
            target += f"&ms={rnd.randint(5, 60)}"
        body = b""
        head = f"GET {target} HTTP/1.1\r\nHost: fault\r\n\r\n"
        if rnd.random() < self.post:
            body = rnd.randbytes(rnd.choice((1, 100, 4000, 30000)))
            head = f"POST {target} HTTP/1.1\r\nHost: fault\r\nContent-Length: {len(body)}\r\n\r\n"
        expected = f"{name} {len(body)} {zlib.crc32(body):08x}\n".encode()
        began = time.monotonic()
        received = b""
        try:
            sock.sendall(head.encode() + body)
            while b"\r\n\r\n" not in received:
                data = sock.recv(65536)
                if not data:
                    raise ConnectionError("closed before the answer")
                received += data
            first, _, rest = received.partition(b"\r\n\r\n")
            lines = first.decode("latin-1").split("\r\n")
            fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in lines[1:])}
            status, length = int(lines[0].split()[1]), int(fields["content-length"])
            while len(rest) < length:
                data = sock.recv(65536)
                if not data:
                    raise ConnectionError("closed inside the answer")
                rest += data
        except (OSError, KeyError, ValueError) as e:
            sock.close()
            with self.lock:
                self.account.failures.append(
                    Failure(name, f"{type(e).__name__}: {e}", worker, began, time.monotonic()))
            return None, 0
        worker = int(fields.get("x-worker", worker))
        with self.lock:
            a = self.account
            a.statuses[status] += 1
            if status == 200:
                a.answered[name] += 1
                a.workers[worker] += 1
                if rest != expected:
                    a.wrong.append(f"{name}: {rest[:60]!r}")
        if fields.get("connection", "").lower() == "close":
            sock.close()
            return None, 0
        return sock, worker

    def ran(self) -> Counter[str]:
        """How often the application ran each request."""
        with contextlib.suppress(FileNotFoundError):
            return Counter(self.ledger.read_text().split())
        return Counter()

    def check_ledger(self) -> list[str]:
        """What must hold whatever broke: nothing ran twice, every answer is right and was run."""
        ran, problems = self.ran(), []
        twice = [name for name, n in ran.items() if n > 1]
        if twice:
            problems.append(f"{len(twice)} requests ran twice: {twice[:5]}")
        if self.account.wrong:
            problems.append(f"{len(self.account.wrong)} answers are wrong: {self.account.wrong[:3]}")
        missing = [name for name in self.account.answered if not ran[name]]
        if missing:
            problems.append(f"{len(missing)} answers were never run: {missing[:5]}")
        return problems


def children(pid: int) -> list[int]:
    """The children of a process, whichever of its threads made them."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- an open loop ----


@dataclass
class Answers:
    """What an open loop saw."""

    sent: int = 0
    good: list[float] = field(default_factory=list)  # when each 200 was complete, seconds after the start
    refusals: dict[str, list[float]] = field(default_factory=dict)  # by reason: how long each took
    other: Counter[str] = field(default_factory=Counter)
    late: float = 0.0  # the longest that a request was sent after its time: how busy this program was
    drained: float = 0.0  # from the last request to the last answer

    @property
    def refused(self) -> int:
        return sum(map(len, self.refusals.values()))


class OpenLoop:
    """Requests at their times, whether or not those before are answered; each of one of `users` users.

    Connections are used again, as many as there are requests under way. One thread, so that it takes
    little of the machine on which the server runs.
    """

    def __init__(self, address: tuple[str, int], target: str, users: int) -> None:
        self.address, self.target, self.users = address, target, users
        self.poll = select.epoll()
        self.idle: list[socket.socket] = []
        self.busy: dict[int, tuple[socket.socket, float, bytearray]] = {}
        self.serial = 0

    def send(self) -> None:
        self.serial += 1
        head = (f"POST {self.target}&id=o{self.serial} HTTP/1.1\r\nHost: fault\r\nContent-Length: 0\r\n"
                f"Authorization: Bearer user{self.serial % self.users}\r\n\r\n").encode()
        if self.idle:
            s = self.idle.pop()
        else:
            s = socket.create_connection(self.address, 20)
            s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.poll.register(s.fileno(), select.EPOLLIN)
        self.busy[s.fileno()] = (s, time.monotonic(), bytearray())
        s.sendall(head)

    def read(self, number: int, out: Answers, began: float) -> bool:
        """True: a request is answered, or has failed."""
        if number not in self.busy:  # an idle one was closed
            for s in self.idle:
                if s.fileno() == number:
                    self.idle.remove(s)
                    s.close()
                    break
            return False
        s, at, data = self.busy[number]
        try:
            more = s.recv(65536)
        except OSError:
            more = b""
        data += more
        head, mark, body = bytes(data).partition(b"\r\n\r\n")
        lines = head.decode("latin-1").lower().split("\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith("content-length:")), 0)
        if more and (not mark or len(body) < length):
            return False
        now = time.monotonic()
        del self.busy[number]
        if not more:
            out.other["closed without an answer"] += 1
        elif b" 200 " in head[:16]:
            out.good.append(now - began)
        elif mark and b'"reason":"' in body:
            reason = body.partition(b'"reason":"')[2].partition(b'"')[0].decode()
            out.refusals.setdefault(reason, []).append(now - at)
        else:
            out.other[lines[0]] += 1
        if more and "connection: close" not in lines:
            self.idle.append(s)
        else:
            s.close()
        return True

    def run(self, seconds: float, rate: float = 0, clients: int = 0) -> Answers:
        """At `rate` a second; or, to see what the server can do, `clients` that ask again at once."""
        out, began = Answers(), time.monotonic()
        end, next_at, last = began + seconds, began, began
        for _ in range(clients):
            self.send()
            out.sent += 1
        while (now := time.monotonic()) < end or (self.busy and now < end + 30):
            while rate and next_at <= now < end:
                self.send()
                out.sent += 1
                out.late = max(out.late, now - next_at)
                next_at += 1 / rate
            pause = max(0.0, next_at - now) if rate and now < end else 0.05
            for number, _ in self.poll.poll(min(pause, 0.05)):
                if self.read(number, out, began):
                    last = time.monotonic()
                    if clients and last < end:
                        self.send()
                        out.sent += 1
        out.drained = max(0.0, last - end)
        if self.busy:
            out.other["no answer"] = len(self.busy)
        return out

    def close(self) -> None:
        for s in [*self.idle, *(s for s, _, _ in self.busy.values())]:
            s.close()
        self.poll.close()
