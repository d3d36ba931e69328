"""/metrics of a real server: what its clients saw, what Prometheus' tools say of it, and what a killed worker leaves."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import subprocess
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from admission_helpers import start
from harness import SANITIZED, Address, Client, Incomplete, Server, Starter, wait_for
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

OPENMETRICS = ("Accept: application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
               "text/plain;version=0.0.4;q=0.5,*/*;q=0.1")
POLICY = """\
routes:
  - {match: GET /held/*, concurrency: 2, queue: {size: 1, wait: 60s}}
  - {match: GET /rated/*, rate: {address: 2/day}}
  - {match: GET /dry/*, rate: {address: 1/day}, dry_run: yes}
"""


def limited(n: int):
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (n, n))


def admin_of(server: Server) -> Address:
    log = server.wait_log(re.compile(r"admin listener at http://127\.0\.0\.1:\d+/"))
    return ("127.0.0.1", int(re.findall(r"admin listener at http://127\.0\.0\.1:(\d+)/", log)[-1]))


def text_of(server: Server, *fields: str) -> str:
    with Client(admin_of(server)) as c:
        answer = c.get("/metrics", "Connection: close", *fields, host="localhost")
    assert answer.status == 200
    return answer.text


Samples = dict  # (name, sorted labels) -> value


def samples(server: Server) -> Samples:
    found = {}
    for family in parse_text(text_of(server)):
        for sample in family.samples:
            found[(sample.name, *sorted(sample.labels.items()))] = sample.value
    return found


def value(server: Server, metric: str, **labels: str) -> float:
    return samples(server).get((metric, *sorted(labels.items())), 0)


def total(server: Server, metric: str, **labels: str) -> float:
    """The sum of all series of a metric that have these labels."""
    return sum(v for (name, *has), v in samples(server).items() if name == metric and labels.items() <= dict(has).items())


def of_status(server: Server) -> Counter:
    """Requests by status, on all routes."""
    found: Counter = Counter()
    for (name, *labels), n in samples(server).items():
        if name == "weir_requests_total" and n:
            found[dict(labels)["status"]] += int(n)
    return found


def test_requests_by_status_add_up_to_what_clients_saw(weir: Starter) -> None:
    server = weir("basic:app", admin="127.0.0.1:0", workers=2, threads=4)
    targets = ["/hello", "/status/404", "/status/201", "/fail", "/-/ping", "/status/204"] * 20

    def some(n: int) -> list[int]:
        with Client(server.address) as c:
            return [c.get(target).status for target in targets[n::4]]

    with ThreadPoolExecutor(4) as pool:
        seen = Counter(str(status) for statuses in pool.map(some, range(4)) for status in statuses)
    seen["400"] += server.raw(b"GET / HTTP/9.9 nonsense\r\n\r\n").statuses.count(400)
    assert seen["200"] == 40 and seen["500"] == 20 and seen["400"] == 1
    wait_for(lambda: of_status(server) == seen, what=f"{seen}, not {of_status(server)}")
    assert value(server, "weir_requests_total", route="/-/", status="200") == 20
    assert value(server, "weir_request_duration_seconds_count", route="*") >= 100
    assert value(server, "weir_request_application_seconds_count", route="*") >= 100


@pytest.mark.skipif(SANITIZED, reason="sanitizers need descriptors of their own")
def test_a_worker_without_a_free_descriptor_says_how_many_it_has(weir: Starter, tmp_path: Path) -> None:
    (tmp_path / "hoard.py").write_text("""
kept = []
def app(environ, start):
    try:
        while True:
            kept.append(open("/dev/null"))
    except OSError:
        start("200 OK", [("Content-Length", "2")])
    return [b"ok"]
""")
    server = weir("hoard:app", cwd=tmp_path, admin="127.0.0.1:0", workers=1, preexec=limited(200))
    first = total(server, "weir_worker_open_descriptors")
    assert 3 < first < 100
    with server.client() as c:
        assert c.get("/").text == "ok"
        wait_for(lambda: total(server, "weir_worker_open_descriptors") != first, timeout=20)
        assert total(server, "weir_worker_open_descriptors") == 200


def test_promtool_and_the_parsers_of_clients_take_the_page_under_load(weir: Starter, tmp_path: Path) -> None:
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed")
    server = start(weir, tmp_path, POLICY, admin="127.0.0.1:0", threads=4)
    with ThreadPoolExecutor(8) as pool:
        targets = [f"/{route}/{i}" for i in range(30) for route in ("rated", "dry", "free")]
        load = [pool.submit(server.get, target) for target in targets]
        pages = [(text_of(server), text_of(server, OPENMETRICS)) for _ in range(5)]
        assert {one.result().status for one in load} == {200, 429}
    pages.append((text_of(server), text_of(server, OPENMETRICS)))
    for text, openmetrics in pages:
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, text=True)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        for family in parse_openmetrics(openmetrics):
            assert family.documentation
            if family.type != "histogram":
                continue
            counts = [s.value for s in family.samples if s.name.endswith("_bucket") and s.labels["le"] == "+Inf"]
            assert counts == [s.value for s in family.samples if s.name.endswith("_count")]


def test_each_format_has_its_type(weir: Starter) -> None:
    server = weir("basic:app", admin="127.0.0.1:0")
    with Client(admin_of(server)) as c:
        text = c.get("/metrics", host="localhost")
        openmetrics = c.get("/metrics", OPENMETRICS, host="localhost")
    assert (text.get("content-type") or "").startswith("text/plain; version=0.0.4")
    assert (openmetrics.get("content-type") or "").startswith("application/openmetrics-text; version=1.0.0")
    assert openmetrics.text.endswith("# EOF\n") and "# EOF" not in text.text


def test_counts_survive_a_worker_that_is_killed(weir: Starter) -> None:
    server = weir("basic:app", admin="127.0.0.1:0", workers=1, threads=2)
    for _ in range(25):
        assert server.get("/hello").status == 200
    wait_for(lambda: of_status(server)["200"] == 25)
    runs = wait_for(lambda: total(server, "weir_runs_total") >= 25 and total(server, "weir_runs_total"))
    old = server.worker_pid
    with server.client() as hangs:
        hangs.request("GET", "/wait/for-ever")
        wait_for(lambda: value(server, "weir_requests_in_flight", state="application") == 1)
        os.kill(old, signal.SIGKILL)
        with pytest.raises(Incomplete):
            hangs.response()
    wait_for(lambda: value(server, "weir_workers", state="ready") == 1 and old not in server.worker_pids())
    assert server.get("/hello").status == 200
    wait_for(lambda: of_status(server)["200"] == 26)
    assert value(server, "weir_requests_in_flight", state="application") == 0
    assert value(server, "weir_workers_crashed_total") == 1
    assert value(server, "weir_workers_started_total") == 2
    # The new worker's own runs come on top.
    wait_for(lambda: total(server, "weir_runs_total") > runs)


def test_places_queue_and_refusals_are_told_by_route(weir: Starter, tmp_path: Path) -> None:
    server = start(weir, tmp_path, POLICY, admin="127.0.0.1:0", threads=4)
    held = "GET /held/*"
    clients = []
    for n, name in enumerate("abc"):
        clients.append(server.client())
        clients[-1].request("GET", f"/held/hold/{name}")
        if n < 2:
            wait_for((tmp_path / f"{name}.in").exists)
    wait_for(lambda: value(server, "weir_queue_depth", route=held) == 1)
    assert server.get("/held/d").status == 503
    assert value(server, "weir_tokens_limit", route=held) == value(server, "weir_tokens_in_use", route=held) == 2
    assert value(server, "weir_queue_limit", route=held) == 1
    assert total(server, "weir_threads", state="busy") == 2
    assert value(server, "weir_requests_in_flight", state="queued") == 1
    assert value(server, "weir_connections", state="active") == 3
    first = value(server, "weir_queue_head_age_seconds", route=held)
    wait_for(lambda: value(server, "weir_queue_head_age_seconds", route=held) > first > 0)
    for name in "abc":
        (tmp_path / f"{name}.go").touch()
    assert [c.response().status for c in clients] == [200, 200, 200]
    assert [server.get("/rated/x").status for _ in range(3)] == [200, 200, 429]
    assert [server.get("/dry/x").status for _ in range(3)] == [200, 200, 200]
    wait_for(lambda: value(server, "weir_requests_total", route=held, status="200") == 3)
    assert value(server, "weir_refusals_total", route=held, reason="queue_full") == 1
    wait_for(lambda: value(server, "weir_refusals_total", route="GET /rated/*", reason="rate_limited") == 1)
    wait_for(lambda: value(server, "weir_refusals_dry_run_total", route="GET /dry/*", reason="rate_limited") == 2)
    assert value(server, "weir_tokens_in_use", route=held) == value(server, "weir_queue_depth", route=held) == 0
    assert value(server, "weir_request_queue_seconds_count", route=held) >= 3


def test_no_request_makes_a_label(weir: Starter) -> None:
    """However many paths, methods, users and addresses come, the series stay the same."""
    server = weir("basic:app", admin="127.0.0.1:0", workers=1)
    server.get("/hello")
    wait_for(lambda: of_status(server)["200"] == 1)
    before = set(samples(server))
    with Client(server.address) as c:
        for n in range(200):
            answer = c.ask("GET" if n % 2 else f"M{n}", f"/hello/{n}?x={n}", f"Authorization: Bearer {n}",
                           f"X-Request-Id: id-{n}", f"User-Agent: a{n}", host=f"h{n}")
            assert answer.status == 200
    wait_for(lambda: of_status(server)["200"] == 201)
    assert set(samples(server)) == before


def test_one_process_alone_has_metrics_too(weir: Starter) -> None:
    server = weir("basic:app", admin="127.0.0.1:0", workers=0, threads=2)
    server.get("/hello")
    wait_for(lambda: of_status(server)["200"] == 1)
    assert value(server, "weir_workers", state="ready") == 1
    assert value(server, "weir_connections_accepted_total") >= 1
    assert value(server, "weir_worker_resident_memory_bytes", worker="0") > 1_000_000
    assert not total(server, "weir_workers_started_total")
