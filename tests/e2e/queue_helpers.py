"""A server of tests/apps/queued.py behind a policy, and what its ledger says."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import APPS, Client, Response, Server, Starter, wait_for, weir_command

PACKAGE = Path(weir_command()[0]).parent / "python"
IDENTIFY = "identify: [bearer, address]\n"


@dataclass
class Run:
    """One request inside the application."""

    id: str
    pid: int
    start_ns: int
    end_ns: int = 0


class Queued:
    """Call `serve` (or `start` with another command line); files in its folder let requests go on."""

    def __init__(self, weir: Starter, folder: Path) -> None:
        self.weir, self.folder = weir, folder
        self.server: Server
        self.numbers = itertools.count(1)
        self.pins: dict[int, Client] = {}

    @property
    def file(self) -> Path:
        return self.folder / "weir.yaml"

    def serve(self, routes: str, head: str = IDENTIFY, **settings: Any) -> Server:
        settings.setdefault("threads", 8)
        settings.setdefault("workers", 0)
        return self.start(routes, head, "--config", str(self.file), **settings)

    def start(self, routes: str, head: str = IDENTIFY, *arguments: str, env: dict[str, str] | None = None,
              **more: Any) -> Server:
        self.write(routes, head)
        self.server = self.weir("queued:app", *arguments, env={"QUEUED": str(self.folder), **(env or {})}, **more)
        return self.server

    def gunicorn(self, routes: str, *options: str) -> Server:
        return self.start(routes, command=[*weir_command(), "gunicorn", "-b", "127.0.0.1:0", *options,
                                           "--pythonpath", str(APPS), "queued:app"], cwd=self.folder)

    def waitress(self, routes: str, **settings: Any) -> Server:
        (self.folder / "queued.py").symlink_to(APPS / "queued.py")
        return self.start(routes, waitress=True, cwd=self.folder, **settings)

    def write(self, routes: str, head: str = IDENTIFY) -> None:
        self.file.write_text(head + "routes:\n" + "".join(f"  {line}\n" for line in routes.splitlines()))

    def go(self, name: str) -> None:
        """Requests that wait for this file go on."""
        (self.folder / name).touch()

    # ---- clients ----

    def client(self, **more: Any) -> Client:
        """A connection that its worker has accepted."""
        c = self.server.client(timeout=30, **more)
        assert c.get("/-/ping").status == 200
        return c

    def pinned(self) -> dict[int, Client]:
        """One connection to each worker, by its process id."""
        pids = set(wait_for(lambda: len(p := self.server.worker_pids()) > 1 and p))
        found: dict[int, Client] = {}

        def all_found() -> bool:
            c = self.server.client(timeout=30)
            found.setdefault(int(c.get("/pid").text.split()[1]), c)
            return found.keys() >= pids

        wait_for(all_found, 20, "a connection to each worker")
        self.pins = {pid: found[pid] for pid in pids}
        return self.pins

    def read_by(self, pid: int) -> None:
        """The worker has read what was sent to it before (after `pinned`)."""
        assert self.pins[pid].get("/-/ping").status == 200

    def clients_of(self, pid: int, n: int) -> list[Client]:
        """`n` connections to that worker."""
        found: list[Client] = []

        def enough() -> bool:
            c = self.server.client(timeout=30)
            if int(c.get("/pid").text.split()[1]) == pid:
                found.append(c)
            return len(found) == n

        wait_for(enough, 30, f"{n} connections to one worker")
        return found

    @staticmethod
    def send(c: Client, query: str, user: str = "", path: str = "/ai/x", method: str = "POST",
             fields: tuple[str, ...] = (), **more: Any) -> None:
        if user:
            fields = (f"Authorization: Bearer {user}", *fields)
        c.request(method, f"{path}?{query}", *fields, **more)

    def sent(self, query: str, user: str = "", **more: Any) -> Client:
        """A new connection with a request on it that its worker has read."""
        c = self.client()
        self.send(c, query, user, **more)
        self.settle()
        return c

    def settle(self) -> None:
        """All that was sent before has been read: of one process, as it reads in the order of arrival."""
        assert self.server.get("/-/ping").status == 200

    def held(self, n: int = 1, name: str = "held", user: str = "holder") -> list[Client]:
        """So many requests that are inside the application until go(name)."""
        clients = [self.client() for _ in range(n)]
        ids = [f"{name}-{next(self.numbers)}" for _ in clients]
        for c, id in zip(clients, ids):
            self.send(c, f"id={id}&hold={name}", user)
        wait_for(lambda: set(ids) <= {r.id for r in self.runs()}, what=f"{n} requests inside")
        return clients

    # ---- the ledger ----

    def runs(self) -> list[Run]:
        """In the order in which they began."""
        found: list[Run] = []
        path = self.folder / "ledger"
        for line in path.read_text().splitlines() if path.exists() else ():
            event, id, pid, ns = line.split()
            if event == "start":
                found.append(Run(id, int(pid), int(ns)))
            else:
                next(r for r in found if r.id == id and not r.end_ns).end_ns = int(ns)
        return found

    def forget(self) -> None:
        """Begin the ledger anew."""
        (self.folder / "ledger").write_text("")

    def started(self) -> list[str]:
        return [r.id for r in self.runs()]

    def most_at_once(self) -> int:
        edges = sorted([(r.start_ns, 1) for r in self.runs()] + [(r.end_ns, -1) for r in self.runs() if r.end_ns])
        most = now = 0
        for _, step in edges:
            now += step
            most = max(most, now)
        return most


def refused(r: Response, status: int, reason: str) -> dict[str, Any]:
    """The problem that the answer states."""
    assert r.status == status, (r.status, r.text)
    assert r.get("content-type") == "application/problem+json" and r.get("cache-control") == "no-store"
    problem = r.json()
    assert problem["reason"] == reason and problem["status"] == status
    if "retry_after" in problem:
        assert r.get("retry-after") == str(problem["retry_after"]) and problem["retry_after"] >= 1
    return problem


def jain(values: list[float]) -> float:
    """1: all have the same; 1/n: one has all."""
    return sum(values) ** 2 / (len(values) * sum(v * v for v in values))
