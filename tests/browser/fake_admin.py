#!/usr/bin/python3
"""An admin listener that plays: the built status page, with data of a scenario in the shapes of docs/reference.

usage: fake_admin.py    prints its port; ends with its standard input

  POST /fake/scenario?name=NAME   calm, hung, many, hostile, empty, alone, crash
  POST /fake/trouble?name=NAME    none, lost (connections are cut), silent (open, but nothing comes), token (401)
  GET  /fake/log                  what was asked so far, as a JSON list of "METHOD path"
"""

from __future__ import annotations

import importlib.machinery
import importlib.util
import json
import math
import random
import re
import sys
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

HOSTILE = '<img src=x onerror="window.hurt=1"><script>window.hurt=1</script>"\'&lt;'
COLUMNS = ["at", "requests", "failed", "refused", "p50", "p95", "p99", "in_flight", "queued", "waiting", "busy", "places", "open", "loop_lag"]
BUILD = "POST /api/ai/*"
USERS = ["jwt:ada", "jwt:grace", "jwt:alan", "jwt:edsger", "jwt:barbara", "key:nightly-import", ""]


def build_page() -> Any:
    """What tools/embed-page makes."""
    loader = importlib.machinery.SourceFileLoader("embed_page", str(ROOT / "tools" / "embed-page"))
    spec = importlib.util.spec_from_loader("embed_page", loader)
    assert spec
    sys.dont_write_bytecode = True
    module = importlib.util.module_from_spec(spec)
    sys.modules["embed_page"] = module
    loader.exec_module(module)
    return module.make()


def settings() -> list[dict[str, str]]:
    """Every visible setting of settings.def with its default, and some that are set."""
    text = (ROOT / "src/conf/settings.def").read_text()
    given = {"threads": ("8", "--threads"), "workers": ("4", "weir.yaml"), "admin": ("127.0.0.1:5001", "--admin"), "config": ("weir.yaml", "WEIR_CONFIG")}
    rows = re.findall(r'^SETTING\(\w+, \w+, "([^"]+)", "([^"]*)", "[^"]*", "[^"]*", "([^"]*)"', text, re.M)
    return [
        {"name": name, "value": given.get(name, (default,))[0], "source": given[name][1] if name in given else "default"}
        for name, default, group in rows if group != "HIDDEN"
    ]


STATES = ["reading", "quota", "queued", "thread", "application", "writing", "late"]
FRAMES = {
    "model": [("recv_into", "/usr/lib/python3.11/socket.py", 706, "return self._sock.recv_into(b)"),
              ("begin", "/usr/lib/python3.11/http/client.py", 318, "version, status, reason = self._read_status()"),
              ("getresponse", "/usr/lib/python3.11/http/client.py", 1390, "response.begin()"),
              ("ask_model", "/srv/app/board/planner.py", 88, "answer = connection.getresponse()"),
              ("plan", "/srv/app/board/planner.py", 41, "cards = ask_model(prompt, catalogue)"),
              ("build_board", "/srv/app/board/api/ai.py", 57, "board = planner.plan(request.json[\"prompt\"])"),
              ("dispatch_request", "/usr/lib/python3/dist-packages/flask/app.py", 1796, "return self.ensure_sync(self.view_functions[rule.endpoint])(**view_args)"),
              ("wsgi_app", "/usr/lib/python3/dist-packages/flask/app.py", 2525, "response = self.full_dispatch_request()"),
              ("__call__", "/usr/lib/python3/dist-packages/flask/app.py", 2552, "return self.wsgi_app(environ, start_response)")],
    "spin": [("rank", "/srv/app/board/select.py", 132, "best = sorted(all_pairs, key=lambda p: score(*p))"),
             ("select", "/srv/app/board/select.py", 101, "order = rank(candidates)"),
             ("search", "/srv/app/board/api/search.py", 23, "return jsonify(select(query))"),
             ("wsgi_app", "/usr/lib/python3/dist-packages/flask/app.py", 2525, "response = self.full_dispatch_request()")],
    "c": [("decode", "/srv/app/board/images.py", 19, "return _fastimage.decode(data)"),
          ("thumbnail", "/srv/app/board/api/images.py", 44, "picture = images.decode(body)"),
          ("wsgi_app", "/usr/lib/python3/dist-packages/flask/app.py", 2525, "response = self.full_dispatch_request()")],
}


class World:
    """A scenario, and the answers that follow from it and from the clock."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.began = time.time()
        self.random = random.Random(7)
        self.held: set[int] = set()
        self.crashed = 1 if name == "crash" else 0
        self.settings = settings()
        self.flights = self.make_flights()
        self.points: list[list[Any]] = []
        now = math.floor(self.began)
        for at in range(now - 3600, now - 600, 10):
            self.points.append(self.point(at))
        self.steps = len(self.points)
        for at in range(now - 600, now + 1):
            self.points.append(self.point(at))

    # ---- requests ----

    def flight(self, i: int, state: str, age: float, in_state: float, path: str, route: str, user: str, worker: int, method: str = "POST") -> dict[str, Any]:
        begin = max(age - in_state, 0.0)
        fall: list[list[Any]] = [["reading", 0.0, min(0.002, begin)]]
        if begin > 0.002 and state in ("application", "writing", "late"):
            fall.append(["queued", 0.002, round(begin - 0.002, 4)])
        if state == "late":
            fall[-1:] = [["application", 0.002, round(begin - 0.002, 4)]]
        if state != "reading":
            fall.append([state, begin, None])
        else:
            fall = [["reading", 0.0, None]]
        return {"worker": worker, "pid": 4711 + worker, "id": 1200 + i, "request_id": f"{i:08x}4bf92f3577b34da6a3ce929d", "trace_id": f"{i:016x}0e0e4736",
                "state": state, "born": self.began - age, "since": self.began - in_state, "method": method, "path": path, "route": route,
                "user": user, "address": "203.0.113." + str(i % 250 + 1), "thread": 4720 + i if state in ("application", "late", "writing") else None,
                "bytes_in": 310 + i, "slow": age > 20, "fall": fall}

    def make_flights(self) -> list[dict[str, Any]]:
        r, n = self.random, self.name
        out: list[dict[str, Any]] = []
        if n in ("empty",):
            return out
        if n in ("calm", "alone", "crash"):
            for i in range(6):
                age = [0.9, 0.4, 2.1, 0.05, 0.3, 1.2][i]
                kind = [("POST", "/api/ai/build-board", BUILD), ("GET", "/api/catalogue/search", "GET /api/*")][i % 2]
                out.append(self.flight(i, "application" if i < 5 else "writing", age, age * 0.9, kind[1], kind[2], USERS[i], 0 if n == "alone" else i % 4, kind[0]))
        if n == "hung":
            for i in range(16):
                kind = ("/api/ai/build-board", BUILD)
                age = 41.3 if i == 0 else r.uniform(8, 38)
                if i == 9:
                    kind = ("/api/catalogue/search", "GET /api/*")
                if i == 12:
                    kind = ("/api/images/thumbnail", "POST /api/*")
                out.append(self.flight(i, "application" if i not in (4,) else "late", age, age - r.uniform(0.001, 0.6), kind[0], kind[1], r.choice(USERS[:5]), i // 8, "GET" if i == 9 else "POST"))
            for i in range(16, 37):
                age = r.uniform(1, 26)
                out.append(self.flight(i, "thread", age, age - 0.002, r.choice(["/api/ai/build-board", "/api/boards", "/login"]), "*", r.choice(USERS), i % 2, r.choice(["GET", "POST"])))
            for i in range(37, 53):
                age = r.uniform(1, 31)
                out.append(self.flight(i, "queued", age, age - 0.002, "/api/ai/build-board", BUILD, r.choice(USERS[:3]), i % 4))
            out.append(self.flight(53, "reading", 3.0, 3.0, "/api/upload", "POST /api/*", "jwt:alan", 3))
        if n == "many":
            for i in range(10000):
                age = 120.0 - i * 0.0119
                state = "application" if i < 32 else r.choice(["queued", "thread", "queued", "reading"])
                out.append(self.flight(i, state, age, age * 0.98, f"/api/ai/build-board/{i}", BUILD, f"jwt:user-{i % 700}", i % 4))
        if n == "hostile":
            for i in range(8):
                path = ["/" + HOSTILE, "/" + "ä" * 40 + "\u202eexe.txt", "/" + "long-without-a-break" * 6, "/a\nb\tc\u0000d", "/\U0001f4a3", "/'\"`${alert(1)}", "/javascript:alert(1)", "/"][i]
                out.append(self.flight(i, "application", 3.0 + i, 2.9 + i, path[:119], HOSTILE, HOSTILE if i % 2 else "x" * 71, i % 2, "G<b>ET"))
        return out

    def shown(self, f: dict[str, Any], now: float) -> dict[str, Any]:
        out = {k: v for k, v in f.items() if k not in ("born", "since", "fall")}
        out.update(age=round(now - f["born"], 3), at=f["born"], in_state=round(now - f["since"], 3), waterfall=f["fall"])
        return out

    # ---- figures ----

    def point(self, at: float) -> list[Any]:
        r = random.Random(int(at))
        age = self.began - at
        wave = 1 + 0.25 * math.sin(at / 240) + 0.1 * math.sin(at / 37)
        if self.name == "empty":
            return [at, 0, 0, 0, None, None, None, 0, 0, 0, 0, 32, 0, 0.0002]
        rate = round(120 * wave + r.uniform(-12, 12), 1)
        p50 = 0.06 * wave * r.uniform(0.9, 1.15)
        row = [at, rate, 0, 0 if r.random() > 0.06 else 1, p50, p50 * r.uniform(9, 13), p50 * r.uniform(24, 34), 6 + int(8 * wave * r.random()), int(r.random() * 1.01), 0, 5 + int(7 * wave * r.random()), 32, 40, 0.0004]
        if self.name in ("hung", "many") and age < 44:
            gone = (44 - age) / 44
            row = [at, round(rate * max(0.12, 1 - 1.6 * gone), 1), 0 if gone < 0.75 else int(r.random() * 3), int(4 * gone), p50 * (1 + 3 * gone), 0.7 + 9 * gone, 2 + 26 * gone, int(10 + 44 * gone), int(16 * gone), int(21 * gone), min(32, int(9 + 12 * gone)), 32, 75, 0.001]
            if self.name == "many":
                row[7:10] = [10000, 6000, 3000]
        return row

    def workers(self, now: float) -> list[dict[str, Any]]:
        n = 1 if self.name == "alone" else 2 if self.name == "hostile" else 4
        out = []
        for slot in range(n):
            mine = [f for f in self.flights if f["worker"] == slot]
            inside = sum(f["state"] in ("application", "late") for f in mine)
            hung = self.name == "hung"
            out.append({"slot": slot, "pid": 4711 + slot, "generation": 2 if slot == 1 else 1, "state": "ready", "held": slot in self.held, "recycle": "none",
                        "started": self.began - (5400 if slot != 1 else 900), "beat_age": 0.2 + 0.1 * slot, "places": 8, "busy": min(8, inside),
                        "stuck": sum(f["state"] == "late" for f in mine), "threads": 9, "waiting": sum(f["state"] == "thread" for f in mine), "open": 10 + len(mine),
                        "in_flight": len(mine), "requests": 118034 + 977 * slot + int(30 * (now - self.began)), "rss_bytes": 88_000_000 + 3_100_000 * slot, "descriptors": 31 + len(mine), "buffered_bytes": 4096 * len(mine),
                        "gil_wait_p99": 1.9 if hung and slot == 1 else 0.0021, "loop_lag_p99": 0.0008})
        return out

    def status(self, query: dict[str, str], brief: bool) -> dict[str, Any]:
        now = time.time()
        some = [f for f in self.flights if (not query.get("state") or f["state"] == query["state"]) and (not query.get("worker") or f["worker"] == int(query["worker"]))
                and (not query.get("route") or f["route"] == query["route"])
                and (not query.get("find") or query["find"].lower() in " ".join([f["path"], f["user"], f["address"], f["request_id"]]).lower())]
        key = {"user": lambda f: f["user"], "route": lambda f: f["route"], "state": lambda f: STATES.index(f["state"])}.get(query.get("sort", "age"), lambda f: f["born"])
        some = sorted(some, key=key)[: int(query.get("flights", "100"))]
        by = {state: sum(f["state"] == state for f in self.flights) for state in STATES}
        hung = self.name == "hung"
        quantiles = lambda a: {"p50": a, "p95": a * 8, "p99": a * 21, "mean": a * 2}  # noqa: E731
        gate = {"running": 32 if self.name == "many" else 8 if hung else 3, "concurrency": 8 if self.name != "many" else 32, "waiting": by["queued"], "size": 100, "head_age": max([now - f["since"] for f in self.flights if f["state"] == "queued"], default=0), "mean_held": 2.1, "expected": 0.8}
        routes = [
            {"route": BUILD, "requests": 30211, "in_flight": sum(f["route"] == BUILD for f in self.flights), "statuses": {"200": 29840, "422": 61, "429": 290, "500": 4, "504": 16}, "refused": {"rate_limited": 290}, "dry_run": {}, "total": quantiles(0.9), "queue": quantiles(0.004), "application": quantiles(0.86), "gate": gate, "limits": ["user 10/min burst 3", "address 30/min", "concurrency 8", "quota test 20/day"]},
            {"route": "GET /api/*", "requests": 391220, "in_flight": 3, "statuses": {"200": 391000, "404": 220}, "refused": {}, "dry_run": {"rate_limited": 12}, "total": quantiles(0.021), "queue": quantiles(0.0004), "application": quantiles(0.02), "gate": None, "limits": ["address 120/min burst 60"]},
            {"route": "POST /api/*", "requests": 8001, "in_flight": 1, "statuses": {"200": 7990, "413": 11}, "refused": {}, "dry_run": {}, "total": quantiles(0.04), "queue": quantiles(0.0004), "application": quantiles(0.03), "gate": None, "limits": []},
            {"route": "*", "requests": 52001, "in_flight": by["thread"], "statuses": {"200": 51000, "304": 1001}, "refused": {}, "dry_run": {}, "total": quantiles(0.002), "queue": quantiles(0.0001), "application": quantiles(0.001), "gate": None, "limits": []},
            {"route": "/-/", "requests": 540, "in_flight": 0, "statuses": {"200": 540}, "refused": {}, "dry_run": {}, "total": quantiles(0.0002), "queue": quantiles(0), "application": quantiles(0), "gate": None, "limits": []},
        ]
        queues: dict[str, int] = {}
        for f in self.flights:
            if f["state"] == "queued":
                queues[f["user"]] = queues.get(f["user"], 0) + 1
        out = {
            "weir": "0.2.0", "now": now, "started": self.began - 5401, "ready": True, "unready": None, "alone": self.name == "alone",
            "totals": {"requests": 482001, "refused": 290, "abandoned": 17, "connections": 9120, "open": 61, "responses": {"2xx": 480370, "3xx": 1001, "4xx": 582, "5xx": 20}},
            "processes": {"workers": 4, "started": 5 + self.crashed, "crashed": self.crashed, "recycled": {"max_rss": 1}},
            "workers": self.workers(now), "routes": routes if self.name != "hostile" else [{**routes[0], "route": HOSTILE, "limits": [HOSTILE]}],
            "queues": [{"route": BUILD, "user": user, "waiting": n} for user, n in sorted(queues.items(), key=lambda one: -one[1])][:100],
            "flights_total": len(self.flights), "flights_listed": len(some), "flights_unlisted": 0, "flights_by_state": by,
            "flights": [self.shown(f, now) for f in some],
            "limits": {"rate_keys": {"users": 214, "addresses": 530, "cells": 200000, "evicted": 0}},
        }
        if not brief:
            kept = lambda i, total, status, path, user, cut=None, refusal=None: {**{k: v for k, v in self.shown(self.flight(9000 + i, "application", total, total, path, BUILD, user, i % 2), now).items() if k not in ("state", "age", "in_state")}, "at": self.began - 240 * (i + 1) - total, "total": total, "status": status, "cut": cut, "refusal": refusal, "waterfall": [["reading", 0, 0.001], ["queued", 0.001, total * 0.2], ["application", total * 0.2 + 0.001, total * 0.79], ["writing", total * 0.991, total * 0.009]]}  # noqa: E731
            text = HOSTILE if self.name == "hostile" else None
            quiet = self.name == "empty"
            out["refusals"] = [] if quiet else [{"route": BUILD, "reason": "rate_limited", "user": text or user, "address": "203.0.113.9", "count": n, "last": self.began - ago} for user, n, ago in [("jwt:alan", 201, 30), ("key:nightly-import", 77, 610), ("", 12, 2800)]]
            out["slowest"] = [] if quiet else [kept(i, total, 200, text or "/api/ai/build-board", user) for i, (total, user) in enumerate([(29.1, "jwt:ada"), (22.4, "jwt:grace"), (19.0, "jwt:ada"), (14.7, "jwt:barbara"), (12.2, "jwt:alan")])]
            out["failed"] = [] if quiet else [kept(10, 30.0, 504, text or "/api/ai/build-board", "jwt:edsger", refusal="deadline"), kept(11, 0.3, 500, text or "/api/boards", "jwt:alan"), kept(12, 8.4, 200, text or "/api/export", "jwt:grace", cut="client_left")]
            out["settings"] = self.settings if self.name != "hostile" else [{"name": HOSTILE, "value": HOSTILE, "source": HOSTILE}]
        return out

    # ---- stacks ----

    def thread(self, f: dict[str, Any], now: float) -> dict[str, Any]:
        i = f["id"] - 1200
        kind = "spin" if self.name == "hung" and i == 9 else "c" if self.name == "hung" and i == 12 else "model"
        state, lock, held, waits = {"model": ("S", "free", None, f"recvfrom: 10.0.0.4:{40000 + i} > 10.0.0.9:443"), "spin": ("R", "holds", 3.2, None), "c": ("S", "waits", None, "futex")}[kind]
        frames = [{"function": a, "file": b, "line": c, "source": d} for a, b, c, d in FRAMES[kind]]
        if self.name == "hostile":
            frames[0] = {"function": HOSTILE, "file": HOSTILE, "line": 1, "source": HOSTILE}
        return {"thread": f["thread"], "name": f"weir-app-{i % 8 + 1}", "python": True, "state": state, "cpu": round(0.42 + (now - self.began if kind == "spin" else 0), 2), "waits_in": waits, "lock": lock, "lock_for": held,
                "request": {"id": f["id"], "method": f["method"], "path": f["path"], "user": f["user"], "age": round(now - f["born"], 1), "state": f["state"]},
                "frames": frames, "more_frames": False, "complete": kind != "spin"}

    def request(self, worker: int, number: int) -> dict[str, Any]:
        now = time.time()
        for f in self.flights:
            if f["worker"] == worker and f["id"] == number:
                return {"flight": self.shown(f, now), "thread": self.thread(f, now) if f["thread"] else None}
        return {"flight": None, "thread": None}

    def stacks(self, worker: int) -> dict[str, Any]:
        now = time.time()
        threads = [self.thread(f, now) for f in self.flights if f["worker"] == worker and f["thread"]]
        bare = {"python": False, "state": "S", "cpu": 0.9, "lock": "free", "lock_for": None, "request": None, "frames": [], "more_frames": False, "complete": True}
        threads.append({"thread": 4711 + worker, "name": "weir", "waits_in": "epoll_wait", **bare})
        threads.append({"thread": 4715 + worker, "name": "weir-probe", **bare, "state": "R", "waits_in": None})
        return {"now": now, "workers": [{"slot": worker, "pid": 4711 + worker, "generation": 1, "state": "ready", "error": None, "took": 0.004, "threads": threads}]}


class Server(ThreadingHTTPServer):
    daemon_threads = True
    page: Any
    world: World
    trouble = "none"
    log: list[str]
    lock = threading.Lock()


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def answer(self, body: bytes, kind: str = "application/json", status: int = 200, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def json(self, value: Any, status: int = 200) -> None:
        self.answer(json.dumps(value).encode(), status=status)

    def query(self) -> dict[str, str]:
        return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))

    def blocked(self) -> bool:
        """Is there trouble? Then it is played here."""
        if self.server.trouble == "lost":
            self.close_connection = True
            self.connection.shutdown(2)
            return True
        if self.server.trouble == "token":
            self.answer(b'{"error": "a token is needed"}', status=401)
            return True
        return False

    def do_GET(self) -> None:
        path = urllib.parse.urlsplit(self.path).path
        if path.startswith("/fake/"):
            with self.server.lock:
                return self.json(self.server.log)
        with self.server.lock:
            self.server.log.append(f"GET {self.path}")
        page, world = self.server.page, self.server.world
        if path == "/":
            packed = "gzip" in self.headers.get("Accept-Encoding", "")
            more = {"Content_Encoding": "gzip"} if packed else {}
            return self.answer(page.gzip if packed else page.html, "text/html; charset=utf-8", Content_Security_Policy=page.csp, ETag=page.etag, X_Content_Type_Options="nosniff", **more)
        if self.blocked():
            return None
        if path == "/status.json":
            return self.json(world.status(self.query(), self.query().get("brief") == "yes"))
        if path == "/history.json":
            return self.json({"columns": COLUMNS, "steps": world.points[: world.steps], "seconds": world.points[world.steps :]})
        if path == "/request.json":
            return self.json(world.request(int(self.query()["worker"]), int(self.query()["id"])))
        if path == "/stacks.json":
            return self.json(world.stacks(int(self.query()["worker"])))
        if path == "/events":
            return self.events()
        return self.answer(b"{}", status=404)

    def events(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.close_connection = True
        turn = 0
        try:
            while self.server.trouble in ("none", "silent"):
                if self.server.trouble == "none":
                    turn += 1
                    world = self.server.world
                    point = world.point(time.time())
                    world.points.append(point)
                    self.send("point", dict(zip(COLUMNS, point)))
                    self.send("status", world.status(self.query(), turn % 10 != 0))
                time.sleep(0.3)  # faster than the real one, so that tests do not wait
            self.connection.shutdown(2)
        except OSError:
            pass

    def send(self, kind: str, value: Any) -> None:
        self.wfile.write(f"event: {kind}\ndata: {json.dumps(value)}\n\n".encode())
        self.wfile.flush()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urllib.parse.urlsplit(self.path).path
        if path == "/fake/scenario":
            self.server.world = World(self.query()["name"])
            self.server.trouble = "none"
            with self.server.lock:
                self.server.log.clear()
            return self.json({"ok": True})
        if path == "/fake/trouble":
            self.server.trouble = self.query()["name"]
            return self.json({"ok": True})
        if path == "/fake/crash":
            self.server.world.crashed += 1
            return self.json({"ok": True})
        with self.server.lock:
            self.server.log.append(f"POST {self.path}")
        if self.blocked():
            return None
        if self.headers.get("Origin") != f"http://{self.headers.get('Host')}":
            return self.json({"error": "not from this page"}, 403)
        found = re.fullmatch(r"/workers/(\d+)/(recycle|hold|resume)", path)
        if not found:
            return self.json({"error": "no such thing"}, 404)
        slot, action = int(found[1]), found[2]
        if action == "recycle" and slot == 3:
            return self.json({"error": "worker 3 is being replaced already"}, 409)
        held = self.server.world.held
        held.add(slot) if action == "hold" else held.discard(slot)
        return self.json({"ok": True})


def main() -> None:
    server = Server(("127.0.0.1", int(sys.argv[1]) if len(sys.argv) > 1 else 0), Handler)
    server.page = build_page()
    server.world = World("calm")
    server.log = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
