"""A worker that stops while others go on gives them its connections: the client notices nothing."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest
from harness import PATIENCE, Client, Incomplete, Server, Starter, wait_for


def pid_of(c: Client) -> int:
    """Who answers on this connection."""
    r = c.get("/thread")
    assert r.keep
    return int(r.text.split()[2])


def reload(server: Server) -> tuple[list[int], list[int]]:
    """HUP; waits until only new workers are there. The old ones and the new ones."""
    old = server.worker_pids()
    server.kill(signal.SIGHUP)
    new = wait_for(lambda: (p := server.worker_pids()) and not set(p) & set(old) and len(p) == len(old) and p)
    return old, new


def test_an_idle_connection_goes_on_in_another_worker(weir: Starter) -> None:
    server = weir("basic:app", workers=2)
    clients = [server.client() for _ in range(6)]
    ports = [json.loads(c.get("/env").body)["REMOTE_PORT"] for c in clients]
    for _ in range(3):
        old, new = reload(server)
        assert {pid_of(c) for c in clients} <= set(new)
    envs = [json.loads(c.get("/env").body) for c in clients]
    assert [e["REMOTE_PORT"] for e in envs] == ports
    assert {(e["REMOTE_ADDR"], e["SERVER_PORT"]) for e in envs} == {("127.0.0.1", str(server.port))}


def test_a_connection_that_never_said_anything_is_kept(weir: Starter) -> None:
    server = weir("basic:app")
    silent = server.client()
    with server.client() as c:
        pid_of(c)  # accepted after the silent one
    _, new = reload(server)
    assert pid_of(silent) in new


def test_a_request_on_its_way_during_the_handover_is_answered(weir: Starter) -> None:
    server = weir("basic:app", workers=2)
    clients = [server.client() for _ in range(50)]
    for c in clients:
        pid_of(c)
    server.kill(signal.SIGHUP)
    for round_ in range(20):
        for i, c in enumerate(clients):
            c.request("GET", f"/token?{round_}-{i}")
        for i, c in enumerate(clients):
            r = c.response()
            assert r.text == f"{round_}-{i}" and r.keep


def test_a_head_that_has_begun_is_answered_by_the_old_worker_and_kept(weir: Starter) -> None:
    server = weir("basic:app", workers=2)
    c = server.client()
    old = pid_of(c)
    c.send(b"GET /thread HTTP/1.1\r\nHo")
    with server.client() as other:
        pid_of(other)
    server.kill(signal.SIGHUP)
    wait_for(lambda: sum(pid != old for pid in server.worker_pids()) == 2, what="two new workers and the old one")
    c.send(b"st: t\r\n\r\n")
    r = c.response()
    assert int(r.text.split()[2]) == old and r.keep
    wait_for(lambda: old not in server.worker_pids(), what="the old one has ended")
    assert pid_of(c) in server.worker_pids()


def test_running_requests_finish_and_their_connections_are_kept(weir: Starter) -> None:
    server = weir("basic:app")
    old = server.worker_pid
    slow, stream, upload, empty = (server.client() for _ in range(4))
    slow.request("GET", "/sleep/900?slow")
    stream.request("GET", "/ticks/8")
    upload.request("POST", "/echo", "Content-Length: 4")
    upload.send(b"ab")
    assert empty.get("/hello").status == 200
    empty.send(b"\r\n")  # some clients send an empty line after a body
    wait_for(lambda: {"sleep", "ticks"} <= server.get("/seen").json().keys())
    server.kill(signal.SIGHUP)
    wait_for(lambda: set(server.worker_pids()) - {old})
    upload.send(b"cd")
    r = upload.response()
    assert r.body == b"abcd" and r.keep
    r = slow.response()
    assert r.text == "slow" and r.keep
    r = stream.response()
    assert r.body == b"".join(b"tick %d\n" % i for i in range(8)) and r.keep
    wait_for(lambda: old not in server.worker_pids())
    for c in (slow, stream, upload, empty):
        assert pid_of(c) == server.worker_pid


def test_the_time_a_connection_has_idled_goes_with_it(weir: Starter) -> None:
    server = weir("basic:app", keep_alive="2s")
    c = server.client()
    pid_of(c)
    begin = time.monotonic()
    wait_for(lambda: time.monotonic() - begin > 1.5, 3)
    reload(server)
    assert c.ended() == "closed"
    took = time.monotonic() - begin
    assert 2.0 <= took < 3.6 * PATIENCE, "neither cut short nor begun anew"


def test_what_the_proxy_protocol_said_goes_with_the_connection(weir: Starter) -> None:
    server = weir("basic:app", proxy_protocol="v1")
    told, silent = server.client(), server.client()
    told.send(b"PROXY TCP4 192.0.2.17 198.51.100.1 4711 80\r\n")
    assert json.loads(told.get("/env").body)["REMOTE_ADDR"] == "192.0.2.17"
    reload(server)
    env = json.loads(told.get("/env").body)
    assert (env["REMOTE_ADDR"], env["REMOTE_PORT"]) == ("192.0.2.17", "4711")
    silent.send(b"PROXY TCP4 192.0.2.18 198.51.100.1 4712 80\r\n")
    assert json.loads(silent.get("/env").body)["REMOTE_ADDR"] == "192.0.2.18"


def test_unix_connections_are_handed_over_too(weir: Starter, tmp_path: Path) -> None:
    server = weir("basic:app", bind=f"unix:{tmp_path}/sock")
    c = server.client()
    pid_of(c)
    _, new = reload(server)
    assert pid_of(c) in new


def test_more_connections_than_the_socket_holds_are_all_kept(weir: Starter) -> None:
    server = weir("basic:app", workers=2)
    clients = [server.client() for _ in range(450)]
    for c in clients:
        c.request("GET", "/hello")
    assert all(c.response().keep for c in clients)
    for _ in range(2):
        old, new = reload(server)
        assert {pid_of(c) for c in clients} == set(new)


def test_connections_between_two_workers_when_all_stop_are_still_answered(weir: Starter) -> None:
    server = weir("basic:app", workers=2, drain_idle="3s")
    clients = [server.client() for _ in range(60)]
    for c in clients:
        pid_of(c)
    old = server.worker_pids()
    server.kill(signal.SIGHUP)
    wait_for(lambda: set(server.worker_pids()) - set(old))
    server.kill(signal.SIGTERM)
    for i, c in enumerate(clients):
        c.request("GET", f"/token?{i}")
    for i, c in enumerate(clients):
        assert c.response().text == str(i)
    assert server.wait_end() == 0


def test_a_worker_that_stops_takes_no_new_connection(weir: Starter) -> None:
    server = weir("basic:app", workers=2)
    c = server.client()
    old = pid_of(c)
    c.request("GET", "/sleep/2500")
    server.kill(signal.SIGHUP)
    server.wait_log(f"[{old}] INFO stopping")
    for _ in range(20):
        with server.client() as other:
            assert pid_of(other) != old
    assert c.response().keep


def test_requests_that_wait_for_a_place_are_run_by_another_worker(weir: Starter) -> None:
    server = weir("basic:app", threads=1)
    old = server.worker_pid
    busy, get, post, pipelined, large = (server.client() for _ in range(5))
    busy.request("GET", "/sleep/4000?busy")
    with server.client() as c:
        assert c.get("/-/ping").status == 200  # it was read
    get.request("GET", "/thread")
    post.request("POST", "/echo", body=b"content" * 1000)
    pipelined.send(b"GET /token?1 HTTP/1.1\r\nHost: t\r\n\r\nGET /token?2 HTTP/1.1\r\nHost: t\r\n\r\nGET /tok")
    large.request("POST", "/size", body=bytes(100_000))  # more than goes along
    with server.client() as c:
        assert c.get("/-/ping").status == 200
    begin = time.monotonic()
    server.kill(signal.SIGHUP)
    r = get.response()
    assert int(r.text.split()[2]) != old and r.keep
    assert post.response().body == b"content" * 1000
    pipelined.send(b"en?3 HTTP/1.1\r\nHost: t\r\n\r\n")
    assert [pipelined.response().text for _ in range(3)] == ["1", "2", "3"]
    assert time.monotonic() - begin < 3 * PATIENCE, "they waited for the old worker"
    assert busy.response().text == "busy"
    assert large.response().status == 200
    for c in (busy, get, post, pipelined, large):
        assert pid_of(c) != old


# ---- the end of the whole server ----


def test_a_request_that_was_on_its_way_at_the_end_is_answered_as_the_last_one(weir: Starter) -> None:
    server = weir("basic:app", workers=2, drain_idle="2s")
    clients = [server.client() for _ in range(10)]
    for c in clients:
        pid_of(c)
    server.kill(signal.SIGTERM)
    server.wait_log("stopping", count=2)
    for c in clients:
        r = c.get("/hello")
        assert r.status == 200 and not r.keep
        assert c.ended() == "closed"
    assert server.wait_end() == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_connections_that_wait_at_the_door_at_the_end_are_served(weir: Starter, workers: int) -> None:
    server = weir("basic:app", workers=workers, threads=4)
    pids = server.worker_pids()
    for pid in pids:  # so that nobody accepts
        os.kill(pid, signal.SIGSTOP)
    waiting = [server.client() for _ in range(30)]
    for i, c in enumerate(waiting):
        c.request("GET", f"/token?{i}")
    server.kill(signal.SIGTERM)
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    for i, c in enumerate(waiting):
        assert c.response().text == str(i)
    assert server.wait_end() == 0


# ---- streams ----


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_streams_may_be_told_to_end_in_order(weir: Starter, number: int) -> None:
    server = weir("basic:app", workers=1, drain_streams="end", grace="20s")
    old = server.worker_pid
    ticks, writes, length, slow = (server.client() for _ in range(4))
    ticks.request("GET", "/ticks/100")
    writes.request("GET", "/writes/100")
    slow.request("GET", "/sleep/700?slow")
    for c in (ticks, writes):
        assert c.head().get("transfer-encoding") == "chunked"
        assert c.chunk()
    begin = time.monotonic()
    server.kill(number)
    for c in (ticks, writes):
        while c.chunk():
            pass
        assert c.take_until(b"\r\n") == b""  # complete, as every client sees it
    assert time.monotonic() - begin < 4 * PATIENCE
    assert slow.response().text == "slow"  # what is no stream finishes
    server.wait_log("write() raised BrokenPipeError: the server stops and ends this response")
    server.wait_log("ticks closed")
    assert "Traceback" not in server.log and "broken off" not in server.log
    if number == signal.SIGTERM:
        assert server.wait_end() == 0
    else:
        wait_for(lambda: old not in server.worker_pids())
        assert pid_of(ticks) == server.worker_pid


def test_streams_are_cut_when_the_grace_is_over(weir: Starter) -> None:
    server = weir("basic:app", grace="500ms")
    server.expected_status = (0, 1)
    c = server.client()
    c.request("GET", "/ticks/200")
    assert c.head().status == 200 and c.chunk()
    server.kill(signal.SIGTERM)
    with pytest.raises(Incomplete):
        while c.chunk():
            pass


def test_requests_that_still_wait_for_a_place_when_the_grace_is_over_are_told(weir: Starter) -> None:
    server = weir("basic:app", threads=1, grace="500ms", workers=0)
    server.expected_status = (0, 1)
    busy, waiting = server.client(), server.client()
    busy.request("GET", "/sleep/3000")
    with server.client() as c:
        assert c.get("/-/ping").status == 200  # the first one was read
    waiting.request("GET", "/hello")
    with server.client() as c:
        assert c.get("/-/ping").status == 200  # both were read
    server.kill(signal.SIGTERM)
    answers = []
    for c in (busy, waiting):
        try:
            answers.append(c.response().status)
        except Incomplete:
            answers.append(0)
    assert sorted(answers) == [0, 503]
