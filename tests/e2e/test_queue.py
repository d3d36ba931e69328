"""concurrency and queue: how many run at once, who waits, in what order, and what those are told who cannot."""

from __future__ import annotations

import os
import re
import statistics
import time
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from harness import APPS, PATIENCE, PYTHON, SANITIZED, Starter, wait_for, weir_command
from queue_helpers import PACKAGE, Queued, jain, refused

ONE = "- {match: POST /ai/*, concurrency: 1, queue: {size: 100, wait: 30s}}"


@pytest.fixture
def queued(weir: Starter, tmp_path: Path) -> Queued:
    return Queued(weir, tmp_path)


# ---- places and the queue are those of all workers ----


def test_no_more_run_at_once_than_the_route_has_places_in_four_workers(queued: Queued) -> None:
    queued.serve("- {match: POST /ai/*, concurrency: 3, queue: 200}", workers=4)
    pins = queued.pinned()
    clients = [c for pid in pins for c in queued.clients_of(pid, 5)]
    for i, c in enumerate(clients):
        queued.send(c, f"id={i}&ms=25", f"user{i % 5}")
    assert [c.response().status for c in clients] == [200] * 20
    assert queued.most_at_once() == 3
    assert len({r.pid for r in queued.runs()}) == 4


def test_a_user_on_one_worker_waits_in_the_queue_of_all(queued: Queued) -> None:
    queued.serve("- {match: POST /ai/*, concurrency: 1, queue: 200}", workers=4)
    pins = queued.pinned()
    mine, *others = pins
    busy = queued.clients_of(others[0], 1)[0]
    queued.send(busy, "id=busy&hold=busy", "greedy")
    wait_for(lambda: queued.started() == ["busy"])
    crowd = [c for pid in others for c in queued.clients_of(pid, 5)]
    for i, c in enumerate(crowd):
        queued.send(c, f"id=greedy{i}&ms=1", "greedy")
    for pid in others:
        queued.read_by(pid)
    c = queued.clients_of(mine, 1)[0]
    queued.send(c, "id=mine&ms=1", "pinned")
    queued.read_by(mine)
    queued.go("busy")
    assert c.response().status == 200
    assert [c.response().status for c in crowd] == [200] * 15
    assert queued.started().index("mine") <= 2  # at most one of the greedy user goes before
    assert queued.most_at_once() == 1
    assert busy.response().status == 200


# ---- bound and order ----


def test_the_queue_has_a_bound_and_first_come_is_first_served(queued: Queued) -> None:
    queued.serve("- {match: POST /ai/*, concurrency: 1, queue: {size: 3, fair_by: route}}")
    [busy] = queued.held()
    waiting = [queued.sent(f"id={i}", f"user{i}") for i in range(3)]
    more = queued.client()
    queued.send(more, "id=more", "user9")
    problem = refused(more.response(), 503, "queue_full")
    assert problem["position"] == 4
    queued.go("held")
    assert [c.response().status for c in [busy, *waiting]] == [200] * 4
    assert queued.started()[1:] == ["0", "1", "2"]
    queued.send(more, "id=more", "user9")  # the connection is as good as before
    assert more.response().status == 200


@pytest.mark.parametrize("workers", [0, 2])
def test_users_see_where_their_own_requests_wait(queued: Queued, workers: int) -> None:
    server = queued.serve("- {match: POST /ai/*, name: ai, concurrency: 1, queue: 10}", workers=workers)
    [busy] = queued.held()

    def waiting(user: str) -> list[dict[str, Any]]:
        [route] = server.get("/-/usage", f"Authorization: Bearer {user}").json()["routes"]
        assert route["route"] == "ai" and set(route) == {"route", "waiting"}
        return route["waiting"]

    assert waiting("ann") == waiting("holder") == []
    for i, user in enumerate(("ann", "bob", "ann")):
        queued.send(c := queued.client(), f"id={i}", user)
        busy_others = [busy, c] if not i else [*busy_others, c]
        wait_for(lambda: len(waiting(user)) == (2 if i == 2 else 1), what="it waits")
    assert [w["position"] for w in waiting("ann")] in ([1, 3], [2, 3])
    assert len(waiting("bob")) == 1 and waiting("carol") == []
    assert server.get("/-/usage").status == 401
    queued.go("held")
    assert [c.response().status for c in busy_others] == [200] * 4
    wait_for(lambda: not waiting("ann"), what="nothing waits")


def test_without_a_queue_what_finds_no_place_is_refused(queued: Queued) -> None:
    queued.serve("- {match: POST /ai/*, concurrency: 2}")
    held = queued.held(2)
    c = queued.client()
    queued.send(c, "id=third", "me")
    refused(c.response(), 503, "queue_full")
    assert c.get("/other?id=other").status == 200  # another path has no bound
    queued.go("held")
    assert [h.response().status for h in held] == [200] * 2
    queued.send(c, "id=again", "me")
    assert c.response().status == 200


def test_ten_users_that_always_wait_are_served_alike(queued: Queued) -> None:
    queued.serve("- {match: POST /ai/*, concurrency: 1, queue: 300}")
    held = queued.held()
    clients = [(user, queued.client()) for user in range(10) for _ in range(8)]
    for i, (user, c) in enumerate(clients):  # the first user's all come first
        queued.send(c, f"id={user}.{i}&ms=2", f"user{user}")
    queued.settle()
    queued.go("held")
    assert [c.response().status for _, c in clients] == [200] * 80
    ended = sorted((r for r in queued.runs() if "." in r.id), key=lambda r: r.end_ns)
    for n in (10, 20, 40, 70):
        done = Counter(r.id.partition(".")[0] for r in ended[:n])
        assert jain([done[str(user)] for user in range(10)]) >= 0.99, done
    assert held[0].response().status == 200


def test_a_greedy_user_does_not_delay_the_others_nor_fill_their_queue(queued: Queued) -> None:
    queued.serve("- {match: POST /ai/*, concurrency: 1, queue: 60}", connections=300)
    [busy] = queued.held()
    greedy = [queued.client() for _ in range(100)]
    for i, c in enumerate(greedy):
        queued.send(c, f"id=greedy{i}&ms=1", "greedy")
    queued.settle()
    others = [queued.sent(f"id=other{i}&ms=1", f"other{i}") for i in range(10)]
    queued.go("held")
    assert [c.response().status for c in others] == [200] * 10
    statuses = Counter(c.response().status for c in greedy)
    assert statuses == {200: 40, 503: 60}  # he had two thirds of the queue
    started = queued.started()[1:]
    assert max(started.index(f"other{i}") for i in range(10)) <= 11  # each after one of his at most
    assert busy.response().status == 200


def test_of_one_user_the_request_with_the_earliest_deadline_goes_first(queued: Queued) -> None:
    queued.serve("- {match: POST /ai/*, concurrency: 1, queue: 10, deadline: 30s}")
    [busy] = queued.held()
    early = queued.client()
    queued.send(early, "id=early", "me", fields=("Content-Length: 4",))  # its time counts from here
    queued.settle()
    time.sleep(0.01)  # another millisecond of the loop's clock
    late = queued.sent("id=late", "me")
    early.send(b"body")
    queued.settle()
    queued.go("held")
    assert [c.response().status for c in (busy, early, late)] == [200] * 3
    assert queued.started()[1:] == ["early", "late"]


# ---- what those are told who wait in vain ----


def test_who_waits_longer_than_allowed_is_told_where_he_stood(queued: Queued) -> None:
    queued.serve("- {match: POST /ai/*, concurrency: 1, queue: {size: 10, wait: 400ms}}")
    c = queued.client()
    queued.send(c, "ms=20", "me")  # now it is known how long a place is held
    assert c.response().status == 200
    [busy] = queued.held()
    waiting = [queued.sent(f"id=waits{i}", "me") for i in range(2)]
    problems = [refused(w.response(), 503, "queue_wait") for w in waiting]
    assert [p["position"] for p in problems] in ([1, 2], [1, 1])  # the first may have left already
    assert all(p["expected_wait"] > 0 and p["retry_after"] >= 1 for p in problems)
    queued.go("held")
    assert busy.response().status == 200
    assert queued.started() == ["held-1"]
    queued.send(waiting[0], "id=again", "me")
    assert waiting[0].response().status == 200


def test_a_request_that_cannot_be_served_in_time_is_refused_at_once(queued: Queued) -> None:
    queued.serve("- {match: POST /ai/*, concurrency: 1, queue: {size: 100, wait: 2s}, deadline: 60s}\n"
                 "- {match: POST /short/*, concurrency: 1, queue: {size: 100, wait: 60s}, deadline: 2s}")
    for path in ("/ai/x", "/short/x"):
        c = queued.client()
        queued.send(c, "ms=600", "me", path=path)
        assert c.response().status == 200
        busy = queued.client()
        queued.send(busy, f"id=busy{path}&ms=900", "me", path=path)
        wait_for(lambda: f"busy{path}" in queued.started())
        waiting = [queued.sent(f"id={path}{i}&ms=1", "me", path=path) for i in range(3)]
        late = queued.client()
        queued.send(late, "id=late", "me", path=path)
        problem = refused(late.response(), 503, "queue_late")
        assert problem["position"] == 4 and 2 < problem["expected_wait"] < 10, problem
        assert len(queued.runs()) and not [r for r in queued.runs() if r.id == f"busy{path}"][0].end_ns
        assert [w.response().status for w in [busy, *waiting]] == [200] * 4
    assert "late" not in queued.started()


def test_a_deadline_that_passes_in_the_queue_is_504_and_frees_its_place_there(queued: Queued) -> None:
    queued.serve("- {match: POST /ai/*, concurrency: 1, queue: 1, deadline: 1s}")
    [busy] = queued.held()
    problem = refused(queued.sent("id=waits", "me").response(), 504, "deadline")
    assert "retry_after" not in problem
    assert busy.response().status == 504  # its place is taken until it returns
    c = queued.sent("id=second", "me")
    queued.go("held")
    assert c.response().status == 200
    assert queued.started() == ["held-1", "second"]


# ---- who leaves ----


@pytest.mark.parametrize("how", ["close", "reset", "half_close"])
def test_a_client_that_leaves_while_queued_never_starts_and_frees_its_place(queued: Queued, how: str) -> None:
    server = queued.serve("- {match: POST /ai/*, concurrency: 1, queue: {size: 2, fair_by: route}}")
    [busy] = queued.held()
    leaving = [queued.sent(f"id=left{i}", "me") for i in range(2)]
    other = queued.client()

    def place_free() -> bool:
        queued.send(other, "id=other", "other")
        queued.settle()
        return other.quiet(0.05) or other.response().status != 503

    assert not place_free()
    for c in leaving:
        getattr(c, how)()
    if how == "half_close":  # it has only finished sending, and still wants its answer
        assert not place_free()
        queued.go("held")
        assert [c.response().status for c in leaving] == [200] * 2
        assert busy.response().status == 200
        return
    wait_for(place_free, what="a place in the queue")
    queued.go("held")
    assert other.response().status == 200
    assert busy.response().status == 200
    assert queued.started() == ["held-1", "other"]
    assert server.running()


def test_a_client_that_leaves_while_it_runs_keeps_its_place_until_the_application_returns(queued: Queued) -> None:
    queued.serve("- {match: POST /ai/*, concurrency: 1, queue: 10}")
    [busy] = queued.held()
    waits = queued.sent("id=waits", "me")
    busy.reset()
    assert waits.quiet(0.3)
    queued.go("held")
    assert waits.response().status == 200
    assert queued.most_at_once() == 1


# ---- answers ----


def test_a_streaming_response_holds_its_place_until_its_close_returns(queued: Queued) -> None:
    queued.serve(ONE)
    streaming = queued.client()
    queued.send(streaming, "id=stream&stream=go&close=close", "me")
    assert streaming.head().status == 200 and streaming.chunk() == b"first"
    waits = queued.sent("id=waits", "me")
    queued.go("go")
    assert streaming.chunk() == b"last"
    assert waits.quiet(0.2) and queued.started() == ["stream"]
    queued.go("close")
    assert waits.response().status == 200
    assert queued.most_at_once() == 1


def test_head_and_pipelined_requests_are_refused_one_by_one(queued: Queued) -> None:
    queued.serve("- {match: /ai/*, concurrency: 1}")
    [busy] = queued.held()
    c = queued.client()
    c.send(b"HEAD /ai/x HTTP/1.1\r\nHost: t\r\n\r\n"
           b"GET /ai/x HTTP/1.1\r\nHost: t\r\n\r\n"
           b"GET /other?id=other HTTP/1.1\r\nHost: t\r\n\r\n"
           b"POST /ai/x HTTP/1.1\r\nHost: t\r\nContent-Length: 5\r\n\r\nhello"
           b"GET /other?id=last HTTP/1.1\r\nHost: t\r\n\r\n")
    r = c.response("HEAD")
    assert r.status == 503 and r.body == b"" and int(r.get("content-length") or 0) > 0
    refused(c.response(), 503, "queue_full")
    assert c.response().text.startswith("other ")
    refused(c.response(), 503, "queue_full")
    assert c.response().text.startswith("last ")
    queued.go("held")
    assert busy.response().status == 200


def test_pipelined_requests_of_one_connection_wait_one_after_the_other(queued: Queued) -> None:
    queued.serve(ONE)
    [busy] = queued.held()
    c = queued.client()
    c.send(b"".join(b"POST /ai/x?id=%d HTTP/1.1\r\nHost: t\r\nContent-Length: 1\r\n\r\nx" % i for i in range(5)))
    other = queued.sent("id=other", "other")
    queued.go("held")
    assert [c.response().status for _ in range(5)] == [200] * 5
    assert other.response().status == 200 and busy.response().status == 200
    assert queued.most_at_once() == 1
    assert [i for i in queued.started() if i.isdigit()] == list("01234")


# ---- bodies ----

GUARDED = """\
- match: POST /ai/*
  require: user
  rate: {user: 1/hour}
- {match: POST /full/*, concurrency: 1}
"""


def test_a_large_body_of_a_refused_request_is_not_read(queued: Queued) -> None:
    queued.serve(GUARDED, max_body_size="2M")
    first = queued.client()
    queued.send(first, "id=first", "spent")
    assert first.response().status == 200
    for user, path, size, status in (("", "/ai/x", 1 << 20, 401), ("spent", "/ai/x", 1 << 20, 429),
                                     ("new", "/ai/x", 3 << 20, 413)):
        for expect in (False, True):
            c = queued.client()
            fields = (f"Content-Length: {size}", *(("Expect: 100-continue",) if expect else ()))
            queued.send(c, "id=large", user, path, fields=fields)
            r = c.response()
            assert r.status == status and r.interim == [] and not r.keep, (status, expect)
            if status == 401:
                assert "Bearer" in (r.get("www-authenticate") or "")
            if status == 429:
                assert int(r.get("retry-after") or 0) > 3000
            assert c.ended() == "closed"
    assert queued.started() == ["first"]
    # What was too large has spent nothing.
    c = queued.client()
    queued.send(c, "id=new", "new", body=b"x" * 100)
    assert c.response().status == 200


def test_a_small_body_of_a_refused_request_is_dropped_and_the_connection_goes_on(queued: Queued) -> None:
    queued.serve(GUARDED)
    c = queued.client()
    for body in (b"x", b"x" * 60000):
        queued.send(c, "id=never", body=body)
        refused(c.response(), 401, "no_credentials")
    assert c.get("/other?id=other").status == 200
    assert queued.started() == ["other"]


def test_a_body_in_a_file_waits_with_its_request(queued: Queued) -> None:
    server = queued.serve(ONE, body_memory="64k")
    [busy] = queued.held()
    body = os.urandom(1 << 20)
    c = queued.client()
    queued.send(c, "id=large", "me", body=body)
    wait_for(lambda: any("(deleted)" in name and "/tmp" in name for name in server.fds()), what="a body in a file")
    gone = queued.client()
    queued.send(gone, "id=gone", "me", body=body)
    wait_for(lambda: sum("(deleted)" in name and "/tmp" in name for name in server.fds()) == 2)
    gone.reset()
    wait_for(lambda: sum("(deleted)" in name and "/tmp" in name for name in server.fds()) == 1)
    queued.go("held")
    assert c.response().text.endswith(f" {len(body)} {zlib.crc32(body):08x}")
    assert busy.response().status == 200 and "gone" not in queued.started()


@pytest.mark.parametrize("buffering", ["auto", "off"])
def test_a_chunked_body_is_whole_before_its_request_takes_a_place(queued: Queued, buffering: str) -> None:
    queued.serve(ONE, request_buffering=buffering)
    slow = queued.client()
    queued.send(slow, "id=slow", "me", fields=("Transfer-Encoding: chunked",))
    slow.send(b"5\r\nhello\r\n")
    assert slow.quiet(0.5)  # longer than a body that is handed over as it comes
    assert queued.started() == []
    other = queued.client()
    queued.send(other, "id=other", "me")
    assert other.response().status == 200
    slow.send(b"6\r\n world\r\n0\r\n\r\n")
    assert slow.response().text.endswith(f" 11 {zlib.crc32(b'hello world'):08x}")
    assert queued.started() == ["other", "slow"]


# ---- what waiting costs ----


@pytest.mark.skipif(SANITIZED, reason="a sanitizer has memory of its own")
def test_waiting_costs_no_thread_and_less_than_four_kib(queued: Queued) -> None:
    n = 700
    server = queued.serve("- {match: POST /ai/*, concurrency: 1, queue: {size: 4000, wait: 10m}}", threads="2:2")
    [busy] = queued.held()
    clients = [queued.client() for _ in range(n)]
    idle, threads = server.rss_kib(), server.threads()
    for i, c in enumerate(clients):
        queued.send(c, f"id={i}", f"user{i}")
    queued.settle()
    assert server.threads() == threads
    assert (server.rss_kib() - idle) / n < 4
    for c in clients[1:]:
        c.close()
    wait_for(lambda: server.sockets() < 20, what="the others are gone")
    queued.go("held")
    assert [c.response().status for c in (busy, clients[0])] == [200] * 2
    assert len(queued.started()) == 2


# ---- dry_run ----


def test_a_dry_run_lets_everything_pass_at_once_and_says_what_it_would_refuse(queued: Queued) -> None:
    server = queued.serve("- {match: POST /ai/*, concurrency: 1, queue: {size: 1, wait: 300ms}, dry_run: yes}")
    held = queued.held(3)  # one has a place, one would wait, one would be refused
    server.wait_log("dry run: POST /ai/* would have refused a request with 503: queue_full")
    queued.go("held")
    assert [c.response().status for c in held] == [200] * 3
    held = queued.held(1, "again")
    waits = queued.sent("id=waits", "me")
    assert waits.response().status == 200
    assert queued.runs()[-2].end_ns == 0  # beside the one that has the only place
    queued.go("again")
    assert held[0].response().status == 200
    assert server.log.count("dry run") == 1


# ---- what the log says ----


def test_a_queue_older_than_a_second_is_one_line_with_the_cure(queued: Queued) -> None:
    server = queued.serve("- {match: POST /ai/*, concurrency: 1, queue: {size: 10, wait: 4s}}")
    [busy] = queued.held()
    waiting = [queued.sent(f"id={i}", "me") for i in range(5)]
    server.wait_log(re.compile(r"requests of POST /ai/\* wait \d\.\d s for one of its 1 places; raise its concurrency"))
    assert waiting[0].quiet(0.05)  # it is told while they wait
    assert [refused(c.response(), 503, "queue_wait")["reason"] for c in waiting]
    queued.go("held")
    assert busy.response().status == 200
    assert server.log.count("for one of its 1 places") == 1


@pytest.mark.parametrize("how", ["weir", "workers 0", "gunicorn", "waitress"])
def test_requests_that_wait_long_for_a_thread_are_one_line_with_the_cure(queued: Queued, how: str) -> None:
    routes = "- {match: /none, deadline: 60s}"
    if how == "gunicorn":
        server = queued.gunicorn(routes)
    elif how == "waitress":
        server = queued.waitress(routes, threads=2)
    else:
        server = queued.serve(routes, threads=2, workers=1 if how == "weir" else 0)
    threads = 1 if how == "gunicorn" else 2
    cure = "more processes with --workers N" if how in ("weir", "gunicorn") else "run it under weir with --workers N"
    held = queued.held(threads)
    waiting = [queued.sent(f"id={how[0]}{i}", path="/x") for i in range(3)]
    line = re.compile(rf"requests wait for a thread, the first for \d\.\d s: all of {threads} are inside the "
                      rf"application; .* --threads N or --threads auto, or {cure}")
    server.wait_log(line)
    assert waiting[0].quiet(0.7)  # for another look
    queued.go("held")
    assert [c.response().status for c in [*held, *waiting]] == [200] * (threads + 3)
    assert server.log.count("requests wait for a thread") == 1


def test_a_second_long_wait_for_a_thread_is_told_anew(queued: Queued) -> None:
    server = queued.serve("- {match: /none, deadline: 60s}", threads=1)
    for n in (1, 2):
        [busy] = queued.held(1, f"held{n}")
        waits = queued.sent("id=waits", path="/x")
        server.wait_log("requests wait for a thread", count=n)
        queued.go(f"held{n}")
        assert [c.response().status for c in (busy, waits)] == [200] * 2
        begin = server.cpu_seconds()
        assert not waits.buffer and waits.quiet(0.7)  # nobody waits: a look sees it
        assert server.cpu_seconds() - begin < 0.3


# ---- every command line ----


@pytest.mark.parametrize("how", ["weir", "workers 0", "gunicorn", "waitress", "serve"])
def test_every_way_to_start_has_places_and_a_queue(queued: Queued, how: str) -> None:
    routes = "- {match: POST /ai/*, concurrency: 1, queue: {size: 1, wait: 20s}}"
    if how == "gunicorn":
        queued.gunicorn(routes, "--threads", "4")
    elif how == "waitress":
        queued.waitress(routes, threads=4)
    elif how == "serve":
        program = ("import queued, weir; "
                   f"weir.serve(queued.app, host='127.0.0.1', port=0, threads=4, config={str(queued.file)!r})")
        queued.start(routes, command=[PYTHON, "-c", program], env={"PYTHONPATH": f"{PACKAGE}:{APPS}"}, cwd=queued.folder)
    else:
        queued.serve(routes, workers=1 if how == "weir" else 0)
    held = queued.held()
    waits = queued.sent("id=waits", "me")
    more = queued.client()
    queued.send(more, "id=more", "me")
    refused(more.response(), 503, "queue_full")
    queued.go("held")
    assert [c.response().status for c in [*held, waits]] == [200] * 2
    assert queued.started()[1:] == ["waits"]


# ---- the reserved lane ----

LANE = """\
- {match: GET /health, lane: reserved}
- {match: POST /ai/*, concurrency: 100}
"""


def test_health_is_answered_at_once_while_every_place_is_taken(queued: Queued) -> None:
    server = queued.serve(LANE, threads=4)
    held = queued.held(4)
    waits = queued.sent("id=waits", "me")
    took = []
    c = queued.client()
    for _ in range(30):
        begin = time.monotonic()
        assert c.get("/health").status == 200
        took.append(time.monotonic() - begin)
    assert statistics.median(took) < 0.25 * PATIENCE, took
    assert "waits" not in queued.started() and queued.most_at_once() == 4
    queued.go("held")
    assert [c.response().status for c in [*held, waits]] == [200] * 5
    assert "lane: reserved does nothing" not in server.log


def test_with_one_thread_there_is_no_lane_and_the_start_says_so(queued: Queued) -> None:
    server = queued.serve(LANE, threads=1)
    assert "lane: reserved does nothing with one thread" in server.log
    [busy] = queued.held()
    c = queued.client()
    c.request("GET", "/health?id=health")
    assert c.quiet(0.3)
    assert server.get("/-/ping").status == 200
    queued.go("held")
    assert c.response().status == 200 and busy.response().status == 200
    assert queued.most_at_once() == 1
