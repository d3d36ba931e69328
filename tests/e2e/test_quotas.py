"""Quotas: exact over workers, deaths and restarts; given back for what never ran; and what happens without a store."""

from __future__ import annotations

import datetime
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from admission_helpers import SECRET, WAYS, as_user, at_once, limits, problem, runs, start
from harness import PATIENCE, Client, Incomplete, Response, Server, Starter, wait_for

POLICY = """\
store: {store}
identify:
  - jwt: {{secret_file: jwt.secret}}
  - address
tiers: {{from: jwt.app_metadata.tier, default: free}}
routes:
"""
QUOTA = "quota: {free: 0, test: 3/day, small: 5/day and 3/month, monthly: 2/month, big: 40/day, pro: unlimited}"
ROUTE = f"  - {{match: /ai/*, name: ai, require: user, {QUOTA}}}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jwt.secret").write_text(SECRET)
    return tmp_path


def policy(*routes: str, store: object = "quotas.db") -> str:
    return POLICY.format(store=store) + "".join(routes or [ROUTE])


def statuses(server: Server, n: int, *fields: str, path: str = "/ai/x") -> list[int]:
    with Client(server.address) as c:
        return [c.get(path, *fields).status for _ in range(n)]


def usage(server: Server, *fields: str) -> dict[str, Any]:
    r = server.get("/-/usage", *fields)
    assert r.status == 200 and r.get("cache-control") == "no-store", (r.status, r.body)
    return r.json()


def used(server: Server, *fields: str, route: str = "ai") -> int:
    return next(r["day"]["used"] for r in usage(server, *fields)["routes"] if r["route"] == route)


def midnight() -> datetime.datetime:
    today = datetime.datetime.now(datetime.timezone.utc).replace(hour=0, minute=0, second=0, microsecond=0)
    return today + datetime.timedelta(days=1)


def next_month() -> datetime.datetime:
    return (midnight() - datetime.timedelta(days=1)).replace(day=1) + datetime.timedelta(days=31)


def seconds_to(when: datetime.datetime) -> float:
    return (when - datetime.datetime.now(datetime.timezone.utc)).total_seconds()


@pytest.fixture(autouse=True)
def no_midnight() -> None:
    """A count that begins anew in the middle of a test is no failure of the server."""
    wait_for(lambda: seconds_to(midnight()) > 30 or None, 40)


# ---- how it counts ----


@pytest.mark.parametrize("way", WAYS)
def test_each_tier_has_its_quota(weir: Starter, folder: Path, way: str) -> None:
    server = start(weir, folder, policy(), way)
    r = server.get("/ai/x", as_user("ann"))
    assert (r.status, problem(r)["reason"]) == (403, "tier")
    assert server.get("/ai/x", as_user("eve", "unknown")).status == 403
    assert server.get("/ai/x").status == 401
    for left in (2, 1, 0):
        r = server.get("/ai/x", as_user("bob", "test"))
        assert r.status == 200
        assert limits(r, "RateLimit-Policy") == {"day": {"q": 3, "w": 86400}} and limits(r)["day"]["r"] == left
    r = server.get("/ai/x", as_user("bob", "test"))
    assert (r.status, problem(r)["reason"], r.json()["limit"]) == (429, "quota_day", "test")
    after = int(r.get("retry-after") or 0)
    assert 0 <= after - seconds_to(midnight()) <= 2 and limits(r)["day"]["r"] == 0
    assert statuses(server, 4, as_user("cyd", "small")) == [200] * 3 + [429]
    r = server.get("/ai/x", as_user("cyd", "small"))
    assert problem(r)["reason"] == "quota_month"
    assert 0 <= int(r.get("retry-after") or 0) - seconds_to(next_month().replace(day=1)) <= 2
    assert statuses(server, 3, as_user("dan", "monthly")) == [200, 200, 429]
    r = server.get("/ai/x", as_user("eva", "pro"))
    assert r.status == 200 and not r.all("ratelimit")
    assert runs(folder) == 3 + 3 + 2 + 1


def test_four_workers_count_exactly(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy(), workers=4)
    users = [as_user(f"user{i}", "big") for i in range(2)]
    got = at_once(300, lambda i: (i % 2, server.get("/ai/x", users[i % 2]).status), 32)
    for user in range(2):
        mine = [status for u, status in got if u == user]
        assert (mine.count(200), mine.count(429)) == (40, 110)
        assert used(server, users[user]) == 40
    assert runs(folder) == 80


def test_counts_outlive_restarts_reloads_and_the_keeper(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy())
    bob = as_user("bob", "test")
    assert statuses(server, 1, bob) == [200]
    os.kill(server.keeper_pids()[0], signal.SIGKILL)
    assert statuses(server, 1, bob) == [200]
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded")
    assert used(server, bob) == 2
    assert server.stop() == 0
    server = start(weir, folder, policy())
    assert statuses(server, 2, bob) == [200, 429]
    server.expected_status = (-9,)
    server.kill(signal.SIGKILL)
    server.wait_end()
    server = start(weir, folder, policy(), "weir --workers 0")
    assert statuses(server, 1, bob) == [429] and used(server, bob) == 3
    # A larger quota counts what was spent.
    (folder / "weir.yaml").write_text(policy().replace("test: 3/day", "test: 4/day"))
    assert server.stop() == 0
    server = start(weir, folder, policy().replace("test: 3/day", "test: 4/day"))
    assert statuses(server, 2, bob) == [200, 429]


def test_a_keeper_that_is_killed_again_and_again_miscounts_nothing(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy(ROUTE.replace("40/day", "400/day")), workers=4)
    user = as_user("ann", "big")
    killed = 0

    def ask(i: int) -> int:
        nonlocal killed
        if i % 100 == 50:
            for pid in server.keeper_pids():
                os.kill(pid, signal.SIGKILL)
                killed += 1
        return server.get("/ai/x", user).status

    got = at_once(700, ask, 12)
    assert killed >= 4 and set(got) <= {200, 429, 503}
    assert got.count(200) == runs(folder) <= 400
    # What was told 503 spent nothing; refunds may still be on their way.
    wait_for(lambda: used(server, user) == runs(folder), 20, "as many are counted as have run")


def test_killed_workers_let_nobody_exceed_his_quota(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy(ROUTE.replace("40/day", "300/day")), workers=4)
    user = as_user("ann", "big")

    def ask(_: int) -> int:
        try:
            return server.get("/ai/x", user).status
        except (Incomplete, OSError):
            return 0

    def kill_one() -> None:
        server.wait_for(lambda: runs(folder) > 20 * (len(killed) + 1), what="the next requests")
        killed.append(server.worker_pids()[0])
        os.kill(killed[-1], signal.SIGKILL)
        server.wait_for(lambda: len({*server.worker_pids()} - {*killed}) == 4, 20, "another worker")

    killed: list[int] = []
    with ThreadPoolExecutor(1) as killer:
        kills = killer.submit(lambda: [kill_one() for _ in range(3)])
        got = at_once(700, ask, 6)
        kills.result(60)
    assert got.count(429) > 0
    # Nobody got more, and what was answered is counted; what died with its worker stays spent.
    assert got.count(200) <= runs(folder) <= 300 == used(server, user)


@pytest.mark.parametrize("length", [500, 509, 512])
def test_the_longest_users_have_a_quota_like_others(weir: Starter, folder: Path, length: int) -> None:
    server = start(weir, folder, policy(), "weir --workers 0")
    assert statuses(server, 4, as_user("ü" * (length // 2) + "x" * (length % 2), "test")) == [200] * 3 + [429]


# ---- what is given back ----


HELD = """\
  - match: /ai/*
    name: ai
    require: user
    concurrency: 1
    queue: {size: 1, wait: 20s}
    deadline: %s
    quota: {big: 40/day, default: 2/day}
"""


def hold(server: Server, folder: Path, name: str, *fields: str) -> Client:
    c = server.client()
    c.request("GET", f"/ai/hold/{name}", *fields)
    wait_for((folder / f"{name}.in").exists, what="the application has it")
    return c


def settled(server: Server, count: int, *fields: str) -> None:
    """So many are counted, also after what is under way."""
    wait_for(lambda: used(server, *fields) == count, what=f"{count} are counted")


@pytest.mark.parametrize("workers", [0, 2])
def test_what_never_ran_is_given_back(weir: Starter, folder: Path, workers: int) -> None:
    server = start(weir, folder, policy(HELD % "20s"), workers=workers, threads=4)
    ann, bob, cyd = as_user("ann", "big"), as_user("bob", "big"), as_user("cyd", "big")
    first = hold(server, folder, "a", ann)
    waits = server.client()
    waits.request("GET", "/ai/x", bob)
    settled(server, 1, bob)
    # The queue is full.
    r = server.get("/ai/x", cyd)
    assert (r.status, problem(r)["reason"]) == (503, "queue_full")
    settled(server, 0, cyd)
    # Its client leaves while it waits.
    waits.close()
    settled(server, 0, bob)
    (folder / "a.go").touch()
    assert first.response().status == 200
    assert server.get("/ai/x", bob).status == 200
    assert (used(server, ann), used(server, bob), used(server, cyd)) == (1, 1, 0)
    assert runs(folder) == 2


def test_a_deadline_in_the_queue_gives_back_and_one_in_the_application_does_not(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy(HELD % "600ms"), threads=4)
    ann, bob = as_user("ann"), as_user("bob")
    first = hold(server, folder, "deaf", ann)
    r = server.get("/ai/x", bob)
    assert (r.status, problem(r)["reason"]) == (504, "deadline")
    assert first.response().status == 504
    settled(server, 0, bob)
    assert used(server, ann) == 1
    (folder / "deaf.go").touch()
    wait_for(lambda: server.get("/ai/x", bob).status == 200)
    assert runs(folder) == 2


def test_what_died_with_its_worker_before_it_ran_stays_spent(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy(HELD % "30s"), workers=1, threads=4)
    ann, bob = as_user("ann"), as_user("bob")
    hold(server, folder, "a", ann)
    waits = server.client()
    waits.request("GET", "/ai/x", bob)
    settled(server, 1, bob)
    os.kill(server.worker_pid, signal.SIGKILL)
    waits.rest()
    (folder / "a.go").touch()
    # Its place is free again; its user has lost one request, as docs/protect.md says.
    wait_for(lambda: used(server, bob) == 1, 20)
    assert statuses(server, 2, bob) == [200, 429]
    assert runs(folder) == 2


def test_a_stop_gives_back_what_still_waits(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy(HELD % "30s"), workers=2, threads=4, grace="500ms")
    ann, bob = as_user("ann"), as_user("bob")
    hold(server, folder, "deaf", ann)
    waits = server.client()
    waits.request("GET", "/ai/x", bob)
    settled(server, 1, bob)
    server.expected_status = (0, 1)
    server.kill(signal.SIGTERM)
    r = waits.response()
    assert (r.status, problem(r)["reason"]) == (503, "stopping")
    (folder / "deaf.go").touch()
    server.wait_end()
    server = start(weir, folder, policy(HELD % "30s"))
    assert (used(server, bob), used(server, ann)) == (0, 1)


# ---- /-/usage ----


@pytest.mark.parametrize("way", WAYS)
def test_users_see_their_own_use_only(weir: Starter, folder: Path, way: str) -> None:
    server = start(weir, folder, policy(ROUTE, "  - {match: /other, quota: 7/month}\n  - {match: /free}\n"), way)
    bob, ann = as_user('b"ob', "small"), as_user("ann", "pro")
    assert statuses(server, 2, bob) == [200] * 2 and statuses(server, 1, ann) == [200]
    said = usage(server, bob)
    assert (said["user"], said["tier"], [r["route"] for r in said["routes"]]) == ('b"ob', "small", ["ai", "/other"])
    ends = f"{midnight():%Y-%m-%dT%H:%M:%SZ}"
    month = f"{next_month().replace(day=1):%Y-%m-%dT%H:%M:%SZ}"
    assert said["routes"][0] == {"route": "ai", "day": {"used": 2, "limit": 5, "ends": ends},
                                 "month": {"used": 2, "limit": 3, "ends": month}}
    assert said["routes"][1]["day"] == {"used": 0, "limit": None, "ends": ends}
    assert said["routes"][1]["month"]["limit"] == 7
    other = usage(server, ann)["routes"][0]
    assert (other["day"]["used"], other["day"]["limit"], other["month"]["limit"]) == (0, None, None)
    assert usage(server, as_user("new"))["routes"][0]["day"]["limit"] == 0
    r = server.get("/-/usage")
    assert (r.status, problem(r)["reason"]) == (401, "no_credentials") and r.get("www-authenticate")
    assert server.get("/-/usage", "Authorization: Bearer x").status == 401
    assert server.get("/-/usage?user=ann", bob).json()["user"] == 'b"ob'
    assert server.ask("POST", "/-/usage", bob, body=b"").status == 405
    r = server.ask("HEAD", "/-/usage", bob)
    assert r.status == 200 and r.body == b""
    assert used(server, bob) == 2


def test_without_quotas_usage_is_the_applications(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy("  - {match: /ai/*}\n"))
    assert server.get("/-/usage", as_user()).json()["path"] == "/-/usage"


# ---- a store that cannot be written ----


BOTH = ROUTE + "  - {match: /open/*, name: open, require: user, quota: 3/day, quota_when_down: open}\n"


def closed(server: Server) -> Response:
    """The route is closed, and says so at once."""
    begun = time.monotonic()
    r = server.get("/ai/x", as_user("bob", "test"))
    took = time.monotonic() - begun
    assert r.status == 503, (r.status, r.body)
    assert problem(r)["reason"] == "store_down" and 1 <= int(r.get("retry-after") or 0) <= 60
    assert took < 1 + 1 * PATIENCE, f"it took {took:.2f} s"
    return r


@pytest.mark.parametrize("workers", [0, 2])
def test_a_folder_in_place_of_the_store_is_told_and_it_recovers_by_itself(weir: Starter, folder: Path,
                                                                          workers: int) -> None:
    (folder / "quotas.db").mkdir()
    server = start(weir, folder, policy(BOTH), workers=workers)
    closed(server)
    assert statuses(server, 5, as_user("bob"), path="/open/x") == [200] * 5
    server.wait_log("the store of quotas cannot be asked: Is a directory; ai is closed meanwhile")
    server.wait_log("the store of quotas cannot be asked: Is a directory; open is open meanwhile")
    assert server.get("/-/usage", as_user("bob")).status == 503
    assert server.get("/elsewhere").status == 200
    (folder / "quotas.db").rmdir()
    wait_for(lambda: server.get("/ai/x", as_user("bob", "test")).status == 200)
    assert used(server, as_user("bob", "test")) == 1
    assert statuses(server, 4, as_user("bob"), path="/open/x") == [200] * 3 + [429]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_may_not_be_written_closes_the_route(weir: Starter) -> None:
    # pytest's folders are closed to others.
    folder = Path(f"/tmp/weir-quotas-{os.getpid()}")
    (folder / "state").mkdir(parents=True)
    (folder / "jwt.secret").write_text(SECRET)
    try:
        server = start(weir, folder, policy(BOTH, store=folder / "state" / "q.db"), user="nobody", env={"RAN": ""})
        closed(server)
        assert statuses(server, 1, as_user("bob"), path="/open/x") == [200]
        (folder / "state").chmod(0o777)
        wait_for(lambda: server.get("/ai/x", as_user("bob", "test")).status == 200)
        server.stop()
    finally:
        for f in sorted(folder.rglob("*"), reverse=True):
            f.rmdir() if f.is_dir() else f.unlink()
        folder.rmdir()


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 1 MiB."""
    place = folder / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)], capture_output=True)
    if made.returncode:
        pytest.skip("this machine lets nobody mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def test_a_full_disk_closes_the_route_until_there_is_room(weir: Starter, folder: Path, small_disk: Path) -> None:
    server = start(weir, folder, policy(BOTH, store=small_disk / "q.db"))
    assert statuses(server, 1, as_user("bob", "test")) == [200]
    with open(small_disk / "ballast", "wb", buffering=0) as f:
        try:
            while f.write(b"\0" * 4096) == 4096:
                pass
        except OSError:
            pass
    # What the log still has room for may be counted.
    wait_for(lambda: server.get("/ai/x", as_user(f"{time.monotonic_ns()}", "test")).status == 503)
    closed(server)
    assert statuses(server, 1, as_user("bob"), path="/open/x") == [200]
    (small_disk / "ballast").unlink()
    wait_for(lambda: server.get("/ai/x", as_user("bob", "test")).status == 200)
    settled(server, 2, as_user("bob", "test"))
    assert re.search(r"the store of quotas cannot be asked: [^\n]*(space|full|error|I/O)", server.log)


def test_a_keeper_that_hangs_closes_the_route_within_a_second(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy(BOTH))
    assert statuses(server, 1, as_user("bob", "test")) == [200]
    pid = server.keeper_pids()[0]
    os.kill(pid, signal.SIGSTOP)
    try:
        closed(server)
        assert statuses(server, 1, as_user("bob"), path="/open/x") == [200]
    finally:
        os.kill(pid, signal.SIGCONT)
    wait_for(lambda: server.get("/ai/x", as_user("bob", "test")).status == 200)
    # What was told 503 is not counted.
    settled(server, 2, as_user("bob", "test"))
