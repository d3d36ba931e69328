"""deadline: the time of a whole request from its complete head. It fails that request and nothing else."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from harness import APPS, PATIENCE, Incomplete, Server, Starter, wait_for, weir_command

BLOCKING_LINE = 1 + (APPS / "deadlines.py").read_text().splitlines().index(
    "        time.sleep(0.005)  # the line that the log names")


def seen(server: Server) -> dict[str, Any]:
    return server.get("/seen").json()


def test_fast_requests_do_not_notice_that_twenty_pass_their_deadline(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="500ms", threads="4:40")
    pid = seen(server)["pid"]
    blocked = [server.client() for _ in range(20)]
    for c in blocked:
        c.request("GET", "/block/1500")
    fast = server.client()
    answered = 0
    late: list[int] = []
    while len(late) < 20:
        assert fast.get(f"/token/0?{answered}").text == str(answered)
        answered += 1
        if answered % 20 == 0:
            late = [c.response().status for c in blocked] if seen(server).get("unblocked") or answered > 400 else []
    assert late == [504] * 20
    assert all(c.alive() for c in blocked)
    wait_for(lambda: seen(server).get("unblocked") == 20)
    assert seen(server)["pid"] == pid


def test_the_answer_says_504_and_the_connection_goes_on(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="300ms", workers=0, access_log="-",
                  access_log_format="%(m)s %(U)s %(s)s %(close_reason)s")
    c = server.client()
    begin = time.monotonic()
    c.request("GET", "/loop/1000")
    r = c.response()
    assert time.monotonic() - begin >= 0.3
    assert r.status == 504 and r.keep and "took too long" in r.text
    assert c.get("/token/0?next").text == "next"
    c.request("HEAD", "/loop/1000")
    r = c.response("HEAD")
    assert r.status == 504 and r.body == b""
    c.request("GET", "/loop/1000", version="HTTP/1.0")
    assert c.response().status == 504
    assert c.ended() == "closed"
    wait_for(lambda: seen(server).get("through") == 3)
    out = server.wait_out("GET /token/0 200")
    assert out.count("GET /loop/1000 504") == 2  # nothing for the late answers


def test_pipelined_requests_each_have_their_own_deadline(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="300ms")
    c = server.client()
    c.send(b"GET /loop/600 HTTP/1.1\r\nHost: t\r\n\r\nGET /token/0?after HTTP/1.1\r\nHost: t\r\n\r\n" * 2)
    assert [c.response().status for _ in range(4)] == [504, 200, 504, 200]
    assert c.alive()


def test_the_time_in_the_queue_counts_and_who_waited_in_vain_never_starts(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="400ms", threads=1, access_log="-",
                  access_log_format="%(U)s %(s)s")
    busy, waiting = server.client(), [server.client() for _ in range(5)]
    busy.request("GET", "/block/900")
    for c in waiting:
        c.request("POST", "/block/1", body=b"abc")
    answers = [c.response() for c in waiting]
    assert [r.status for r in answers] == [504] * 5
    assert all("waited" in r.text and r.keep for r in answers)
    assert busy.response().status == 504
    wait_for(lambda: waiting[0].get("/token/0?free").text == "free")
    assert seen(server)["blocked"] == 1
    server.wait_log("for /block/1: it has waited for a place, and is answered 504")
    assert server.wait_out("/block/1 504")


def test_an_answer_that_has_begun_is_cut_with_its_reason(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="300ms", access_log="-", access_log_format="%(U)s %(close_reason)s")
    c, other = server.client(), server.client()
    c.request("GET", "/stream/2000")
    assert c.head().status == 200
    assert c.chunk() == b"begun\n"
    with pytest.raises(Incomplete):
        c.chunk()
    server.wait_log("reason=deadline")
    server.wait_out("/stream/2000 deadline")
    assert other.get("/token/0?x").text == "x"


def test_a_complete_answer_is_not_cut_because_its_close_takes_long(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="300ms")
    c = server.client()
    c.request("GET", "/slow_close/700")
    r = c.response()
    assert r.body == b"begun\ndone\n"
    server.wait_log("for /slow_close/700: its answer is complete, but not its close()")
    wait_for(lambda: seen(server).get("closed") == 1)
    assert c.get("/token/0?next").text == "next"


def test_a_body_that_is_still_coming_is_answered_408(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="300ms", request_buffering="on")
    c = server.client()
    c.request("POST", "/body", "Content-Length: 10")
    c.send(b"abc")
    r = c.response()
    assert r.status == 408 and "body" in r.text
    assert c.ended() == "closed"
    server.wait_log("reason=deadline")
    assert "body entered" not in seen(server)


def test_a_body_that_is_read_as_it_comes_is_covered(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="300ms", request_buffering="off", threads=1)
    c = server.client()
    c.request("POST", "/body", "Content-Length: 10")
    c.send(b"abc")
    assert c.response().status == 504
    assert c.ended() == "closed"  # what follows cannot be told from the body
    assert server.get("/token/0?x").text == "x"  # the place is free again


def test_the_application_is_told(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="300ms")
    assert server.get("/told/5000").status == 504
    wait_for(lambda: seen(server).get("told") == 1)


def test_a_deadline_of_a_client_that_has_left_is_kept_too(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="600ms", on_deadline="interrupt", threads=2)
    c = server.client()
    c.request("GET", "/loop/20000")
    wait_for(lambda: seen(server).get("looping") == 1)
    c.close()
    server.wait_log("for /loop/20000: its client has left")
    wait_for(lambda: seen(server).get("interrupted") == 1)


def test_the_log_names_the_line_that_blocks(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="300ms")
    c = server.client()
    c.request("GET", "/loop/900?secret=1")
    assert c.response().status == 504
    log = server.wait_log("time.sleep(0.005)  # the line that the log names")
    entry = log[log.index("takes longer than its deadline of 0.3 s for /loop/900: the client is told 504"):]
    lines = entry.splitlines()
    assert "Stack of its thread (most recent call last):" in lines[1]
    assert f'deadlines.py", line {BLOCKING_LINE}, in nap_in_steps' in entry
    assert entry.index("in app") < entry.index("in loop") < entry.index("in nap_in_steps")
    assert "secret" not in entry


def test_a_stack_without_end_is_bounded(weir: Starter, tmp_path: Path) -> None:
    deep = tmp_path / "deep.py"
    deep.write_text("import time\n"
                    "def down(n):\n"
                    "    if n:\n"
                    "        return down(n - 1)  # " + "long " * 100 + "\n"
                    "    time.sleep(1.5)\n"
                    "def app(environ, start):\n"
                    "    down(int(environ['QUERY_STRING'] or 0))\n"
                    "    start('200 OK', [])\n"
                    "    return [b'x']\n")
    server = weir("deep:app", deadline="300ms", pythonpath=str(tmp_path))
    assert server.get("/?500").status == 504
    log = server.wait_log("time.sleep(1.5)")
    entry = log[log.index("takes longer than its deadline"):]
    assert "older frames are left out" in entry
    assert 20 < entry.count("in down") <= 64 and len(entry) < 20000


def test_where_a_thread_is_that_holds_the_lock_in_c_is_said_and_waited_for_by_nobody(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="400ms")
    c, ping = server.client(), server.client()
    c.request("GET", "/hold/3500")
    r = c.response()
    assert r.status == 504
    assert ping.alive()
    log = server.wait_log("hold_in_c(int(arg) * 1000)")
    entry = log[log.index("for /hold/3500: the client is told 504; the interpreter lock was not to be had for 1 s"):]
    assert "Stack of its thread (most recent call last):" in entry


# ---- interrupt ----


def test_an_interrupt_ends_a_loop_of_sleeps_and_the_thread_serves_on(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="300ms", on_deadline="interrupt", threads=1)
    c = server.client()
    begin = time.monotonic()
    for i in range(3):
        c.request("GET", "/loop/30000")
        assert c.response().status == 504
        assert c.get(f"/token/0?{i}").text == str(i)
    assert time.monotonic() - begin < 15 * PATIENCE
    assert seen(server).get("interrupted") == 3 and "swallowed" not in seen(server)
    server.wait_log("the application was interrupted at its deadline")


def test_an_interrupt_reaches_a_stream_and_a_close(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="400ms", on_deadline="interrupt", threads=2)
    c = server.client()
    c.request("GET", "/stream/30000")
    with pytest.raises(Incomplete):
        c.response()
    wait_for(lambda: seen(server).get("stream interrupted") == 1)
    wait_for(lambda: seen(server).get("closed") == 1)  # close() is called all the same, and not interrupted
    c = server.client()
    c.request("GET", "/slow_close/30000")
    assert c.response().body == b"begun\ndone\n"
    wait_for(lambda: seen(server).get("close interrupted") == 1)
    server.wait_log("close() of the response was interrupted at its deadline")
    assert c.get("/token/0?same").text == "same"


def test_who_swallows_the_interrupt_is_not_interrupted_twice(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="300ms", on_deadline="interrupt")
    assert server.get("/stubborn/800").status == 504
    wait_for(lambda: seen(server).get("through") == 1)
    assert seen(server).get("swallowed DeadlineExceeded") == 1


def test_a_call_in_c_is_not_interrupted_before_it_returns(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="300ms", on_deadline="interrupt", threads="2:2")
    c = server.client()
    c.request("GET", "/block/1200")
    assert c.response().status == 504
    assert seen(server)["blocked"] == 1 and "unblocked" not in seen(server)
    wait_for(lambda: seen(server).get("DeadlineExceeded") == 1)
    assert seen(server)["unblocked"] == 1


def test_an_interrupt_never_hits_another_request(weir: Starter) -> None:
    """Requests that end about when their deadline passes, and others on the same threads between them."""
    server = weir("deadlines:app", deadline="30ms", on_deadline="interrupt", threads="4:4")
    until = time.monotonic() + 5
    wrong: list[str] = []
    counts = {200: 0, 504: 0}

    def hammer(number: int) -> None:
        c = server.client()
        i = 0
        while time.monotonic() < until and not wrong:
            i += 1
            token = f"{number}-{i}"
            ms = 0 if i % 2 else 24 + (i * 7 + number) % 12
            r = c.get(f"/token/{ms}?{token}")
            counts[r.status] = counts.get(r.status, 0) + 1
            if r.status == 200 and r.text != token:
                wrong.append(f"{r.text} instead of {token}")
            elif r.status not in (200, 504):
                wrong.append(f"{r.status}: {r.text}")

    threads = [threading.Thread(target=hammer, args=(n,)) for n in range(6)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong
    events = wait_for(lambda: (r := server.get("/seen")).status == 200 and r.json())
    assert counts[504] > 20 and counts[200] > 20 and events.get("interrupted", 0) > 0, (counts, events)
    assert events.get("WRONG", 0) <= counts[504]  # late by waiting for the interpreter, but its own deadline
    assert not [k for k in events if k.startswith("deleting")]
    assert "Exception ignored" not in server.log and "Traceback" not in server.log


# ---- threads that do not come back ----


def test_a_quarter_of_the_threads_may_be_lost_and_more_ask_for_a_replacement(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="300ms", threads="4:4", grace="1s")
    server.expected_status = (0, 1)  # what does not come back is cut off
    old = server.worker_pid
    first = server.client()
    first.request("GET", "/block/20000")
    assert first.response().status == 504
    second = server.client()
    second.request("GET", "/block/20000")
    assert second.response().status == 504
    server.wait_log("2 of 4 threads are still inside the application 5 s after", timeout=12)
    assert "1 of 4 threads" not in server.log
    wait_for(lambda: [p for p in server.worker_pids() if p != old], 10)
    assert server.get("/token/0?new").text == "new"


def test_a_process_that_nobody_can_replace_says_so(weir: Starter) -> None:
    server = weir("deadlines:app", deadline="300ms", threads=1, workers=0, grace="1s")
    server.expected_status = (1,)
    c = server.client()
    c.request("GET", "/block/7000")
    assert c.response().status == 504
    server.wait_log("1 of 1 threads are still inside the application 5 s after", timeout=12)
    server.wait_log("nobody can replace this process")


# ---- other command lines ----


def test_other_command_lines_know_it(weir: Starter) -> None:
    gunicorn = weir(command=[*weir_command(), "gunicorn", "-b", "127.0.0.1:0", "--deadline", "300ms", "deadlines:app"])
    waitress = weir("deadlines:app", waitress=True, deadline="300ms")
    for server in (gunicorn, waitress):
        assert server.get("/loop/800").status == 504
        server.wait_log("longer than its deadline of 0.3 s for /loop/800")
