"""concurrency and queue while processes are killed, reloaded, replaced and stopped."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import time
from pathlib import Path

import pytest
from harness import PATIENCE, Client, Incomplete, Starter, wait_for
from queue_helpers import Queued, refused
from test_upgrade import upgraded

ROUTE = "- {{match: POST /ai/*, concurrency: {n}, queue: {{size: 100, wait: 60s}}}}"


@pytest.fixture
def queued(weir: Starter, tmp_path: Path) -> Queued:
    return Queued(weir, tmp_path)


def gone(c: Client) -> bool:
    """Did the connection end without an answer?"""
    with contextlib.suppress(OSError, Incomplete):
        return c.rest() == b""
    return True


def test_places_of_a_killed_worker_come_back_and_others_go_on(queued: Queued) -> None:
    queued.serve(ROUTE.format(n=2), workers=2)
    a, b = queued.pinned()
    inside = queued.clients_of(a, 2)
    for i, c in enumerate(inside):
        queued.send(c, f"id=inside{i}&hold=never", "one")
    wait_for(lambda: len(queued.started()) == 2)
    dead = queued.clients_of(a, 3)
    waiting = queued.clients_of(b, 4)
    for i, c in enumerate(dead):
        queued.send(c, f"id=dead{i}", "one")
    for i, c in enumerate(waiting):
        queued.send(c, f"id=waits{i}&ms=1", "two")
    for pid in (a, b):
        queued.read_by(pid)
    assert sorted(queued.started()) == ["inside0", "inside1"]
    begin = time.monotonic()
    os.kill(a, signal.SIGKILL)
    assert waiting[0].response().status == 200
    took = time.monotonic() - begin
    assert [c.response().status for c in waiting[1:]] == [200] * 3
    assert all(gone(c) for c in [*inside, *dead])
    assert took < 5 * PATIENCE, took  # within a second on a machine that does nothing else
    assert not [i for i in queued.started() if i.startswith("dead")]
    wait_for(lambda: len(queued.server.worker_pids()) == 2)
    queued.forget()
    held = queued.held(2)  # both places are there
    more = queued.client()
    queued.send(more, "id=more", "me")
    assert more.quiet(0.2)
    queued.go("held")
    assert [c.response().status for c in [*held, more]] == [200] * 3


def test_when_all_workers_are_killed_the_next_ones_have_all_places(queued: Queued) -> None:
    server = queued.serve(ROUTE.format(n=2), workers=3)
    pins = queued.pinned()
    clients = [queued.clients_of(pid, 1)[0] for pid in pins]
    for i, c in enumerate(clients):
        queued.send(c, f"id=lost{i}&hold=never", "one")
    wait_for(lambda: len(queued.started()) == 2)
    for pid in pins:
        os.kill(pid, signal.SIGKILL)
    assert all(gone(c) for c in clients)
    wait_for(lambda: len(p := server.worker_pids()) == 3 and not set(p) & set(pins), 20)
    queued.forget()
    held = queued.held(2)
    third = queued.client()
    queued.send(third, "id=third", "me")
    assert third.quiet(0.2)
    queued.go("held")
    assert [c.response().status for c in [*held, third]] == [200] * 3
    assert queued.started()[2:] == ["third"]


def test_after_a_killed_supervisor_a_restart_works_at_once(queued: Queued) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    first = queued.serve(ROUTE.format(n=1), workers=2, bind=f"127.0.0.1:{port}", grace="20s")
    first.expected_status = (-signal.SIGKILL,)
    old = first.worker_pids()
    [busy] = queued.held()
    waits = queued.client()
    queued.send(waits, "id=waits", "me")
    assert waits.quiet(0.2)
    first.kill(signal.SIGKILL)
    first.wait_end()
    queued.serve(ROUTE.format(n=1), workers=2, bind=f"127.0.0.1:{port}")
    c = queued.client()
    queued.send(c, "id=new", "me")  # nothing of the old ones' places is left
    assert c.response().status == 200
    queued.go("held")  # what the old workers have begun and queued, they finish
    assert [x.response().status for x in (busy, waits)] == [200, 200]
    wait_for(lambda: not [p for p in old if Path(f"/proc/{p}").exists()], 30, "the old workers end")


def test_who_waits_is_served_before_the_server_stops(queued: Queued) -> None:
    server = queued.serve(ROUTE.format(n=1), workers=2, grace="30s")
    pins = queued.pinned()
    [busy] = queued.held()
    waiting = [queued.clients_of(pid, 3) for pid in pins]
    for w, clients in enumerate(waiting):
        for i, c in enumerate(clients):
            queued.send(c, f"id=waits{w}.{i}&ms=5", f"user{i}")
    for pid in pins:
        queued.read_by(pid)
    server.kill(signal.SIGTERM)
    server.wait_log("stopping: ")
    queued.go("held")
    for c in [busy, *waiting[0], *waiting[1]]:
        r = c.response()
        assert r.status == 200 and not r.keep
    assert server.wait_end() == 0


def test_who_still_waits_when_the_grace_is_over_is_told_that_the_server_stops(queued: Queued) -> None:
    server = queued.serve(ROUTE.format(n=1), workers=2, grace="1s")
    server.expected_status = (1,)
    [busy] = queued.held(name="never")
    waiting = [queued.client() for _ in range(4)]
    for i, c in enumerate(waiting):
        queued.send(c, f"id=waits{i}", f"user{i}")
        assert c.quiet(0.05)
    server.kill(signal.SIGTERM)
    for c in waiting:
        r = c.response()
        assert refused(r, 503, "stopping")["retry_after"] >= 1 and not r.keep
    assert gone(busy)
    server.wait_end()
    assert queued.started() == ["never-1"]


# ---- reload ----

WITH_RATE = """\
- match: POST /ai/*
  concurrency: {n}
  queue: {{size: 100, wait: 60s}}
  rate: {{user: 3/hour burst 3}}
"""


def reload(queued: Queued, count: int = 1) -> None:
    queued.server.kill(signal.SIGHUP)
    queued.server.wait_log("new workers serve", 20, count)


def test_a_reload_loses_no_queued_request_and_no_count(queued: Queued) -> None:
    server = queued.serve(WITH_RATE.format(n=1), workers=2, grace="40s")
    old = set(server.worker_pids())
    [busy] = queued.held()
    waiting = [queued.client() for _ in range(3)]
    for i, c in enumerate(waiting):
        queued.send(c, f"id=waits{i}&ms=5", "me")
        assert c.quiet(0.05)
    for n in (1, 2):
        reload(queued, n)
        c = queued.client()
        queued.send(c, "id=never", "me")  # three an hour, and they are spent
        assert refused(c.response(), 429, "rate_limited")["limit"] == "user"
    late = queued.client()
    queued.send(late, "id=late", "you")
    assert late.quiet(0.2)  # the place that is taken in an old worker counts
    queued.go("held")
    assert [c.response().status for c in [busy, *waiting, late]] == [200] * 5
    assert queued.most_at_once() == 1
    wait_for(lambda: not old & set(server.worker_pids()), 30, "the old workers end")


def test_a_larger_concurrency_lets_those_in_that_wait(queued: Queued) -> None:
    queued.serve(ROUTE.format(n=1), workers=2, grace="40s")
    [busy] = queued.held()
    waiting = [queued.client() for _ in range(4)]
    for i, c in enumerate(waiting):
        queued.send(c, f"id=waits{i}&hold=go", f"user{i}")
        assert c.quiet(0.05)
    queued.write(ROUTE.format(n=3))
    reload(queued)
    wait_for(lambda: len(queued.started()) == 3, what="two more are let in")
    queued.go("held")
    assert busy.response().status == 200
    wait_for(lambda: len(queued.started()) == 4, what="three at once")
    queued.go("go")
    assert [c.response().status for c in waiting] == [200] * 4
    assert queued.most_at_once() == 3


def test_a_wrong_file_changes_nothing_and_is_told_with_its_line(queued: Queued) -> None:
    server = queued.serve(ROUTE.format(n=1), workers=1)
    workers = server.worker_pids()
    [busy] = queued.held()
    waits = queued.client()
    queued.send(waits, "id=waits", "me")
    assert waits.quiet(0.1)
    queued.write("- {match: POST /ai/*, concurrency: 5, queue: {size: many}}")
    server.kill(signal.SIGHUP)
    server.wait_log(re.compile(r"not reloaded: .*weir\.yaml:3: "))
    assert server.worker_pids() == workers
    assert waits.quiet(0.2)  # one at once, as before
    queued.go("held")
    assert [c.response().status for c in (busy, waits)] == [200] * 2


def test_workers_that_are_replaced_finish_their_part_of_the_queue(queued: Queued) -> None:
    server = queued.serve(ROUTE.format(n=2), workers=2, max_requests=15, max_requests_jitter=10, grace="40s")
    rounds = 12
    clients = [queued.server.client(timeout=60) for _ in range(12)]
    for n in range(rounds):
        for i, c in enumerate(clients):
            queued.send(c, f"id={n}.{i}&ms=3", f"user{i % 4}")
        assert [c.response().status for c in clients] == [200] * len(clients), n
        clients = [c if c.alive() else queued.server.client(timeout=60) for c in clients]
    assert server.log.count("max-requests") >= 3
    started = queued.started()
    assert len(started) == len(set(started)) == rounds * len(clients)
    assert queued.most_at_once() == 2


def test_while_it_is_upgraded_each_supervisor_has_places_of_its_own(queued: Queued) -> None:
    server = queued.serve(ROUTE.format(n=1), workers=1, pid_file=queued.folder / "weir.pid")
    [busy] = queued.held()
    old = server.worker_pid
    with upgraded(server):
        def at_the_new_one() -> Client | None:
            c = server.client(timeout=30)
            return c if int(c.get("/pid").text.split()[1]) != old else None

        c = wait_for(at_the_new_one, 20)
        queued.send(c, "id=second", "me")
        assert c.response().status == 200  # beside the one that runs at the old one
        queued.go("held")
        assert busy.response().status == 200
    assert queued.most_at_once() == 2
