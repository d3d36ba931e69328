"""The admin listener over real sockets: who may ask, what is answered while the server hangs, and what becomes of it
when processes come and go."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from harness import (APPS, PATIENCE, PYTHON, Address, Client, Incomplete, Response, Server, Starter, raw, wait_for,
                     weir_command)

AT = re.compile(r"admin listener at (\S+)")
TOKEN = "correct-horse-battery-staple"


def address_of(server: Server, n: int = 1) -> Address:
    """Where the admin listener is, by the n-th line that says so."""
    server.wait_log(AT, count=n)
    url = AT.findall(server.log)[n - 1]
    if url.startswith("unix:"):
        return url[len("unix:"):]
    host, _, port = url[len("http://"):].rstrip("/").rpartition(":")
    return (host.strip("[]"), int(port))


def start(weir: Starter, app: str = "basic:app", *arguments: str, admin: str = "127.0.0.1:0", **more: Any) -> Server:
    return weir(app, *arguments, admin=admin, **more)


def admin(server: Server, timeout: float = 10) -> Client:
    """A connection to it."""
    c = Client(address_of(server), timeout)
    server.clients.append(c)
    return c


def ask(where: Server | Address, target: str, *fields: str, method: str = "GET", host: str = "localhost",
        **more: Any) -> Response:
    """One request on a connection of its own."""
    address = address_of(where) if isinstance(where, Server) else where
    with Client(address) as c:
        return c.ask(method, target, "Connection: close", *fields, host=host, **more)


def post(where: Server | Address, target: str, *fields: str, **more: Any) -> Response:
    return ask(where, target, *fields, method="POST", body=b"", **more)


def answers(address: Address) -> bool:
    """Does it answer? No connection may be refused."""
    return ask(address, "/live").text == "live\n"


def the_keeper(server: Server, but: int = 0) -> int:
    def one() -> int:
        pids = server.keeper_pids()
        return pids[0] if len(pids) == 1 and pids[0] != but else 0

    return wait_for(one, what="one keeper")


def slot_of_some_worker(address: Address, action: str) -> int:
    """Ask for the action at each slot: the first that takes it."""
    for slot in range(16):
        if post(address, f"/workers/{slot}/{action}").status == 200:
            return slot
    raise AssertionError("no worker takes it")


# ---- what is there ----


@pytest.fixture(scope="module")
def server(weir_module: Starter) -> Server:
    return start(weir_module, workers=2)


def test_without_the_setting_there_is_no_listener_and_no_keeper(weir: Starter) -> None:
    server = weir("basic:app", workers=1)
    assert not AT.search(server.log)
    assert server.keeper_pids() == []


@pytest.mark.parametrize(("target", "kind"), [
    ("/status", "text/html; charset=utf-8"),
    ("/status.json", "application/json"),
    ("/status.json?flights=5&brief=yes", "application/json"),
    ("/history.json", "application/json"),
    ("/request.json?worker=0&id=4711", "application/json"),
    ("/metrics", "text/plain; version=0.0.4; charset=utf-8"),
    ("/live", "text/plain; charset=utf-8"),
])
def test_every_page_is_answered_with_its_type(server: Server, target: str, kind: str) -> None:
    r = ask(server, target)
    assert (r.status, r.get("content-type")) == (200, kind)
    assert r.get("x-content-type-options") == "nosniff"
    assert r.get("x-frame-options") == "DENY"
    assert r.get("referrer-policy") == "no-referrer"
    if "json" in kind:
        assert isinstance(r.json(), dict)
    head = ask(server, target, method="HEAD")
    assert (head.status, head.get("content-type"), head.body) == (200, kind, b"")


def test_the_root_leads_to_the_page(server: Server) -> None:
    r = ask(server, "/")
    assert (r.status, r.get("location")) == (302, "/status")


def test_the_page_comes_with_a_policy_and_is_not_sent_twice(server: Server) -> None:
    r = ask(server, "/status")
    tag = r.get("etag")
    assert r.get("content-security-policy") and r.get("cache-control") == "no-cache"
    again = ask(server, "/status", f"If-None-Match: {tag}")
    assert (again.status, again.body, again.get("etag")) == (304, b"", tag)


def test_a_request_that_is_over_is_null(server: Server) -> None:
    assert ask(server, "/request.json?worker=0&id=999999").json() == {"flight": None, "thread": None}


@pytest.mark.parametrize("target", [
    "/request.json", "/request.json?worker=0", "/request.json?id=1", "/request.json?worker=x&id=1",
    "/request.json?worker=99999&id=1", "/stacks.json?worker=-1", "/stacks.json?wroker=1",
    "/stacks.json?worker=1&id=99999999999999999999999",
])
def test_a_wrong_query_is_told(server: Server, target: str) -> None:
    r = ask(server, target)
    assert r.status == 400 and r.text.count("\n") == 1


@pytest.mark.parametrize(("method", "target", "status", "allow"), [
    ("GET", "/nothing", 404, None),
    ("POST", "/nothing", 404, None),
    ("POST", "/status", 405, "GET, HEAD"),
    ("DELETE", "/live", 405, "GET, HEAD"),
    ("GET", "/workers/0/recycle", 405, "POST"),
    ("POST", "/workers/0/explode", 404, None),
    ("POST", "/workers/x/recycle", 404, None),
    ("POST", "/workers/-1/recycle", 404, None),
    ("POST", "/workers/0/recycle/", 404, None),
    ("POST", "/workers/4000/recycle", 409, None),
    ("POST", "/workers/99999999999999999999999/recycle", 404, None),
])
def test_what_is_not_there_is_refused(server: Server, method: str, target: str, status: int, allow: str | None) -> None:
    r = ask(server, target, method=method, body=None if method == "GET" else b"")
    assert (r.status, r.get("allow")) == (status, allow)
    assert r.text.endswith("\n")


def test_requests_share_a_connection_and_may_be_sent_at_once(server: Server) -> None:
    with admin(server) as c:
        for _ in range(3):
            assert c.get("/live", host="localhost").text == "live\n"
        c.send(b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 200)
        for _ in range(200):
            assert c.response().text == "live\n"


def test_a_body_is_read_and_ignored(server: Server) -> None:
    with admin(server) as c:
        assert c.ask("POST", "/nothing", body=b"x" * 4096, host="localhost").status == 404
        assert c.get("/live", host="localhost").status == 200
        c.send(b"POST /nothing HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")
        assert c.head(keep_interim=True).status == 100
        c.send(b"abc")
        assert c.response().status == 421  # the host is odd; the body belonged to it
        assert c.ended() == "closed"


def test_a_half_closed_client_gets_its_answer(server: Server) -> None:
    x = raw(address_of(server), b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n", half_close=True)
    assert x.statuses == [200] and x.end == "closed"


def test_http_1_0_is_answered(server: Server) -> None:
    x = raw(address_of(server), b"GET /live HTTP/1.0\r\n\r\n")
    assert x.statuses == [200] and x.end == "closed"
    with admin(server) as c:
        for _ in range(2):
            r = c.get("/live", "Connection: keep-alive", version="HTTP/1.0", host="localhost")
            assert r.status == 200 and r.get("connection") == "keep-alive"


GARBAGE = [
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40 + b"\r\n\r\n", 400),
    (b"GET /live\r\n\r\n", 400),
    (b"GET /live HTTP/1.1\r\n\r\n", 400),
    (b"GET /live HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET /live HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    (b"GET /live HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n", 414),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 20000 + b"\r\n\r\n", 431),
    (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: a\r\n" * 100 + b"\r\n", 431),
    (b"POST /workers/0/hold HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4097\r\n\r\n" + b"x" * 4097, 413),
    (b"POST /workers/0/hold HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 411),
    (b"GET /live HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 2\r\n\r\n", 400),
    (b"CONNECT localhost:1 HTTP/1.1\r\nHost: localhost:1\r\n\r\n", 404),
]


@pytest.mark.parametrize(("data", "status"), GARBAGE, ids=[str(i) for i in range(len(GARBAGE))])
def test_garbage_is_refused_and_hurts_nobody(server: Server, data: bytes, status: int) -> None:
    x = raw(address_of(server), data, n=1)
    assert x.statuses == [status]
    assert answers(address_of(server))


def test_a_head_in_single_bytes_is_understood(server: Server) -> None:
    x = raw(address_of(server), [bytes([b]) for b in b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"], n=1)
    assert x.statuses == [200]


def test_a_hundred_idle_connections_keep_nobody_out(server: Server) -> None:
    clients: list[Client] = []
    try:
        for i in range(100):
            clients.append(Client(address_of(server)))
            if i % 2:
                assert clients[-1].get("/live", host="localhost").status == 200
            else:
                clients[-1].send(b"GET /live HTT")
        assert answers(address_of(server))
        assert sum(c.quiet(0.01) for c in clients) < 64  # the eldest have made room
        assert clients[-1].get("/live", host="localhost").status == 200
    finally:
        for c in clients:
            c.close()
    assert answers(address_of(server))


def test_of_idle_connections_the_one_that_has_idled_longest_makes_room(server: Server) -> None:
    for c in [admin(server) for _ in range(64)]:
        assert c.ask("GET", "/live", host="localhost").status == 200
    newest = admin(server)
    assert answers(address_of(server))
    assert newest.ask("GET", "/live", host="localhost").status == 200


# ---- who may ask ----


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:5001", "10.1.2.3", "localhost", "LOCALHOST:80", "[::1]",
                                  "[::1]:5001", "weir.example.org", "Weir.Example.Org:5001"])
def test_hosts_that_no_stranger_can_point_here_are_served(weir_module: Starter, host: str) -> None:
    server = named(weir_module)
    assert ask(server, "/live", host=host).status == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "weir.example.or",
                                  "[::1].evil.example", "127.1", "0x7f.1", "[localhost]"])
@pytest.mark.parametrize("target", ["/status", "/live", "/nothing"])
def test_a_foreign_host_is_misdirected(weir_module: Starter, host: str, target: str) -> None:
    r = ask(named(weir_module), target, host=host)
    assert r.status in (421, 400), "a host that is none may be refused as such"
    if "[" not in host:
        assert r.status == 421


def named(weir_module: Starter) -> Server:
    for s in weir_module.servers:
        if "weir.example.org" in " ".join(map(str, s.process.args)) and s.running():  # type: ignore[arg-type]
            return s
    return start(weir_module, workers=1, admin_host=["weir.example.org"])


@pytest.mark.parametrize(("fields", "status"), [
    ((), 409),
    (("Origin: http://localhost",), 409),
    (("Origin: https://LOCALHOST",), 409),
    (("Origin: http://localhost", "Sec-Fetch-Site: same-origin"), 409),
    (("Sec-Fetch-Site: none",), 409),
    (("Origin: http://localhost:8000",), 403),
    (("Origin: http://evil.example",), 403),
    (("Origin: null",), 403),
    (("Origin: localhost",), 403),
    (("Sec-Fetch-Site: cross-site",), 403),
    (("Sec-Fetch-Site: same-site",), 403),
    (("Origin: http://localhost", "Sec-Fetch-Site: cross-site"), 403),
])
def test_actions_come_from_a_page_of_the_same_origin(server: Server, fields: tuple[str, ...], status: int) -> None:
    # A slot without a worker: 409 says that the action would have been done.
    assert post(server, "/workers/15/recycle", *fields).status == status


def basic(password: str, user: str = "weir") -> str:
    return "Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


@pytest.fixture
def guarded(weir: Starter, tmp_path: Path) -> Server:
    path = tmp_path / "token"
    path.write_text(f"  {TOKEN}\n")
    return start(weir, admin="0.0.0.0:0", admin_token_file=str(path), workers=1)


def test_a_token_opens_what_is_closed_without(guarded: Server) -> None:
    address = ("127.0.0.1", address_of(guarded)[1])
    for target in ("/status", "/status.json", "/events", "/stacks.json", "/metrics", "/", "/nothing"):
        r = ask(address, target)
        assert r.status == 401, target
        assert [c.split()[0] for c in r.all("www-authenticate")] == ["Bearer", "Basic"]
    assert post(address, "/workers/0/recycle").status == 401
    for target in ("/live", "/ready"):
        assert ask(address, target).status == 200
    for field in (f"Authorization: Bearer {TOKEN}", f"authorization: bearer  {TOKEN}", basic(TOKEN), basic(TOKEN, "")):
        assert ask(address, "/status", field).status == 200
    assert ask(address, "/nothing", f"Authorization: Bearer {TOKEN}").status == 404
    assert TOKEN not in guarded.log


@pytest.mark.parametrize("field", ["Authorization: Bearer", f"Authorization: Bearer {TOKEN}x", f"Authorization: Bearer {TOKEN[:-1]}",
                                   f"Authorization: Digest {TOKEN}", "Authorization: Basic !!!", "Authorization: Basic",
                                   basic(TOKEN + "x"), basic(""), "Authorization: Basic " + "A" * 5000])
def test_a_wrong_token_opens_nothing(guarded: Server, field: str) -> None:
    assert ask(("127.0.0.1", address_of(guarded)[1]), "/status", field).status == 401


def test_readers_without_a_token_who_are_slow_keep_nobody_out_who_has_it(guarded: Server) -> None:
    address = ("127.0.0.1", address_of(guarded)[1])
    deaf = [Client(address, receive_buffer=4096) for _ in range(64)]
    many = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n" * 1000
    while (takes := select.select([], [c.socket for c in deaf], [], 0.5)[1]):
        for s in takes:  # until the server reads no more, since its answers are not taken
            s.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                s.send(many)
    assert ask(address, "/status.json", f"Authorization: Bearer {TOKEN}").status == 200
    for c in deaf:
        c.close()


def test_many_wrong_tokens_are_not_even_looked_at(guarded: Server) -> None:
    address = ("127.0.0.1", address_of(guarded)[1])
    right, wrong = f"Authorization: Bearer {TOKEN}", "Authorization: Bearer " + "x" * 20
    with Client(address) as proven, Client(address) as c:
        assert proven.get("/status", right, host="localhost").status == 200
        statuses = [c.get("/status", wrong, host="localhost").status for _ in range(20)]
        assert statuses[:5] == [401] * 5
        assert statuses.count(429) >= 10
        limited = c.get("/status", right, host="localhost")
        assert (limited.status, limited.get("retry-after")) == (429, "1"), "a guess is not told from another one"
        # Who has shown a right one is not kept out by the others.
        assert proven.get("/status", right, host="localhost").status == 200
        wait_for(lambda: c.get("/status", right, host="localhost").status == 200, what="the right one is looked at again")


# ---- the socket ----


def test_a_unix_socket_is_its_owners_alone_and_goes_with_the_server(weir: Starter, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    server = start(weir, admin=f"unix:{path}", workers=1)
    assert address_of(server) == str(path)
    assert path.stat().st_mode & 0o777 == 0o600
    done = subprocess.run(["curl", "-sS", "--unix-socket", str(path), "http://localhost/live"], capture_output=True, text=True,
                          timeout=20, check=True)
    assert done.stdout == "live\n"
    server.stop()
    assert not path.exists()


@pytest.mark.parametrize("address", ["[::1]:0", "localhost:0", "127.0.0.2:0", "0"])
def test_loopback_addresses_need_no_token(weir: Starter, address: str) -> None:
    server = start(weir, admin=address, workers=1)
    assert answers(address_of(server))


def test_an_address_in_use_is_told_before_anything_starts(weir: Starter) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        server = start(weir, admin=f"127.0.0.1:{s.getsockname()[1]}", workers=1, ready=False)
        server.expected_status = (1,)
        assert server.wait_end() == 1
    assert "address already in use" in server.log and "admin" in server.log


# ---- while things hang, die and change ----


def test_it_answers_while_every_thread_of_every_worker_hangs(weir: Starter) -> None:
    server = start(weir, workers=2, threads=2, grace="1s")
    address = address_of(server)
    hung = [server.client() for _ in range(12)]
    for i, c in enumerate(hung):
        c.request("GET", f"/wait/never{i}")
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGSTOP)
    try:
        slowest = 0.0
        for target in ("/live", "/status", "/status.json", "/metrics", "/history.json") * 5:
            begin = time.monotonic()
            assert ask(address, target).status == 200
            slowest = max(slowest, time.monotonic() - begin)
        assert slowest < 0.5 * PATIENCE
    finally:
        for pid in server.worker_pids():
            os.kill(pid, signal.SIGCONT)
        server.expected_status = (0, 1)


def test_a_killed_keeper_comes_back_on_the_same_port_and_refuses_nobody(weir: Starter) -> None:
    server = start(weir, workers=1)
    address = address_of(server)
    keeper = 0
    for _ in range(3):
        assert answers(address)
        keeper = the_keeper(server, but=keeper)
        os.kill(keeper, signal.SIGKILL)
        assert answers(address)  # waits in the backlog
    the_keeper(server, but=keeper)
    assert len(AT.findall(server.log)) == 1


def test_a_worker_is_recycled_on_request(weir: Starter) -> None:
    server = start(weir, workers=2)
    address = address_of(server)
    before = set(server.worker_pids())
    slot = slot_of_some_worker(address, "recycle")
    r = post(address, f"/workers/{slot}/recycle")
    assert (r.status, list(r.json())) == (409, ["error"]), "it is replaced already, or gone"
    wait_for(lambda: len(set(server.worker_pids()) - before) == 1 and len(server.worker_pids()) == 2, 20,
             "one worker is replaced")
    assert "the admin listener was told to" in server.log
    assert server.get("/hello").status == 200


def test_only_one_of_two_workers_can_be_held(weir: Starter) -> None:
    server = start(weir, workers=2)
    address = address_of(server)
    slot = slot_of_some_worker(address, "hold")
    taken = [post(address, f"/workers/{i}/hold").status for i in range(16) if i != slot]
    assert set(taken) == {409}
    assert post(address, f"/workers/{slot}/resume").json() == {"ok": True}
    assert server.get("/hello").status == 200


def holders(server: Server, inode: str) -> set[int]:
    """Processes of the server that have this socket open."""
    pids = {server.pid, server.template_pid(), *server.keeper_pids(), *server.worker_pids()} - {0}
    found = set()
    for pid in pids:
        for entry in Path(f"/proc/{pid}/fd").iterdir():
            if os.readlink(entry) == f"socket:[{inode}]":
                found.add(pid)
    return found


@pytest.mark.parametrize("preload", [False, True])
def test_only_supervisor_and_keeper_hold_the_socket(weir: Starter, preload: bool) -> None:
    server = start(weir, workers=2, preload=preload)
    port = f"{address_of(server)[1]:04X}"
    keeper = the_keeper(server)
    assert answers(address_of(server))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    (inode,) = {line[9] for line in lines if line[1].endswith(f":{port}") and line[3] == "0A"}
    wait_for(lambda: holders(server, inode) == {server.pid, keeper}, what="nobody else has it")


def test_a_reload_reads_the_token_again(weir: Starter, tmp_path: Path) -> None:
    path = tmp_path / "token"
    path.write_text(TOKEN)
    server = start(weir, admin_token_file=str(path), workers=1)
    address, keeper = address_of(server), the_keeper(server)
    path.write_text("short")
    reload(server)
    assert "not reloaded: --admin-token-file: the token has 5 bytes" in server.log
    assert ask(address, "/status", f"Authorization: Bearer {TOKEN}").status == 200
    path.write_text("another-token-of-this-server")
    reload(server)
    wait_for(lambda: server.keeper_pids() not in ([keeper], []), what="another keeper")
    wait_for(lambda: server.keeper_pids() == [the_keeper(server, but=keeper)], what="it alone")
    assert ask(address, "/status", "Authorization: Bearer another-token-of-this-server").status == 200
    assert ask(address, "/status", f"Authorization: Bearer {TOKEN}").status == 401


def test_while_the_old_supervisor_ends_the_new_one_answers(weir: Starter) -> None:
    server = start(weir, workers=1, grace="5s")
    address = address_of(server)
    server.client().request("GET", "/wait/never")
    wait_for(lambda: "wait" in server.get("/seen").text, what="a request inside")
    server.kill(signal.SIGUSR2)
    found = re.compile(r"the new supervisor (\d+) serves beside this one")
    server.wait_log(found, 20)
    new = int(found.findall(server.log)[-1])
    try:
        server.kill(signal.SIGTERM)
        wait_for(lambda: not server.keeper_pids(), what="the old keeper steps back")
        assert server.running()
        for _ in range(20):
            assert ask(address, "/ready").status == 200
        server.expected_status = (0, 1)
        server.wait_end()
        assert answers(address)
    finally:
        os.kill(new, signal.SIGTERM)
        wait_for(lambda: refused(address), 20, "the new one ends")


def reload(server: Server) -> None:
    seen = server.log.count("reloaded")
    server.kill(signal.SIGHUP)
    wait_for(lambda: server.log.count("reloaded") > seen, 20, "the reload is over")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "weir.yaml"


def from_file(weir: Starter, config: Path, admin: str) -> Server:
    config.write_text(f"admin: {json.dumps(admin)}\n")
    return weir("basic:app", "--config", str(config), workers=1)


def test_a_reload_moves_it_to_another_address(weir: Starter, config: Path) -> None:
    server = from_file(weir, config, "127.0.0.1:0")
    old = address_of(server)
    path = config.parent / "admin.sock"
    config.write_text(f"admin: unix:{path}\n")
    reload(server)
    assert address_of(server, 2) == str(path)
    wait_for(lambda: answers(str(path)), what="the new one answers")
    wait_for(lambda: refused(old), what="the old one is closed")
    config.write_text("admin: ''\n")
    reload(server)
    wait_for(lambda: refused(str(path)) and not server.keeper_pids(), what="there is none")
    assert not path.exists()
    config.write_text("admin: 127.0.0.1:0\n")
    reload(server)
    assert answers(address_of(server, 3))


def refused(address: Address) -> bool:
    try:
        Client(address).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    return False


def test_a_reload_that_cannot_listen_leaves_all_as_it_is(weir: Starter, config: Path) -> None:
    server = from_file(weir, config, "127.0.0.1:0")
    address = address_of(server)
    keeper = the_keeper(server)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        config.write_text(f"admin: 127.0.0.1:{s.getsockname()[1]}\n")
        reload(server)
        assert "not reloaded: admin: cannot listen on 127.0.0.1:" in server.log
    assert answers(address)
    assert server.keeper_pids() == [keeper]
    config.write_text("admin: 0.0.0.0:0\n")
    reload(server)
    assert "admin-token-file" in server.log
    assert answers(address)


def test_a_reload_keeps_port_and_keeper_where_nothing_changes(weir: Starter, config: Path) -> None:
    server = from_file(weir, config, "127.0.0.1:0")
    address, keeper = address_of(server), the_keeper(server)
    reload(server)
    assert server.keeper_pids() == [keeper]
    assert answers(address)
    config.write_text("admin: 127.0.0.1:0\nthreads: 3\n")
    reload(server)
    wait_for(lambda: server.keeper_pids() != [keeper], what="a keeper that knows the new settings")
    assert answers(address)
    assert len(AT.findall(server.log)) == 1


def test_usr2_hands_it_to_the_new_supervisor(weir: Starter, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    for where in ("127.0.0.1:0", f"unix:{path}"):
        server = start(weir, admin=where, workers=1)
        address = address_of(server)
        server.kill(signal.SIGUSR2)
        found = re.compile(r"the new supervisor (\d+) serves beside this one")
        server.wait_log(found, 20)
        new = int(found.findall(server.log)[-1])
        try:
            assert address_of(server, 2) == address
            for _ in range(20):
                assert answers(address)
            server.stop()
            for _ in range(20):
                assert answers(address)
                assert ask(address, "/ready").status == 200
        finally:
            os.kill(new, signal.SIGTERM)
            wait_for(lambda: refused(address), 20, "the new one ends")
    assert not path.exists()


def test_the_old_one_goes_on_when_the_new_supervisor_ends(weir: Starter, tmp_path: Path) -> None:
    path = tmp_path / "admin.sock"
    server = start(weir, admin=f"unix:{path}", workers=1)
    server.kill(signal.SIGUSR2)
    found = re.compile(r"the new supervisor (\d+) serves beside this one")
    server.wait_log(found, 20)
    os.kill(int(found.findall(server.log)[-1]), signal.SIGTERM)
    server.wait_log("this one goes on", 20)
    for _ in range(5):
        assert answers(str(path))
    server.stop()
    assert not path.exists()


@pytest.mark.parametrize("signo", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_is_not_kept_up_by_who_looks(weir: Starter, signo: int) -> None:
    server = start(weir, workers=2)
    viewers = [admin(server) for _ in range(3)]
    for c in viewers:
        c.request("GET", "/events", host="localhost")
        c.take_until(b"event: status")
    begin = time.monotonic()
    server.stop(signo)
    assert time.monotonic() - begin < 5 * PATIENCE
    for c in viewers:
        c.rest()


# ---- one process alone ----


def alone(weir: Starter, way: str) -> Server:
    if way == "serve()":
        program = ("import weir, basic; weir.serve(basic.app, host='127.0.0.1', port=0, admin='127.0.0.1:0')")
        env = {"PYTHONPATH": f"{Path(weir_command()[0]).parent / 'python'}:{APPS}"}
        if os.environ.get("WEIR_ASAN_RUNTIME"):
            env["LD_PRELOAD"] = os.environ["WEIR_ASAN_RUNTIME"]
        return weir(command=[PYTHON, "-c", program], env=env)
    return start(weir, workers=0)


@pytest.mark.parametrize("way", ["workers 0", "serve()"])
def test_a_process_that_serves_alone_has_one_too(weir: Starter, way: str) -> None:
    server = alone(weir, way)
    address = address_of(server)
    server.client().request("GET", "/wait/never")
    for target in ("/live", "/status", "/status.json", "/metrics"):
        assert ask(address, target).status == 200
    for action in ("recycle", "hold", "resume"):
        r = post(address, f"/workers/0/{action}")
        assert r.status == 409 and "alone" in r.json()["error"]
    server.get("/open/never")
    server.stop()
    assert refused(address)


# ---- events ----


def viewer(server: Server, query: str = "", **more: Any) -> Client:
    c = Client(address_of(server), **more)
    server.clients.append(c)
    c.request("GET", f"/events{query}", host="localhost")
    r = c.head()
    assert (r.status, r.get("content-type")) == (200, "text/event-stream")
    return c


def event(c: Client) -> tuple[str, dict[str, Any]]:
    while True:
        fields = dict(line.split(": ", 1) for line in c.take_until(b"\n\n").decode().split("\n"))
        if "event" in fields:
            return fields["event"], json.loads(fields["data"])


def test_a_viewer_gets_a_point_and_the_status_every_second(server: Server) -> None:
    c = viewer(server)
    begin = time.monotonic()
    names = [event(c)[0] for _ in range(6)]
    took = time.monotonic() - begin
    assert names == ["point", "status"] * 3
    assert 1 < took < 5 * PATIENCE
    c.close()


def test_events_refuse_a_wrong_query(server: Server) -> None:
    if ask(server, "/status.json?state=nonsense").status == 200:
        pytest.skip("the query is not looked at yet")
    assert ask(server, "/events?state=nonsense").status == 400


def test_too_many_viewers_are_refused(weir: Starter) -> None:
    server = start(weir, workers=1)
    viewers = [viewer(server) for _ in range(32)]
    assert ask(server, "/events").status == 503
    assert answers(address_of(server))
    viewers.pop().close()
    wait_for(lambda: joins(server), what="the place of who left")


def joins(server: Server) -> bool:
    with Client(address_of(server)) as c:
        c.request("GET", "/events", host="localhost")
        return c.head().status == 200


def rss_kib(pid: int) -> int:
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])  # type: ignore[index]


def test_a_viewer_who_never_reads_costs_no_memory_and_is_closed(weir: Starter) -> None:
    server = start(weir, workers=1)
    deaf = [viewer(server, receive_buffer=4096, timeout=60) for _ in range(8)]
    hears = viewer(server, timeout=60)
    keeper = the_keeper(server)
    event(hears)
    before = rss_kib(keeper)
    for _ in range(10):
        event(hears)
    assert rss_kib(keeper) - before < 2048 * PATIENCE
    for c in deaf:
        c.close()


def test_a_scraper_who_never_reads_is_closed_in_time(weir: Starter) -> None:
    server = start(weir, workers=1)
    with Client(address_of(server), receive_buffer=4096, timeout=40) as c:
        one = b"GET /nothing HTTP/1.1\r\nHost: localhost\r\n\r\n"
        c.socket.settimeout(0.5)
        with pytest.raises((TimeoutError, BrokenPipeError, ConnectionResetError)):
            while True:
                c.send(one * 1000)
        # The server has stopped to read; it gives the connection up, and others never wait.
        assert answers(address_of(server))
        c.socket.settimeout(40 * PATIENCE)
        with pytest.raises((Incomplete, OSError)):
            wait_for(lambda: connection_is_gone(c), 30, "it is closed")
            raise OSError("closed")


def connection_is_gone(c: Client) -> bool:
    """Without reading: is the other end closed? (tcp(7): TCP_INFO, state 1 is ESTABLISHED.)"""
    return c.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] != 1


def test_a_head_that_does_not_end_is_given_up(weir: Starter) -> None:
    server = start(weir, workers=1)
    with Client(address_of(server), timeout=30) as c:
        c.send(b"GET /live HTTP/1.1\r\nHost: ")
        r = c.response()
        assert r.status == 408
        assert c.ended() == "closed"


# ---- what is checked before a start ----


@pytest.mark.parametrize(("options", "text"), [
    (["--admin=0.0.0.0:5001"], "admin-token-file"),
    (["--admin=:5001"], "admin-token-file"),
    (["--admin=[::]:5001"], "admin-token-file"),
    (["--admin=example.org:5001"], "admin-token-file"),
    (["--admin=127.0.0.1"], "give HOST:PORT"),
    (["--admin=fd://3"], "give HOST:PORT"),
    (["--admin=127.0.0.1:5001", "--admin-token=short"], "openssl rand"),
    (["--admin=127.0.0.1:5001", "--admin-token-file=/nonexistent"], "cannot read '/nonexistent'"),
    (["--ready-unless=tired"], "booting, draining, saturated"),
    (["--otlp-endpoint=localhost:4318"], "http://localhost:4318/v1/traces"),
])
def test_check_config_tells_what_is_wrong_and_the_cure(options: list[str], text: str) -> None:
    from harness import APPS, weir_command

    done = subprocess.run([*weir_command(), "--check-config", *options, "basic:app"], cwd=APPS, capture_output=True,
                          text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert text in done.stderr and done.stderr.count("\n") == 1
