"""What `weir status` and `weir stacks` write, of whatever object."""

from __future__ import annotations

import copy
import json
import random
import re
from pathlib import Path

import pytest
from weir import _status_text as text

STATUS = {
    "weir": "0.2.0", "now": 1764442153.12, "started": 1764438000.5, "ready": True, "unready": None,
    "totals": {"requests": 12034, "open": 12},
    "processes": {"workers": 2, "started": 3, "crashed": 1, "recycled": {"max_rss": 1}},
    "workers": [
        {"slot": 0, "pid": 4711, "state": "ready", "held": False, "recycle": "none", "beat_age": 0.4, "places": 8,
         "busy": 3, "stuck": 0, "waiting": 0, "open": 6, "requests": 6000, "rss_bytes": 41000000,
         "gil_wait_p99": 0.002, "loop_lag_p99": 0.001},
        {"slot": 1, "pid": 4712, "state": "ready", "held": True, "recycle": "stuck", "beat_age": 31, "places": 8,
         "busy": 8, "stuck": 2, "waiting": 4, "open": 6, "requests": 6034, "rss_bytes": 0, "gil_wait_p99": None,
         "loop_lag_p99": None},
    ],
    "routes": [
        {"route": "*", "requests": 5, "in_flight": 0, "statuses": {"200": 5}, "refused": {}, "gate": None,
         "total": {"p50": None, "p95": None, "p99": None}},
        {"route": "POST /api/ai/*", "requests": 300, "in_flight": 11, "statuses": {"200": 290, "503": 4, "502": 1},
         "refused": {"rate_limited": 10}, "total": {"p50": 0.9, "p95": 4.1, "p99": 9.0},
         "gate": {"running": 8, "concurrency": 8, "waiting": 3, "size": 100, "head_age": 1.2, "expected": 0.8}},
        {"route": "GET /quiet", "requests": 0, "in_flight": 0, "gate": None},
    ],
    "queues": [{"route": "POST /api/ai/*", "user": "jwt:42", "waiting": 3}],
    "flights_total": 14,
    "flights_by_state": {"reading": 0, "queued": 3, "application": 11},
    "flights": [
        {"worker": 0, "id": 1234, "state": "application", "age": 12.4, "in_state": 11.9, "method": "POST",
         "path": "/api/ai/build-board", "route": "POST /api/ai/*", "user": "jwt:42", "address": "127.0.0.1",
         "slow": True},
        {"worker": 1, "id": 9, "state": "queued", "age": 0.0004, "in_state": 0.0001, "method": "GET",
         "path": "/日本語/" + "x" * 100, "route": "*", "user": None, "address": "2001:db8::1", "slow": False},
    ],
}
POINT = {"requests": 123.4, "failed": 0.1, "refused": 2, "p50": 0.012, "p95": 0.34, "p99": 1.2}

STACKS = {"now": 1.0, "workers": [
    {"slot": 0, "pid": 4711, "state": "ready", "error": None, "took": 0.004, "threads": [
        {"thread": 4715, "name": "weir-lead", "python": False, "state": "S", "cpu": 0.5, "waits_in": "epoll_wait",
         "lock": "free", "request": None, "frames": [], "more_frames": False, "complete": True},
        {"thread": 4720, "name": "weir-app-3", "python": True, "state": "R", "cpu": 12.34, "waits_in": None,
         "lock": "holds", "lock_for": 3.2, "complete": False, "more_frames": True,
         "request": {"id": 1234, "method": "POST", "path": "/api/ai/build-board", "user": "jwt:42", "age": 12.4,
                     "state": "application"},
         "frames": [{"function": "build", "file": "/srv/app/board.py", "line": 41, "source": "time.sleep(30)"},
                    {"function": "app", "file": "/srv/app/index.py", "line": 7, "source": "return build(environ)"}]},
        {"thread": 4721, "name": "weir-app-4", "python": True, "state": "S", "cpu": 0, "lock": "waits",
         "waits_in": "recvfrom: 127.0.0.1:40000 > 10.0.0.5:5432", "request": None, "frames": []},
    ]},
    {"slot": 1, "pid": 4712, "state": "booting", "error": "no answer within 1 s", "took": None, "threads": []},
]}


def lines(status=STATUS, point=POINT, **screen) -> list[str]:
    return [line.text for line in text.status_lines(status, point, text.Screen(**screen))]


def row(of: list[str], *words: str) -> str:
    found = [line for line in of if all(word in line for word in words)]
    assert len(found) == 1, (words, of)
    return found[0]


def test_the_plain_form_tells_everything_at_80_columns():
    out = lines(address="127.0.0.1:5001")
    assert all(text.columns(line) <= 80 for line in out)
    assert out[0].startswith("weir 0.2.0  127.0.0.1:5001  ready  up 1h 9m")
    assert "requests 123/s  p50 12ms  p95 340ms  p99 1.2s  failed 0.1/s  refused 2.0/s" in out
    assert "in flight 14: queued 3, application 11" in out
    row(out, "threads 11/16 busy, 2 stuck, 4 waiting", "connections 12", "crashed 1", "recycled 1")
    assert row(out, " 4711 ", "ready", "3/8").split()[-1] == "400ms"
    row(out, " 4712 ", "held,stuck")
    row(out, "POST /api/ai", " 8/8 ", "3/100", "1.2s", "900ms", "4.1s", "9.0s")
    assert not [line for line in out if "GET /quiet" in line]
    row(out, "12s application", "jwt:42", "POST /api/ai/build-board")
    row(out, "queued", "2001:db8::1", "…")
    row(out, "waiting by user: jwt:42 3")
    assert out[-1] == "  … and 12 more, by age"


def test_a_wide_screen_has_more_columns():
    out = lines(width=140)
    assert "ROUTE" in row(out, "AGE", "STATE", "REQUEST")
    row(out, "1234", "POST /api/ai/build-board")


@pytest.mark.parametrize("width", [20, 40, 57, 80, 109, 110, 200])
@pytest.mark.parametrize("height", [5, 10, 24, 60, None])
def test_no_line_is_too_wide_and_no_screen_too_long(width, height):
    many = copy.deepcopy(STATUS)
    for name in ("workers", "routes", "flights"):
        many[name] *= 40
    for status in (STATUS, many, {}):
        for rows in (None, 0, 3, 1000):
            screen = text.Screen(width, height, rows, note="q quit")
            out = text.status_lines(status, POINT, screen)
            assert all(text.columns(line.text) <= width for line in out)
            assert height is None or (len(out) <= height and out[-1].text)
            assert rows is None or screen.shown <= rows


def test_a_short_screen_keeps_requests_and_says_what_is_left_out():
    many = copy.deepcopy(STATUS)
    many["workers"] *= 10
    many["flights"] *= 40
    many["flights_total"] = 200
    out = lines(many, width=80, height=24, note="q quit")
    assert len(out) == 24 and out[-1] == "q quit"
    row(out, "… and 17 more")
    assert row(out, "more, by age")
    assert len([line for line in out if "build-board" in line]) >= 2


def test_an_idle_server_and_one_that_lacks_members_are_shown():
    for status in ({}, {"workers": None, "routes": [7, {}], "flights": [{}], "flights_by_state": []}):
        out = text.status_lines(status, {}, text.Screen())
        assert out and out[0].text.startswith("weir ?")
    assert "no request is in flight" in lines({**STATUS, "flights": [], "flights_total": 0})


def test_objects_of_any_shape_do_not_stop_it():
    rng = random.Random(7)
    values = [None, True, -1, 1e300, "x\x1b[2J", [], {}, [1], [{}], {"p50": "y"}]

    def mangled(value):
        if rng.random() < 0.15:
            return rng.choice(values)
        if isinstance(value, dict):
            return {k: mangled(v) for k, v in value.items()}
        return [mangled(v) for v in value] if isinstance(value, list) else value

    for _ in range(2000):
        status, stacks = mangled(STATUS), mangled(STACKS)
        out = [line.text for line in text.status_lines(status if isinstance(status, dict) else {}, {}, text.Screen())]
        out += text.stacks_lines(stacks if isinstance(stacks, dict) else {}, 80)
        assert not [line for line in out if "\x1b" in line]


def test_what_is_wrong_is_marked():
    def style(status, *words):
        return [line.style for line in text.status_lines(status, {}, text.Screen()) if all(w in line.text for w in words)]

    assert style({**STATUS, "ready": False, "unready": "draining"}, "not ready: draining") == ["bad"]
    assert style(STATUS, " 4711 ") == [""] and style(STATUS, " 4712 ") == ["bad"]
    assert style(STATUS, "build-board") == ["bad"]


def test_times_sizes_and_counts_are_short():
    assert [text.seconds(s) for s in (0, 0.00035, 0.012, 0.9996, 4.12, 12.4, 599, 1200, 36000, None)] == [
        "0us", "350us", "12ms", "1.0s", "4.1s", "12s", "599s", "20m", "10h", "-"]
    assert [text.size(n) for n in (0, 512, 41000000, 1.5 * 2**30, None)] == ["-", "512B", "39M", "1.5G", "-"]
    assert [text.count(n) for n in (0, 99999, 100000, 12345678, None)] == ["0", "99999", "100k", "12M", "-"]
    assert [text.uptime(s) for s in (5, 3700, 100000)] == ["0m 5s", "1h 1m", "1d 3h"]


def test_wide_characters_take_two_columns():
    assert text.columns("日本") == 4
    assert text.clip("日本語", 5) == "日本…"
    assert text.cell("日", -4) == "  日" and text.cell("日本語", 4) == "日… "
    assert text.clip("x", 0) == ""


def test_stacks_name_thread_state_lock_request_and_frames():
    out = text.stacks_lines(STACKS)
    assert out[0] == "worker 0, pid 4711, ready, looked at in 4ms"
    assert out[1] == ("  thread 4720 weir-app-3: computes, holds the interpreter lock for 3.2s, cpu 12.34s")
    assert out[2] == "    request 1234: POST /api/ai/build-board of jwt:42, application, for 12s"
    assert out[3] == "    stack, newest call first (it ran on: perhaps of two moments):"
    assert out[4:8] == ["      build  /srv/app/board.py:41", "          time.sleep(30)",
                        "      app  /srv/app/index.py:7", "          return build(environ)"]
    assert out[8] == "      … older calls are left out"
    row(out, "weir-app-4: waits, in recvfrom: 127.0.0.1:40000 > 10.0.0.5:5432, waits for the interpreter lock")
    row(out, "weir-lead: waits, in epoll_wait, cpu 0.50s")
    assert out[-2:] == ["worker 1, pid 4712, booting", "  no stacks: no answer within 1 s"]
    assert text.stacks_lines({"workers": []}) == ["no worker runs"]


@pytest.mark.parametrize("width", [40, 60, 80])
def test_stacks_are_folded_to_a_terminal(width):
    long = copy.deepcopy(STACKS)
    long["workers"][0]["threads"][1]["frames"][0]["file"] = "/srv/" + "deep/" * 60 + "board.py"
    out = text.stacks_lines(long, width)
    assert all(text.columns(line) <= width for line in out)
    assert "".join(line.strip() for line in out).count("deep/") == 60  # nothing is lost


@pytest.mark.parametrize("page", ["status-json.md", "stacks-json.md"])
def test_what_the_reference_shows_can_be_shown(page):
    written = (Path(__file__).resolve().parents[3] / "docs" / "reference" / page).read_text()
    shown = json.loads(re.search(r"```json\n(.*?)```", written, re.S)[1])
    if page == "status-json.md":
        out = lines(shown, POINT, width=140)
        row(out, "jwt:42", "1234", "POST /api/ai/build-board")
        row(out, "4711", "ready", "3/8", "39M")
    else:
        out = text.stacks_lines(shown)
        assert "      build  /srv/app/board.py:41" in out
