"""Workers and their supervisor: start, crash, the end of either, and what they cost."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import socket
import threading
import time
from pathlib import Path

import pytest
from harness import APPS, PATIENCE, SANITIZED, Client, Incomplete, Server, Starter, wait_for

PR_SET_CHILD_SUBREAPER = 36


def alive(pid: int) -> bool:
    """Does the process exist, and is it no zombie?"""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def pids_seen(server: Server, n: int = 40) -> set[int]:
    """Who answers `n` new connections."""
    return {int(server.get("/pid").text) for _ in range(n)}


def serving(server: Server, n: int) -> set[int]:
    """Wait until `n` workers exist and have all answered."""
    def all_answer() -> set[int]:
        pids = set(server.worker_pids())
        return pids if len(pids) == n and pids_seen(server) == pids else set()

    return wait_for(all_answer, what=f"{n} workers answer")


def switches(pid: int) -> int:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"\nvoluntary_ctxt_switches:\s+(\d+)", text)[1])  # type: ignore[index]


def test_each_of_four_workers_serves(weir: Starter) -> None:
    server = weir("procs:app", workers=4, threads=2)
    assert "(workers 4, threads 2:2, pid %d)" % server.pid in server.log
    pids = server.worker_pids()
    assert len(pids) == 4 and server.pid not in pids
    # One connection each, held open, so that nobody can answer for another one.
    clients = [server.client() for _ in range(16)]
    for c in clients:
        c.request("GET", "/sleep/300")
    assert {int(c.response().text) for c in clients} == set(pids)
    assert server.get("/multi").text == "True"


def test_auto_starts_a_worker_for_each_core(weir: Starter) -> None:
    server = weir("procs:app", workers="auto")
    assert 1 <= len(server.worker_pids()) <= os.cpu_count()


def test_zero_workers_are_one_process(weir: Starter) -> None:
    server = weir("procs:app", workers=0)
    assert server.get("/pid").text == str(server.pid)
    assert server.get("/multi").text == "False"


def test_web_concurrency_counts_where_nothing_else_is_said(weir: Starter) -> None:
    assert len(weir("procs:app", env={"WEB_CONCURRENCY": "3"}).worker_pids()) == 3
    assert len(weir("procs:app", env={"WEB_CONCURRENCY": "3", "WEIR_WORKERS": "2"}).worker_pids()) == 2


def test_waitress_serve_has_workers_only_when_it_is_told(weir: Starter) -> None:
    one = weir("procs:app", waitress=True, env={"WEB_CONCURRENCY": "3"})
    assert one.get("/pid").text == str(one.pid)
    two = weir("procs:app", waitress=True, workers=2)
    assert len(two.worker_pids()) == 2
    assert two.log.count("Serving on http://") == 1


# ---- the end of a worker ----


def test_a_killed_worker_is_replaced_and_the_others_go_on(weir: Starter) -> None:
    server = weir("procs:app", workers=3, threads="1:2")
    pids = server.worker_pids()
    clients = []
    while len(set(re.findall(r"asleep (\d+)", server.log))) < 3:
        clients.append(server.client())
        clients[-1].request("GET", "/sleep/1500")
        server.wait_log("asleep", count=len(clients))
    busy = [int(pid) for pid in re.findall(r"asleep (\d+)", server.log)]
    os.kill(busy[0], signal.SIGKILL)
    wait_for(lambda: len(set(server.worker_pids()) - set(pids)) == 1)
    new = set(server.worker_pids()) - set(pids)
    wait_for(lambda: pids_seen(server, 1) <= new, what="the new one serves")
    answers = []
    for c in clients:
        try:
            answers.append(int(c.response().text))
        except Incomplete:
            answers.append(0)
    assert answers == [0 if pid == busy[0] else pid for pid in busy]
    server.wait_log(f"worker {busy[0]} was killed by signal 9 (Killed); starting another")


def test_a_replacement_serves_within_a_second(weir: Starter) -> None:
    server = weir("procs:app", workers=2)
    seconds = []
    for _ in range(4):  # a busy machine may be late, but not always
        pids = server.worker_pids()
        begin = time.monotonic()
        os.kill(pids[0], signal.SIGKILL)
        wait_for(lambda old=pids: (now := set(server.worker_pids())) - set(old) and pids_seen(server, 4) == now)
        seconds.append(time.monotonic() - begin)
    assert min(seconds) < 1 * PATIENCE, seconds


def test_a_worker_that_crashes_early_and_often_is_replaced_ever_later(weir: Starter) -> None:
    server = weir("procs:app")
    server.expected_status = (0, 1)
    begin = time.monotonic()
    deaths = 0

    def die() -> None:
        nonlocal deaths
        try:
            with server.client() as c:
                c.request("GET", "/die/7")
                c.rest()
                deaths += 1
        except OSError:
            pass

    while "starting another in 0.8 s" not in server.log:
        die()
        assert time.monotonic() - begin < 30 * PATIENCE
    log = server.log
    assert re.findall(r"ended with exit code 7; starting another(.*)", log)[:5] == [
        "", " in 0.1 s", " in 0.2 s", " in 0.4 s", " in 0.8 s"]
    assert deaths >= 5
    assert server.get("/pid").text == str(server.worker_pid)


def test_a_worker_that_was_told_to_end_is_replaced(weir: Starter) -> None:
    server = weir("procs:app", workers=2)
    first = server.worker_pids()[0]
    os.kill(first, signal.SIGTERM)
    wait_for(lambda: not alive(first))
    assert first not in serving(server, 2)


def test_a_hangup_for_all_processes_kills_no_worker(weir: Starter) -> None:
    server = weir("procs:app", workers=2)
    pids = server.worker_pids()
    for pid in pids:
        os.kill(pid, signal.SIGHUP)
    assert serving(server, 2) == set(pids)
    # Programs that the application starts begin with the signals of a plain process.
    masks = dict(line.split(":\t") for line in server.get("/child").text.splitlines())
    assert int(masks["SigBlk"], 16) == 0, masks
    assert SANITIZED or int(masks["SigCgt"], 16) == 0, masks
    assert int(masks["SigIgn"], 16) & 1 << signal.SIGHUP - 1 == 0, masks


def test_a_silent_worker_is_ended_and_replaced(weir: Starter) -> None:
    server = weir("procs:app", workers=2, worker_timeout="1s")
    stuck = server.worker_pids()[0]
    os.kill(stuck, signal.SIGSTOP)
    wait_for(lambda: not alive(stuck), 6)
    server.wait_log(re.compile(rf"worker {stuck} has been silent for [\d.]+ s \(worker-timeout\): ending it"))
    assert len(serving(server, 2)) == 2


@pytest.mark.skipif(SANITIZED, reason="the sanitizer takes this signal")
def test_an_aborted_worker_says_where_its_threads_are(weir: Starter) -> None:
    server = weir("procs:app")
    first = server.worker_pid
    c = server.client()
    c.request("GET", "/sleep/10000")
    server.wait_log("asleep")
    os.kill(first, signal.SIGABRT)
    wait_for(lambda: not alive(first))
    assert "procs.py" in server.log and "in app" in server.log
    assert len(serving(server, 1)) == 1


def test_max_requests_replaces_a_worker_without_a_lost_request(weir: Starter) -> None:
    server = weir("procs:app", workers=2, max_requests=50)
    pids: set[str] = set()
    with server.client() as c:
        for _ in range(400):
            r = c.get("/pid")
            pids.add(r.text)
            if not r.keep:
                break
    wait_for(lambda: pids.add(server.get("/pid").text) or len(pids) >= 5)
    server.wait_log(re.compile(r"replacing worker \d+: max-requests"))
    assert len(serving(server, 2)) == 2


# ---- starts that fail ----


@pytest.mark.parametrize("workers", [1, 4])
def test_an_application_that_cannot_be_loaded_ends_the_start_once(weir: Starter, workers: int) -> None:
    server = weir("procs:app", env={"VERSION": "broken"}, workers=workers, ready=False)
    server.expected_status = (4,)
    assert server.wait_end() == 4
    assert server.log.count("weir: cannot import 'procs': RuntimeError: this version cannot be imported") == 1
    assert server.log.count("Traceback") == 1 and "starting another" not in server.log


def test_a_worker_that_dies_while_it_starts_ends_the_start(weir: Starter) -> None:
    server = weir("procs:app", env={"VERSION": "deadly"}, ready=False)
    server.expected_status = (3,)
    assert server.wait_end() == 3
    assert re.search(r"ERROR worker \d+ ended with exit code 9 before it could serve", server.log)
    assert len(server.log.splitlines()) == 1


def test_a_log_that_cannot_be_opened_ends_the_start(weir: Starter) -> None:
    server = weir("procs:app", workers=4, access_log="/nonexistent/log", ready=False)
    server.expected_status = (3,)
    assert server.wait_end() == 3
    assert server.log.startswith("weir: cannot open ") and len(server.log.splitlines()) == 1


def test_a_start_can_be_stopped(weir: Starter) -> None:
    server = weir("procs:app", env={"VERSION": "slow"}, workers=2, ready=False)
    wait_for(lambda: len(children(server.pid)) == 2)
    assert server.stop() == 0


def test_a_replacement_that_cannot_start_is_tried_again(weir: Starter, tmp_path: Path) -> None:
    (tmp_path / "procs.py").write_text((APPS / "procs.py").read_text())
    (tmp_path / "version").write_text("one")
    server = weir("procs:app", cwd=tmp_path, workers=2)
    (tmp_path / "version").write_text("broken")
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    server.wait_log("a worker could not start; 1 serve; trying again in 0.2 s")
    assert server.get("/version").text == "one"
    (tmp_path / "version").write_text("two")
    assert len(serving(server, 2)) == 2
    wait_for(lambda: {server.get("/version").text for _ in range(40)} == {"one", "two"})


# ---- the end of the supervisor ----


def children(pid: int) -> list[int]:
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_when_the_supervisor_is_killed_nobody_keeps_the_port(weir: Starter) -> None:
    server = weir("procs:app", workers=2, threads=4, grace="1s")
    server.expected_status = (-9,)
    pids = server.worker_pids()
    busy, endless = server.client(), server.client()
    busy.request("GET", "/sleep/500")
    endless.request("GET", "/sleep/60000")
    server.wait_log("asleep", count=2)
    server.kill(signal.SIGKILL)
    server.wait_end()

    def port_is_free() -> bool:
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", server.port))
                s.listen()
            except OSError:
                return False
            return True

    wait_for(port_is_free, 1, "the port is free")
    second = weir("procs:app", bind=f"127.0.0.1:{server.port}")
    assert int(second.get("/pid").text) not in pids
    assert int(busy.response().text) in pids, "what ran was finished"
    wait_for(lambda: not any(alive(pid) for pid in pids), 4, "all workers have ended within the grace")


def test_a_worker_that_starts_does_not_outlive_the_supervisor(weir: Starter) -> None:
    server = weir("procs:app", env={"VERSION": "slow"}, ready=False)
    server.expected_status = (-9,)
    pids = wait_for(lambda: children(server.pid))
    server.kill(signal.SIGKILL)
    server.wait_end()
    wait_for(lambda: not any(alive(pid) for pid in pids), 2)


# ---- process 1, and idle ----


def adopt_orphans() -> None:
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def test_orphans_of_the_application_are_reaped(weir: Starter) -> None:
    server = weir("procs:app", preexec=adopt_orphans)
    worker = server.worker_pid
    assert server.get("/orphan").status == 200
    wait_for(lambda: len(children(server.pid)) == 2, what="the program was adopted")
    wait_for(lambda: children(server.pid) == [worker], what="it was waited for")
    assert int(server.get("/pid").text) == worker


def test_an_idle_supervisor_sleeps(weir: Starter) -> None:
    server = weir("procs:app", workers=2, worker_timeout=0)
    beating = weir("procs:app", workers=2, worker_timeout="2s")
    before, before_beating = switches(server.pid), switches(beating.pid)
    begin = time.monotonic()
    wait_for(lambda: switches(beating.pid) - before_beating >= 3, 10)
    seconds = time.monotonic() - begin
    assert switches(server.pid) == before
    assert seconds > 2, "it wakes more often than it has to"


@pytest.mark.skipif(SANITIZED, reason="sanitizers need memory of their own")
def test_the_supervisor_is_small(weir: Starter) -> None:
    server = weir("procs:app", admin="127.0.0.1:0")
    text = Path(f"/proc/{server.pid}/status").read_text()
    assert int(re.search(r"VmRSS:\s+(\d+)", text)[1]) <= 12 * 1024  # type: ignore[index]
    assert int(re.search(r"Threads:\s+(\d+)", text)[1]) == 1  # type: ignore[index]


def test_a_supervisor_needs_no_descriptor_for_each_connection(weir: Starter) -> None:
    server = weir("procs:app", workers=2)
    folder = Path(f"/proc/{server.pid}/fd")
    before = len(list(folder.iterdir()))
    clients = [server.client() for _ in range(50)]
    for c in clients:
        assert c.get("/pid").status == 200
    for pid in server.worker_pids():
        os.kill(pid, signal.SIGKILL)
    assert len(serving(server, 2)) == 2
    assert len(list(folder.iterdir())) == before


def test_workers_are_replaced_under_load_without_hurting_each_other(weir: Starter) -> None:
    """Whoever is connected to a worker that is not killed gets all its answers."""
    server = weir("procs:app", workers=3, threads=2)
    stop = threading.Event()
    cut = done = 0
    wrong: list[str] = []
    lock = threading.Lock()

    def ask() -> None:
        nonlocal cut, done
        while not stop.is_set():
            try:
                with Client(server.address, 10) as c:
                    while not stop.is_set():
                        r = c.get("/pid")
                        with lock:
                            done += 1
                        if r.status != 200:
                            wrong.append(str(r.status))
            except (Incomplete, ConnectionResetError):
                with lock:
                    cut += 1
            except OSError as e:
                wrong.append(repr(e))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for t in threads:
        t.start()
    kills = 6
    for _ in range(kills):
        wait_for(lambda at_least=done + 50: done > at_least)
        pids = wait_for(lambda: len(server.worker_pids()) == 3 and server.worker_pids())
        os.kill(pids[0], signal.SIGKILL)
        wait_for(lambda gone=pids[0]: gone not in server.worker_pids() and len(server.worker_pids()) == 3)
    stop.set()
    for t in threads:
        t.join(20)
    assert not wrong, wrong[:5]
    assert done > 100 and cut <= kills * 6


def test_bytecode_is_kept_where_it_is_wanted_and_used_by_the_next_workers(weir: Starter, tmp_path: Path) -> None:
    app, cache = tmp_path / "app", tmp_path / "cache"
    app.mkdir()
    (app / "procs.py").write_text((APPS / "procs.py").read_text())
    old = time.time() - 60
    os.utime(app / "procs.py", (old, old))
    server = weir("procs:app", cwd=app, workers=2,
                  env={"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(cache)})
    (kept,) = cache.glob(f"{str(app).lstrip('/')}/procs.*.pyc")
    before = kept.stat()
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded")
    after = kept.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
