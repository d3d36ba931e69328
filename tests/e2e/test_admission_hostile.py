"""Admission of requests against clients that want to break it, or to get around it."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Server, Starter, wait_for

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
        os.kill(pid, signal.SIGCONT)


def the_keeper(server: Server) -> int:
    return wait_for(lambda: next(iter(server.keeper_pids()), 0), what="a keeper")


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
    server = weir("admitted:app", "--config", policy(USERS), workers=1)
    assert server.ask(method, "/api/x", body=b"").status == 401
    assert server.ask(method, "/api/x", TOKEN, body=b"").json()["REQUEST_METHOD"] == method


@pytest.mark.parametrize("route", ["/api/*", "/foo/api/*"])
@pytest.mark.parametrize("path", ["/api/x", "/foo/api/x", "/f%6fo/api/x", "//foo//api/x", "http://t/foo/api/x"])
def test_a_prefix_is_no_way_around_a_route(weir, policy, route, path):
    server = weir("admitted:app", "--config", policy(USERS.replace("/api/*", route)), workers=1, url_prefix="/foo")
    assert server.ask("POST", path, body=b"").status == 401
    assert server.ask("POST", path, TOKEN, body=b"").json()["weir.user_by"] == "bearer"


def test_script_name_of_a_front_end_is_no_way_around_a_route(weir, policy):
    server = weir("admitted:app", "--config", policy(USERS), "--trusted-proxy=127.0.0.1",
                  "--forwarder-headers=SCRIPT_NAME", workers=1)
    field = "SCRIPT_NAME: /bar/"
    assert server.ask("POST", "/bar/api/x", field, body=b"").status == 401
    told = server.ask("POST", "/bar/api/x", field, TOKEN, body=b"").json()
    assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("/bar", "/api/x")


# ---- bodies of what is parked or answered by the server ----


@pytest.mark.parametrize("mode", ["off", "auto", "on"])
def test_usage_asked_with_a_body_is_answered_once(weir, policy, mode):
    server = weir("admitted:app", "--config", policy(QUOTAS), workers=1, request_buffering=mode)
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
    server = weir("admitted:app", "--config", policy(QUOTAS), workers=1, request_buffering=mode,
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
    server = weir("admitted:app", "--config", policy(USERS), workers=1, request_buffering=mode)
    with server.client() as c:
        for _ in range(3):
            r = c.ask("POST", "/api/x", body=b"GET /evil HTTP/1.1\r\nHost: t\r\n\r\n")
            assert r.status == 401 and r.keep
        assert c.ask("POST", "/api/x", TOKEN, body=b"abc").json()["body"] == 3


@pytest.mark.parametrize("fields", [("Content-Length: 70000",), ("Transfer-Encoding: chunked",),
                                    ("Content-Length: 5", "Expect: 100-continue")])
def test_a_refused_body_that_is_not_read_is_no_other_request(weir, policy, fields):
    server = weir("admitted:app", "--config", policy(USERS), workers=1)
    with server.client() as c:
        c.request("POST", "/api/x", *fields)
        with contextlib.suppress(OSError):
            c.send(b"GET /evil HTTP/1.1\r\nHost: t\r\n\r\n" * 10)
        r = c.response()
        assert (r.status, r.keep, r.interim) == (401, False, [])
        c.half_close()
        assert c.rest() == b""
    assert "evil" not in server.log
