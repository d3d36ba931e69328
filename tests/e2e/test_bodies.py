"""Request bodies: sizes, chunks, spilling to files, buffering or not, and bodies nobody reads."""

from __future__ import annotations

import os
import subprocess
import threading
import zlib
from pathlib import Path

import pytest
from harness import PATIENCE, Client, Incomplete, Server, Starter, plain_env, wait_for

KIB, MIB = 1024, 1024 * 1024


@pytest.fixture(scope="module")
def server(weir_module: Starter, tmp_path_factory: pytest.TempPathFactory) -> Server:
    folder = tmp_path_factory.mktemp("spill")
    s = weir_module("basic:app", threads="4:32", temp_dir=folder)
    s.temp_dir = folder
    return s


def pattern(n: int) -> bytes:
    """Bytes that differ everywhere, so that a missing or doubled piece shows."""
    block = b"".join(i.to_bytes(4, "big") for i in range(65536))
    return (block * (n // len(block) + 1))[:n]


SIZES = [0, 1, 2, 511 * KIB, 512 * KIB - 1, 512 * KIB, 512 * KIB + 1, 3 * MIB]


@pytest.mark.parametrize("n", SIZES)
def test_an_upload_arrives_as_it_was_sent(server: Server, n: int) -> None:
    data = pattern(n)
    with server.client() as c:
        c.request("POST", "/size/10000", body=data)
        assert c.response().json() == {"size": n, "crc": zlib.crc32(data)}
        c.request("POST", "/echo", body=data)
        r = c.response()
        assert r.body == data
        assert r.get("x-length") == str(n)
        assert c.alive()


@pytest.mark.parametrize("n", SIZES)
@pytest.mark.parametrize("step", [None, 4093, 65536])
def test_a_chunked_upload_arrives_as_it_was_sent(server: Server, n: int, step: int | None) -> None:
    data = pattern(n)
    step = step or max(1, n)
    with server.client() as c:
        c.request("PUT", "/echo", "Transfer-Encoding: chunked")
        c.send(b"".join(b"%x\r\n" % len(data[i:i + step]) + data[i:i + step] + b"\r\n" for i in range(0, n, step)) + b"0\r\n\r\n")
        assert c.response().body == data
        assert c.alive()


def test_an_upload_at_the_limit_is_taken_and_one_byte_more_is_not(server: Server) -> None:
    limit = 64 * MIB
    piece = pattern(MIB)
    with server.client(timeout=30) as c:
        c.request("POST", "/size/1000000", f"Content-Length: {limit}")
        for _ in range(64):
            c.send(piece)
        assert c.response().json()["size"] == limit
    with server.client() as c:
        c.request("POST", "/size", f"Content-Length: {limit + 1}")
        r = c.response()
        assert r.status == 413 and b"max-body-size" in r.body
    with server.client(timeout=30) as c:
        c.request("POST", "/size", "Transfer-Encoding: chunked")
        try:
            for _ in range(64):
                c.send(b"100000\r\n" + piece + b"\r\n")
            c.send(b"1\r\nx\r\n0\r\n\r\n")
        except OSError:
            pass
        assert c.response().status == 413
    with server.client() as c:  # a chunk that cannot fit is refused before it is read
        c.request("POST", "/size", "Transfer-Encoding: chunked")
        c.send(b"4000001\r\n")
        assert c.response().status == 413


# ---- spilling ----


def spilled(server: Server) -> list[str]:
    return [name for name in server.fds() if str(getattr(server, "temp_dir", "/nowhere")) in name]


def test_a_large_body_goes_to_an_unlinked_file_and_leaves_nothing(server: Server) -> None:
    data = pattern(2 * MIB)
    with server.client() as c:
        c.request("POST", "/size", f"Content-Length: {len(data)}")
        c.send(data[:MIB])
        names = wait_for(lambda: spilled(server), what="a spill file")
        assert all("(deleted)" in n for n in names)
        assert os.listdir(server.temp_dir) == []
        c.send(data[MIB:])
        assert c.response().json() == {"size": len(data), "crc": zlib.crc32(data)}
        wait_for(lambda: not spilled(server), what="the spill file is closed")


def test_a_small_body_never_touches_the_disk(server: Server) -> None:
    with server.client() as c:
        c.request("POST", "/size", f"Content-Length: {512 * KIB}")
        c.send(pattern(512 * KIB - 1))
        assert c.quiet()
        assert not spilled(server)
        c.send(b"x")
        assert c.response().status == 200


def test_the_spill_file_of_a_client_that_leaves_is_closed(server: Server) -> None:
    c = server.client()
    c.request("POST", "/size", f"Content-Length: {2 * MIB}")
    c.send(pattern(MIB))
    wait_for(lambda: spilled(server))
    c.reset()
    wait_for(lambda: not spilled(server))


def test_many_bodies_in_memory_stay_within_the_budget(weir: Starter, tmp_path: Path) -> None:
    folder = tmp_path / "spill"
    folder.mkdir()
    server = weir("basic:app", memory_budget="4M", temp_dir=folder)
    server.temp_dir = folder
    server.get("/hello")
    before = server.rss_kib()
    data = pattern(500 * KIB)
    clients = [server.client() for _ in range(60)]  # 30 MB together
    for c in clients:
        c.request("POST", "/size", f"Content-Length: {len(data)}")
        c.send(data[:-1])
    wait_for(lambda: len(spilled(server)) >= 40, what="bodies above the budget are in files")
    assert server.rss_kib() - before < 16 * KIB * PATIENCE
    for c in clients:
        c.send(data[-1:])
    for c in clients:
        assert c.response().json() == {"size": len(data), "crc": zlib.crc32(data)}
    wait_for(lambda: not spilled(server))


def test_a_missing_temp_dir_answers_503_and_says_so(weir: Starter, tmp_path: Path) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    server = weir("basic:app", temp_dir=folder)
    folder.rmdir()
    with server.client() as c:
        c.request("POST", "/size", f"Content-Length: {2 * MIB}")
        try:
            c.send(pattern(2 * MIB))
        except OSError:
            pass
        assert c.response().status == 503
    server.wait_log("temp-dir")
    assert server.get("/token?fine").text == "fine"


@pytest.fixture
def tiny_disk(tmp_path: Path):
    """A file system of 1 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("a file system of its own can only be mounted by root")
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "weir-test", folder], capture_output=True, text=True,
                          env=plain_env())
    if done.returncode:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True, env=plain_env())


def test_a_full_disk_is_answered_503_and_recovers(weir: Starter, tiny_disk: Path) -> None:
    server = weir("basic:app", temp_dir=tiny_disk)
    with server.client() as c:
        c.request("POST", "/size", f"Content-Length: {4 * MIB}")
        try:
            c.send(pattern(4 * MIB))
        except OSError:
            pass
        r = c.response()
        assert r.status == 503 and not r.keep
    server.wait_log("cannot keep a request body")
    assert server.ask("POST", "/size", body=pattern(700 * KIB)).json()["size"] == 700 * KIB
    assert server.get("/token?fine").text == "fine"


def test_a_full_disk_under_a_response_cuts_it_and_nothing_else(weir: Starter, tiny_disk: Path) -> None:
    server = weir("basic:app", temp_dir=tiny_disk, response_memory="64k", response_backlog="64M")
    with server.client(receive_buffer=4096) as c:
        c.request("GET", "/flood/30?full")
        server.wait_log("cannot keep a response")
        with pytest.raises(Incomplete):
            c.response()
    wait_for(lambda: server.get("/seen").json().get("closed flood full") == 1)


# ---- buffering ----


def open_live(server: Server, name: str) -> Client:
    c = server.client()
    c.request("POST", f"/live/{name}", "Transfer-Encoding: chunked")
    return c


def chunk(data: bytes) -> bytes:
    return b"%x\r\n" % len(data) + data + b"\r\n"


@pytest.mark.parametrize("mode", ["off", "auto"])
def test_without_buffering_the_application_reads_while_the_client_sends(weir: Starter, mode: str) -> None:
    server = weir("basic:app", request_buffering=mode)
    with open_live(server, "a") as c:
        c.send(chunk(b"first\n"))
        assert c.head().status == 200  # for auto: after a moment without the end of the body
        assert c.chunk() == b"got first\n"
        c.send(chunk(b"second\n"))
        assert c.chunk() == b"got second\n"
        c.send(b"0\r\n\r\n")
        assert (c.chunk(), c.chunk()) == (b"end\n", b"")
        assert c.take(2) == b"\r\n"
        assert c.alive()


def test_without_buffering_a_body_with_a_length_is_read_as_it_comes(weir: Starter) -> None:
    server = weir("basic:app", request_buffering="off")
    with server.client() as c:
        c.request("POST", "/live/b", "Content-Length: 6")
        c.send(b"one\n")
        assert c.head().status == 200 and c.chunk() == b"got one\n"
        c.send(b"2\n")
        assert (c.chunk(), c.chunk(), c.chunk()) == (b"got 2\n", b"end\n", b"")
        c.take(2)
        assert c.alive()


def test_with_buffering_the_application_starts_with_the_whole_body(weir: Starter) -> None:
    server = weir("basic:app", request_buffering="on")
    with open_live(server, "c") as c:
        c.send(chunk(b"first\n"))
        assert c.quiet(0.6)
        assert "live c" not in server.get("/seen").json()
        c.send(chunk(b"second\n") + b"0\r\n\r\n")
        assert c.response().body == b"got first\ngot second\nend\n"


def test_by_default_a_body_with_a_length_is_whole_before_the_start(server: Server) -> None:
    with server.client() as c:
        c.request("POST", "/live/d", "Content-Length: 6")
        c.send(b"one\n")
        assert c.quiet(0.6)
        assert "live d" not in server.get("/seen").json()
        c.send(b"2\n")
        assert c.response().body == b"got one\ngot 2\nend\n"


@pytest.mark.parametrize("mode", ["off", "on"])
def test_100_continue_is_sent_once_with_and_without_buffering(weir: Starter, mode: str) -> None:
    server = weir("basic:app", request_buffering=mode)
    with server.client() as c:
        c.request("POST", "/echo", "Expect: 100-continue", "Content-Length: 3")
        assert c.head(keep_interim=True).status == 100
        c.send(b"abc")
        r = c.response()
        assert (r.body, r.interim) == (b"abc", [])
        c.request("POST", "/ignore", "Expect: 100-continue", "Content-Length: 3")
        r = c.head(keep_interim=True)
        if mode == "off":
            assert r.status == 200, "nobody asked for the body"
        else:
            assert r.status == 100


def test_a_malformed_chunk_is_seen_in_read_when_the_body_is_not_buffered(weir: Starter) -> None:
    server = weir("basic:app", request_buffering="off")
    with server.client() as c:
        c.request("POST", "/reads/e", "Transfer-Encoding: chunked")
        c.send(chunk(b"good") + b"broken\r\n")
        r = c.response()
        assert r.status == 422 and b"OSError" in r.body and b"malformed" in r.body
        assert not r.keep
        assert c.end or c.ended()


def test_a_body_that_ends_early_is_seen_in_read_when_it_is_not_buffered(weir: Starter) -> None:
    server = weir("basic:app", request_buffering="off")
    with server.client() as c:
        c.request("POST", "/reads/f", "Content-Length: 100")
        c.send(b"some")
        wait_for(lambda: server.get("/seen").json().get("reads f"))
        c.half_close()
        try:
            assert c.response().status == 422
        except Incomplete:
            assert c.end


def test_an_unbuffered_body_above_the_limit_is_seen_in_read(weir: Starter) -> None:
    server = weir("basic:app", request_buffering="off", max_body_size="100k")
    with server.client() as c:
        c.request("POST", "/reads/g", "Transfer-Encoding: chunked")
        try:
            for _ in range(30):
                c.send(chunk(bytes(10000)))
        except OSError:
            pass
        r = c.response()
        assert r.status == 422 and b"larger" in r.body


def test_an_unbuffered_body_is_not_read_ahead_of_the_application(weir: Starter) -> None:
    server = weir("basic:app", request_buffering="off", max_body_size="1G")
    server.get("/hello")
    before = server.rss_kib()
    c = server.client(timeout=1)
    c.request("POST", "/wait/hold", "Content-Length: 500000000")
    sent = 0
    try:
        while sent < 200 * MIB:
            sent += c.socket.send(bytes(MIB))
    except TimeoutError:
        pass
    assert sent < 50 * MIB, "the server read on although nobody reads"
    assert server.rss_kib() - before < 20 * KIB * PATIENCE
    server.get("/open/hold")


# ---- bodies nobody reads ----


def test_an_unread_body_is_drained_and_the_connection_goes_on(server: Server) -> None:
    with server.client() as c:
        for n in (1, 1000, 600 * KIB):
            c.request("POST", "/ignore", body=pattern(n))
            assert c.response().body == b"not read\n"
        assert c.alive()


def test_an_unread_unbuffered_body_ends_the_connection_with_its_answer(weir: Starter) -> None:
    server = weir("basic:app", request_buffering="off")
    before = server.sockets()
    with server.client() as c:
        c.request("POST", "/ignore", "Content-Length: 50000000")
        stop = threading.Event()

        def push() -> None:
            try:
                while not stop.is_set():
                    c.send(bytes(65536))
            except OSError:
                pass

        pusher = threading.Thread(target=push)
        pusher.start()
        try:
            r = c.response()
            assert r.body == b"not read\n"
        finally:
            stop.set()
            pusher.join(10)
    wait_for(lambda: server.sockets() == before, what="the connection is closed")


def test_the_next_request_is_found_behind_a_body_that_was_not_read(weir: Starter) -> None:
    server = weir("basic:app", request_buffering="off")
    inner = b"GET /token?inner HTTP/1.1\r\nHost: t\r\n\r\n"
    head = b"POST /ignore HTTP/1.1\r\nHost: t\r\nContent-Length: %d\r\n\r\n" % len(inner)
    got = server.raw(head + inner + b"GET /token?next HTTP/1.1\r\nHost: t\r\nConnection: close\r\n\r\n")
    assert [r.body for r in got.responses] in ([b"not read\n"], [b"not read\n", b"next"])


def test_unbuffered_bodies_of_waiting_requests_share_the_budget(weir: Starter) -> None:
    server = weir(request_buffering="off", threads=1, memory_budget="1M")
    server.get("/hello")
    n, clients = 280_000, [server.client(timeout=30) for _ in range(250)]
    first = server.client()
    first.request("GET", "/sleep/1500")
    before = server.peak_kib()
    for c in clients:
        c.request("POST", "/size", body=bytes(n))
    assert first.response().status == 200
    for c in clients:
        assert c.response().json()["size"] == n
    assert server.peak_kib() - before < 40 * KIB * PATIENCE  # each may hold what was read at once
