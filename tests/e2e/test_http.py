"""HTTP/1.1 as a client sees it: connections, framing, refusals, limits. RFC 9110, RFC 9112."""

from __future__ import annotations

import http.client
import subprocess
import threading
import time

import pytest
from harness import PATIENCE, Client, Incomplete, Server, Starter, plain_env, split_at, wait_for


@pytest.fixture(scope="module")
def server(weir_module: Starter) -> Server:
    return weir_module("basic:app", threads="4:32")


def get(target: str, *fields: str, version: str = "HTTP/1.1") -> bytes:
    return "\r\n".join([f"GET {target} {version}", "Host: t", *fields, "", ""]).encode()


def post(target: str, body: bytes, *fields: str) -> bytes:
    head = "\r\n".join([f"POST {target} HTTP/1.1", "Host: t", *fields, f"Content-Length: {len(body)}", "", ""])
    return head.encode() + body


def chunked(target: str, chunks: bytes, *fields: str) -> bytes:
    return "\r\n".join([f"POST {target} HTTP/1.1", "Host: t", "Transfer-Encoding: chunked", *fields, "", ""]).encode() + chunks


# ---- connections ----


def test_a_connection_serves_many_requests(server: Server) -> None:
    with server.client() as c:
        for i in range(50):
            r = c.get(f"/token?{i}")
            assert (r.status, r.text, r.keep) == (200, str(i), True)


def test_25_pipelined_requests_in_one_write_are_answered_in_order(server: Server) -> None:
    got = server.raw(b"".join(get(f"/token?{i}") for i in range(25)), 25)
    assert [r.text for r in got.responses] == [str(i) for i in range(25)]


def test_pipelined_requests_of_different_speed_are_answered_in_order(server: Server) -> None:
    data = b"".join(get(f"/sleep/{ms}?{ms}") for ms in (60, 1, 30, 0, 15, 2))
    assert [r.text for r in server.raw(data, 6).responses] == ["60", "1", "30", "0", "15", "2"]


MIXED = (get("/token?a") + post("/echo", b"0123456789") + chunked("/echo", b"3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nT: 1\r\n\r\n")
         + b"HEAD /hello HTTP/1.1\r\nHost: t\r\n\r\n" + get("/token?z", "Connection: close"))
MIXED_METHODS = ("GET", "POST", "POST", "HEAD", "GET")


def check_mixed(got) -> None:
    assert [r.body for r in got.responses] == [b"a", b"0123456789", b"abcde", b"", b"z"]
    assert got.end == "closed" and not got.rest


def test_pipelined_requests_byte_by_byte(server: Server) -> None:
    check_mixed(server.raw(split_at(MIXED, 1), methods=MIXED_METHODS))


def test_pipelined_requests_cut_at_every_place(server: Server) -> None:
    for i in range(1, len(MIXED)):
        check_mixed(server.raw([MIXED[:i], MIXED[i:]], methods=MIXED_METHODS))


def test_20000_pipelined_requests_are_answered_while_the_client_only_sends_at_first(server: Server) -> None:
    n = 20000
    data = b"".join(get(f"/token?{i}") for i in range(n))
    with server.client(timeout=30) as c:
        sender = threading.Thread(target=c.send, args=(data,))
        sender.start()
        for i in range(n):
            assert c.response().body == b"%d" % i
        sender.join()
        assert c.alive()


def test_pipelined_uploads_wait_behind_a_slow_answer(server: Server) -> None:
    body = bytes(range(256)) * 400
    with server.client() as c:
        sender = threading.Thread(target=c.send, args=(get("/sleep/300?first") + b"".join(
            post("/echo", body + b"%d" % i) for i in range(8)),))
        sender.start()
        assert c.response().text == "first"
        for i in range(8):
            assert c.response().body == body + b"%d" % i
        sender.join()
        assert c.alive()


@pytest.mark.parametrize("data", [b"", b"\r", b"\r\n", b"\r\n\r\n"])
def test_empty_lines_and_a_half_close_are_no_request(server: Server, data: bytes) -> None:
    got = server.raw(data, half_close=True)
    assert got.statuses == [] and got.end == "closed"


def test_all_requests_before_a_half_close_are_answered(server: Server) -> None:
    data = b"".join(get(f"/sleep/{i % 7 * 5}?{i}") for i in range(40))
    got = server.raw(data, half_close=True)
    assert [r.text for r in got.responses] == [str(i) for i in range(40)]
    assert got.end == "closed"


def test_a_client_that_reads_nothing_of_its_pipeline_stops_being_read(weir: Starter) -> None:
    server = weir("basic:app")
    server.get("/hello")
    before = server.rss_kib()
    request = get("/big/20000")
    with server.client(timeout=1, receive_buffer=4096) as c:
        sent = 0
        try:
            while sent < 50_000_000:
                sent += c.socket.send(request * 100)
        except TimeoutError:
            pass
        assert sent < 20_000_000, "requests were read though nobody takes the answers"
        assert server.rss_kib() - before < 10_000 * PATIENCE


def test_http_10_closes_unless_keep_alive_is_asked_for(server: Server) -> None:
    got = server.raw(b"GET /hello HTTP/1.0\r\n\r\n" + get("/token?no"))
    assert [r.body for r in got.responses] == [b"Hello world\n"]
    assert got.end == "closed"
    with server.client() as c:
        for _ in range(3):
            r = c.get("/hello", "Connection: Keep-Alive", version="HTTP/1.0", host=None)
            assert (r.get("connection") or "").lower() == "keep-alive"
        r = c.get("/hello", version="HTTP/1.0", host=None)
        assert not r.keep
        assert c.ended() == "closed"


def test_http_10_gets_an_unframed_stream_that_ends_with_the_connection(server: Server) -> None:
    with server.client() as c:
        r = c.get("/stream/3", "Connection: keep-alive", version="HTTP/1.0")
        assert r.get("transfer-encoding") is None
        assert r.body == b"piece 0\npiece 1\npiece 2\n"
        assert c.end == "closed"


@pytest.mark.parametrize("value, keep", [
    ("close", False), ("CLOSE", False), ("x, close", False), ("close , x", False), ("keep-alive, close", False),
    ("keep-alive", True), ("closed", True), ("", True),
])
def test_connection_lists_are_understood(server: Server, value: str, keep: bool) -> None:
    with server.client() as c:
        r = c.get("/hello", f"Connection: {value}")
        assert r.keep is keep
        if keep:
            assert c.alive()
        else:
            assert c.ended() == "closed"


def test_nothing_is_answered_after_connection_close(server: Server) -> None:
    got = server.raw(get("/token?1", "Connection: close") + get("/token?2"))
    assert [r.text for r in got.responses] == ["1"]
    assert got.end == "closed"


def test_the_standard_client_of_python_keeps_its_connection(server: Server) -> None:
    conn = http.client.HTTPConnection(*server.address, timeout=10)
    for i in range(3):
        conn.request("POST", "/echo", body=b"x" * i)
        assert conn.getresponse().read() == b"x" * i
    port = conn.sock.getsockname()[1]
    conn.request("POST", "/echo", body=iter([b"a", b"b"]), encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    assert conn.getresponse().read() == b"ab"
    assert conn.sock.getsockname()[1] == port
    conn.close()


def test_curl_reads_keeps_and_uploads(server: Server, tmp_path) -> None:
    out = subprocess.run(
        ["curl", "-sSv", "--max-time", "20", f"{server.url}/token?1", f"{server.url}/stream/2", "--next", "-sS", "-I",
         f"{server.url}/hello", "--next", "-sS", "-d", "x" * 3000, f"{server.url}/echo"],
        capture_output=True, text=True, timeout=30, check=True, env=plain_env())
    assert out.stdout.startswith("1piece 0\npiece 1\nHTTP/1.1 200 OK") and out.stdout.endswith("x" * 3000)
    assert "Re-using existing connection" in out.stderr


# ---- HEAD ----


@pytest.mark.parametrize("data, status", [
    (b"HEAD / HTTP/1.1\r\n\r\n", 400), (b"\r\nHEAD / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    (b"HEAD /" + b"a" * 40000 + b" HTTP/1.1\r\nHost: t\r\n\r\n", 414),
    (b"HEAD / HTTP/1.1\r\nHost: t\r\nContent-Length: 99999999999\r\n\r\n", 413),
    (b"HEAD / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", 400),
])
def test_a_refused_head_has_no_content(server: Server, data: bytes, status: int) -> None:
    got = server.raw(data, methods=["HEAD"])
    assert got.statuses == [status] and got.rest == b"" and got.partial is None
    assert int(got.responses[0].get("content-length") or 0) > 10


@pytest.mark.parametrize("target, length", [
    ("/hello", "12"), ("/stream/3", None), ("/status/204", None), ("/status/304", None), ("/nothing", True),
    ("/big/100000", "100000"), ("/fail", True),
])
def test_head_is_answered_as_get_without_content(server: Server, target: str, length) -> None:
    with server.client() as c:
        r = c.ask("HEAD", target)
        assert r.body == b""
        if length is True:
            assert int(r.get("content-length") or 0) > 0
        else:
            assert r.get("content-length") == length
        if r.keep:
            assert c.get("/token?next").text == "next"


def test_pipelined_heads_leave_nothing_between_their_answers(server: Server) -> None:
    methods = ["HEAD", "GET"] * 8
    data = b"".join(f"{m} /hello HTTP/1.1\r\nHost: t\r\n\r\n".encode() for m in methods)
    got = server.raw(data, 16, methods=methods)
    assert [r.body for r in got.responses] == [b"", b"Hello world\n"] * 8


# ---- Expect ----


def test_100_continue_is_sent_once_before_the_body(server: Server) -> None:
    with server.client() as c:
        c.request("POST", "/echo", "Expect: 100-continue", "Content-Length: 5")
        assert c.head(keep_interim=True).status == 100
        assert c.quiet()
        c.send(b"12345")
        r = c.response()
        assert (r.status, r.body, r.interim) == (200, b"12345", [])
        assert c.alive()


def test_100_continue_for_a_chunked_body(server: Server) -> None:
    with server.client() as c:
        c.request("POST", "/echo", "expect: 100-Continue", "Transfer-Encoding: chunked")
        assert c.head(keep_interim=True).status == 100
        c.send(b"1\r\nx\r\n0\r\n\r\n")
        assert c.response().body == b"x"


@pytest.mark.parametrize("sent", [b"1", b"12345"])
def test_100_continue_is_not_sent_when_the_body_has_begun(server: Server, sent: bytes) -> None:
    with server.client() as c:
        c.send(post("/echo", b"12345", "Expect: 100-continue")[:-5] + sent)
        c.send(b"12345"[len(sent):])
        r = c.response()
        assert (r.status, r.interim, r.body) == (200, [], b"12345")


def test_100_continue_is_not_sent_to_http_10_nor_without_a_body(server: Server) -> None:
    got = server.raw(b"POST /echo HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\nx")
    assert got.statuses == [200] and got.responses[0].interim == []
    with server.client() as c:
        r = c.get("/hello", "Expect: 100-continue")
        assert (r.status, r.interim) == (200, [])
        assert c.alive()


def test_another_expectation_is_refused_with_417(server: Server) -> None:
    got = server.raw(post("/echo", b"x", "Expect: wonders") + get("/token?2"))
    assert got.statuses == [417] and b"100-continue" in got.responses[0].body


# ---- bodies in, content out ----


def test_a_chunked_request_with_extensions_and_trailers(server: Server) -> None:
    with server.client() as c:
        c.send(chunked("/echo", b'5;name="quoted; value"\r\nhello\r\n1;a;b=c\r\n \r\n5\r\nworld\r\n000;last\r\n'
                                b"X-Check: 1\r\nExpires: never\r\n\r\n"))
        assert c.response().body == b"hello world"
        assert c.alive()


def test_an_answer_of_unknown_length_is_chunked(server: Server) -> None:
    with server.client() as c:
        r = c.get("/stream/5")
        assert r.get("transfer-encoding") == "chunked"
        assert r.body == b"".join(b"piece %d\n" % i for i in range(5))
        assert c.alive()


def test_every_answer_has_a_date_and_a_server(server: Server) -> None:
    from email.utils import parsedate_to_datetime

    for r in (server.get("/hello"), server.get("/-/ping"), server.raw(b"nonsense\r\n\r\n").responses[0]):
        assert parsedate_to_datetime(r.get("date") or "")
        assert (r.get("server") or "").startswith("weir")


# ---- targets, methods, Host ----


def test_absolute_form_is_served_and_its_host_counts(server: Server) -> None:
    with server.client() as c:
        r = c.get("http://named.example:81/env?q=1", host="other")
        seen = r.json()
        assert (seen["PATH_INFO"], seen["QUERY_STRING"], seen["HTTP_HOST"]) == ("/env", "q=1", "named.example:81")


def test_asterisk_form_is_for_options(server: Server) -> None:
    assert server.ask("OPTIONS", "*").status in (200, 404)
    assert server.raw(b"GET * HTTP/1.1\r\nHost: t\r\n\r\n").statuses == [400]


def test_an_old_client_that_announces_content_has_to_tell_its_length(server: Server) -> None:
    post = b"POST /token?x HTTP/1.0\r\nContent-Type: text/plain\r\n"
    got = server.raw(post + b"\r\nabc")
    assert got.statuses == [411] and b"Content-Length" in got.responses[0].body
    server.wait_log("411: an HTTP/1.0 request with content")
    assert server.raw(post + b"Content-Length: 0\r\n\r\n").statuses == [200]
    assert server.raw(b"POST /token?x HTTP/1.0\r\n\r\n").statuses == [200]


def test_connect_is_not_implemented(server: Server) -> None:
    got = server.raw(b"CONNECT t:443 HTTP/1.1\r\nHost: t:443\r\n\r\n" + get("/token?x"))
    assert got.statuses == [501] and b"CONNECT" in got.responses[0].body
    server.wait_log("501: CONNECT is not supported")


@pytest.mark.parametrize("head", [
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
])
def test_a_missing_or_malformed_host_is_refused(server: Server, head: bytes) -> None:
    got = server.raw(head + get("/token?x"))
    assert got.statuses == [400] and b"Host" in got.responses[0].body


@pytest.mark.parametrize("host", ["a", "a:80", "a:", "[::1]", "[::1]:80", "127.0.0.1:8000", "a-b.example", "%41"])
def test_a_well_formed_host_is_served(server: Server, host: str) -> None:
    assert server.get("/env", host=host).json()["HTTP_HOST"] == host


def test_ping_answers_get_and_head_and_nothing_else(server: Server) -> None:
    assert server.get("/-/ping").text == "pong\n"
    assert server.ask("HEAD", "/-/ping").get("content-length") == "5"
    r = server.ask("POST", "/-/ping", body=b"")
    assert r.status == 405 and r.get("allow") == "GET, HEAD" and b"GET" in r.body


# ---- refusals: a status, a reason in the body and in the log, the end ----


REFUSALS = [
    (b"NONSENSE\r\n\r\n", 400, None),
    (b"GET /\x01 HTTP/1.1\r\nHost: t\r\n\r\n", 400, None),
    (b"GET / HTTP/1.1\r\nHost: t\r\nbad name: 1\r\n\r\n", 400, None),
    (b"GET / HTTP/1.1\r\nHost: t\r\nName : 1\r\n\r\n", 400, None),
    (b"GET / HTTP/1.1\r\nHost: t\r\nA: 1\r\n folded\r\n\r\n", 400, None),
    (b"GET / HTTP/1.1\r\nHost: t\r\nA: \x00\r\n\r\n", 400, None),
    (b"GET / HTTP/1.1\nHost: t\n\n", 400, None),
    (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: +1\r\n\r\nx", 400, "Content-Length"),
    (b"GET / HTTP/2.0\r\nHost: t\r\n\r\n", 505, "HTTP/1.1"),
    (b"GET / HTTP/1.1\r\nHost: t\r\nExpect: more\r\n\r\n", 417, "100-continue"),
    (b"POST / HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "chunked"),
    (b"POST / HTTP/1.1\r\nHost: t\r\nContent-Length: 67108865\r\n\r\n", 413, "max-body-size"),
    (b"GET / HTTP/1.1\r\nHost: t\r\n" + b"X: " + b"a" * 33000 + b"\r\n\r\n", 431, None),
    (b"GET /" + b"a" * 33000 + b" HTTP/1.1\r\nHost: t\r\n\r\n", 414, None),
    (b"GET / HTTP/1.1\r\nHost: t\r\n" + b"X: 1\r\n" * 101 + b"\r\n", 431, "fields"),
]


@pytest.mark.parametrize("data, status, word", REFUSALS, ids=lambda v: str(v)[:24] if isinstance(v, int) else "")
def test_a_refusal_says_why_to_the_client_and_to_the_log(weir: Starter, data: bytes, status: int, word) -> None:
    server = weir("basic:app", threads=2)
    got = server.raw(data + get("/token?second"))
    assert got.statuses == [status]
    r = got.responses[0]
    assert r.get("connection") == "close" and (r.get("content-type") or "").startswith("text/plain")
    title, reason = r.text.strip().split("\n\n")
    assert r.reason in title
    assert len(reason) > 10 and (not word or word in reason)
    log = server.wait_log(f"refused a request of 127.0.0.1 with {status}: ")
    assert reason in log, "the reason of the answer and of the log differ"
    assert server.get("/token?after").text == "after"


def test_408_for_a_head_and_a_body_that_do_not_come(weir: Starter) -> None:
    server = weir("basic:app", header_timeout="300ms", body_timeout="300ms")
    for data in (b"GET / HT", post("/echo", b"12345")[:-2]):
        got = server.raw(data)
        assert got.statuses == [408] and got.end == "closed"
        assert b"time" in got.responses[0].body or b"long" in got.responses[0].body
    server.wait_log("with 408: ", count=2)


def test_a_broken_chunk_is_refused_with_400(server: Server) -> None:
    for bad in (b"g\r\n", b"5 5\r\n", b"3\nabc\r\n", b"1;\x01\r\nx\r\n0\r\n\r\n", b"1\r\nxy\r\n0\r\n\r\n", b"-1\r\n", b"0x1\r\nx\r\n",
                b"10000000000000000\r\n", b"0\r\nContent-Length: 1\r\n\r\n"):
        got = server.raw(chunked("/echo", bad) + get("/token?2"))
        assert got.statuses == [400], (bad, got)
        assert got.end == "closed"


# ---- uploads that are too large ----


def test_413_comes_before_the_upload_is_read(server: Server) -> None:
    with server.client() as c:
        c.request("POST", "/echo", "Content-Length: 99999999999", "Expect: 100-continue")
        r = c.response()
        assert (r.status, r.interim) == (413, [])


def test_a_client_that_keeps_sending_still_receives_the_413(weir: Starter) -> None:
    server = weir("basic:app", max_body_size="100k")
    piece = bytes(65536)
    with server.client() as c:
        c.request("POST", "/echo", "Content-Length: 20000000")
        sent = 0

        def push() -> None:
            nonlocal sent
            try:
                for _ in range(300):
                    c.send(piece)
                    sent += len(piece)
            except OSError:
                pass

        pusher = threading.Thread(target=push)
        pusher.start()
        r = c.response()
        assert r.status == 413 and not r.keep
        pusher.join(20)
        assert not pusher.is_alive()
        assert sent > 1_000_000, "the server did not read on after its answer"


def test_a_chunked_body_above_the_limit_is_refused_when_it_gets_there(weir: Starter) -> None:
    server = weir("basic:app", max_body_size="100k")
    ok = chunked("/size", b"c800\r\n" + bytes(0xC800) + b"\r\n" + b"c800\r\n" + bytes(0xC800) + b"\r\n0\r\n\r\n")
    assert server.raw(ok, 1).responses[0].json()["size"] == 102400
    got = server.raw(ok[:-5] + b"1\r\nx\r\n0\r\n\r\n")
    assert got.statuses == [413]


# ---- limits: exactly at, and one above ----


def test_limits_hold_exactly(weir: Starter) -> None:
    server = weir("basic:app", max_head_size=1000, max_line_size=200, max_field_size=300, max_fields=10, max_body_size=50)

    def status(data: bytes) -> int:
        return server.raw(data, 1).statuses[0]

    def line(n: int) -> bytes:
        """A request line of n bytes, its CRLF not counted."""
        return b"GET /hello?" + b"a" * (n - 20) + b" HTTP/1.1\r\nHost: t\r\n\r\n"

    at = [n for n in range(190, 210) if status(line(n)) == 200]
    assert at == list(range(190, max(at) + 1)) and max(at) in (198, 200)
    assert status(line(max(at) + 1)) == 414

    def one_field(n: int) -> bytes:
        return b"GET /hello HTTP/1.1\r\nHost: t\r\nX: " + b"a" * (n - 3) + b"\r\n\r\n"

    at = [n for n in range(290, 310) if status(one_field(n)) == 200]
    assert at == list(range(290, max(at) + 1)) and max(at) in (298, 300)
    assert status(one_field(max(at) + 1)) == 431

    def head(n: int) -> bytes:
        """A whole head of n bytes."""
        start = b"GET /hello HTTP/1.1\r\nHost: t\r\n"
        fields = b"".join(b"X%d: " % i + b"a" * 200 + b"\r\n" for i in range(4))
        rest = n - len(start) - len(fields) - 2 - 5
        return start + fields + b"Y: " + b"b" * rest + b"\r\n\r\n"

    assert len(head(1000)) == 1000
    assert status(head(1000)) == 200
    assert status(head(1001)) == 431
    assert status(get("/hello", *["A: 1"] * 9)) == 200
    assert status(get("/hello", *["A: 1"] * 10)) == 431
    assert status(post("/echo", b"x" * 50)) == 200
    assert status(post("/echo", b"x" * 51)) == 413
    assert status(chunked("/echo", b"32\r\n" + b"x" * 50 + b"\r\n0\r\n\r\n")) == 200
    assert status(chunked("/echo", b"33\r\n" + b"x" * 51 + b"\r\n0\r\n\r\n")) == 413
    assert status(get("/hello")) == 200


def test_the_default_head_of_32_kib_holds_exactly(server: Server) -> None:
    start = b"GET /hello HTTP/1.1\r\nHost: t\r\nX: "
    fill = 32768 - len(start) - 4
    assert server.raw(start + b"a" * fill + b"\r\n\r\n", 1).statuses == [200]
    assert server.raw(start + b"a" * (fill + 1) + b"\r\n\r\n", 1).statuses == [431]


def test_huge_heads_trailers_and_extensions_cost_no_memory(weir: Starter) -> None:
    server = weir("basic:app")
    server.get("/hello")
    before = server.rss_kib()
    mib = b"a" * 1048576

    def flood(head: bytes, statuses: set[int]) -> None:
        with Client(server.address, 20) as c:
            try:
                c.send(head)
                for _ in range(8):
                    c.send(mib)
            except OSError:
                pass
            try:
                assert c.response().status in statuses
            except Incomplete:
                pass  # a reset after so much unread input is an answer too

    threads = [threading.Thread(target=flood, args=args) for _ in range(10) for args in [
        (b"GET / HTTP/1.1\r\nHost: t\r\nX: ", {431}),
        (b"GET /", {414}),
        (b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n1;", {400, 431}),
        (b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: ", {400, 431}),
    ]]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert server.get("/token?fine").text == "fine"
    assert server.rss_kib() - before < 8192 * PATIENCE


# ---- smuggling: refused, closed, and no second answer ----


SMUGGLED = b"GET /token?smuggled HTTP/1.1\r\nHost: t\r\n\r\n"


@pytest.mark.parametrize("head", [
    b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
    b"Content-Length: 5, 6\r\n\r\n12345",
    b"Content-Length : 5\r\n\r\n12345",
    b"Content-Length: 0x5\r\n\r\n12345",
    b"Content-Length: 5_0\r\n\r\n12345",
    b"Content-Length:\r\n\r\n",
    b"Content-Length: -5\r\n\r\n",
    b"Content-Length\x00: 5\r\n\r\n",
    b"X: x\nContent-Length: 5\r\n\r\n",
    b"X: x\rContent-Length: 5\r\n\r\n",
    b" Content-Length: 5\r\n\r\n",
    b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: identity\r\n\r\n",
    b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    b"Transfer-Encoding: gzip\r\n\r\n",
    b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"Transfer_Encoding: chunked\r\nTransfer-Encoding: chunked \x0b\r\n\r\n0\r\n\r\n",
])
def test_smuggling_is_refused_and_nothing_behind_it_is_answered(server: Server, head: bytes) -> None:
    data = b"POST /echo HTTP/1.1\r\nHost: t\r\n" + head + SMUGGLED
    for pieces in ([data], split_at(data, 1), [data[:-len(SMUGGLED)], SMUGGLED]):
        got = server.raw(pieces)
        assert len(got.responses) == 1 and got.responses[0].status in (400, 501), got
        assert got.end in ("closed", "reset") and not got.rest


def test_transfer_encoding_in_http_10_is_refused(server: Server) -> None:
    got = server.raw(b"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED)
    assert got.statuses == [400]


def test_underscores_never_stand_for_dashes(server: Server) -> None:
    seen = server.get("/env", "X_Forwarded_For: 6.6.6.6", "Content_Length: 7", "X-Plain: 1").json()
    assert seen["HTTP_X_PLAIN"] == "1"
    assert "HTTP_X_FORWARDED_FOR" not in seen and seen.get("CONTENT_LENGTH", "") in ("", "0")
    assert not any("6.6.6.6" in str(v) for v in seen.values())


def test_a_body_that_was_not_read_is_never_taken_for_a_request(server: Server) -> None:
    inner = get("/token?inner")
    with server.client() as c:
        c.send(post("/ignore", inner) + get("/token?next"))
        assert c.response().body == b"not read\n"
        try:
            assert c.response().text == "next"
        except Incomplete:
            assert c.end in ("closed", "reset")


def test_the_client_that_ends_inside_a_request_is_told_400(server: Server) -> None:
    for data in (b"GET / HTTP/1.1\r\nHo", post("/echo", b"12345")[:-2], chunked("/echo", b"5\r\nab")):
        got = server.raw(data, half_close=True)
        assert got.statuses == [400] and got.end == "closed"


def test_an_expensive_looking_field_costs_no_time(server: Server) -> None:
    before = server.cpu_seconds()
    for byte in (b" ", b"\t", b",", b'"', b"\\", b"a", b";", b"=", b"\xff"):
        for name in (b"X", b"Connection", b"Transfer-Encoding", b"Accept", b"Cookie", b"Forwarded", b"Expect"):
            server.raw(b"GET /hello HTTP/1.1\r\nHost: t\r\n" + name + b": " + byte * 30000 + b"\r\n\r\n", 1)
    wait_for(lambda: server.get("/-/ping").status == 200)
    assert server.cpu_seconds() - before < 1.5 * PATIENCE


def test_room_for_a_new_connection_is_not_made_by_losing_an_answer(weir: Starter) -> None:
    server = weir(connections=8, threads=16)
    until = time.monotonic() + 2
    lost: list[str] = []
    served: list[int] = []

    def ask() -> None:
        while time.monotonic() < until:
            with Client(server.address) as c:
                try:
                    c.request("GET", "/sleep/20")
                    served.append(c.response().status)
                except OSError:
                    pass  # refused with 503, and its request came after that
                except Incomplete as e:
                    if c.end == "closed":
                        lost.append(str(e))

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert served.count(200) > 50
    assert not lost
