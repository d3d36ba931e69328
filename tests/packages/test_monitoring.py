"""deploy/prometheus and deploy/grafana, by what promtool says of them and by the table of metrics."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from package_helpers import ROOT, run

PROMETHEUS = ROOT / "deploy/prometheus"
DASHBOARD = ROOT / "deploy/grafana/weir.json"

needs_promtool = pytest.mark.skipif(not shutil.which("promtool"), reason="promtool is not installed")


def known() -> dict[str, tuple[str, set[str]]]:
    """Type and labels of each metric."""
    text = (ROOT / "src/obs/metrics.def").read_text()
    found = {}
    for kind, rest in re.findall(r"^(METRIC|HISTOGRAM)\((\w+, .*)$", text, re.M):
        name = re.search(r'"(\w+)"', rest)[1]  # type: ignore[index]
        unit_and_labels = re.findall(r'"([^"]*)"', rest)[1:3]
        labels = {label for label in unit_and_labels[1].split(",") if label}
        if kind == "HISTOGRAM":
            found[f"{name}_bucket"] = ("histogram", labels | {"le"})
            found[f"{name}_sum"] = found[f"{name}_count"] = ("histogram", labels)
        else:
            found[name] = (rest.split(",")[2].strip().lower(), labels)
    return found


METRICS = known()
OF_PROMETHEUS = {"job", "instance"}


def faults(expression: str) -> list[str]:
    """Metrics and labels of an expression that do not exist, and counters that are shown as they are."""
    bad = []
    for name, chosen in re.findall(r"\b(weir_\w+)(?:\{([^}]*)\})?", expression):
        if name not in METRICS:
            bad.append(f"{name}: there is no such metric")
            continue
        labels = set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", re.sub(r'"[^"]*"', "", chosen)))
        bad += [f"{name}: no label {label}" for label in labels - METRICS[name][1] - OF_PROMETHEUS]
        changes = re.search(r"(rate|increase|changes)\(" + re.escape(name) + r"\b", expression)
        if METRICS[name][0] in ("counter", "histogram") and not changes and "label_values" not in expression:
            bad.append(f"{name}: a counter without rate")
    return bad


def expressions(node: object) -> list[str]:
    """Every query of the dashboard."""
    found = []
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("expr", "definition") and isinstance(value, str):
                found.append(value)
            else:
                found += expressions(value)
    elif isinstance(node, list):
        for value in node:
            found += expressions(value)
    return found


def alerts() -> list[str]:
    return re.findall(r"^ *- alert: (\w+)$", (PROMETHEUS / "weir.rules.yml").read_text(), re.M)


# ---- rules ----


@needs_promtool
def test_prometheus_takes_the_configuration_and_the_rules():
    run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")
    run("promtool", "check", "rules", PROMETHEUS / "weir.rules.yml")


@needs_promtool
def test_each_alert_fires_where_it_has_to():
    run("promtool", "test", "rules", PROMETHEUS / "weir.rules_test.yml")


def test_each_alert_is_tested_to_fire():
    text = (PROMETHEUS / "weir.rules_test.yml").read_text()
    fires = re.findall(r'alertname="(\w+)"', text) + re.findall(r"alertname: (\w+)", text)
    assert sorted(set(fires)) == sorted(alerts())


@needs_promtool
def test_an_alert_that_never_fires_would_be_found(tmp_path):
    text = (PROMETHEUS / "weir.rules.yml").read_text()
    (tmp_path / "weir.rules.yml").write_text(text.replace("weir_jwks_failing == 1", "weir_jwks_failing == 2"))
    shutil.copy(PROMETHEUS / "weir.rules_test.yml", tmp_path)
    command = ["promtool", "test", "rules", tmp_path / "weir.rules_test.yml"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode != 0 and "WeirKeySetFails" in done.stdout + done.stderr


def test_each_alert_says_what_to_do():
    text = (PROMETHEUS / "weir.rules.yml").read_text()
    page = (ROOT / "docs/alerts.md").read_text()
    names = alerts()
    assert len(names) >= 15 and re.findall(r"^## (\w+)$", page, re.M) == names
    for name, rule in zip(names, re.split(r"^ *- alert: ", text, flags=re.M)[1:]):
        assert f"runbook: docs/alerts.md#{name.lower()}\n" in rule
        assert re.search(r"severity: (critical|warning|info)}", rule)
        assert 'summary: "' in rule and len(re.search(r'description: "(.*)"', rule)[1]) > 80  # type: ignore[index]


def test_rules_and_dashboard_know_the_metrics():
    rules = (PROMETHEUS / "weir.rules.yml").read_text()
    of_rules = re.findall(r"expr: (?:\|\n((?: {10,}.*\n)+)|(.*)\n)", rules)
    found = [a or b for a, b in of_rules]
    assert len(found) == len(alerts())
    found += expressions(json.loads(DASHBOARD.read_text()))
    assert [fault for expression in found for fault in faults(expression)] == []


def test_the_tests_of_the_rules_know_the_metrics():
    series = re.findall(r"series: '(weir_[^']*)'", (PROMETHEUS / "weir.rules_test.yml").read_text())
    assert len(series) > 40
    bad = [fault for one in series for fault in faults(one) if "without rate" not in fault]
    assert bad == []


def test_a_metric_that_does_not_exist_is_found():
    assert faults('rate(weir_request_total{route="x"}[5m])') == ["weir_request_total: there is no such metric"]
    assert faults('weir_ready{worker="x"}') == ["weir_ready: no label worker"]
    assert faults("sum(weir_requests_total)") == ["weir_requests_total: a counter without rate"]


# ---- dashboard ----


def test_each_panel_of_the_dashboard_has_its_place():
    dashboard = json.loads(DASHBOARD.read_text())
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {(x, y) for x in range(place["x"], place["x"] + place["w"])
                 for y in range(place["y"], place["y"] + place["h"])}
        assert not cells & taken and max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
        assert panel["type"] == "row" or panel["targets"], panel["title"]


@needs_promtool
def test_prometheus_takes_every_query_of_the_dashboard(tmp_path):
    """As rules: promtool 2.42 checks an expression in no other way."""
    queries = [q for q in expressions(json.loads(DASHBOARD.read_text())) if "label_values" not in q]
    assert len(queries) > 30
    rules = [{"record": f"x:{i}", "expr": q.replace("$__rate_interval", "1m")} for i, q in enumerate(queries)]
    path = Path(tmp_path / "rules.yml")
    path.write_text(json.dumps({"groups": [{"name": "x", "rules": rules}]}))  # JSON is YAML
    run("promtool", "check", "rules", path)
