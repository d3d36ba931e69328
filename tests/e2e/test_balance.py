"""Several workers share what comes: connections evenly, and none waits for one that cannot take it."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from harness import PATIENCE, Client, Server, Starter, wait_for

SOON = 1.0 * PATIENCE


def pid_of(c: Client) -> int:
    return int(c.get("/pid").text)


@pytest.mark.parametrize("threads", ["auto", 1])
def test_64_connections_are_shared_evenly_by_4_workers(weir: Starter, threads: object) -> None:
    server = weir("procs:app", workers=4, threads=threads)
    clients = [server.client() for _ in range(64)]
    for c in clients:
        c.request("GET", "/pid")
    shares = Counter(int(c.response().text) for c in clients)
    assert set(shares) == set(server.worker_pids())
    assert max(shares.values()) <= 24, shares  # 1.5 times the mean
    # They stay where they are.
    assert Counter(pid_of(c) for c in clients) == shares


def test_connections_that_come_one_by_one_are_shared_too(weir: Starter) -> None:
    server = weir("procs:app", workers=3)
    shares = Counter(pid_of(server.client()) for _ in range(30))
    assert max(shares.values()) - min(shares.values()) <= 3, shares


def test_what_others_have_closed_is_filled_up_again(weir: Starter) -> None:
    server = weir("procs:app", workers=2)
    clients = [server.client() for _ in range(40)]
    owner = {c: pid_of(c) for c in clients}
    emptied = server.worker_pids()[0]
    kept, *closed = (c for c in clients if owner[c] == emptied)
    for c in closed:
        c.close()
    for _ in range(2):  # by then the worker has seen them close
        assert pid_of(kept) == emptied
    shares = Counter(pid_of(server.client()) for _ in range(16))
    assert shares[emptied] >= 14, shares


def occupy(server: Server, ms: int) -> Client:
    """A new connection whose request keeps one place; returns when it is inside."""
    before = server.log.count("asleep")
    c = server.client()
    c.request("GET", f"/sleep/{ms}")
    server.wait_log("asleep", count=before + 1)
    return c


def test_a_worker_without_a_free_place_leaves_connections_to_one_that_has_one(weir: Starter) -> None:
    server = weir("procs:app", workers=2, threads=1)
    busy = occupy(server, 2500)
    begin = time.monotonic()
    others = [server.client() for _ in range(12)]
    pids = {pid_of(c) for c in others}
    assert time.monotonic() - begin < SOON, "some waited for the busy worker"
    assert len(pids) == 1
    assert int(busy.response().text) not in pids


def test_where_no_worker_has_a_place_connections_are_taken_all_the_same(weir: Starter) -> None:
    server = weir("procs:app", workers=2, threads=1)
    busy = [occupy(server, 2000), occupy(server, 2000)]
    begin = time.monotonic()
    for _ in range(10):
        assert server.get("/-/ping").status == 200
    assert time.monotonic() - begin < SOON
    assert len({c.response().text for c in busy}) == 2


def test_a_stopped_worker_keeps_no_new_connection_waiting(weir: Starter) -> None:
    server = weir("procs:app", workers=2)
    clients = [server.client() for _ in range(20)]
    pids = Counter(pid_of(c) for c in clients)
    stopped, going = server.worker_pids()
    for c in clients[10:]:
        c.close()
    os.kill(stopped, signal.SIGSTOP)
    stat = Path(f"/proc/{stopped}/stat")
    try:
        wait_for(lambda: stat.read_text().rsplit(")", 1)[1].split()[0] == "T")
        begin = time.monotonic()
        for _ in range(30):
            assert pid_of(server.client()) == going
        # It is waited for once, for 20 ms, and not again before it gives a sign of life.
        assert time.monotonic() - begin < SOON
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert len(pids) == 2
    wait_for(lambda: pid_of(server.client()) == stopped, what="the worker goes on")
