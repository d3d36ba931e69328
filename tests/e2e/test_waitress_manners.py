"""What programs written for Waitress see on the wire, where Weir's own name does it otherwise."""

from __future__ import annotations

import pytest
from harness import Client, Server

HOST = b"Host: t\r\n"


@pytest.fixture(scope="module")
def server(weir_module) -> Server:
    return weir_module("pep:app", waitress=True)


@pytest.fixture(scope="module")
def echo(weir_module) -> Server:
    return weir_module("basic:app", waitress=True)


@pytest.mark.parametrize("view", ["two", "generator", "writes"])
def test_an_answer_of_unknown_length_closes(server, view):
    with server.client() as c:
        r = c.get(f"/{view}")
        assert r.get("transfer-encoding") == "chunked" and r.get("connection") == "close"
        assert c.rest() == b""


def test_each_item_of_a_list_is_a_chunk(server):
    assert server.get("/two").chunks == [b"one", b"two"]


@pytest.mark.parametrize("view", ["one", "nothing", "writes-with-length"])
def test_an_answer_of_known_length_keeps_the_connection(server, view):
    with server.client() as c:
        for _ in range(2):
            r = c.get(f"/{view}")
            assert r.get("content-length") is not None and r.keep


def test_http_1_0_learns_no_length_of_two_items(server):
    with server.client() as c:
        c.send(b"GET /two HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        r = c.head()
        assert r.version == "HTTP/1.0" and r.get("content-length") is None and r.get("connection") == "close"
        assert c.rest() == b"onetwo"


def test_the_head_goes_out_before_content_that_does_not_fit_is_looked_at(server):
    with server.client() as c:
        r = c.get("/write-text-beyond")
        assert r.status == 200 and r.body == b""
        assert c.rest() == b""
    server.wait_log("must be bytes, not str")


def test_100_continue_also_when_the_content_is_there(echo):
    with echo.client() as c:
        c.send(b"POST /echo HTTP/1.1\r\n" + HOST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\nab")
        assert c.head(keep_interim=True).status == 100
        assert c.response().body == b"ab"


def test_heads_that_are_not_understood_count_as_http_1_0(weir):
    s = weir("basic:app", waitress=True, max_request_header_size=1000)
    for data, status in ((b"GET / HTTP/1.0\r\n Host: a\r\n\r\n", 400),
                         (b"GET / HTTP/1.1\r\n" + b"X: 12345678\r\n" * 100 + b"\r\n", 431),
                         (b"a" * 1100, 431),
                         (b"GET /" + b"a" * 1100 + b" HTTP/1.1\r\n\r\n", 431)):
        r, = s.raw(data).responses
        assert (r.version, r.status, r.get("connection")) == ("HTTP/1.0", status, "close")
    # What is refused for another reason was understood.
    big = b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 99999999999\r\n\r\n"
    r, = s.raw(big).responses
    assert (r.version, r.status, r.reason) == ("HTTP/1.1", 413, "Request Entity Too Large")


def test_a_malformed_body_above_the_limit_is_too_large(weir):
    s = weir("basic:app", waitress=True, max_request_body_size=1000)
    head = b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    assert s.raw(head + b"5;\r\nabcde\r\n" * 100).statuses == [413]
    assert s.raw(head + b"5;\r\nabcde\r\n").statuses == [400]


@pytest.mark.parametrize("body, text", [
    (b"0x5\r\nabcde\r\n0\r\n\r\n", b"Invalid chunk size"),
    (b"5;x=\r\nabcde\r\n0\r\n\r\n", b"Invalid chunk extension"),
    (b"5\r\nabcdefgh\r\n0\r\n\r\n", b"Chunk not properly terminated"),
])
def test_words_for_a_malformed_chunk(echo, body, text):
    r, = echo.raw(b"POST /echo HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n" + body).responses
    assert r.status == 400 and text in r.body


def test_weir_itself_keeps_what_it_can(weir):
    s = weir("pep:app")
    with Client(s.address) as c:
        for view in ("two", "generator"):
            assert c.get(f"/{view}").keep
    assert s.raw(b"GET / HTTP/1.0\r\n Host: a\r\n\r\n").responses[0].version == "HTTP/1.1"
