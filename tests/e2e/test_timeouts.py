"""Deadlines: every wait for a client ends. Small values; generous upper bounds; waits are conditions."""

from __future__ import annotations

import socket
import time

import pytest
from harness import PATIENCE, Client, Incomplete, Server, Starter, wait_for

LIMIT = 5 * PATIENCE  # far above what is set, far below what would be a hang


def dribble(c: Client, data: bytes, pause: float) -> float:
    """Send byte by byte until the server ends it; returns the seconds that took."""
    begin = time.monotonic()
    c.socket.settimeout(pause)
    for byte in data:
        try:
            c.send(bytes([byte]))
            if not c.more():
                break
        except TimeoutError:
            continue
        except OSError:
            break
        if time.monotonic() - begin > LIMIT:
            break
    c.socket.settimeout(LIMIT)
    return time.monotonic() - begin


def test_a_head_that_dribbles_is_cut_at_the_deadline_of_the_whole_head(weir: Starter) -> None:
    server = weir(header_timeout="400ms")
    with server.client() as c:
        c.send(b"GET / HTTP/1.1\r\nX: ")
        took = dribble(c, b"a" * 1000, 0.02)
        assert 0.3 < took < LIMIT
        assert c.response().status == 408
        assert c.ended() == "closed"
    server.wait_log("reason=header_timeout")


def test_the_next_head_on_a_connection_has_the_same_deadline(weir: Starter) -> None:
    server = weir(header_timeout="400ms", keep_alive="30s")
    with server.client() as c:
        assert c.get("/hello").status == 200
        c.send(b"GET / HTTP/1.1\r\nX: ")
        assert dribble(c, b"a" * 1000, 0.02) < LIMIT
        assert c.response().status == 408


def test_dribblers_do_not_delay_others_and_all_are_cut(weir: Starter) -> None:
    server = weir(header_timeout="1s", keep_alive="30s")
    clients = [server.client() for _ in range(100)]
    for c in clients:
        c.send(b"GET /")
    for _ in range(20):
        for c in clients:
            try:
                c.send(b"a")
            except OSError:
                pass
        begin = time.monotonic()
        assert server.get("/health").status == 200
        assert time.monotonic() - begin < 1 * PATIENCE
    for c in clients:
        assert c.response().status == 408
        assert c.end or c.ended() in ("closed", "reset")


def test_a_connection_without_a_request_is_closed_silently(weir: Starter) -> None:
    server = weir(header_timeout="300ms", keep_alive="300ms", log_level="debug")
    begin = time.monotonic()
    with server.client() as c:
        assert c.ended() == "closed"
        assert time.monotonic() - begin < LIMIT
    server.wait_log("reason=no_request")


def test_an_idle_connection_is_closed_after_keep_alive(weir: Starter) -> None:
    server = weir(keep_alive="300ms", log_level="debug")
    with server.client() as c:
        c.get("/hello")
        begin = time.monotonic()
        assert c.ended() == "closed"
        assert 0.2 < time.monotonic() - begin < LIMIT
    server.wait_log("reason=keep_alive_timeout")


def test_each_request_starts_the_idle_time_again(weir: Starter) -> None:
    server = weir(keep_alive="800ms")
    with server.client() as c:
        until = time.monotonic() + 2.0
        n = 0
        while time.monotonic() < until:
            assert c.get(f"/sleep/100?{n}").text == str(n)
            n += 1
        assert n > 3


def test_keep_alive_zero_closes_after_each_answer(weir: Starter) -> None:
    server = weir(keep_alive=0)
    with server.client() as c:
        r = c.get("/hello")
        assert not r.keep
        assert c.ended() == "closed"


def test_a_body_that_pauses_is_answered_408(weir: Starter) -> None:
    server = weir(body_timeout="300ms")
    for start in ("Content-Length: 100", "Transfer-Encoding: chunked"):
        with server.client() as c:
            c.request("POST", "/echo", start)
            c.send(b"5\r\nab")
            begin = time.monotonic()
            assert c.response().status == 408
            assert time.monotonic() - begin < LIMIT
            assert c.ended() == "closed"
    server.wait_log("reason=body_timeout")


def test_a_slow_body_that_moves_is_not_cut(weir: Starter) -> None:
    server = weir(body_timeout="600ms", header_timeout="300ms")
    with server.client() as c:
        c.request("POST", "/echo", "Content-Length: 16")
        c.socket.settimeout(0.1)
        c.send(b"x")
        for _ in range(14):
            c.send(b"x")
            with pytest.raises(TimeoutError):
                c.more()  # 100 ms pass; longer together than both timeouts
        c.send(b"x")
        c.socket.settimeout(LIMIT)
        assert c.response().body == b"x" * 16


def test_an_unbuffered_body_that_pauses_fails_in_read(weir: Starter) -> None:
    server = weir(body_timeout="300ms", request_buffering="off")
    with server.client() as c:
        c.request("POST", "/reads/a", "Content-Length: 100")
        c.send(b"x")
        try:
            assert c.response().status == 422
        except Incomplete:
            pass
    wait_for(lambda: server.get("/seen").json().get("reads a") == 1)


def test_a_client_that_takes_nothing_is_cut_after_send_timeout(weir: Starter) -> None:
    server = weir(send_timeout="500ms", threads=2)
    with server.client(receive_buffer=4096) as c:
        c.request("GET", "/flood/64?slow")
        begin = time.monotonic()
        log = server.wait_log("reason=send_timeout")
        assert time.monotonic() - begin < LIMIT + 5
        assert log.count("reason=send_timeout") == 1
    wait_for(lambda: server.get("/seen").json().get("closed flood slow") == 1, what="close() was called")


def test_a_client_that_takes_a_file_of_bytes_slowly_but_steadily_is_served(weir: Starter) -> None:
    server = weir(send_timeout="700ms")
    n = 3_000_000
    with server.client(receive_buffer=8192) as c:
        c.request("GET", f"/big/{n}")
        r = c.head()
        assert r.status == 200
        left = n - len(c.buffer)
        c.buffer.clear()
        begin = time.monotonic()
        while left > 0:
            left -= len(c.socket.recv(65536))
            if time.monotonic() - begin < 2.0:
                socket_wait(0.01)
        assert left == 0


def socket_wait(seconds: float) -> None:
    """A slow reader's pause: the thing under test, not a way to wait for it."""
    a, b = socket.socketpair()
    with a, b:
        a.settimeout(seconds)
        try:
            a.recv(1)
        except TimeoutError:
            pass


def test_a_client_that_stops_reading_between_answers_is_cut(weir: Starter) -> None:
    server = weir(send_timeout="500ms")
    with server.client(receive_buffer=4096) as c:
        try:
            for _ in range(40):
                c.request("GET", "/big/1000000")
        except OSError:
            pass
        server.wait_log("reason=send_timeout")


def test_a_long_view_is_never_timed_out_by_the_server(weir: Starter) -> None:
    server = weir(header_timeout="200ms", body_timeout="200ms", send_timeout="200ms", keep_alive="200ms")
    with server.client() as c:
        assert c.get("/sleep/1500?late").text == "late"


def test_proxy_protocol_waits_no_longer_than_for_a_head(weir: Starter) -> None:
    server = weir(header_timeout="300ms", proxy_protocol="auto")
    with server.client() as c:
        c.send(b"PROXY TCP4 1.2.3.4")
        assert c.rest() is not None
        assert c.end in ("closed", "reset")


@pytest.mark.parametrize("waitress", [False, True])
def test_idle_connections_use_no_processor_time(weir: Starter, waitress: bool) -> None:
    server: Server = weir("basic:app", waitress=waitress)
    clients = [server.client() for _ in range(30)]
    for c in clients:
        assert c.get("/hello").status == 200
    before = server.cpu_seconds()
    socket_wait(1.0)
    assert server.cpu_seconds() - before < 0.15 * PATIENCE
    for c in clients:
        assert c.alive()


def test_a_failed_body_is_not_failed_again_by_its_deadline(weir: Starter) -> None:
    server = weir(request_buffering="off", max_body_size="1K", body_timeout="100ms")
    with server.client() as c:
        c.request("POST", "/wait/late", "Transfer-Encoding: chunked")
        c.send(b"1000\r\n" + bytes(0x1000) + b"\r\n")
        server.wait_log("max-body-size")
        socket_wait(0.3)
        server.get("/open/late")
        assert c.response().body == b"opened\n"


def test_a_client_that_sends_but_takes_nothing_is_cut(weir: Starter) -> None:
    server = weir(request_buffering="off", send_timeout="300ms", body_timeout="1h")
    with server.client(receive_buffer=4096) as c:
        c.request("POST", "/live/a", "Content-Length: 60000000")
        with pytest.raises(OSError):
            for _ in range(600):
                c.send(b"x\n" * 50_000)
        server.wait_log("reason=send_timeout")


def test_a_stream_behind_an_answer_that_nobody_takes_is_cut(weir: Starter) -> None:
    server = weir(send_timeout="1s", threads=64)
    before = server.sockets()
    clients = [server.client(receive_buffer=4096) for _ in range(60)]
    for n, c in enumerate(clients):  # some of them leave a part of their answers in the server's hands
        c.send(b"GET /big/100000 HTTP/1.1\r\nHost: t\r\n\r\n" * n)
    socket_wait(0.3)
    for c in clients:
        try:
            c.request("GET", "/flood/64")
        except OSError:
            pass
    wait_for(lambda: server.sockets() == before, 20, "all of them are cut")


@pytest.mark.parametrize("rest", [b"GET /-/ping HTTP/1.1\r\nHost: t\r\n\r\n", b"GET /-/pi",
                                  b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nabc"],
                         ids=["whole", "head", "body"])
def test_what_follows_before_a_fin_does_not_wait_for_a_deadline(weir: Starter, rest: bytes) -> None:
    server = weir(keep_alive="1h", header_timeout="1h", body_timeout="1h")
    with server.client() as c:
        c.send(b"GET /wait/a HTTP/1.1\r\nHost: t\r\n\r\n" + rest)
        c.half_close()
        wait_for(lambda: server.get("/seen").json().get("wait a") == 1)
        server.get("/open/a")
        assert c.response().body == b"opened\n"
        assert c.response().status == (200 if b"ping" in rest else 400)
        assert c.ended() == "closed"
