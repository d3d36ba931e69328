"""What the logs say, where they go, and that they never stop the server."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import threading
from pathlib import Path

import pytest
from harness import PATIENCE, Client, Incomplete, Server, Starter, wait_for


def lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if line]


def access(server: Server, n: int) -> list[str]:
    """The first n lines of the access log on standard output, and no more than that."""
    wait_for(lambda: len(lines(server.out)) >= n, what=f"{n} access lines")
    got = lines(server.out)
    assert len(got) == n, got
    return got


# ---- access log: formats ----


TIME = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"


def test_common_and_combined(weir: Starter) -> None:
    for form, tail in (("common", ""), ("combined", r' "http://from\.example/" "agent \\"x\\""')):
        server = weir("basic:app", access_log="-", access_log_format=form)
        server.get("/token?a=b", "Referer: http://from.example/", 'User-Agent: agent "x"', "Authorization: Basic dXNlcjpwYXNz")
        (line,) = access(server, 1)
        assert re.fullmatch(rf'127\.0\.0\.1 - user {TIME} "GET /token\?a=b HTTP/1\.1" 200 3{tail}', line), line


def test_no_access_log_unless_asked_for(weir: Starter) -> None:
    server = weir("basic:app")
    server.get("/hello")
    assert server.stop() == 0
    assert server.out == "" and "GET /hello" not in server.log


def test_json_has_every_key_in_every_line(weir: Starter) -> None:
    server = weir("basic:app", access_log="-", access_log_format="json")
    with server.client() as c:
        c.get("/sleep/60?q=1", "User-Agent: me")
        c.ask("POST", "/echo", body=b"12345")
        c.ask("HEAD", "/hello")
        c.get("/nothing%20here")
    rows = [json.loads(line) for line in access(server, 4)]
    assert [list(r) for r in rows] == [list(rows[0])] * 4
    assert [(r["method"], r["path"], r["query"], r["status"], r["bytes"]) for r in rows[:2]] == [
        ("GET", "/sleep/60", "q=1", 200, 4), ("POST", "/echo", None, 200, 5)] or rows[0]["query"] == "q=1"
    assert rows[2]["method"] == "HEAD" and rows[2]["bytes"] == 0 and rows[3]["status"] == 404
    assert rows[0]["user_agent"] == "me" and rows[1]["user_agent"] is None
    assert rows[0]["total_us"] >= rows[0]["app_us"] >= 50_000
    assert rows[0]["remote_addr"] == "127.0.0.1" and rows[0]["remote_port"].isdigit()
    assert len({r["request"] for r in rows}) == 4


def test_atoms(weir: Starter) -> None:
    atoms = {
        "h": "127.0.0.1", "l": "-", "u": "-", "m": "GET", "U": "/token", "q": "x=%41", "H": "HTTP/1.1", "s": "200", "b": "5", "B": "5",
        "f": "-", "a": "agent", "r": "GET /token?x=%41 HTTP/1.1", "{X-Mine}i": "mine", "{content-type}o": "text/plain; charset=utf-8",
        "{CONTENT-LENGTH}o": "5", "{missing}i": "-", "{missing}o": "-", "{REQUEST_METHOD}e": "GET", "{HTTP_X_MINE}e": "mine", "T": "0",
    }
    form = "|".join(f"%({a})s" for a in atoms) + "|%(D)s|%(M)s|%(L)s|%(p)s|%%|%(m)-6s|%(a).3s|%(request_id)s"
    server = weir("basic:app", access_log="-", access_log_format=form)
    server.get("/token?x=%41", "X-Mine: mine", "User-Agent: agent")
    values = access(server, 1)[0].split("|")
    assert dict(zip(atoms, values)) == atoms
    micro, milli, seconds, pid, percent, padded, cut, request = values[len(atoms):]
    assert int(micro) >= int(milli) * 1000 and re.fullmatch(r"\d+\.\d{6}", seconds)
    assert (pid, percent, padded, cut) == (f"<{server.worker_pid}>", "%", "GET   ", "age") and int(request) > 0


def test_an_unknown_atom_is_refused_at_the_start(weir: Starter) -> None:
    server = weir("basic:app", access_log="-", access_log_format="%(h)s %(wrong)s", ready=False)
    server.expected_status = (3,)
    assert server.wait_end() == 3
    assert "wrong" in server.log and "Traceback" not in server.log


# ---- access log: which lines ----


def test_each_request_has_exactly_one_line(weir: Starter) -> None:
    server = weir("basic:app", threads="4:16", access_log="-", access_log_format="%(s)s %(q)s %(b)s")
    with server.client() as c:
        n = 60
        c.send(b"".join(f"GET /{v}?{i} HTTP/1.1\r\nHost: t\r\n\r\n".encode()
                        for i in range(n) for v in [("token", "sleep/1", "stream/3")[i % 3]]))
        for _ in range(n):
            c.response()
    rows = access(server, n)
    assert [r.split()[1] for r in rows] == [str(i) for i in range(n)]
    assert all(r.startswith("200 ") for r in rows)
    assert rows[2].endswith(" 24"), "content bytes, without the framing"


def test_lines_of_errors_refusals_and_cuts(weir: Starter) -> None:
    server = weir("basic:app", access_log="-", access_log_format="%(s)s %(r)s %(close_reason)s", max_body_size=10)
    server.get("/fail?x")
    got = server.raw(b"POST /echo HTTP/1.1\r\nHost: t\r\nTransfer-Encoding: chunked\r\n\r\n14\r\n" + bytes(20) + b"\r\n0\r\n\r\n")
    assert got.statuses == [413]
    c = server.client()
    c.request("GET", "/gated/cut")
    c.head()
    c.chunk()
    c.reset()
    wait_for(lambda: len(lines(server.out)) == 3)
    assert lines(server.out)[0] == "500 GET /fail?x HTTP/1.1 -"
    assert lines(server.out)[1].startswith("413 POST /echo HTTP/1.1")
    assert re.fullmatch(r"200 GET /gated/cut HTTP/1\.1 client_(reset|left)", lines(server.out)[2])


def test_a_hostile_request_stays_one_line(weir: Starter) -> None:
    server = weir("basic:app", access_log="-")
    with server.client() as c:
        c.send(b'GET /token?"\\ HTTP/1.1\r\nHost: t\r\nUser-Agent: [31m"\x80\xff\\\tx\r\nReferer: ' + b"r" * 20000 + b"\r\n\r\n")
        c.response()
        c.get("/hello")
    rows = access(server, 2)
    assert all(" " <= ch <= "~" for ch in rows[0]), "only printable ASCII"
    assert r"[31m\"\x80\xff\\\x09x" in rows[0] and r'"GET /token?\"\\ HTTP/1.1"' in rows[0]
    assert len(rows[0]) < 20000


def test_a_trusted_front_ends_client_stands_in_the_line(weir: Starter) -> None:
    server = weir("basic:app", access_log="-", access_log_format="%(h)s", trusted_proxy="*", trusted_proxy_headers="x-forwarded-for")
    server.get("/hello", "X-Forwarded-For: 1.2.3.4")
    assert access(server, 1) == ["1.2.3.4"]


# ---- error log ----


STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} \[\d+\] (DEBUG|INFO|WARNING|ERROR|CRITICAL) "


def test_every_entry_has_time_process_and_level(weir: Starter) -> None:
    server = weir("basic:app", log_level="debug")
    server.get("/fail")
    server.raw(b"nonsense\r\n\r\n")
    server.wait_log("refused a request")
    assert server.stop() == 0
    for line in lines(server.log):
        assert re.match(STAMP, line) or line.startswith("  "), line


def test_an_exception_names_the_request_of_its_access_line(weir: Starter) -> None:
    server = weir("basic:app", access_log="-", access_log_format="%(request_id)s %(U)s")
    for path in ("/hello", "/fail", "/hello"):
        server.get(path)
    number = next(r.split()[0] for r in access(server, 3) if r.endswith("/fail"))
    log = server.wait_log("RuntimeError: failed on purpose")
    assert re.search(rf"ERROR request={number} GET /fail: .*\n  Traceback", log)


def test_json_entries(weir: Starter) -> None:
    server = weir("basic:app", log_format="json", ready=False)
    wait_for(lambda: "serving basic:app on " in server.log)
    server.urls = re.findall(r"http://[\d.:]+", server.log)
    server.get("/fail")
    server.wait_log("failed on purpose")
    assert server.stop() == 0
    entries = [json.loads(line) for line in lines(server.log)]
    failed = next(e for e in entries if "failed on purpose" in e["message"])
    assert failed["level"] == "ERROR" and failed["request"] == 1 and "Traceback" in failed["message"]
    assert all({"time", "level", "pid", "message"} <= e.keys() for e in entries)


def test_the_level_is_obeyed(weir: Starter) -> None:
    server = weir("basic:app", log_level="debug")
    with server.client() as c:
        c.get("/hello", "Connection: close")
    server.wait_log("reason=complete")
    quiet = weir("basic:app", log_level="error", bind="unix:@weir-quiet-%d" % os.getpid(), ready=False)
    quiet.given = b"\0weir-quiet-%d" % os.getpid()

    def up() -> bool:
        try:
            return quiet.get("/fail").status == 500
        except OSError:
            return False

    wait_for(up, 20)
    quiet.raw(b"nonsense\r\n\r\n")
    quiet.wait_log("RuntimeError")
    assert quiet.stop() == 0
    assert {m[0] for m in re.finditer(r"\b(INFO|WARNING|DEBUG)\b", quiet.log)} == set()


@pytest.mark.parametrize("reason, provoke", [
    ("client_left", lambda s, c: (c.request("GET", "/watch/a"), s.get("/hello"), c.close())),
    ("client_reset", lambda s, c: (c.send(b"GET / HT"), s.get("/hello"), c.reset())),
    ("header_timeout", lambda s, c: c.send(b"GET / HT")),
    ("bad_request", lambda s, c: c.send(b"nonsense\r\n\r\n")),
    ("response_aborted", lambda s, c: c.request("GET", "/broken")),
])
def test_every_unusual_end_has_its_reason(weir: Starter, tmp_path: Path, reason: str, provoke) -> None:
    (tmp_path / "breaking.py").write_text(
        "from basic import app as inner\n"
        "def broken():\n    yield b'x'\n    raise RuntimeError('broken')\n"
        "def app(e, s):\n    if e['PATH_INFO'] != '/broken':\n        return inner(e, s)\n"
        "    s('200 OK', [('Content-Type', 'text/plain')])\n    return broken()\n")
    server = weir("breaking:app", pythonpath=tmp_path, header_timeout="300ms")
    provoke(server, server.client())
    log = server.wait_log(f"connection closed reason={reason}")
    assert re.search(rf"connection closed reason={reason} peer=127\.0\.0\.1 port=\d+ served=\d+", log)


def test_lines_about_lost_clients_can_be_turned_off(weir: Starter) -> None:
    server = weir("basic:app", log_socket_errors=False)
    c = server.client()
    c.send(b"GET / HT")
    server.get("/hello")
    c.reset()
    with Client(server.address) as other:
        other.send(b"nonsense\r\n\r\n")
        assert other.response().status == 400
    assert server.stop() == 0
    assert "reason=client_reset" not in server.log


def test_a_flood_of_bad_requests_is_counted_not_written(weir: Starter) -> None:
    server = weir("basic:app")
    for _ in range(400):
        assert server.raw(b"nonsense\r\n\r\n").statuses == [400]
    assert server.log.count("refused a request") <= 10 * 8 * PATIENCE
    wait_for(lambda: (server.raw(b"nonsense\r\n\r\n"), "more lines like this one were left out" in server.log)[1])


@pytest.mark.parametrize("more, env, colored", [
    ({}, {}, True), ({}, {"NO_COLOR": "1"}, False), ({"log_color": "never"}, {}, False),
    ({"log_color": "always"}, {"NO_COLOR": "1"}, True), ({"log_format": "json"}, {}, False)])
def test_terminal_gets_colours_and_the_rest_stays_plain(weir: Starter, more, env, colored) -> None:
    ours, theirs = pty.openpty()
    server = weir("basic:app", stderr=theirs, ready=False, env={"TERM": "xterm", **env}, **more)
    os.close(theirs)
    text = b""
    while b"serving basic:app on " not in text:
        text += os.read(ours, 65536)
    assert (b"\x1b[32mINFO\x1b[0m " in text) is colored
    assert text.count(b"\x1b[") == (2 * text.count(b"INFO") if colored else 0)
    server.stop()
    os.close(ours)


def test_file_gets_no_colours_unless_told(weir: Starter) -> None:
    assert "\x1b" not in weir("basic:app").log
    assert "\x1b[32mINFO\x1b[0m" in weir("basic:app", log_color="always").log


def test_wsgi_errors_and_print_reach_the_log(weir: Starter) -> None:
    server = weir("basic:app")
    server.get("/errors?to%20the%20log")
    server.wait_log("a line for wsgi.errors: to%20the%20log")


# ---- files, rotation, slow readers ----


def test_logs_in_files_are_opened_again_on_usr1(weir: Starter, tmp_path: Path) -> None:
    error, acc = tmp_path / "error.log", tmp_path / "access.log"
    server = weir("basic:app", error_log=error, access_log=acc, ready=False)
    wait_for(lambda: error.exists() and "serving" in error.read_text())
    server.urls = re.findall(r"http://[\d.:]+", error.read_text())
    server.get("/token?one")
    wait_for(lambda: "token?one" in acc.read_text())
    acc.rename(tmp_path / "access.old")
    error.rename(tmp_path / "error.old")
    server.get("/token?two")
    wait_for(lambda: "token?two" in (tmp_path / "access.old").read_text(), what="the renamed file is still in use")
    server.kill(signal.SIGUSR1)
    wait_for(lambda: acc.exists() and error.exists(), what="new files")
    server.get("/fail?three")
    wait_for(lambda: "fail?three" in acc.read_text() and "Traceback" in error.read_text())
    assert "three" not in (tmp_path / "access.old").read_text()
    assert server.stop() == 0
    assert server.log == ""


def test_no_line_is_lost_while_files_rotate(weir: Starter, tmp_path: Path) -> None:
    acc = tmp_path / "access.log"
    server = weir("basic:app", access_log=acc, access_log_format="%(q)s")
    n = 2000

    def ask() -> None:
        with Client(server.address) as c:
            for i in range(n):
                c.get(f"/token?{i}")

    t = threading.Thread(target=ask)
    t.start()
    moved = []
    while t.is_alive():
        if acc.exists() and acc.stat().st_size:
            moved.append(tmp_path / f"old-{len(moved)}")
            acc.rename(moved[-1])
            server.kill(signal.SIGUSR1)
            wait_for(acc.exists)
    t.join()
    assert server.stop() == 0
    seen = [line for path in [*moved, acc] if path.exists() for line in lines(path.read_text())]
    assert sorted(map(int, seen)) == list(range(n))
    assert moved


def test_a_full_pipe_as_standard_error_stops_nothing(weir: Starter) -> None:
    reader, writer = os.pipe()
    server = weir("basic:app", stderr=writer, log_level="debug", access_log="/dev/stderr", ready=False,
                  bind="unix:@weir-full-%d" % os.getpid())
    server.given = b"\0weir-full-%d" % os.getpid()
    os.close(writer)

    def up() -> bool:
        try:
            return server.get("/hello").status == 200
        except OSError:
            return False

    wait_for(up, 20)
    # Nobody reads: the pipe is full after 64 KiB, the server's own buffers after 1 MiB more.
    with server.client() as c:
        for i in range(200):
            c.send(b"".join(b"GET /token?%d HTTP/1.1\r\nHost: t\r\nUser-Agent: " % j + b"a" * 200 + b"\r\n\r\n" for j in range(50)))
            for j in range(50):
                assert c.response().text == str(j)
    server.get("/fail")
    assert server.get("/token?alive").text == "alive"
    assert server.rss_kib() < 150_000 * PATIENCE
    # Standard error is full here: what the application itself writes to it would block its thread alone.
    text = b""
    os.set_blocking(reader, False)

    def drained() -> bool:
        nonlocal text
        try:
            text += os.read(reader, 1 << 20)
        except BlockingIOError:
            pass
        return b" were lost: " in text

    def more() -> bool:
        server.get("/hello")
        return drained()

    wait_for(more, 20, "the log tells of what was dropped")
    server.kill(signal.SIGTERM)
    wait_for(lambda: (drained(), not server.running())[1])
    os.close(reader)


def test_a_standard_error_that_is_closed_stops_nothing(weir: Starter) -> None:
    reader, writer = os.pipe()
    server = weir("basic:app", stderr=writer, ready=False, bind="unix:@weir-closed-%d" % os.getpid())
    server.given = b"\0weir-closed-%d" % os.getpid()
    os.close(writer)

    def up() -> bool:
        try:
            return server.get("/hello").status == 200
        except (OSError, Incomplete):
            return False

    wait_for(up, 20)
    os.close(reader)
    for _ in range(5):
        server.raw(b"nonsense\r\n\r\n")
    assert server.get("/token?alive").text == "alive"
    assert server.stop() == 0
