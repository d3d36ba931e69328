"""/stacks of the admin listener: where threads are, whatever they do."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from harness import APPS, Client, Server, Starter, wait_for
from test_admin import ask

LINES = (APPS / "stuck.py").read_text(encoding="utf-8").splitlines()
Thread = dict[str, Any]


def line_of(text: str) -> int:
    return next(n for n, line in enumerate(LINES, 1) if text in line)


def stacks(server: Server, query: str = "") -> Any:
    r = ask(server, "/stacks.json" + query)
    assert r.status == 200 and r.get("content-type") == "application/json", r
    return r.json()


def threads(server: Server) -> list[Thread]:
    return [t for w in stacks(server)["workers"] for t in w["threads"]]


def functions(t: Thread) -> list[str]:
    return [f["function"].rpartition(".")[2] for f in t["frames"]]


def stuck_in(server: Server, path: str, until: Callable[[Thread], Any] = lambda t: True) -> Thread:
    """The thread that runs the request to `path`, once it is there."""
    def find() -> Thread | None:
        found = [t for t in threads(server) if t["request"] and t["request"]["path"] == path]
        assert len(found) <= 1, found
        return found[0] if found and until(found[0]) else None

    found: Thread = wait_for(find, what=f"a thread in {path}")
    return found


@pytest.fixture
def server(weir: Starter) -> Server:
    return weir("stuck:app", admin="127.0.0.1:0", workers=1, threads="4:64")


def send(server: Server, path: str) -> Client:
    c = server.client()
    c.request("GET", path)
    return c


def test_each_way_to_hang_is_told_with_its_place(server: Server) -> None:
    names = ("lock", "receive", "sleep", "generate", "deep", "groesse", "made")
    clients = {name: send(server, "/" + name) for name in names}

    def seen(name: str, function: str, call: str = "futex") -> Thread:
        t = stuck_in(server, "/" + name, lambda t: function in functions(t) and t["waits_in"]
                     and re.match(call, t["waits_in"]) and t["complete"] and t["state"] == "S")
        assert t["python"] and t["lock"] == "free"
        assert t["request"]["state"] == "application" and t["request"]["method"] == "GET"
        return t

    t = seen("lock", "lock")
    assert t["frames"][0] == {"function": "lock", "file": str(APPS / "stuck.py"), "line": line_of("never.acquire(t"),
                              "source": "while not free.is_set() and not never.acquire(timeout=0.2):"}
    t = seen("receive", "receive", r"p?poll: 127\.0\.0\.1:\d+ > 127\.0\.0\.1:\d+$")
    assert t["frames"][0]["source"] == "s.recv(1)"
    assert seen("sleep", "sleep", "clock_nanosleep|nanosleep")["frames"][0]["line"] == line_of("time.sleep(0.2)")
    names_of = functions(seen("generate", "steps"))
    assert names_of[names_of.index("steps"):][:3] == ["steps", "generate", "app"]
    t = seen("deep", "down")
    assert len(t["frames"]) == 64 and t["more_frames"]
    assert "größe" in functions(seen("groesse", "größe"))
    f = next(f for f in seen("made", "nowhere")["frames"] if f["function"] == "nowhere")
    assert f == {"function": "nowhere", "file": "<string>", "line": 2, "source": None}
    assert server.get("/free").status == 200
    for name, c in clients.items():
        if name != "receive":
            assert c.response().body == name.encode()


def test_a_thread_that_computes_is_told_with_its_line_and_holds_the_lock(server: Server) -> None:
    c = send(server, "/spin")
    t = stuck_in(server, "/spin", lambda t: functions(t)[:1] == ["spin"] and t["lock"] == "holds")
    assert t["state"] == "R" and line_of("while not free") - 1 < t["frames"][0]["line"] <= line_of("the line of spin")
    stuck_in(server, "/spin", lambda t: t["cpu"] > 0.2)
    assert server.get("/free").status == 200
    assert c.response().body == b"spin"


@pytest.mark.parametrize("path", ["/hold", "/match"])
def test_a_thread_that_keeps_the_lock_in_c_is_told_and_who_waits_for_it(server: Server, path: str) -> None:
    """And for how long, from look to look."""
    c = send(server, path)
    stuck_in(server, path, lambda t: path[1:] in functions(t) and t["lock"] == "holds")
    other = send(server, "/")  # the loop runs on in another thread, which then waits for the lock
    t = stuck_in(server, path, lambda t: t["lock_for"] and t["lock_for"] > 0.3)
    assert t["frames"][-1]["function"] == "app" or t["more_frames"]
    waiting = wait_for(lambda: [t for t in threads(server) if t["lock"] == "waits"])
    assert all(w["waits_in"] == "futex" for w in waiting)
    text = ask(server, "/stacks").text
    assert re.search(r"holds the interpreter lock for \d\.\d\d s", text) and "waits for the interpreter lock" in text
    assert f"GET {path}," in text and f"    {path[1:]}  {APPS}/stuck.py:" in text
    if path == "/hold":
        assert c.response().body == b"hold" and other.response().status == 200
    else:
        server.expected_status = (0, 1)  # it is cut off
        os.kill(server.worker_pid, signal.SIGKILL)


def test_only_the_thread_of_one_request_is_told(server: Server) -> None:
    clients = [send(server, "/sleep"), send(server, "/lock")]
    t = stuck_in(server, "/sleep")
    stuck_in(server, "/lock")
    slot = stacks(server)["workers"][0]["slot"]
    one = stacks(server, f"?worker={slot}&id={t['request']['id']}")
    assert [x["thread"] for w in one["workers"] for x in w["threads"]] == [t["thread"]]
    r = ask(server, f"/request.json?worker={slot}&id={t['request']['id']}").json()
    assert r["thread"]["thread"] == t["thread"] and r["flight"]["path"] == "/sleep"
    server.get("/free")
    for c in clients:
        assert c.response().status == 200


def test_a_worker_that_is_stopped_has_an_error_and_the_others_their_threads(weir: Starter) -> None:
    server = weir("stuck:app", admin="127.0.0.1:0", workers=2)
    workers = wait_for(lambda: [w for w in stacks(server)["workers"] if w["threads"]] if len(
        stacks(server)["workers"]) == 2 else None)
    assert len(workers) == 2
    pid = workers[0]["pid"]
    os.kill(pid, signal.SIGSTOP)
    try:
        wait_for(lambda: all(task.read_text().rpartition(")")[2].split()[0] == "T"
                             for task in Path(f"/proc/{pid}/task").glob("*/stat")), what="all its threads stand still")
        found = {w["pid"]: w for w in stacks(server)["workers"]}
        assert found[pid]["error"] == "no answer within 1 s" and found[pid]["threads"] == []
        assert found[workers[1]["pid"]]["threads"] and not found[workers[1]["pid"]]["error"]
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: all(w["threads"] for w in stacks(server)["workers"]))


def test_a_worker_that_hangs_in_the_import_is_told(weir: Starter, tmp_path: Any) -> None:
    flag = tmp_path / "go"
    (tmp_path / "slow_import.py").write_text(
        "import os, time\n"
        f"while not os.path.exists({str(flag)!r}):\n"
        "    time.sleep(0.05)  # waits for its database\n"
        "from stuck import app\n")
    server = weir("slow_import:app", admin="127.0.0.1:0", workers=1, pythonpath=str(tmp_path), ready=False)
    t = wait_for(lambda: next((t for w in stacks(server)["workers"] for t in w["threads"]
                               if any("waits for its database" in (f["source"] or "") for f in t["frames"])), None))
    assert t["request"] is None
    flag.touch()


def test_workers_of_a_template_are_told_too(weir: Starter) -> None:
    server = weir("stuck:app", "--preload", admin="127.0.0.1:0", workers=1)
    c = send(server, "/sleep")
    assert functions(stuck_in(server, "/sleep", lambda t: "sleep" in functions(t)))[0] == "sleep"
    server.get("/free")
    assert c.response().status == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can change the user")
def test_a_worker_of_another_user_is_told_and_none_of_its_threads_may_gain_privileges(weir: Starter) -> None:
    """The kernel hides system calls from a process that has changed its user; it still says where they wait."""
    server = weir("stuck:app", admin="127.0.0.1:0", workers=1, user="nobody")
    c = send(server, "/sleep")
    t = stuck_in(server, "/sleep", lambda t: functions(t)[:1] == ["sleep"] and t["state"] == "S")
    assert "sleep" in (t["waits_in"] or "sleep") and t["lock"] in ("free", None)
    status = [p.read_text() for p in Path(f"/proc/{server.worker_pid}/task").glob("*/status")]
    assert len(status) > 2
    assert all(re.search(r"^NoNewPrivs:\s1$", s, re.M) and re.search(r"^Uid:\s65534\s65534\s65534", s, re.M) for s in status)
    server.get("/free")
    assert c.response().status == 200


def test_a_process_that_serves_alone_is_told_too(weir: Starter) -> None:
    server = weir("stuck:app", admin="127.0.0.1:0", workers=0)
    c = send(server, "/sleep")
    assert functions(stuck_in(server, "/sleep", lambda t: "sleep" in functions(t)))[0] == "sleep"
    server.get("/free")
    assert c.response().status == 200


def test_a_new_keeper_is_found_by_the_probes(server: Server) -> None:
    assert wait_for(lambda: threads(server))
    (keeper,) = server.keeper_pids()
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: server.keeper_pids() and server.keeper_pids() != [keeper])
    assert wait_for(lambda: threads(server))


def test_two_hundred_threads_are_told_within_the_time(weir: Starter) -> None:
    server = weir("stuck:app", admin="127.0.0.1:0", workers=1, threads="4:256")
    clients = [send(server, "/deep") for _ in range(200)]
    wait_for(lambda: sum(t["request"] is not None and "down" in functions(t) for t in threads(server)) == 200)
    begin = time.monotonic()
    found = stacks(server)["workers"][0]
    assert time.monotonic() - begin < 10  # the figure is bench/stacks/run's
    assert sum(t["complete"] and len(t["frames"]) == 64 for t in found["threads"]) == 200 or found["took"] < 1
    server.get("/free")
    for c in clients:
        assert c.response().status == 200
