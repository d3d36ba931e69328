"""What a request is called, here and in other services: ids, trace context, times, and spans for a collector."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from harness import PATIENCE, PYTHON, ROOT, Server, Starter, wait_for

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED, UNSAMPLED = f"00-{TRACE}-{PARENT}-01", f"00-{TRACE}-{PARENT}-00"
ID = re.compile(r"[0-9a-f]{32}")
CONTEXT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")

Span = dict[str, Any]


def attributes(of: Span) -> dict[str, Any]:
    return {a["key"]: next(iter(a["value"].values())) for a in of["attributes"]}


class Collector:
    """Takes spans over OTLP/HTTP, as far as it was told to."""

    def __init__(self, port: int = 0) -> None:
        self.spans: list[Span] = []
        self.resources: list[dict[str, Any]] = []
        self.batches: list[int] = []
        self.fields: list[dict[str, str]] = []
        self.asked = 0
        self.answer: Callable[[BaseHTTPRequestHandler], bool] | None = None  # True: it has answered
        collector = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.asked += 1
                collector.fields.append(dict(self.headers))
                if collector.answer and collector.answer(self):
                    return
                collector.take(json.loads(body))
                self.send_response(200)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                pass

        class Listener(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass  # the server was killed in the middle

        self.http = Listener(("127.0.0.1", port), Handler)
        self.port = self.http.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}/v1/traces"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,), daemon=True)
        self.thread.start()

    def take(self, body: dict[str, Any]) -> None:
        (resource,) = body["resourceSpans"]
        (scope,) = resource["scopeSpans"]
        assert scope["scope"]["name"] == "weir"
        self.resources.append(attributes(resource["resource"]))
        self.batches.append(len(scope["spans"]))
        self.spans += scope["spans"]

    def wait(self, n: int) -> list[Span]:
        wait_for(lambda: len(self.spans) >= n, 20, f"{n} spans; there are {len(self.spans)}")
        assert len(self.spans) == n
        return self.spans

    def close(self) -> None:
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    c = Collector()
    yield c
    c.close()


def refuse(status: int, *fields: tuple[str, str]) -> Callable[[BaseHTTPRequestHandler], bool]:
    def answer(h: BaseHTTPRequestHandler) -> bool:
        h.send_response(status)
        for field in (*fields, ("Content-Length", "0")):
            h.send_header(*field)
        h.end_headers()
        return True

    return answer


def environ(server: Server, *fields: str, target: str = "/env") -> dict[str, Any]:
    return server.get(target, *fields).json()


# ---- X-Request-Id ----


def test_each_request_has_an_id_that_all_can_see(weir: Starter) -> None:
    server = weir("basic:app", access_log="-", access_log_format="%(request_id)s %(x_request_id)s %({x-request-id}o)s %(s)s")
    mine = server.get("/env", "X-Request-Id: Root=1-67891233-abcdef")
    assert mine.get("X-Request-Id") == "Root=1-67891233-abcdef"
    assert mine.json()["HTTP_X_REQUEST_ID"] == "Root=1-67891233-abcdef"
    made = server.get("/env")
    assert ID.fullmatch(made.get("X-Request-Id") or "") and made.json()["HTTP_X_REQUEST_ID"] == made.get("X-Request-Id")
    answers = [mine, made, server.get("/fail"), server.get("/-/ping"), server.get("/nothing")]
    assert [a.status for a in answers] == [200, 200, 500, 200, 404]
    ids = [a.get("X-Request-Id") for a in answers]
    assert all(ids) and len(set(ids)) == 5
    lines = wait_for(lambda: len(rows := server.out.splitlines()) == 5 and rows, what="access lines")
    assert lines == [f"{i + 1} {x} {x} {a.status}" for i, (x, a) in enumerate(zip(ids, answers))]
    server.wait_log("request=3 ")  # the number of the access line leads from the error log to the id


@pytest.mark.parametrize("sent", [["a b"], ["x" * 65], ["<b>"], ["one", "two"], [""], ["a\u00e9"]])
def test_an_id_that_is_not_plain_is_replaced(weir_module: Starter, sent: list[str]) -> None:
    server = weir_module.servers[0] if weir_module.servers else weir_module("basic:app")
    answer = server.get("/env", *(f"X-Request-Id: {s}" for s in sent))
    assert ID.fullmatch(answer.get("X-Request-Id") or "")
    assert answer.json()["HTTP_X_REQUEST_ID"] == answer.get("X-Request-Id")


def test_refusals_carry_the_id_too(weir: Starter) -> None:
    server = weir("basic:app", max_body_size=10)
    large = server.ask("POST", "/echo", "X-Request-Id: large", body=b"x" * 11)
    assert large.status == 413 and large.get("X-Request-Id") == "large"


def test_without_the_settings_fields_pass_as_they_came(weir: Starter) -> None:
    server = weir("basic:app", request_id=False, trace_context=False)
    answer = server.get("/env", "X-Request-Id: a b", "traceparent: nonsense", "tracestate: a=1")
    assert answer.get("X-Request-Id") is None
    seen = answer.json()
    assert (seen["HTTP_X_REQUEST_ID"], seen["HTTP_TRACEPARENT"], seen["HTTP_TRACESTATE"]) == ("a b", "nonsense", "a=1")
    assert not {"HTTP_X_REQUEST_ID", "HTTP_TRACEPARENT"} & environ(server).keys()


# ---- trace context ----


def test_a_trace_is_passed_on_or_begun(weir: Starter) -> None:
    server = weir("basic:app", access_log="-", access_log_format="%(trace_id)s")
    seen = environ(server, f"traceparent: {SAMPLED}", "tracestate: a=1,b=2")
    assert seen["HTTP_TRACEPARENT"] == SAMPLED and seen["HTTP_TRACESTATE"] == "a=1,b=2"
    assert environ(server, f"traceparent: {UNSAMPLED}")["HTTP_TRACEPARENT"] == UNSAMPLED
    begun = [environ(server, *fields)["HTTP_TRACEPARENT"] for fields in ([], ["tracestate: a=1"], [f"traceparent: {SAMPLED}x"])]
    contexts = [CONTEXT.fullmatch(b) for b in begun]
    assert all(contexts) and all(c[3] == "01" and c[1] != TRACE for c in contexts if c)
    traces = [TRACE, TRACE, *(c[1] for c in contexts if c)]
    assert wait_for(lambda: len(rows := server.out.split()) == 5 and rows, what="access lines") == traces
    assert len(set(traces)) == 4
    assert "HTTP_TRACESTATE" not in environ(server, "tracestate: a=1")


def test_a_part_of_the_traces_is_sampled(weir: Starter) -> None:
    server = weir("basic:app", trace_sample=0)
    assert environ(server)["HTTP_TRACEPARENT"].endswith("-00")
    assert environ(server, f"traceparent: {SAMPLED}")["HTTP_TRACEPARENT"] == SAMPLED
    server = weir("basic:app", trace_sample=50)
    with server.client() as c:
        flags = [c.get("/env").json()["HTTP_TRACEPARENT"][-2:] for _ in range(200)]
    assert 40 < flags.count("01") < 160 and flags.count("00") == 200 - flags.count("01")


def test_ids_of_workers_do_not_meet(weir: Starter) -> None:
    server = weir("basic:app", workers=2)
    pids: set[str] = set()
    ids: list[str] = []

    def both() -> bool:
        answer = server.get("/thread")
        pids.add(answer.text.split()[2])
        ids.append(answer.get("X-Request-Id") or "")
        return len(pids) == 2 and len(ids) >= 20

    wait_for(both, what="answers of both workers")
    assert all(ids) and len(set(ids)) == len(ids)


def test_a_request_that_begins_a_trace_is_called_by_it(weir: Starter) -> None:
    answer = weir("basic:app").get("/env")
    assert answer.json()["HTTP_TRACEPARENT"].split("-")[1] == answer.get("X-Request-Id")


# ---- Server-Timing ----


def timing(value: str | None) -> dict[str, float]:
    assert value
    return {name: float(ms) for name, ms in re.findall(r"(\w+);dur=(\d+\.\d{3})(?:, |$)", value)}


def test_server_timing_tells_where_the_time_went(weir: Starter) -> None:
    server = weir("basic:app", server_timing=True, threads=1)
    alone = timing(server.get("/sleep/50").get("Server-Timing"))
    assert list(alone) == ["queue", "app", "total"]
    assert 49 <= alone["app"] <= alone["total"] and alone["queue"] <= alone["total"]
    assert list(timing(server.get("/-/ping").get("Server-Timing"))) == ["total"]
    with server.client() as first, server.client() as second:
        first.request("GET", "/sleep/200")
        second.request("GET", "/sleep/200")
        told = [timing(c.response().get("Server-Timing")) for c in (first, second)]
    # One of them had to wait for the only thread.
    assert sorted(t["queue"] > 100 for t in told) == [False, True]
    assert all(t["queue"] + t["app"] <= t["total"] + 1 for t in told)


def test_times_are_not_told_unasked(weir: Starter) -> None:
    assert weir("basic:app").get("/hello").get("Server-Timing") is None


# ---- spans ----


def test_a_request_is_a_span_between_its_caller_and_the_application(weir: Starter, collector: Collector) -> None:
    before_ns = time.time_ns()
    server = weir("basic:app", otlp_endpoint=collector.url, otlp_service="shop", otlp_header=["X-Tenant=a", "Authorization=Bearer t"])
    seen = environ(server, f"traceparent: {SAMPLED}", "X-Request-Id: his")
    (span,) = collector.wait(1)
    context = CONTEXT.fullmatch(seen["HTTP_TRACEPARENT"])
    assert context and context[1] == TRACE and context[3] == "01"
    assert (span["traceId"], span["parentSpanId"], span["spanId"]) == (TRACE, PARENT, context[2])
    assert context[2] != PARENT
    assert before_ns <= int(span["startTimeUnixNano"]) <= int(span["endTimeUnixNano"]) <= time.time_ns()
    told = attributes(span)
    assert told["http.request.method"] == "GET" and told["url.path"] == "/env"
    assert told["http.response.status_code"] == "200" and told["client.address"] == "127.0.0.1"
    assert told["weir.request_id"] == "his" and told["weir.request"] == "1"
    assert span["kind"] == 2 and span["status"] == {} and span["name"] == "GET"
    assert [e["name"] for e in span["events"]][:2] == ["thread", "application"]
    assert collector.resources[0]["service.name"] == "shop"
    assert collector.fields[0]["X-Tenant"] == "a" and collector.fields[0]["Authorization"] == "Bearer t"


def test_a_span_of_a_trace_begun_here_has_no_parent(weir: Starter, collector: Collector) -> None:
    server = weir("basic:app", otlp_endpoint=collector.url, workers=0)  # one process that serves alone
    seen = environ(server)
    (span,) = collector.wait(1)
    assert "parentSpanId" not in span
    assert seen["HTTP_TRACEPARENT"] == f"00-{span['traceId']}-{span['spanId']}-01"


def test_what_is_not_sampled_is_not_sent(weir: Starter, collector: Collector) -> None:
    server = weir("basic:app", otlp_endpoint=collector.url, trace_sample=0)
    assert environ(server, f"traceparent: {UNSAMPLED}")["HTTP_TRACEPARENT"] == UNSAMPLED
    assert environ(server)["HTTP_TRACEPARENT"].endswith("-00")
    environ(server, f"traceparent: {SAMPLED}")
    (span,) = collector.wait(1)  # the last one, and those before it never
    assert span["traceId"] == TRACE and attributes(span)["weir.request"] == "3"


def test_errors_and_refusals_are_told(weir: Starter, collector: Collector) -> None:
    server = weir("basic:app", otlp_endpoint=collector.url, max_body_size=10)
    statuses = [server.get("/fail").status, server.get("/nothing").status, server.ask("POST", "/echo", body=b"x" * 11).status]
    assert statuses == [500, 404, 413]
    spans = {attributes(s)["http.response.status_code"]: s for s in collector.wait(3)}
    assert spans["500"]["status"] == {"code": 2} and attributes(spans["500"])["error.type"] == "500"
    assert spans["404"]["status"] == spans["413"]["status"] == {}
    assert spans["413"]["name"] == "POST"


def test_all_spans_of_all_workers_arrive_once_and_in_batches(weir: Starter, collector: Collector) -> None:
    server = weir("basic:app", otlp_endpoint=collector.url, workers=2)

    def ask() -> None:
        with server.client() as c:
            for _ in range(500):
                assert c.get("/hello").status == 200

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    spans = collector.wait(2000)
    assert len({s["spanId"] for s in spans}) == 2000
    assert max(collector.batches) <= 512 and len(collector.batches) < 40


def test_the_last_spans_arrive_before_the_server_ends(weir: Starter, collector: Collector) -> None:
    server = weir("basic:app", otlp_endpoint=collector.url)
    server.get("/hello")
    collector.wait(1)
    with server.client() as c:
        for _ in range(20):
            c.get("/hello")
    assert server.stop() == 0
    assert len(collector.spans) == 21


# ---- a collector with troubles ----


def test_a_collector_that_is_away_costs_the_server_nothing(weir: Starter) -> None:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    server = weir("basic:app", otlp_endpoint=f"http://127.0.0.1:{port}/v1/traces")
    with server.client() as c:
        for _ in range(300):
            assert c.get("/hello").status == 200
        line = server.wait_log("does not take spans")
        assert line.count("does not take spans") == 1
        for _ in range(300):
            assert c.get("/hello").status == 200
    back = Collector(port)
    try:
        back.wait(600)
        server.wait_log("takes spans again; 0 were dropped")
        assert server.log.count("does not take spans") == 1
    finally:
        back.close()


def test_a_collector_that_refuses_for_a_while_gets_them_later(weir: Starter, collector: Collector) -> None:
    collector.answer = refuse(503, ("Retry-After", "1"))
    server = weir("basic:app", otlp_endpoint=collector.url)
    server.get("/hello")
    wait_for(lambda: collector.asked == 1, what="a first try")
    collector.answer = None
    collector.wait(1)
    assert collector.asked == 2
    server.wait_log("takes spans again")


def test_a_collector_that_stalls_or_lies_holds_nobody_up(weir: Starter, collector: Collector) -> None:
    over = threading.Event()

    def stall(h: BaseHTTPRequestHandler) -> bool:
        over.wait(30)
        return True

    collector.answer = stall
    server = weir("basic:app", otlp_endpoint=collector.url)
    server.get("/hello")
    wait_for(lambda: collector.asked == 1, what="a first try")
    assert server.get("/hello").status == 200
    begun = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begun < 6 * PATIENCE
    over.set()

    def lie(h: BaseHTTPRequestHandler) -> bool:
        h.wfile.write(b"\x00\xff" * 1000)
        h.close_connection = True
        return True

    collector.answer, collector.asked = lie, 0
    server = weir("basic:app", otlp_endpoint=collector.url)
    server.get("/hello")
    server.wait_log("does not take spans")
    collector.answer = None
    collector.wait(1)


# ---- deaths and reloads ----


def test_spans_of_a_killed_worker_and_of_a_killed_keeper_arrive(weir: Starter, collector: Collector) -> None:
    hold = threading.Event()

    def wait(h: BaseHTTPRequestHandler) -> bool:
        hold.wait(30)
        return True  # nobody hears it any more

    collector.answer = wait
    server = weir("basic:app", otlp_endpoint=collector.url, workers=1)
    server.get("/hello")
    wait_for(lambda: collector.asked == 1, what="a batch in the air")
    server.get("/hello")
    worker = server.worker_pid
    (keeper,) = server.keeper_pids()
    server.expected_status = (0,)
    os.kill(worker, signal.SIGKILL)
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: server.keeper_pids() not in ([], [keeper]), what="another keeper")
    collector.answer = None
    hold.set()
    spans = collector.wait(2)
    assert len({s["spanId"] for s in spans}) == 2


def test_a_reload_sends_them_elsewhere(weir: Starter, collector: Collector, tmp_path: Path) -> None:
    other = Collector()
    config = tmp_path / "weir.yaml"
    config.write_text(f"otlp-endpoint: {collector.url}\n")
    try:
        server = weir("basic:app", "--config", str(config), workers=1)
        server.get("/hello")
        collector.wait(1)
        config.write_text(f"otlp-endpoint: {other.url}\n")
        server.kill(signal.SIGHUP)
        server.wait_log("reloaded: 1 new workers serve")
        wait_for(lambda: len(server.keeper_pids()) == 1, what="the old keeper has ended")
        server.get("/hello")
        other.wait(1)
        assert len(collector.spans) == 1
    finally:
        other.close()


def test_an_endpoint_that_is_no_url_is_told_at_the_start(weir: Starter) -> None:
    server = weir("basic:app", otlp_endpoint="localhost:4318", ready=False)
    server.expected_status = (2,)
    server.wait_end()
    assert "otlp-endpoint" in server.log and "http://localhost:4318/v1/traces" in server.log


# ---- docs/traces.md ----

PAGE = (ROOT / "docs" / "traces.md").read_text()


def block(name: str) -> str:
    found = re.search(rf"```python\n(# {re.escape(name)}\n.*?)```", PAGE, re.S)
    assert found
    return found[1]


def test_the_pages_example_is_one_trace_through_two_services(weir: Starter, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(block("app.py"))
    source = block("collector.py").replace("4318", "int(__import__('sys').argv[1])")
    (tmp_path / "collector.py").write_text(source)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    with subprocess.Popen([PYTHON, str(tmp_path / "collector.py"), str(port)], stdout=subprocess.PIPE, text=True) as collector:
        try:
            endpoint = f"http://127.0.0.1:{port}/v1/traces"
            form = "%(trace_id)s %(x_request_id)s"
            inner = weir("basic:app", access_log="-", access_log_format=form, otlp_endpoint=endpoint, otlp_service="inner")
            outer = weir("app:app", cwd=tmp_path, access_log="-", access_log_format=form, otlp_endpoint=endpoint,
                         otlp_service="outer", env={"FLASK_OTHER": f"{inner.url}/hello", "PYTHONPATH": str(tmp_path)})
            answer = outer.get("/", "X-Request-Id: order-4711")
            assert answer.status == 200 and answer.get("X-Request-Id") == "order-4711"
            lines = [wait_for(lambda s=s: s.out.split(), what="an access line") for s in (inner, outer)]
            assert lines[0] == lines[1] and lines[0][1] == "order-4711"
            assert collector.stdout
            spans = sorted([collector.stdout.readline().split() for _ in range(2)], key=lambda row: row[1] != "-")
        finally:
            collector.kill()
    assert [row[0] for row in spans] == [lines[0][0]] * 2
    assert spans[0][1] == "-" and spans[1][1] == spans[0][2]  # the inner one is a child of the outer one


def test_the_page_tells_what_a_span_holds(weir: Starter, collector: Collector) -> None:
    server = weir("basic:app", otlp_endpoint=collector.url)
    server.get("/fail")
    (span,) = collector.wait(1)
    assert [k for k in attributes(span) if f"`{k}`" not in PAGE] == []
    assert [e["name"] for e in span["events"] if f"`{e['name']}`" not in PAGE] == []
