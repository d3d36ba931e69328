"""slow-request: a request that takes longer is told in the log, with the place where it is at that moment."""

from __future__ import annotations

import re
from pathlib import Path

from harness import APPS, Starter, wait_for

SLOW = re.compile(r"request=\d+ a request takes longer than slow-request of")


def test_a_slow_request_is_told_once_with_the_stack_of_its_thread_and_answered_as_ever(weir: Starter) -> None:
    server = weir(slow_request="300ms")
    with server.client() as slow, server.client() as other:
        slow.request("GET", "/wait/g")
        assert other.get("/hello").status == 200
        server.wait_log("slow-request of 0.3 s for GET /wait/g: it is in the application")
        server.wait_log("Stack of its thread")
        server.wait_log(", in wait\n")
        assert slow.quiet(0.01)
        other.get("/open/g")
        assert slow.response().status == 200
        assert other.get("/hello").status == 200
    assert len(SLOW.findall(server.log)) == 1  # and not the fast ones


def test_one_that_waits_for_a_thread_says_so(weir: Starter) -> None:
    server = weir(slow_request="300ms", threads=1)
    with server.client() as runs, server.client() as waits:
        runs.request("GET", "/sleep/1000")
        server.wait_log("for GET /sleep/1000: it is in the application")
        waits.request("GET", "/hello")
        server.wait_log("for GET /hello: it waits for a thread")
        assert runs.response().status == waits.response().status == 200


def test_one_whose_body_does_not_come_and_one_in_the_queue_of_its_route_say_so(weir: Starter, tmp_path: Path) -> None:
    (tmp_path / "weir.yaml").write_text(
        "slow-request: 300ms\nroutes:\n  - {match: GET /wait/*, concurrency: 1, queue: {size: 5, wait: 30s, fair_by: route}}\n")
    server = weir(cwd=tmp_path, pythonpath=APPS)
    with server.client() as body, server.client() as runs, server.client() as queued:
        body.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nab")
        runs.request("GET", "/wait/a")
        server.wait_log("for GET /wait/a: it is in the application")
        queued.request("GET", "/wait/b")
        server.wait_log("for POST /echo: its body is still coming")
        server.wait_log("for GET /wait/b: it waits for a place of its route")
        body.send(b"cde")
        assert body.response().text == "abcde"
        assert server.get("/open/a").status == server.get("/open/b").status == 200
        assert runs.response().status == queued.response().status == 200


def test_a_flood_of_slow_requests_does_not_flood_the_log(weir: Starter) -> None:
    server = weir(slow_request="100ms", threads="4:200")
    clients = [server.client() for _ in range(150)]
    for c in clients:
        c.request("GET", "/wait/all")
    server.wait_log(SLOW)
    wait_for(lambda: server.get("/open/all").status == 200)
    assert [c.response().status for c in clients] == [200] * 150
    assert 1 <= len(SLOW.findall(server.log)) <= 50


def test_the_deadline_of_a_request_comes_after_its_slowness(weir: Starter) -> None:
    server = weir("deadlines:app", slow_request="200ms", deadline="600ms")
    with server.client() as c:
        c.request("GET", "/loop/1500")
        assert c.response().status == 504
    log = server.wait_log("longer than its deadline")
    assert log.index("slow-request of 0.2 s") < log.index("longer than its deadline")


def test_one_that_keeps_the_interpreter_lock_is_told_while_it_does(weir: Starter) -> None:
    server = weir("stuck:app", slow_request="200ms", threads=2)
    with server.client() as c:
        c.request("GET", "/hold")
        server.wait_log("for GET /hold: it is in the application; the interpreter lock was not to be had for 1 s")
        server.wait_log(", in hold\n")
        assert c.quiet(0.01)
        assert c.response().status == 200
    assert len(SLOW.findall(server.log)) == 1


def test_what_is_told_of_it_is_not_lost_to_its_deadline(weir: Starter) -> None:
    server = weir("stuck:app", slow_request="200ms", deadline="600ms", threads=2)
    with server.client() as c:
        c.request("GET", "/hold")
        assert c.response().status == 504
        server.wait_log(re.compile("longer than its deadline.*the interpreter lock was not to be had for 1 s"))
    assert "for GET /hold: it is in the application; the interpreter lock was not to be had for 1 s" in server.log
