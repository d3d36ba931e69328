"""The cases of tests/wire over real sockets: whole, byte by byte, and cut into pieces."""

from __future__ import annotations

import json
import sys
from base64 import b64decode

import pytest
from harness import ROOT, Client, Server, Starter, raw, split_at

sys.path.insert(0, str(ROOT / "tests" / "wire"))
import wire  # noqa: E402

CASES = wire.load_all()
# The settings behind the limits of a case; a head below 256 bytes cannot be set.
SETTINGS = {"line": "max-line-size", "head": "max-head-size", "field": "max-field-size", "fields": "max-fields",
            "lax": "lax-host", "fold": "permit-obsolete-folding", "fold-method": "casefold-method",
            "any-version": "permit-unconventional-version"}
# What `weir gunicorn` sets about heads.
GUNICORN = {"manners": "gunicorn", "lax-host": True, "permit-unconventional-method": False}
servers: dict[tuple, Server] = {}


@pytest.fixture(scope="module")
def server_for(weir_module: Starter):
    def get(limits: dict, gunicorn: bool = False) -> Server:
        if limits.get("head", 256) < 256:
            pytest.skip("no server can be given a limit of less than 256 bytes for heads")
        key = (gunicorn, *sorted(limits.items()))
        if key not in servers:
            settings = {SETTINGS[k]: v for k, v in limits.items()}
            settings.update(GUNICORN if gunicorn else {})
            servers[key] = weir_module("wirecheck:app", threads=4, header_timeout="60s", body_timeout="60s",
                                       **settings)
        return servers[key]

    yield get
    servers.clear()


def ident(case: wire.Case) -> str:
    return f"{case.file.removesuffix('.wire')}-{case.line}"


def check_told(case: wire.Case, told: dict) -> None:
    """What the application saw against what the case expects."""
    expect = [(k, v.decode("latin-1")) for k, v in case.expect]
    for key, value in expect:
        if key == "method":
            assert told["REQUEST_METHOD"] == value
        elif key == "query":
            assert told["QUERY_STRING"] == value
        elif key == "version":
            assert told["SERVER_PROTOCOL"] == f"HTTP/{value}"
        elif key == "content":
            assert b64decode(told["body"]).decode("latin-1") == value
        elif key == "hidden":
            assert "HTTP_" + value.upper().replace("-", "_") not in told
        elif key == "framing" and value == "none":
            assert told["body"] == ""
        elif key == "framing" and value.startswith("length"):
            assert int(told["CONTENT_LENGTH"]) == int(value.split()[1])


def check(case: wire.Case, address: tuple[str, int], pieces: list[bytes]) -> None:
    method = case.data.lstrip(b"\r\n").split(b" ", 1)[0].decode("latin-1")
    if "fold-method" in case.limits and not case.status:
        method = method.upper()
    if ("framing", b"length 9223372036854775807") in case.expect:
        assert raw(address, pieces).statuses == [413]  # a good head, but above max-body-size
        return
    if b"\r\n7fffffffffffffff\r\n" in case.data:
        assert raw(address, pieces).statuses == [413]  # a good size, but above max-body-size
        return
    if not case.complete:
        with Client(address) as c:
            for piece in pieces:
                c.send(piece)
            told = c.quiet(0.05)
            if not told and b"100-continue" in case.data:
                assert c.head(keep_interim=True).status == 100
                told = c.quiet(0.05)
            assert told, "an answer, or the end, before the request was complete"
        return
    if case.status and not case.in_body:
        got = raw(address, pieces, methods=[method])
        assert got.statuses == [case.status], got
        assert got.responses[0].get("connection") == "close"
        if method != "HEAD":
            assert len(got.responses[0].body) > 10, "no reason in the body"
        assert got.rest == b"" and got.partial is None
        return
    if case.status:
        got = raw(address, pieces)
        assert got.statuses in ([case.status], []), got
        assert got.rest == b"" or got.partial
        return
    if method == "CONNECT":
        return
    with Client(address) as c:
        for piece in pieces:
            c.send(piece)
        r = c.response(method)
        assert r.status == 200, r
        expect = dict(case.expect)
        if "keep-alive" in expect:
            assert r.keep == (expect["keep-alive"] == b"yes")
            if not r.keep:
                assert c.rest() == b"", "answered after its last answer"
        check_told(case, json.loads(b64decode(r.get("x-answer") or "")))


@pytest.mark.parametrize("case", CASES, ids=ident)
def test_wire_case(case: wire.Case, server_for) -> None:
    server = server_for(case.limits)
    check(case, server.address, [case.data])
    if len(case.data) <= 2000:
        check(case, server.address, split_at(case.data, 1))


@pytest.mark.parametrize("case", [c for c in CASES if c.gunicorn], ids=ident)
def test_wire_case_that_gunicorn_judges_otherwise(case: wire.Case, server_for) -> None:
    case = case.under_gunicorn()
    check(case, server_for(case.limits, gunicorn=True).address, [case.data])


@pytest.mark.parametrize("case", [c for c in CASES if c.unlike_gunicorn][::3], ids=ident)
def test_wire_case_where_a_must_goes_before_gunicorn(case: wire.Case, server_for) -> None:
    check(case, server_for(case.limits, gunicorn=True).address, [case.data])


@pytest.mark.parametrize("case", [c for c in CASES if c.status and len(c.data) < 400][::9], ids=ident)
def test_nothing_behind_a_refused_request_is_answered_wherever_it_is_cut(case: wire.Case, server_for) -> None:
    follower = b"GET /second HTTP/1.1\r\nHost: t\r\n\r\n"
    address = server_for(case.limits).address
    for size in (1, 7, 64, 4096):
        got = raw(address, split_at(case.data + follower, size))
        assert got.statuses in ([case.status], []), f"in pieces of {size}: {got}"
