"""Admission of requests against clients that want to break it, or to get around it."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import APPS, PYTHON, ROOT, SANITIZED, Client, Incomplete, Server, wait_for

TOKEN = "Authorization: Bearer me"
Policy = Callable[[str], str]


@pytest.fixture
def policy(tmp_path: Path) -> Policy:
    """Write weir.yaml; its path."""

    def write(text: str) -> str:
        path = tmp_path / "weir.yaml"
        path.write_text(text.replace("STORE", str(tmp_path / "q.db")))
        return str(path)

    return write


@contextlib.contextmanager
def stopped(pid: int):
    """The process does not answer, and lives."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def the_keeper(server: Server, but: int = 0) -> int:
    return wait_for(lambda: next((k for k in server.keeper_pids() if k != but), 0), what="a keeper")


USERS = """\
identify: [bearer, address]
routes:
  - {match: POST /api/*, require: user}
"""
QUOTAS = """\
store: STORE
identify: [bearer, address]
tiers: {default: free}
routes:
  - {match: POST /api/*, require: user, quota: {free: 5/day}}
"""


# ---- ways around a route ----


@pytest.mark.parametrize("method", ["POST", "post", "pOsT"])
def test_no_spelling_of_a_method_reaches_the_application_without_a_token(weir, policy, method):
    server = weir("hostile:app", "--config", policy(USERS), workers=1)
    assert server.ask(method, "/api/x", body=b"").status == 401
    assert server.ask(method, "/api/x", TOKEN, body=b"").json()["REQUEST_METHOD"] == method


@pytest.mark.parametrize("route", ["/api/*", "/foo/api/*"])
@pytest.mark.parametrize("path", ["/api/x", "/foo/api/x", "/f%6fo/api/x", "//foo//api/x", "http://t/foo/api/x"])
def test_a_prefix_is_no_way_around_a_route(weir, policy, route, path):
    server = weir("hostile:app", "--config", policy(USERS.replace("/api/*", route)), workers=1, url_prefix="/foo")
    assert server.ask("POST", path, body=b"").status == 401
    assert server.ask("POST", path, TOKEN, body=b"").json()["weir.user_by"] == "bearer"


def test_script_name_of_a_front_end_is_no_way_around_a_route(weir, policy):
    server = weir("hostile:app", "--config", policy(USERS), "--trusted-proxy=127.0.0.1",
                  "--forwarder-headers=SCRIPT_NAME", workers=1)
    field = "SCRIPT_NAME: /bar/"
    assert server.ask("POST", "/bar/api/x", field, body=b"").status == 401
    told = server.ask("POST", "/bar/api/x", field, TOKEN, body=b"").json()
    assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("/bar", "/api/x")


# ---- bodies of what is parked or answered by the server ----


@pytest.mark.parametrize("mode", ["off", "auto", "on"])
def test_usage_asked_with_a_body_is_answered_once(weir, policy, mode):
    server = weir("hostile:app", "--config", policy(QUOTAS), workers=1, request_buffering=mode)
    with server.client() as c:
        for _ in range(3):
            c.request("GET", "/-/usage", TOKEN, body=b"x" * 100)
            assert c.response().json()["routes"][0]["day"]["used"] == 0
        c.request("GET", "/-/usage", TOKEN, "Transfer-Encoding: chunked")
        c.send(b"3\r\nabc\r\n0\r\n\r\n")
        assert c.response().status == 200
        assert c.alive()


@pytest.mark.parametrize("end", ["left", "too large", "whole", "malformed"])
@pytest.mark.parametrize("mode", ["off", "auto"])
def test_usage_whose_body_ends_badly_while_the_keeper_is_slow_ends_nothing_else(weir, policy, mode, end):
    server = weir("hostile:app", "--config", policy(QUOTAS), workers=1, request_buffering=mode,
                  max_body_size="10k")
    worker, keeper = server.worker_pid, the_keeper(server)
    assert server.get("/-/usage", TOKEN).status == 200
    with stopped(keeper), server.client() as c:
        c.request("GET", "/-/usage", TOKEN, "Transfer-Encoding: chunked")
        c.send(b"3\r\nabc\r\n")
        assert c.quiet(0.4)  # above what makes a body a slow one
        if end == "left":
            c.half_close()
        elif end == "too large":
            c.send(b"8000\r\n")
        elif end == "malformed":
            c.send(b"no number\r\n")
        else:
            c.send(b"0\r\n\r\n")
        c.rest() if end != "whole" else c.response()
    assert server.get("/-/usage", TOKEN).status == 200
    assert server.worker_pid == worker


@pytest.mark.parametrize("mode", ["off", "auto", "on"])
def test_a_refused_request_with_a_small_body_keeps_its_connection(weir, policy, mode):
    server = weir("hostile:app", "--config", policy(USERS), workers=1, request_buffering=mode)
    with server.client() as c:
        for _ in range(3):
            r = c.ask("POST", "/api/x", body=b"GET /evil HTTP/1.1\r\nHost: t\r\n\r\n")
            assert r.status == 401 and r.keep
        assert c.ask("POST", "/api/x", TOKEN, body=b"abc").json()["body"] == 3


@pytest.mark.parametrize("fields", [("Content-Length: 70000",), ("Transfer-Encoding: chunked",),
                                    ("Content-Length: 5", "Expect: 100-continue")])
def test_a_refused_body_that_is_not_read_is_no_other_request(weir, policy, fields):
    server = weir("hostile:app", "--config", policy(USERS), workers=1)
    with server.client() as c:
        c.request("POST", "/api/x", *fields)
        with contextlib.suppress(OSError):
            c.send(b"GET /evil HTTP/1.1\r\nHost: t\r\n\r\n" * 10)
        r = c.response()
        assert (r.status, r.keep, r.interim) == (401, False, [])
        c.half_close()
        assert c.rest() == b""
    assert "evil" not in server.log


# ---- everything at once ----

STORM = """\
store: STORE
identify: [bearer, address]
tiers: {default: free}
routes:
  - {match: GET /, require: user, concurrency: 4, queue: {size: 30, wait: 300ms}, deadline: 400ms,
     quota: {free: 1000000/day}}
"""


def one_visit(server: Server, chance: random.Random, seen: Path) -> None:
    """Some requests on one connection, which may end at any moment."""
    user = f"Authorization: Bearer {chance.randrange(6)}"
    unread: list[str] = []
    with Client(server.address, timeout=20) as c, contextlib.suppress(OSError, Incomplete):
        for _ in range(chance.randrange(1, 5)):
            version = chance.choice(["HTTP/1.1"] * 5 + ["HTTP/1.0"])
            body = chance.choice([None, b"", b"x" * 10, b"x" * 3000])
            method = chance.choice(["GET", "GET", "HEAD"])
            c.request(method, f"/?here={seen}&ms={chance.randrange(12)}", user, body=body, version=version)
            unread.append(method)
            while unread and chance.random() < 0.5:
                c.response(unread.pop(0))
        how = chance.randrange(4)
        if how == 0:
            c.reset()
        elif how == 1:
            c.half_close()
            c.rest()
        elif how == 2:
            time.sleep(chance.random() / 50)  # then closed


@pytest.mark.parametrize("workers", [1, 2])
def test_no_place_and_no_count_is_lost_whatever_clients_and_keepers_do(weir, policy, tmp_path, workers):
    seen = tmp_path / "seen"
    seen.touch()
    server = weir("hostile:app", "--config", policy(STORM), workers=workers, threads=6)
    over = threading.Event()
    problems: list[BaseException] = []

    def visits(seed: int) -> None:
        chance = random.Random(seed)
        try:
            while not over.is_set():
                one_visit(server, chance, seen)
        except BaseException as e:  # noqa: BLE001
            problems.append(e)

    chance = random.Random(workers)
    threads = [threading.Thread(target=visits, args=(i,)) for i in range(16)]
    for t in threads:
        t.start()
    try:
        until = time.monotonic() + (20 if SANITIZED else 4)
        first = the_keeper(server)
        os.kill(first, signal.SIGKILL)
        keeper = the_keeper(server, but=first)
        server.kill(signal.SIGHUP)
        while time.monotonic() < until:
            with stopped(keeper):
                time.sleep(chance.random() / 3)
            time.sleep(chance.random())
        os.kill(keeper, signal.SIGKILL)
    finally:
        over.set()
        for t in threads:
            t.join()
    assert not problems
    assert seen.stat().st_size > 20
    # All four places are free, and no fifth.
    server.wait_log("reloaded: ")
    until = tmp_path / "until"
    held = [server.client() for _ in range(5)]
    here = [tmp_path / f"here{i}" for i in range(5)]
    for i in range(4):
        wait_for(lambda i=i: server.get(f"/?here={here[i]}", f"Authorization: Bearer hold{i}").status == 200)
    for i in range(4):
        held[i].request("GET", f"/?here={here[i]}&until={until}", f"Authorization: Bearer hold{i}")
    wait_for(lambda: all(here[i].read_text() == "xx" for i in range(4)), what="four run at once")
    r = held[4].get("/", "Authorization: Bearer other")
    assert r.status == 503 and r.json()["reason"].startswith("queue_")
    until.touch()
    # What each has spent is what has run.
    ran = seen.stat().st_size
    def used() -> int:
        total = 0
        for i in range(6):
            r = server.get("/-/usage", f"Authorization: Bearer {i}")
            if r.status != 200:
                return -1
            total += r.json()["routes"][0]["day"]["used"]
        return total
    try:
        wait_for(lambda: used() == ran, timeout=20)
    except AssertionError:
        pytest.fail(f"{used()} counted, {ran} ran")


# ---- while a request is parked ----

ONE = """\
routes:
  - {match: GET /one, concurrency: 1, queue: {size: 10, wait: WAIT}}
"""


def hold(server: Server, tmp_path: Path, n: int = 1) -> Path:
    """The places of /one are taken, until the file is there."""
    here, until = tmp_path / "here", tmp_path / "until"
    for _ in range(n):
        server.client(timeout=30).request("GET", f"/one?here={here}&until={until}")
    wait_for(lambda: here.exists() and len(here.read_text()) == n, what="the places are taken")
    return until


@pytest.mark.parametrize("version,keep", [("HTTP/1.1", True), ("HTTP/1.0", False)])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_who_waited_in_vain_is_told_and_what_is_behind_is_served(weir, policy, tmp_path, method, version, keep):
    server = weir("hostile:app", "--config", policy(ONE.replace("WAIT", "200ms")), workers=1, threads=4)
    hold(server, tmp_path)
    with server.client() as c:
        c.request("GET", "/one", version=version)
        if keep:
            c.request(method, "/other", body=b"abc")
        r = c.response()
        assert (r.status, r.keep) == (503, keep) and r.get("retry-after")
        assert r.json()["reason"] == "queue_wait"
        if keep:
            assert c.response(method).status == 200
        else:
            assert c.ended() == "closed"
    (tmp_path / "until").touch()


def test_what_its_client_abandoned_in_the_queue_never_starts(weir, policy, tmp_path):
    server = weir("hostile:app", "--config", policy(ONE.replace("WAIT", "20s")), workers=1, threads=4)
    until, seen = hold(server, tmp_path), tmp_path / "seen"
    left = [server.client() for _ in range(6)]
    for c in left:
        c.request("GET", f"/one?here={seen}")
        c.request("GET", f"/one?here={seen}")
    stays = server.client(timeout=30)
    stays.request("GET", "/one")
    assert stays.quiet()
    open_before = server.sockets()
    for i, c in enumerate(left):
        c.reset() if i % 2 else c.close()
    wait_for(lambda: server.sockets() <= open_before - len(left), what="their connections are closed")
    until.touch()
    assert stays.response().status == 200
    assert not seen.exists()


@pytest.mark.parametrize("quick", [False, True])
def test_a_stop_tells_who_waits(weir, policy, tmp_path, quick):
    server = weir("hostile:app", "--config", policy(ONE.replace("WAIT", "60s")), workers=1, threads=4, grace="500ms")
    hold(server, tmp_path)
    c = server.client()
    c.request("GET", "/one")
    assert c.quiet()
    server.expected_status = (0, 1)
    server.kill(signal.SIGQUIT if quick else signal.SIGTERM)
    if quick:
        assert c.rest() == b""
    else:
        r = c.response()
        assert (r.status, r.keep) == (503, False) and r.json()["reason"] == "stopping"
    assert server.wait_end() in (0, 1)


def test_who_waits_for_a_route_that_a_reload_takes_away_gets_its_place(weir, policy, tmp_path):
    server = weir("hostile:app", "--config", policy(ONE.replace("WAIT", "60s")), workers=2, threads=4)
    until = hold(server, tmp_path)
    waits = [server.client(timeout=30) for _ in range(4)]
    for c in waits:
        c.request("GET", "/one")
    assert all(c.quiet(0.05) for c in waits)
    policy("routes:\n  - {match: /two, concurrency: 1}\n")
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded: ")
    assert server.get("/one").status == 200  # nothing holds it up any more
    until.touch()
    assert [c.response().status for c in waits] == [200] * 4


def test_the_places_of_a_killed_worker_come_back_to_who_waits_in_others(weir, policy, tmp_path):
    server = weir("hostile:app", "--config", policy(ONE.replace("WAIT", "60s")), workers=2, threads=4)
    pid = tmp_path / "pid"
    server.client().request("GET", f"/one?pid={pid}&until={tmp_path / 'until'}")
    holder = int(wait_for(lambda: pid.exists() and pid.read_text(), what="the place is taken"))
    with stopped(holder):  # so that another takes them
        waits = [server.client(timeout=30) for _ in range(3)]
        for c in waits:
            c.request("GET", "/one")
        assert all(c.quiet(0.1) for c in waits)
        os.kill(holder, signal.SIGKILL)
        assert [c.response().status for c in waits] == [200] * 3


# ---- what a policy must not do ----


def test_a_dry_run_holds_up_nobody(weir, policy, tmp_path):
    text = ONE.replace("WAIT", "100ms").replace("concurrency", "dry_run: true, concurrency")
    server = weir("hostile:app", "--config", policy(text), workers=1, threads=8)
    until = hold(server, tmp_path, 4)  # all four run
    assert server.get("/one").status == 200
    until.touch()


def test_a_route_for_everything_does_not_close_the_health_check(weir, policy):
    text = "identify: [bearer, address]\nroutes:\n  - {match: /*, require: user, rate: {address: 1/day}}\n"
    server = weir("hostile:app", "--config", policy(text), workers=1)
    assert [server.get("/-/ping").status for _ in range(3)] == [200] * 3
    assert server.get("/%2d/ping").status == 401
    assert server.get("/").status == 401
