"""X-Request-Id and traceparent: each request has its own, whatever the application does with the texts."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness import Starter

APP = """
import json, sys
kept, table = [], {}

def app(environ, start):
    name, parent = environ.get("HTTP_X_REQUEST_ID"), environ.get("HTTP_TRACEPARENT")
    path = environ["PATH_INFO"]
    if path == "/keep":
        kept.append((name, parent))
    elif path == "/intern":
        kept.append((sys.intern(name), sys.intern(parent)))
    elif path == "/key":
        table[name] = parent
    elif path == "/environ":
        kept.append(environ)
    elif path == "/all":
        texts = [k if isinstance(k, tuple) else (k["HTTP_X_REQUEST_ID"], k["HTTP_TRACEPARENT"]) for k in kept]
        body = json.dumps({"kept": texts, "table": table, "found": all(k in table for k in list(table))}).encode()
        start("200 OK", [("Content-Type", "application/json")])
        return [body]
    start("200 OK", [("Content-Type", "application/json"), *([("X-Request-Id", "own")] if path == "/own" else [])])
    return [json.dumps({"id": name, "hash": hash(name), "parent": parent}).encode()]
"""
MADE = re.compile(r"[0-9a-f]{32}")
PARENT = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "named.py").write_text(APP)
    return tmp_path


def test_texts_that_the_application_keeps_stay_as_they_were(weir: Starter, folder: Path) -> None:
    server = weir("named:app", cwd=folder, pythonpath=folder, workers=0, threads=2)
    ids: list[str] = []
    with server.client() as c:
        for path in ("/", "/keep", "/", "/intern", "/intern", "/environ", "/", "/key", "/key", "/keep") * 20:
            r = c.get(path)
            told = r.json()
            assert told["id"] == r.get("X-Request-Id") and MADE.fullmatch(told["id"])
            assert PARENT.fullmatch(told["parent"]) and told["parent"][3:35] == told["id"]
            ids.append(told["id"])
        seen = c.get("/all").json()
    assert len(set(ids)) == len(ids)
    assert len(seen["kept"]) == 100 and {k for k, _ in seen["kept"]} <= set(ids)
    assert len({k for k, _ in seen["kept"]}) == 100 and all(p[3:35] == k for k, p in seen["kept"])
    assert len(seen["table"]) == 40 and seen["found"] and all(v[3:35] == k for k, v in seen["table"].items())


def test_a_clients_own_is_taken_and_a_wrong_one_is_not(weir: Starter, folder: Path) -> None:
    server = weir("named:app", cwd=folder, pythonpath=folder, access_log="-",
                  access_log_format="%(U)s %(x_request_id)s %(trace_id)s")
    with server.client() as c:
        for sent, taken in (("abc-1", True), ("a" * 64, True), ("a" * 65, False), ("a b", False), ("\xe4", False)):
            r = c.get("/", f"X-Request-Id: {sent}")
            assert (r.json()["id"] == sent) is taken and r.get("X-Request-Id") == r.json()["id"]
        twice = c.get("/", "X-Request-Id: one", "X-Request-Id: two").json()["id"]
        assert MADE.fullmatch(twice)
        trace = "4bf92f3577b34da6a3ce929d0e0e4736"
        r = c.get("/traced", f"Traceparent: 00-{trace}-00f067aa0ba902b7-01", "X-Request-Id: mine")
        assert r.json()["parent"] == f"00-{trace}-00f067aa0ba902b7-01"
        assert c.get("/own").all("X-Request-Id") == ["own"]
        assert c.get("/-/ping").get("X-Request-Id")  # whoever answers
    server.wait_out(f"/traced mine {trace}")


def test_both_can_be_turned_off(weir: Starter, folder: Path) -> None:
    server = weir("named:app", "--no-request-id", "--no-trace-context", cwd=folder, pythonpath=folder)
    with server.client() as c:
        r = c.get("/")
        assert r.json()["id"] is None and r.json()["parent"] is None and not r.all("X-Request-Id")
        assert c.get("/", "X-Request-Id: theirs").json()["id"] == "theirs"


def test_server_timing_tells_where_the_time_went(weir: Starter, folder: Path) -> None:
    server = weir("named:app", "--server-timing", cwd=folder, pythonpath=folder)
    r = server.get("/")
    names = re.fullmatch(r"queue;dur=(\d+\.\d{3}), app;dur=(\d+\.\d{3}), total;dur=(\d+\.\d{3})", r.get("Server-Timing"))
    assert names and float(names[3]) >= float(names[2]) >= 0
    assert server.get("/-/ping").get("Server-Timing").startswith("total;dur=")
