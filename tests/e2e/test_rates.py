"""Rates: exact over all workers, several at once or none, told in fields, and kept over a reload."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest
from admission_helpers import SECRET, WAYS, as_user, at_once, limits, problem, runs, start
from harness import Client, Server, Starter, wait_for

WHO = """\
identify:
  - jwt: {secret_file: jwt.secret}
  - address
tiers: {from: jwt.app_metadata.tier, default: free}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "jwt.secret").write_text(SECRET)
    return tmp_path


def policy(*routes: str, more: str = "") -> str:
    return more + WHO + "routes:\n" + "".join(f"  - {{{r}}}\n" for r in routes)


def statuses(server: Server, n: int, path: str, *fields: str) -> list[int]:
    with Client(server.address) as c:
        return [c.get(path, *fields).status for _ in range(n)]


# ---- how it counts ----


@pytest.mark.parametrize("way", WAYS)
def test_a_burst_passes_and_a_flood_is_refused(weir: Starter, folder: Path, way: str) -> None:
    """With the rates of the first example of docs/protect.md."""
    server = start(weir, folder, policy("match: /ai/*, rate: {user: 10/min burst 3, address: 30/min}"), way)
    got = [server.get("/ai/x", as_user()) for _ in range(6)]
    assert [r.status for r in got[:3]] == [200] * 3
    assert [r.status for r in got[3:]] == [429] * 3
    assert all(problem(r)["reason"] == "rate_limited" and problem(r)["limit"] == "user" for r in got[3:])
    assert statuses(server, 3, "/ai/x", as_user("bob")) == [200] * 3
    assert runs(folder) == 6


def test_a_refusal_spends_none_of_the_rates(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy("match: /*, rate: {user: 2/day, address: 5/day, route: 6/day}"),
                   trusted_proxy="127.0.0.1")
    here, there = "X-Forwarded-For: 192.0.2.1", "X-Forwarded-For: 192.0.2.2"
    # A user above his own rate spends nothing of his address and of the route.
    assert statuses(server, 9, "/", here, as_user("ann")) == [200] * 2 + [429] * 7
    assert statuses(server, 9, "/", here, as_user("bob")) == [200] * 2 + [429] * 7
    # An address above its rate spends nothing of its users and of the route.
    assert statuses(server, 9, "/", here, as_user("cyd")) == [200] + [429] * 8
    r = server.get("/", here, as_user("cyd"))
    assert problem(r)["limit"] == "address"
    assert statuses(server, 9, "/", there, as_user("cyd")) == [200] + [429] * 8
    # The route above its rate spends nothing of the others.
    r = server.get("/", there, as_user("dan"))
    assert r.status == 429 and problem(r)["limit"] == "route"
    left = limits(r)
    assert (left["user"]["r"], left["address"]["r"], left["route"]["r"]) == (2, 4, 0)
    assert runs(folder) == 6


def test_four_workers_let_pass_exactly_what_one_would(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy("match: /*, rate: {user: 50/day, route: 120/day}"), workers=4)
    users = [as_user(f"user{i}") for i in range(3)]

    def ask(i: int) -> tuple[int, int, int]:
        r = server.get("/", users[i % 3])
        return i % 3, r.status, r.json().get("pid", 0)

    got = at_once(600, ask, 32)
    passed = [(user, pid) for user, status, pid in got if status == 200]
    assert len(passed) == 120 == runs(folder)
    assert all(sum(user == u for user, _ in passed) <= 50 for u in range(3))
    assert len({pid for _, pid in passed}) > 1
    assert {status for _, status, _ in got} == {200, 429}


def test_each_tier_has_its_rate(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy(
        "match: /a, rate: {user: {free: 1/day, pro: 3/day, default: 2/day}}",
        "match: /b, rate: {user: {free: 1/day}}"))
    assert statuses(server, 4, "/a", as_user("ann")) == [200] + [429] * 3
    assert statuses(server, 4, "/a", as_user("bob", tier="pro")) == [200] * 3 + [429]
    assert statuses(server, 4, "/a", as_user("cyd", tier="gold")) == [200] * 2 + [429] * 2
    assert statuses(server, 4, "/b", as_user("cyd", tier="gold")) == [200] * 4  # no rate is about it
    r = server.get("/a", as_user("bob", tier="pro"))
    assert limits(r, "RateLimit-Policy") == {"user": {"q": 3, "w": 86400}}


def test_who_is_no_user_is_limited_by_address(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy("match: /*, rate: {user: 2/day}"), trusted_proxy="127.0.0.1")
    assert statuses(server, 3, "/", "X-Forwarded-For: 192.0.2.1") == [200, 200, 429]
    assert statuses(server, 3, "/", "X-Forwarded-For: 192.0.2.1", as_user()) == [200, 200, 429]
    assert statuses(server, 3, "/", "X-Forwarded-For: 192.0.2.2", "Authorization: Bearer wrong") == [200, 200, 429]


@pytest.mark.parametrize("path", ["/ai/x", "/%61i/x", "/a%69/x", "//ai/x", "/ai//x", "/ai%2Fx", "/%2fai/x", "/ai/x?y",
                                  "http://t/ai/x", "///ai/%78"])
def test_no_spelling_of_a_path_escapes_its_route(weir_module: Starter, tmp_path_factory: pytest.TempPathFactory,
                                                 path: str) -> None:
    if not weir_module.servers:
        folder = tmp_path_factory.mktemp("spelling")
        (folder / "jwt.secret").write_text(SECRET)
        server = start(weir_module, folder, policy("match: GET /ai/x, rate: {user: 1/day}"))
        assert server.get("/ai/x", as_user()).status == 200
    server = weir_module.servers[0]
    assert server.get(path, as_user()).status == 429
    assert server.ask("HEAD", path, as_user()).status == 429
    assert server.ask("POST", path, as_user()).status == 200  # no route is about it


def test_a_request_that_waited_in_vain_gets_its_rates_back(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy("match: /*, rate: {user: 3/day}, concurrency: 1, queue: {size: 9, wait: 20s}, "
                                        "deadline: 700ms"), threads=4)
    with Client(server.address) as first:
        first.request("GET", "/hold/deaf", as_user("ann"))
        wait_for((folder / "deaf.in").exists)
        # Its deadline passes in the queue; its client leaves.
        r = server.get("/", as_user("bob"))
        assert (r.status, problem(r)["reason"]) == (504, "deadline")
        with Client(server.address) as leaves:
            leaves.request("GET", "/", as_user("bob"))
            assert leaves.quiet()
        assert first.response().status == 504
    (folder / "deaf.go").touch()
    assert wait_for(lambda: server.get("/", as_user("cyd")).status == 200)
    r = server.get("/", as_user("bob"))
    assert r.status == 200 and limits(r)["user"]["r"] == 2
    # What has run is spent, also when it was late.
    assert limits(server.get("/", as_user("ann")))["user"]["r"] == 1


# ---- what is told ----


def test_the_fields_are_those_of_the_draft(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy("match: /*, rate: {user: 10/min burst 3, address: 30/min, route: 1000/h}"))
    for i in range(4):
        r = server.get("/", as_user())
        assert r.status == (200 if i < 3 else 429)
        assert limits(r, "RateLimit-Policy") == {
            "user": {"q": 10, "w": 60}, "address": {"q": 30, "w": 60}, "route": {"q": 1000, "w": 3600}}
        got = limits(r)
        assert list(got) == ["user", "address", "route"]
        assert all(sorted(g) == ["r", "t"] for g in got.values())
        spent = min(i + 1, 3)
        assert (got["user"]["r"], got["address"]["r"], got["route"]["r"]) == (3 - spent, 30 - spent, 1000 - spent)
        assert 6 * (spent - 1) < got["user"]["t"] <= 6 * spent and 2 * (spent - 1) < got["address"]["t"] <= 2 * spent
        assert not r.all("x-ratelimit-limit")
    assert 1 <= int(r.get("retry-after") or 0) <= 6


@pytest.mark.parametrize("form", ["x", "both", "off"])
def test_other_forms_of_the_fields(weir: Starter, folder: Path, form: str) -> None:
    server = start(weir, folder, policy("match: /*, rate: {user: 10/min burst 3, address: 30/min}"), rate_headers=form)
    r = server.get("/", as_user())
    assert bool(r.all("ratelimit")) == bool(r.all("ratelimit-policy")) == (form == "both")
    x = [r.get(f"x-ratelimit-{n}") for n in ("limit", "remaining", "reset")]
    assert x == ([None] * 3 if form == "off" else ["10", "2", "6"])  # of the one that has least left


@pytest.mark.parametrize("rate", ["30/min burst 1", "1/s", "2/s burst 1"])
def test_one_request_passes_after_retry_after_and_none_long_before(weir: Starter, folder: Path, rate: str) -> None:
    server = start(weir, folder, policy(f"match: /*, rate: {{user: {rate}}}"))
    assert server.get("/", as_user()).status == 200
    r = server.get("/", as_user())
    assert r.status == 429
    after = int(r.get("retry-after") or 0)
    told = time.monotonic()
    step = {"30": 2.0, "1/": 1.0, "2/": 0.5}[rate[:2]]
    assert after == max(1, round(step + 0.49))  # of the whole seconds the first that is enough
    while time.monotonic() < told + after:  # the time itself is what is looked at here
        time.sleep(0.01)
    assert server.get("/", as_user()).status == 200


def test_below_v1_refusals_are_those_of_openai(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy("match: /v1/*, require: user, rate: {user: 1/day}",
                                        "match: /llm, errors: openai, rate: {user: 1/day}",
                                        "match: /*, require: user"))
    for path in ("/v1/chat/completions", "/llm"):
        assert server.get(path, as_user()).status == 200
        r = server.get(path, as_user())
        assert r.status == 429 and r.get("content-type") == "application/json" and int(r.get("retry-after") or 0) > 0
        error = r.json()["error"]
        assert (error["type"], error["code"], error["param"]) == ("rate_limit_error", "rate_limit_exceeded", None)
        assert error["message"]
    r = server.get("/v1/models")
    assert r.status == 401 and r.json()["error"]["code"] == "invalid_api_key" and r.get("www-authenticate")
    assert problem(server.get("/other"))["reason"] == "no_credentials"


def test_a_dry_run_counts_logs_and_lets_pass(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy(
        "match: /*, dry_run: true, rate: {user: 1/day}, quota: {free: 1/day}", more="store: quotas.db\n"))
    got = [server.get("/", as_user()) for _ in range(3)]
    assert [r.status for r in got] == [200] * 3 and runs(folder) == 3
    assert limits(got[2])["user"]["r"] == 0
    server.wait_log("dry run: /* would have refused a request of jwt:ann: rate_limited")
    server.wait_log("would have refused a request with 429: quota_day")


# ---- a reload ----


def reload(server: Server, count: int) -> None:
    server.kill(signal.SIGHUP)
    server.wait_log("reloaded", count=count)


def test_a_reload_keeps_the_counts_also_with_other_numbers(weir: Starter, folder: Path) -> None:
    server = start(weir, folder, policy("match: /*, rate: {user: 4/day, address: 100/day}"))
    assert statuses(server, 3, "/", as_user()) == [200] * 3
    reload(server, 1)
    assert statuses(server, 2, "/", as_user()) == [200, 429]
    # Four were spent, of six there are two more; in time: a debt of 24 h, which two more may enlarge to 36 h.
    (folder / "weir.yaml").write_text(policy("match: /*, rate: {user: 4/day burst 6, address: 100/day}"))
    reload(server, 2)
    wait_for(lambda: limits(server.get("/", as_user("bob")))["user"]["r"] >= 4)
    assert statuses(server, 3, "/", as_user()) == [200, 200, 429]
    (folder / "weir.yaml").write_text(policy("match: /*, rate: {user: 1/day, address: 100/day}"))
    reload(server, 3)
    wait_for(lambda: limits(server.get("/", as_user("cyd")), "RateLimit-Policy")["user"]["q"] == 1)
    assert server.get("/", as_user()).status == 429
    # Another name is another count.
    (folder / "weir.yaml").write_text(policy("match: /*, name: new, rate: {user: 1/day, address: 100/day}"))
    reload(server, 4)
    wait_for(lambda: server.get("/", as_user()).status == 200)
