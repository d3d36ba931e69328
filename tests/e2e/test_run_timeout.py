"""run-timeout: the longest run of the application for one request, counted from its start."""

from __future__ import annotations

import os
import time

import pytest
from harness import PATIENCE, Incomplete, Starter, wait_for


def test_a_run_that_takes_too_long_is_answered_504(weir: Starter) -> None:
    server = weir("basic:app", run_timeout="300ms", workers=0, access_log="-",
                  access_log_format="%(m)s %(U)s %(s)s %(B)s %(close_reason)s")
    c, pipelined = server.client(), server.client()
    begin = time.monotonic()
    c.request("GET", "/sleep/1200")
    r = c.response()
    assert 0.3 <= time.monotonic() - begin < 1.1 * PATIENCE
    assert r.status == 504 and not r.keep
    assert "took too long" in r.text
    assert c.ended() == "closed"
    pipelined.send(b"POST /sleep/1200 HTTP/1.1\r\nHost: t\r\nContent-Length: 2\r\n\r\nab" * 2)
    assert pipelined.response().status == 504
    assert pipelined.ended() == "closed"
    assert server.get("/sleep/100?fast").text == "fast"
    server.wait_log("longer than run-timeout of 0.3 s for /sleep/1200: the client is told 504")
    wait_for(lambda: server.get("/seen").json().get("slept") == 3)  # the threads have come back
    out = server.wait_out("GET /sleep/100 200")
    assert out.count("GET /sleep/1200 504") == out.count("POST /sleep/1200 504") == 1  # and nothing for the late answer


def test_the_time_counts_from_the_start_of_the_run_and_not_from_the_request(weir: Starter) -> None:
    server = weir("basic:app", run_timeout="600ms", threads=1)
    clients = [server.client() for _ in range(5)]
    for i, c in enumerate(clients):
        c.request("GET", f"/sleep/300?{i}")
    assert [c.response().text for c in clients] == list("01234")


def test_a_response_that_has_begun_is_cut_with_its_reason(weir: Starter) -> None:
    server = weir("basic:app", run_timeout="400ms", access_log="-", access_log_format="%(U)s %(close_reason)s")
    c = server.client()
    c.request("GET", "/ticks/50")
    assert c.head().status == 200
    with pytest.raises(Incomplete):
        while c.chunk():
            pass
    server.wait_log("reason=deadline")
    server.wait_out("/ticks/50 deadline")


def test_the_application_is_told(weir: Starter) -> None:
    server = weir("basic:app", run_timeout="300ms")
    c = server.client()
    c.request("GET", "/watch/a")
    assert c.response().status == 504
    wait_for(lambda: any("gone" in k or "left" in k for k in server.get("/seen").json()))


def test_a_body_that_is_read_as_it_comes_is_covered(weir: Starter) -> None:
    server = weir("basic:app", run_timeout="400ms", request_buffering="off", threads=1)
    c = server.client()
    c.request("POST", "/reads/a", "Content-Length: 10")
    c.send(b"abc")
    assert c.response().status == 504
    assert server.get("/hello").status == 200  # the place is free again


def test_many_runs_that_take_too_long_are_all_told(weir: Starter) -> None:
    server = weir("basic:app", run_timeout="400ms", threads="4:40")
    clients = [server.client() for _ in range(40)]
    for i, c in enumerate(clients):
        c.request("GET", f"/sleep/{[100, 1500][i % 2]}?{i}")
    assert [c.response().status for c in clients] == [200, 504] * 20
    wait_for(lambda: server.get("/seen").json()["inside"] == 0)


def test_a_worker_whose_thread_does_not_come_back_is_replaced(weir: Starter) -> None:
    server = weir("basic:app", run_timeout="300ms", threads=1, grace="1s")
    old = server.worker_pid
    c = server.client()
    begin = time.monotonic()
    c.request("GET", "/sleep/20000")
    assert c.response().status == 504
    waiting = server.client()
    waiting.request("GET", "/token?behind-it")
    new = wait_for(lambda: [p for p in server.worker_pids() if p != old], 10)
    assert time.monotonic() - begin > 5
    server.wait_log("1 of 1 threads are still inside the application 5 s after the time of their requests was over")
    assert waiting.response().text == "behind-it"
    assert int(server.get("/thread").text.split()[2]) in new
    wait_for(lambda: not os.path.exists(f"/proc/{old}"), 10)
