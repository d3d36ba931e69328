"""Every option of waitress-serve that Weir honours, by what it does to a running server."""

from __future__ import annotations

import os
import re
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path

import pytest
from harness import ROOT, Client, wait_for

APP = "basic:app"


@pytest.fixture
def serve(weir):
    def start(*arguments, app=APP, **settings):
        return weir(app, *arguments, waitress=True, **settings)

    return start


def environ(server, *fields, target="/env", **more):
    return server.get(target, *fields, **more).json()


# ---- where it listens ----


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as s:
        return s.getsockname()[1]


def test_host_and_port(serve):
    port = free_port()
    s = serve(host="127.0.0.1", port=port)
    assert s.port == port and s.get("/").status == 200


def test_listen_may_be_repeated(serve):
    one, two = free_port(), free_port()
    s = serve(listen=[f"127.0.0.1:{one}", f"*:{two}"])
    s.wait_log(f":{two}")
    for port in (one, two):
        with Client(("127.0.0.1", port)) as c:
            assert c.get("/").status == 200


def test_ipv4_and_ipv6_choose_the_families(serve):
    port = free_port()
    serve("--no-ipv6", listen=f"*:{port}")
    with Client(("127.0.0.1", port)) as c:
        assert c.get("/").status == 200
    with pytest.raises(OSError):
        Client(("::1", port))
    port = free_port()
    serve("--no-ipv4", listen=f"*:{port}")
    with Client(("::1", port)) as c:
        assert c.get("/").status == 200
    with pytest.raises(OSError):
        Client(("127.0.0.1", port))


def test_unix_socket_and_its_mode(serve, tmp_path):
    path = str(tmp_path / "s")
    s = serve(unix_socket=path, unix_socket_perms="660", address=path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o660
    assert s.get("/").status == 200


def test_unix_socket_is_private_by_default(serve, tmp_path):
    path = str(tmp_path / "s")
    serve(unix_socket=path, address=path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


def backlog_of(port):
    """Where the kernel shows it: Send-Q of a listening socket, as `ss -ltn` prints."""
    out = subprocess.run(["ss", "-Hltn", f"sport = :{port}"], capture_output=True, text=True)
    return int(out.stdout.split()[2])


def test_backlog(serve):
    try:
        assert backlog_of(serve(backlog=7).port) == 7
    except FileNotFoundError:
        pytest.skip("ss is not installed")


# ---- how much at once ----


def test_threads_are_a_bound(serve):
    s = serve(threads=2)
    done = []
    workers = [threading.Thread(target=lambda: done.append(s.get("/sleep/150"))) for _ in range(6)]
    for w in workers:
        w.start()
    for w in workers:
        w.join()
    assert len(done) == 6 and s.get("/seen").json()["peak"] == 2


def test_connection_limit_keeps_others_from_being_served(serve):
    s = serve(connection_limit=2)
    held = [s.client(), s.client()]
    for c in held:
        c.request("GET", "/sleep/1000")  # an idle one would make room
    late = s.client()
    late.request("GET", "/")
    try:
        # Either it waits, as with Waitress, or it is told so at once.
        if not late.quiet(0.3):
            assert late.response().status == 503
            return
    except OSError:
        return
    assert held[0].response().status == 200
    assert late.response().status == 200


def test_channel_timeout_closes_idle_connections(serve):
    s = serve(channel_timeout=1)
    c = s.client()
    assert c.get("/").status == 200
    assert c.ended() == "closed"


# ---- sizes ----


def test_headers_above_their_size_are_refused(serve):
    s = serve(max_request_header_size=1000)
    assert s.get("/", "X: " + "a" * 500).status == 200
    assert s.get("/", "X: " + "a" * 1500).status == 431


def test_body_of_the_limit_is_too_large(serve):
    s = serve(max_request_body_size=1000)
    assert s.ask("POST", "/size", body=b"x" * 999).json()["size"] == 999
    assert s.ask("POST", "/size", body=b"x" * 1000).status == 413


def spilled(server):
    """Unlinked files that the server holds open."""
    return [name for name in server.fds() if name.endswith(" (deleted)") or "memfd" in name]


def test_request_body_above_inbuf_overflow_goes_to_a_file(serve):
    s = serve(inbuf_overflow=1000)
    c = s.client()
    c.send(b"POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 5000\r\n\r\n" + b"x" * 4000)
    wait_for(lambda: spilled(s), what="a spilled body")
    c.send(b"x" * 1000)
    assert c.response().json()["size"] == 5000
    wait_for(lambda: not spilled(s), what="no file left")


def test_request_body_below_inbuf_overflow_stays_in_memory(serve):
    s = serve(inbuf_overflow=100000)
    c = s.client()
    c.send(b"POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 5000\r\n\r\n" + b"x" * 4000)
    assert c.quiet(0.2) and not spilled(s)
    c.send(b"x" * 1000)
    assert c.response().json()["size"] == 5000


def test_unsent_response_above_outbuf_overflow_goes_to_a_file(serve):
    s = serve(outbuf_overflow=65536, outbuf_high_watermark=64 << 20)
    c = s.client(receive_buffer=4096)
    c.request("GET", "/flood/32?one")
    wait_for(lambda: spilled(s), what="a spilled response")
    c.close()
    wait_for(lambda: not spilled(s), what="no file left")


def test_application_waits_above_the_high_watermark(serve):
    s = serve(outbuf_high_watermark=1 << 20)
    c = s.client(receive_buffer=4096)
    c.request("GET", "/flood/64?one")  # 1024 pieces, if nobody waited

    def made():
        return s.get("/seen").json().get("made flood one", 0)

    wait_for(lambda: made() >= 16, what="the first MiB")
    # What it made at most: 1 MiB here and some MiB in the kernel's buffers; then it stands still.
    wait_for(lambda: made() == (time.sleep(0.2), made())[1], what="the application waits")
    assert made() < 512
    c.close()
    wait_for(lambda: s.get("/seen").json().get("closed flood one"), what="close() is called")


# ---- what the application sees ----


def test_url_scheme_prefix_and_server_name(serve):
    s = serve(url_scheme="https", url_prefix="api/", server_name="board.example")
    e = environ(s, target="/api/env")
    assert (e["wsgi.url_scheme"], e["SCRIPT_NAME"], e["PATH_INFO"]) == ("https", "/api", "/env")
    with s.client() as c:
        c.request("GET", "/env", version="HTTP/1.0", host=None)
        assert c.response().json()["SERVER_NAME"] == "board.example"


def test_defaults_that_the_application_sees(serve):
    s = serve()
    r = s.get("/env")
    assert r.get("server") == "waitress"
    with s.client() as c:
        c.request("GET", "/env", host=None)  # without Host, HTTP/1.1: served, as by Waitress
        assert c.response().json()["SERVER_NAME"] == "waitress.invalid"


def test_ident_names_the_server_or_hides_it(serve):
    assert serve(ident="board").get("/").get("server") == "board"
    assert serve(ident="").get("/").get("server") is None


def test_tracebacks_are_shown_only_on_request(serve):
    hidden = serve().get("/fail?why")
    assert hidden.status == 500 and b"failed on purpose" not in hidden.body
    shown = serve("--expose-tracebacks").get("/fail?why")
    assert shown.status == 500 and b"RuntimeError: failed on purpose, why" in shown.body


def test_client_that_left_is_noticed_whatever_lookahead_says(serve):
    s = serve(channel_request_lookahead=0)
    c = s.client()
    c.request("GET", "/watch/one")
    wait_for(lambda: s.get("/seen").json().get("watch one"))
    c.close()
    wait_for(lambda: s.get("/seen").json().get("watched one gone"), what="the client was missed")


# ---- behind a proxy ----

FORWARDED = ("X-Forwarded-For: 192.0.2.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: a.example")


def test_trusted_proxy_may_say_who_the_client_is(serve):
    s = serve(trusted_proxy="127.0.0.1", trusted_proxy_headers="x-forwarded-for x-forwarded-proto")
    e = environ(s, *FORWARDED)
    assert (e["REMOTE_ADDR"], e["wsgi.url_scheme"]) == ("192.0.2.9", "https")
    assert "HTTP_X_FORWARDED_HOST" not in e and e["HTTP_HOST"] == "t"


def test_stranger_may_not(serve):
    s = serve(trusted_proxy="192.0.2.1", trusted_proxy_headers="x-forwarded-for")
    e = environ(s, *FORWARDED)
    assert e["REMOTE_ADDR"] == "127.0.0.1" and "HTTP_X_FORWARDED_FOR" not in e


def test_proxy_count_counts_from_the_right(serve):
    s = serve(trusted_proxy="*", trusted_proxy_headers="x-forwarded-for", trusted_proxy_count=2)
    e = environ(s, "X-Forwarded-For: 192.0.2.1, 192.0.2.2, 192.0.2.3")
    assert e["REMOTE_ADDR"] == "192.0.2.2"


def test_untrusted_headers_stay_when_they_are_not_to_be_cleared(serve):
    s = serve("--no-clear-untrusted-proxy-headers")
    e = environ(s, *FORWARDED)
    assert e["HTTP_X_FORWARDED_FOR"] == "192.0.2.9" and e["REMOTE_ADDR"] == "127.0.0.1"


def test_untrusted_headers_are_logged_on_request(serve):
    s = serve(
        "--log-untrusted-proxy-headers", trusted_proxy="192.0.2.1",
        trusted_proxy_headers="x-forwarded-for",
    )
    environ(s, *FORWARDED)
    s.wait_log(re.compile("(?i)untrusted|not trusted"))


# ---- logs ----


def test_clients_that_vanish_are_logged_or_not(serve):
    def lines_after_a_vanished_client(*arguments):
        s = serve(*arguments)
        before = s.sockets()
        with s.client() as c:
            c.send(b"POST /size HTTP/1.1\r\nHost: t\r\nContent-Length: 50\r\nExpect: 100-continue\r\n\r\n")
            assert c.socket.recv(100).startswith(b"HTTP/1.1 100 ")  # so the head has been read
            c.reset()
        wait_for(lambda: s.sockets() == before, what="its end")
        s.stop()
        return len(s.log.splitlines())

    # The same start and stop: what differs is the line about the client.
    assert lines_after_a_vanished_client() == lines_after_a_vanished_client("--no-log-socket-errors") + 1


# ---- the table ----


def test_every_option_with_effect_is_named_here_or_in_the_command_line_tests():
    rows = re.findall(r'^WAITRESS\("([\w-]+)", \w+, .*?, ([EI]), "', 
                      (ROOT / "src/conf/waitress.def").read_text(), re.M)
    assert len(rows) == 34
    tests = "".join(
        (Path(__file__).parent / name).read_text()
        for name in ("test_waitress_options.py", "test_command_line.py")
    )
    missing = [
        name for name, mark in rows
        if mark == "E" and name not in tests and name.replace("-", "_") not in tests
    ]
    assert not missing
