"""Addresses, sockets that are handed over, front-ends, limits of connections, and rough treatment."""

from __future__ import annotations

import ipaddress
import os
import resource
import socket
import stat
import struct
import time
from pathlib import Path

import pytest
from harness import PATIENCE, PYTHON, SANITIZED, Client, Incomplete, Server, Starter, options_of, wait_for, weir_command


def environ(server: Server, *fields: str, address=None, **more) -> dict:
    with Client(address or server.address) as c:
        return c.get("/env", *fields, **more).json()


# ---- addresses ----


def ipv6_here() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as s:
            s.bind(("::1", 0))
        return True
    except OSError:
        return False


needs_ipv6 = pytest.mark.skipif(not ipv6_here(), reason="this machine has no IPv6 loopback")


@needs_ipv6
def test_ipv6(weir: Starter) -> None:
    server = weir("basic:app", bind="[::1]:0")
    assert server.urls[0].startswith("http://[::1]:")
    seen = environ(server, host=f"[::1]:{server.port}")
    assert seen["REMOTE_ADDR"] == "::1" and seen["SERVER_PORT"] == str(server.port)
    assert seen["HTTP_HOST"] == f"[::1]:{server.port}"


@needs_ipv6
def test_several_addresses_of_mixed_kind(weir: Starter, tmp_path: Path) -> None:
    server = weir("basic:app", bind=["127.0.0.1:0", "[::1]:0", f"unix:{tmp_path}/a", "127.0.0.1:0"])
    assert len(server.addresses) == 4
    assert [environ(server, address=a)["REMOTE_ADDR"] for a in server.addresses][:2] == ["127.0.0.1", "::1"]
    ports = [str(a[1]) for a in server.addresses if isinstance(a, tuple)]
    shown = [environ(server, address=a, host=f"t:{a[1]}")["SERVER_PORT"] for a in server.addresses if isinstance(a, tuple)]
    assert shown == ports and len(set(ports)) == 3


def test_a_host_name_is_resolved(weir: Starter) -> None:
    server = weir("basic:app", bind="localhost:0")
    ports = {a[1] for a in server.addresses}
    assert len(ports) == 1, "all addresses of one name have the same port"
    for address in server.addresses:
        assert environ(server, address=address)["REMOTE_ADDR"] in ("127.0.0.1", "::1")


# ---- Unix sockets ----


def test_a_unix_socket_has_its_mode_and_no_client_address(weir: Starter, tmp_path: Path) -> None:
    path = tmp_path / "s"
    server = weir("basic:app", bind=f"unix:{path}", unix_socket_perms="660")
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    assert server.urls == [f"http://unix:{path}"]
    seen = environ(server, host="named.example")
    assert seen["REMOTE_ADDR"] == "" and "REMOTE_PORT" not in seen
    assert seen["SERVER_NAME"] == "named.example"
    with server.client() as c:
        for i in range(3):
            assert c.get(f"/token?{i}").text == str(i)
    assert "peer=127" not in server.log


def test_the_longest_path_of_a_unix_socket_works(weir: Starter) -> None:
    import tempfile

    with tempfile.TemporaryDirectory(prefix="w") as folder:
        path = folder + "/" + "p" * (107 - len(folder) - 1)
        server = weir("basic:app", bind=f"unix:{path}")
        assert server.addresses == [path]
        assert server.get("/hello").status == 200
        assert server.stop() == 0
        assert not os.path.exists(path)


def test_an_abstract_socket_leaves_no_file(weir: Starter, tmp_path: Path) -> None:
    name = f"weir-test-{os.getpid()}-{time.monotonic_ns()}"
    server = weir("basic:app", bind=f"unix:@{name}")
    assert server.addresses == [b"\0" + name.encode()]
    assert server.get("/hello").status == 200


def test_a_stale_socket_is_replaced_and_a_live_one_is_not(weir: Starter, tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as old:
        old.bind(str(path))
    server = weir("basic:app", bind=f"unix:{path}")
    second = weir("basic:app", bind=f"unix:{path}", ready=False)
    second.expected_status = (1,)
    assert second.wait_end() == 1
    assert "another process answers" in second.log
    assert server.get("/hello").status == 200
    path.unlink()
    path.write_text("a plain file")
    third = weir("basic:app", bind=f"unix:{path}", ready=False)
    third.expected_status = (1,)
    assert third.wait_end() == 1 and path.read_text() == "a plain file"


# ---- sockets that are handed over ----


def test_a_listening_socket_is_taken_over_by_number(weir: Starter) -> None:
    with socket.create_server(("127.0.0.1", 0)) as s:
        server = weir("basic:app", pass_fds=[s.fileno()], bind=f"fd://{s.fileno()}")
        assert server.port == s.getsockname()[1]
    assert server.get("/hello").status == 200


def test_sockets_of_systemd_take_the_place_of_addresses(weir: Starter, tmp_path: Path) -> None:
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(str(tmp_path / "s"))
    unix.listen()
    with socket.create_server(("127.0.0.1", 0)) as tcp, unix:
        become = ("import os, sys; a, b = int(sys.argv[1]), int(sys.argv[2]); a = os.dup(a); b = os.dup(b); os.dup2(a, 3); os.dup2(b, 4); "
                  "os.set_inheritable(3, True); os.set_inheritable(4, True); "
                  "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2'); os.execv(sys.argv[3], sys.argv[3:])")
        server = weir(command=[PYTHON, "-c", become, str(tcp.fileno()), str(unix.fileno()), *weir_command(),
                               *options_of({"threads": 2}), "basic:app"], pass_fds=[tcp.fileno(), unix.fileno()])
        assert server.addresses == [tcp.getsockname(), str(tmp_path / "s")]
    for address in server.addresses:
        assert environ(server, address=address)["PATH_INFO"] == "/env"
    assert server.stop() == 0
    assert (tmp_path / "s").exists(), "the file belongs to whoever made it"


# ---- PROXY protocol ----


V2 = b"\r\n\r\n\0\r\nQUIT\n"
GET = b"GET /env HTTP/1.1\r\nHost: t\r\n\r\n"


def v2(source: str, port: int, command: int = 0x21, more: bytes = b"") -> bytes:
    address = ipaddress.ip_address(source)
    other = ipaddress.ip_address("10.9.9.9" if address.version == 4 else "::9")
    body = address.packed + other.packed + struct.pack("!HH", port, 80) + more
    return V2 + bytes([command, 0x11 if address.version == 4 else 0x21]) + struct.pack("!H", len(body)) + body


@pytest.mark.parametrize("mode, line, addr, port", [
    ("v1", b"PROXY TCP4 1.2.3.4 10.0.0.1 5555 80\r\n", "1.2.3.4", "5555"),
    ("auto", b"PROXY TCP4 1.2.3.4 10.0.0.1 5555 80\r\n", "1.2.3.4", "5555"),
    ("v1", b"PROXY TCP6 2001:db8::1 ::9 5555 80\r\n", "2001:db8::1", "5555"),
    ("v2", v2("1.2.3.4", 5555), "1.2.3.4", "5555"),
    ("auto", v2("2001:db8::1", 5555), "2001:db8::1", "5555"),
    ("v2", v2("1.2.3.4", 5555, more=b"\x04\x00\x05hello"), "1.2.3.4", "5555"),
])
def test_the_proxy_protocol_tells_the_client(weir: Starter, mode: str, line: bytes, addr: str, port: str) -> None:
    server = weir("basic:app", proxy_protocol=mode)
    for pieces in ([line + GET + GET], [line, GET, GET], [bytes([b]) for b in line + GET + GET]):
        got = server.raw(pieces, 2)
        for r in got.responses:
            assert (r.json()["REMOTE_ADDR"], r.json()["REMOTE_PORT"]) == (addr, port)


@pytest.mark.parametrize("line", [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff::1 ::2 1 2\r\n", v2("1.2.3.4", 5, command=0x20)])
def test_without_an_address_the_sockets_own_counts(weir: Starter, line: bytes) -> None:
    server = weir("basic:app", proxy_protocol="auto")
    assert server.raw(line + GET, 1).responses[0].json()["REMOTE_ADDR"] == "127.0.0.1"


@pytest.mark.parametrize("line", [
    b"PROXY TCP4 1.2.3.4\r\n", b"PROXY TCP4 1.2.3.999 10.0.0.1 5 80\r\n", b"PROXY TCP4 1.2.3.4 10.0.0.1 99999 80\r\n",
    b"PROXY TCP5 1.2.3.4 10.0.0.1 5 80\r\n", b"PROXY TCP4 " + b"1" * 200 + b"\r\n", V2 + b"\x31\x11\x00\x0c" + bytes(12),
    V2 + b"\x21\x11\x00\x04" + bytes(4), b"GET / HTTP/1.1\r\nHost: t\r\n\r\n", b"\x16\x03\x01\x02\x00",
])
def test_a_malformed_or_missing_line_is_refused_and_nothing_is_served(weir: Starter, line: bytes) -> None:
    server = weir("basic:app", proxy_protocol="auto")
    got = server.raw(line + GET)
    assert got.statuses in ([400], []), got
    assert got.end in ("closed", "reset")
    server.wait_log("reason=proxy_refused")


def test_only_allowed_addresses_may_speak_it(weir: Starter) -> None:
    server = weir("basic:app", proxy_protocol="v1", proxy_protocol_from="10.0.0.1")
    got = server.raw(b"PROXY TCP4 1.2.3.4 10.0.0.1 5555 80\r\n" + GET)
    assert got.statuses in ([403], []) and got.end in ("closed", "reset")
    server.wait_log("403: the PROXY protocol is not accepted")


def test_it_is_not_spoken_unless_asked_for(weir: Starter) -> None:
    server = weir("basic:app")
    assert server.raw(b"PROXY TCP4 1.2.3.4 10.0.0.1 5555 80\r\n" + GET).statuses == [400]


# ---- front-ends ----


CLEARED = ("HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_HOST", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_PORT",
           "HTTP_X_FORWARDED_BY", "HTTP_FORWARDED")
FIELDS = ("X-Forwarded-For: 6.6.6.6", "X-Forwarded-Host: evil", "X-Forwarded-Proto: https", "X-Forwarded-Port: 1",
          "X-Forwarded-By: x", "Forwarded: for=6.6.6.6")


def test_forwarding_fields_of_strangers_are_dropped(weir: Starter) -> None:
    server = weir("basic:app")
    seen = environ(server, *FIELDS)
    assert not set(CLEARED) & seen.keys()
    assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"], seen["HTTP_HOST"]) == ("127.0.0.1", "http", "t")


def test_they_are_kept_on_request_but_do_not_count(weir: Starter) -> None:
    server = weir("basic:app", clear_untrusted_proxy_headers=False)
    seen = environ(server, *FIELDS)
    assert seen["HTTP_X_FORWARDED_FOR"] == "6.6.6.6" and seen["REMOTE_ADDR"] == "127.0.0.1"


def test_their_dropping_is_logged_on_request(weir: Starter) -> None:
    server = weir("basic:app", log_untrusted_proxy_headers=True, trusted_proxy="10.0.0.1",
                  trusted_proxy_headers="x-forwarded-for")
    environ(server, *FIELDS)
    server.wait_log("forwarding headers of the untrusted peer 127.0.0.1 were dropped")


def test_a_trusted_front_end_names_client_scheme_and_host(weir: Starter) -> None:
    server = weir("basic:app", trusted_proxy="127.0.0.1",
                  trusted_proxy_headers="x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-port")
    seen = environ(server, "X-Forwarded-For: 9.9.9.9, 1.2.3.4", "X-Forwarded-Host: site.example", "X-Forwarded-Proto: https",
                   "X-Forwarded-Port: 8443")
    assert seen["REMOTE_ADDR"] == "1.2.3.4" and seen["wsgi.url_scheme"] == "https"
    assert (seen["SERVER_NAME"], seen["SERVER_PORT"]) == ("site.example", "8443")
    assert seen["HTTP_HOST"].startswith("site.example")
    assert "9.9.9.9" not in seen["HTTP_X_FORWARDED_FOR"]
    assert environ(server)["REMOTE_ADDR"] == "127.0.0.1", "nothing said, nothing changed"


def test_hops_count_from_the_right(weir: Starter) -> None:
    server = weir("basic:app", trusted_proxy="*", trusted_proxy_count=2, trusted_proxy_headers="x-forwarded-for")
    assert environ(server, "X-Forwarded-For: 6.6.6.6, 1.2.3.4, 10.0.0.1")["REMOTE_ADDR"] == "1.2.3.4"
    assert environ(server, "X-Forwarded-For: 1.2.3.4")["REMOTE_ADDR"] == "1.2.3.4"


def test_forwarded_is_understood(weir: Starter) -> None:
    server = weir("basic:app", trusted_proxy="127.0.0.0/8", trusted_proxy_headers="forwarded")
    seen = environ(server, 'Forwarded: for=6.6.6.6, for="[2001:db8::1]:4711";proto=https;host="site.example"')
    assert (seen["REMOTE_ADDR"], seen["wsgi.url_scheme"], seen["HTTP_HOST"]) == ("2001:db8::1", "https", "site.example")
    for bad in ("for=", 'for="1.2.3.4', "for=1.2.3.4;for=1.2.3.5", "for=1.2.3.4;proto=ht tp"):
        assert server.get("/env", f"Forwarded: {bad}").status == 400, bad


@pytest.mark.parametrize("field", ["X-Forwarded-For: not an address", "X-Forwarded-Proto: gopher", "X-Forwarded-Port: 99999",
                                   "X-Forwarded-Proto: http, https", "X-Forwarded-Port: 1, 2"])
def test_what_a_trusted_front_end_says_wrongly_is_refused(weir: Starter, field: str) -> None:
    server = weir("basic:app", trusted_proxy="*",
                  trusted_proxy_headers="x-forwarded-for x-forwarded-host x-forwarded-proto x-forwarded-port")
    r = server.get("/env", field)
    assert r.status == 400 and field.split(":")[0].encode().lower() in r.body.lower()


def test_peers_of_a_unix_socket_are_trusted_as_localhost(weir: Starter, tmp_path: Path) -> None:
    server = weir("basic:app", bind=f"unix:{tmp_path}/s", trusted_proxy="localhost", trusted_proxy_headers="x-forwarded-for")
    assert environ(server, "X-Forwarded-For: 1.2.3.4")["REMOTE_ADDR"] == "1.2.3.4"


def test_url_prefix_is_cut_at_segments(weir: Starter) -> None:
    server = weir("basic:app", url_prefix="/api")
    with server.client() as c:
        seen = c.get("/api/env?q").json()
        assert (seen["SCRIPT_NAME"], seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/api", "/env", "q")
        assert seen["REQUEST_URI"] == "/api/env?q"
        assert c.get("/env").json()["PATH_INFO"] == "/env"
        assert "'/apienv'" in c.get("/apienv").text
        assert c.get("/api").status == 200


def test_scheme_name_and_ident_can_be_set(weir: Starter) -> None:
    server = weir("basic:app", url_scheme="https", server_name="outside.example", ident="")
    with server.client() as c:
        c.send(b"GET /env HTTP/1.0\r\n\r\n")
        r = c.response()
        assert r.json()["wsgi.url_scheme"] == "https" and r.json()["SERVER_NAME"] == "outside.example"
        assert r.get("server") is None


# ---- limits of connections ----


def test_a_connection_above_the_limit_is_told_503(weir: Starter) -> None:
    server = weir("basic:app", connections=4)
    before = server.sockets()
    busy = [server.client() for _ in range(4)]
    for i, c in enumerate(busy):
        c.request("GET", f"/wait/limit?{i}")
    wait_for(lambda: server.sockets() >= before + 4)
    for _ in range(3):
        r = server.raw(b"GET /hello HTTP/1.1\r\nHost: t\r\n\r\n").responses[0]
        assert r.status == 503 and b"too many connections" in r.body and r.get("retry-after") == "1"
    server.wait_log("refused a connection with 503: 4 are open")
    busy[0].close()
    wait_for(lambda: server.raw(b"GET /open/limit HTTP/1.1\r\nHost: t\r\n\r\n", 1).statuses == [200], what="a place is free again")
    assert [c.response().text for c in busy[1:]] == ["1", "2", "3"]


@pytest.mark.parametrize("waitress", [False, True])
def test_idle_connections_make_room(weir: Starter, waitress: bool) -> None:
    settings = {"connection_limit": 4} if waitress else {"connections": 4, "log_level": "debug"}
    server = weir("basic:app", waitress=waitress, **settings)
    idle = [server.client() for _ in range(4)]
    for c in idle:
        assert c.get("/hello").status == 200
    for i in range(8):
        with server.client() as c:
            assert c.get(f"/token?{i}").text == str(i)
    assert idle[0].ended() == "closed", "the one that was idle longest went first"
    if not waitress:
        server.wait_log("reason=evicted")


def test_a_connection_that_becomes_idle_lets_a_waiting_one_in(weir: Starter) -> None:
    server = weir("basic:app", waitress=True, connection_limit=2)
    busy = [server.client() for _ in range(2)]
    for i, c in enumerate(busy):
        c.request("GET", f"/sleep/500?{i}")
    with server.client() as third:
        third.request("GET", "/token?third")
        assert [c.response().text for c in busy] == ["0", "1"]
        assert third.response().text == "third"


def limited(n: int):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))


@pytest.mark.skipif(SANITIZED, reason="sanitizers need descriptors of their own")
def test_200_clients_with_64_descriptors(weir: Starter) -> None:
    server = weir("basic:app", threads=4, preexec=limited(64))
    clients, refused = [], 0
    for i in range(200):
        c = server.client()
        c.request("GET", f"/sleep/300?{i}")
        clients.append((i, c))
    served = 0
    for i, c in clients:
        try:
            r = c.response()
        except (Incomplete, OSError):
            refused += 1  # it had not asked yet when it was told
            continue
        if r.status == 200:
            assert r.text == str(i)
            served += 1
        else:
            assert r.status == 503
            refused += 1
    assert served >= 20 and served + refused == 200
    for _, c in clients:
        c.close()
    wait_for(lambda: server.raw(b"GET /token?fine HTTP/1.1\r\nHost: t\r\n\r\n", 1).responses[0].text == "fine", 1, "it recovers")
    assert server.log.count("refused a connection with 503") <= 40, "the log is not flooded"


@pytest.mark.skipif(SANITIZED, reason="sanitizers need descriptors of their own")
def test_an_application_that_takes_all_descriptors_does_not_make_it_spin(weir: Starter, tmp_path: Path) -> None:
    (tmp_path / "greedy.py").write_text("""
import os, time
def app(environ, start):
    held = []
    if environ["PATH_INFO"] == "/greedy":
        try:
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        except OSError:
            pass
        time.sleep(1.5)
        for fd in held:
            os.close(fd)
    start("200 OK", [("Content-Length", "2")])
    return [b"ok"]
""")
    server = weir("greedy:app", cwd=tmp_path, threads=4, preexec=limited(128))
    greedy = server.client()
    greedy.request("GET", "/greedy")
    wait_for(lambda: len(server.fds()) >= 126)
    cpu = server.cpu_seconds()
    told = []
    for _ in range(20):
        with Client(server.address) as c:
            try:
                c.request("GET", "/")
                told.append(c.response().status)
            except (Incomplete, OSError):
                told.append(0)  # it had not asked yet when it was told
    assert set(told) <= {503, 0} and 503 in told
    assert greedy.response().body == b"ok"
    assert server.cpu_seconds() - cpu < 0.6, "it spun"
    assert server.get("/").body == b"ok"


# ---- many, and rough ----


def test_2000_idle_connections_cost_little_and_delay_nobody(weir: Starter) -> None:
    n = 500 if SANITIZED else 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < n + 300:
        pytest.skip(f"only {hard} descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server = weir("basic:app", threads=4)
    for _ in range(50):
        server.get("/hello")
    before = server.rss_kib()
    clients = []
    try:
        for i in range(n):
            c = Client(server.address)
            clients.append(c)
            c.request("GET", f"/token?{i}")
            assert c.response().text == str(i)
        grown = (server.rss_kib() - before) / n
        assert grown < 2 * PATIENCE, f"{grown:.2f} KiB each"
        begin = time.monotonic()
        for _ in range(20):
            assert server.get("/hello").status == 200
        assert time.monotonic() - begin < 0.5 * PATIENCE
        for i, c in enumerate(clients[::97]):
            assert c.get(f"/token?again{i}").text == f"again{i}"
    finally:
        for c in clients:
            c.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    wait_for(lambda: server.sockets() < 10, what="all are closed")


def test_10000_connections_that_are_mistreated_leave_nothing(weir: Starter) -> None:
    server = weir("basic:app", threads="2:8", log_level="warning", ready=False)
    # The ready line is of level info: find the port in /proc instead.
    server.given = wait_for(lambda: listening(server), 20)
    before, rss = len(server.fds()), server.rss_kib()
    linger = struct.pack("ii", 1, 0)
    request = b"GET /token?x HTTP/1.1\r\nHost: t\r\n\r\n"
    begin = time.monotonic()
    for i in range(2000 if SANITIZED else 10000):
        s = socket.socket()
        s.settimeout(10)
        s.connect(server.address)
        kind = i % 8
        if kind == 1:
            s.send(request[: i % len(request)])
        elif kind in (2, 3):
            s.send(request * 3)
        elif kind == 4:
            s.send(b"POST /echo HTTP/1.1\r\nHost: t\r\nContent-Length: 1000\r\n\r\nabc")
        elif kind == 5:
            s.send(b"GET /stream/50 HTTP/1.1\r\nHost: t\r\n\r\n")
        elif kind == 6:
            s.shutdown(socket.SHUT_WR)
        elif kind == 7:
            s.send(request)
            s.shutdown(socket.SHUT_WR)
        if i % 3:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        s.close()
        if i % 500 == 0:
            assert server.get(f"/token?{i}").text == str(i)
    assert time.monotonic() - begin < 60 * PATIENCE
    wait_for(lambda: len(server.fds()) <= before + 1, 15, "descriptors are back")
    cpu = server.cpu_seconds()
    assert server.get("/token?alive").text == "alive"
    assert server.rss_kib() - rss < 20_000 * PATIENCE
    wait_for(lambda: server.get("/-/ping").status == 200)
    assert server.cpu_seconds() - cpu < 0.5


def listening(server: Server):
    """The address a server listens on, as the kernel tells."""
    inodes = {name[8:-1] for name in server.fds() if name.startswith("socket:")}
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and fields[9] in inodes:
            return "127.0.0.1", int(fields[1].split(":")[1], 16)
    assert server.running(), server.log
    return None


@pytest.mark.skipif(SANITIZED, reason="sanitizers need descriptors of their own")
def test_without_even_a_spare_descriptor_it_does_not_spin(weir: Starter, tmp_path: Path) -> None:
    (tmp_path / "lowered.py").write_text("""
import resource
def app(environ, start):
    low, high = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (high if environ["PATH_INFO"] == "/up" else 3, high))
    start("200 OK", [("Content-Length", "2")])
    return [b"ok"]
""")
    server = weir("lowered:app", cwd=tmp_path)
    first = server.client()
    assert first.get("/down").text == "ok"
    waiting = [server.client() for _ in range(3)]
    server.wait_log("cannot accept connections")
    cpu = server.cpu_seconds()
    server.wait_log("cannot accept connections", count=4)
    assert server.cpu_seconds() - cpu < 0.1
    assert first.get("/up").text == "ok"
    assert [c.get("/").text for c in waiting] == ["ok"] * 3
