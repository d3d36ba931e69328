"""Slow, busy and stubborn requests beside fast ones; the bound; what applications do in threads."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from harness import PATIENCE, ROOT, SANITIZED, Server, Starter, plain_env, wait_for


def seen(server: Server) -> dict:
    return server.get("/seen").json()


def ask_all(server: Server, targets: list[str], timeout: float = 30) -> tuple[list, float]:
    """All at once, each on its own connection; answers in order, and the seconds it took."""
    clients = [server.client(timeout=timeout) for _ in targets]
    begin = time.monotonic()
    for c, target in zip(clients, targets):
        c.request("GET", target)
    answers = [c.response() for c in clients]
    took = time.monotonic() - begin
    for c in clients:
        c.close()
    return answers, took


def latencies(server: Server, target: str, until) -> list[float]:
    """Seconds of one request after the other on one connection, until `until()`; sorted."""
    times = []
    with server.client() as c:
        while not until():
            begin = time.monotonic()
            assert c.get(target).status == 200
            times.append(time.monotonic() - begin)
            time.sleep(0.002)  # the pace of the probe, not a wait
    return sorted(times)


@pytest.fixture(scope="module")
def grown(weir_module: Starter) -> tuple[Server, int, float]:
    """A server that had 60 slow requests at once: (server, threads then, when)."""
    server = weir_module("basic:app", threads="4:64")
    answers, _ = ask_all(server, [f"/sleep/500?{i}" for i in range(60)])
    assert [a.text for a in answers] == [str(i) for i in range(60)]
    return server, server.threads(), time.monotonic()


# ---- slow beside fast ----


def test_health_stays_fast_while_all_others_sleep(weir: Starter, grown) -> None:
    server = weir("basic:app")
    sleepers = [server.client() for _ in range(100)]
    for i, c in enumerate(sleepers):
        c.request("GET", f"/sleep/1500?{i}")
    done = threading.Event()
    wait_for(lambda: seen(server).get("sleep", 0) >= 50)
    probe: list[float] = []
    t = threading.Thread(target=lambda: probe.extend(latencies(server, "/health", done.is_set)))
    t.start()
    for i, c in enumerate(sleepers):
        assert c.response().text == str(i)
    done.set()
    t.join()
    assert len(probe) > 20
    assert probe[len(probe) // 2] < 0.02 * PATIENCE
    assert probe[-1] < 0.3 * PATIENCE


def test_200_blocking_requests_are_done_together(weir: Starter) -> None:
    server = weir("basic:app")
    answers, took = ask_all(server, [f"/sleep/1000?{i}" for i in range(200)])
    assert [a.text for a in answers] == [str(i) for i in range(200)]
    assert took < 2.2 * PATIENCE


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_bound_of_threads_is_never_exceeded_and_is_used(weir: Starter, n: int) -> None:
    server = weir("basic:app", threads=n)
    answers, took = ask_all(server, [f"/sleep/100?{i}" for i in range(4 * n)])
    assert [a.text for a in answers] == [str(i) for i in range(4 * n)]
    assert seen(server)["peak"] == n
    assert 0.39 < took < 1.5 * PATIENCE


def test_the_bound_holds_for_a_mixture_of_fast_and_slow(weir: Starter) -> None:
    server = weir("basic:app", threads=3)
    targets = [f"/sleep/{(i * 7) % 23}?{i}" if i % 3 else f"/token?{i}" for i in range(300)]
    answers, _ = ask_all(server, targets)
    assert [a.text for a in answers] == [str(i) for i in range(300)]
    assert seen(server)["peak"] <= 3


def test_one_thread_serves_in_turn_and_never_stops(weir: Starter) -> None:
    server = weir("basic:app", threads=1)
    with ThreadPoolExecutor(8) as workers:
        texts = list(workers.map(lambda i: server.get(f"/sleep/20?{i}").text, range(24)))
    assert texts == [str(i) for i in range(24)]
    assert seen(server)["peak"] == 1


# ---- C handlers ----


def test_ping_answers_while_every_place_is_taken(weir: Starter) -> None:
    server = weir("basic:app", threads=2)
    waiting = [server.client() for _ in range(20)]
    for c in waiting:
        c.request("GET", "/sleep/300")
    done = threading.Event()
    probe: list[float] = []
    t = threading.Thread(target=lambda: probe.extend(latencies(server, "/-/ping", done.is_set)))
    t.start()
    for c in waiting:
        assert c.response().status == 200
    done.set()
    t.join()
    assert len(probe) > 100 / PATIENCE and probe[-1] < 0.15 * PATIENCE
    assert probe[len(probe) // 2] < 0.01 * PATIENCE


def test_ping_answers_while_threads_compute(weir: Starter) -> None:
    server = weir("basic:app")
    waiting = [server.client() for _ in range(4)]
    for c in waiting:
        c.request("GET", "/burn/1000")
    done = threading.Event()
    probe: list[float] = []
    t = threading.Thread(target=lambda: probe.extend(latencies(server, "/-/ping", done.is_set)))
    t.start()
    for c in waiting:
        assert c.response().status == 200
    done.set()
    t.join()
    assert probe[len(probe) // 2] < 0.03 * PATIENCE
    assert probe[int(len(probe) * 0.95)] < 0.15 * PATIENCE


def test_small_requests_get_through_between_busy_ones(weir: Starter) -> None:
    server = weir("basic:app")
    done = threading.Event()

    def busy() -> None:
        with server.client() as c:
            while not done.is_set():
                c.get("/burn/50")

    workers = [threading.Thread(target=busy) for _ in range(3)]
    for w in workers:
        w.start()
    until = time.monotonic() + 2
    probe = latencies(server, "/hello", lambda: time.monotonic() > until)
    done.set()
    for w in workers:
        w.join()
    assert probe[len(probe) // 2] < 0.1 * PATIENCE


# ---- what applications do ----


def test_imports_inside_views_from_many_threads(weir: Starter) -> None:
    server = weir("basic:app")
    modules = ["xml.dom.minidom", "sqlite3", "decimal", "csv", "asyncio", "multiprocessing.pool", "unittest.mock", "ctypes.util",
               "email.mime.multipart", "concurrent.futures", "http.cookiejar", "logging.handlers"]
    answers, _ = ask_all(server, [f"/imports/{m}" for m in modules for _ in range(4)])
    assert [a.text for a in answers] == [m for m in modules for _ in range(4)]


def test_threads_of_the_application_run_on(weir: Starter) -> None:
    server = weir("basic:app", threads=2)
    answers, _ = ask_all(server, ["/background/200"] * 10)
    assert all(a.text == "started\n" for a in answers)
    wait_for(lambda: seen(server).get("background done") == 10)


def test_daemon_threads_of_the_application_do_not_hold_up_the_end(weir: Starter) -> None:
    server = weir("basic:app")
    server.get("/background/60000")
    begin = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begin < 5 * PATIENCE


@pytest.fixture(scope="module")
def outside(weir_module: Starter, database: str) -> Server:
    upstream = weir_module("basic:app")
    return weir_module("outside:app", env={"UPSTREAM": upstream.url, "DATABASE": database, "OPENBLAS_NUM_THREADS": "1"},
                       threads="4:40")


POSTGRES = Path("/usr/lib/postgresql")


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A PostgreSQL of the test's own on a Unix socket; the DSN."""
    programs = sorted(POSTGRES.glob("*/bin/initdb"))
    if not programs:
        pytest.skip("PostgreSQL is not installed")
    bin_ = programs[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="weir-pg-"))
    who = {}
    user = pwd.getpwuid(os.geteuid()).pw_name
    if os.geteuid() == 0:  # initdb refuses root
        user = next(name for name in ("postgres", "nobody") if name in {p.pw_name for p in pwd.getpwall()})
        shutil.chown(folder, user)
        who = {"user": user, "group": pwd.getpwnam(user).pw_gid, "extra_groups": []}
    try:
        subprocess.run([bin_ / "initdb", "-D", folder / "data", "-U", "weir", "-A", "trust", "--no-sync"], check=True, cwd=folder,
                       stdout=subprocess.DEVNULL, env=plain_env(), **who)
        with open(folder / "log", "wb") as log:
            process = subprocess.Popen(
                [bin_ / "postgres", "-D", folder / "data", "-k", folder, "-c", "listen_addresses=", "-c", "fsync=off",
                 "-c", "max_connections=60", "-c", "shared_buffers=16MB"],
                cwd=folder, stdout=log, stderr=log, env=plain_env(), **who)
        try:
            wait_for(lambda: "ready to accept connections" in (folder / "log").read_text() or process.poll() is not None, 30)
            assert process.poll() is None, (folder / "log").read_text()
            yield f"host={folder} user=weir dbname=postgres"
        finally:
            process.send_signal(signal.SIGINT)  # fast shutdown
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_requests_to_another_server_run_side_by_side(outside: Server) -> None:
    for kind in ("fetch", "fetch-shared"):
        answers, took = ask_all(outside, [f"/{kind}/sleep/400?{i}" for i in range(30)])
        assert [a.text for a in answers] == [str(i) for i in range(30)]
        assert took < 3 * PATIENCE


def test_database_queries_run_side_by_side(outside: Server) -> None:
    answers, took = ask_all(outside, [f"/query/300?q{i}" for i in range(30)])
    assert [a.text for a in answers] == [f"q{i}" for i in range(30)]
    assert took < 3 * PATIENCE
    answers, _ = ask_all(outside, [f"/query/1?again{i}" for i in range(60)])
    assert [a.text for a in answers] == [f"again{i}" for i in range(60)]


def test_ping_answers_while_c_code_holds_the_gil(outside: Server) -> None:
    with outside.client() as c:
        c.request("GET", "/hold/800")
        done = threading.Event()
        probe: list[float] = []
        t = threading.Thread(target=lambda: probe.extend(latencies(outside, "/-/ping", done.is_set)))
        t.start()
        assert c.response().text == "held\n"
        done.set()
        t.join()
    assert len(probe) > 20 and probe[-1] < 0.3 * PATIENCE


def test_requests_behind_a_held_gil_are_all_answered(outside: Server) -> None:
    targets = [f"/hold/30?{i}" if i % 4 == 0 else f"/token?{i}" for i in range(80)]
    answers, _ = ask_all(outside, targets)
    assert [a.text for a in answers if a.text != "held\n"] == [str(i) for i in range(80) if i % 4]


def test_numpy_gives_the_same_in_threads(outside: Server) -> None:
    answers, _ = ask_all(outside, [f"/numpy/60?{i % 3}" for i in range(24)], timeout=60)
    texts = [a.text for a in answers]
    assert texts == texts[:3] * 8


# ---- everything at once ----


def test_every_answer_belongs_to_its_request_under_pipelining_splits_and_aborts(weir: Starter) -> None:
    server = weir("checked:app")
    seconds = 10 if SANITIZED else 20
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "tools" / "checker.py", "127.0.0.1", str(server.port), "--seconds", str(seconds),
         "--seed", str(os.getpid())],
        capture_output=True, text=True, timeout=seconds + 60 * PATIENCE, env=plain_env())
    assert done.returncode == 0, done.stdout + done.stderr
    assert server.get("/token?still").status == 200


def test_the_same_with_two_threads_and_bodies_as_they_come(weir: Starter) -> None:
    server = weir("checked:app", threads=2, request_buffering="off")
    done = subprocess.run(
        [sys.executable, ROOT / "tests" / "tools" / "checker.py", "127.0.0.1", str(server.port), "--seconds", "5",
         "--seed", str(os.getpid())],
        capture_output=True, text=True, timeout=120 * PATIENCE, env=plain_env())
    assert done.returncode == 0, done.stdout + done.stderr


def test_threads_that_are_not_needed_go_away(grown) -> None:
    server, most, when = grown
    assert most >= 60
    left = 45 - (time.monotonic() - when)  # idle threads end after 30 s
    wait_for(lambda: server.threads() <= 12, max(left, 5), "idle threads end")
    assert server.get("/token?fine").text == "fine"
