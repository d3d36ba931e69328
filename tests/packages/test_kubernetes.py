"""deploy/kubernetes: no cluster is here, so the manifests are read and held against each other and against Weir."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml
from package_helpers import ROOT

FOLDER = ROOT / "deploy/kubernetes"

# What the API knows of the parts that are used (apps/v1, v1 of Kubernetes 1.30); a misspelt field is silently dropped by
# some clients, so it is an error here.
KNOWN: dict[str, Any] = {
    "Deployment": {
        "apiVersion": "apps/v1", "kind": str, "metadata": {"name": str, "labels": dict},
        "spec": {
            "replicas": int, "selector": {"matchLabels": dict},
            "strategy": {"rollingUpdate": {"maxUnavailable": int, "maxSurge": int}},
            "template": {
                "metadata": {"labels": dict},
                "spec": {
                    "terminationGracePeriodSeconds": int, "automountServiceAccountToken": bool,
                    "securityContext": {"runAsNonRoot": bool, "runAsUser": int, "runAsGroup": int, "fsGroup": int,
                                        "seccompProfile": {"type": str}},
                    "containers": [{
                        "name": str, "image": str, "args": [str], "ports": [{"name": str, "containerPort": int}],
                        "env": [{"name": str, "value": str}],
                        "resources": {"requests": {"cpu": str, "memory": str}, "limits": {"cpu": str, "memory": str}},
                        **{probe: {"httpGet": {"path": str, "port": str}, "periodSeconds": int, "timeoutSeconds": int,
                                   "failureThreshold": int} for probe in ("startupProbe", "livenessProbe", "readinessProbe")},
                        "lifecycle": {"preStop": {"exec": {"command": [str]}}},
                        "securityContext": {"allowPrivilegeEscalation": bool, "readOnlyRootFilesystem": bool,
                                            "capabilities": {"drop": [str]}},
                        "volumeMounts": [{"name": str, "mountPath": str}],
                    }],
                    "volumes": [{"name": str, "emptyDir": {"sizeLimit": str}}],
                },
            },
        },
    },
    "Service": {
        "apiVersion": "v1", "kind": str, "metadata": {"name": str, "labels": dict},
        "spec": {"selector": dict, "ports": [{"name": str, "port": int, "targetPort": str}]},
    },
}


def faults(value: Any, known: Any, where: str) -> list[str]:
    if isinstance(known, str):
        return [] if value == known else [f"{where}: {value!r} is not {known!r}"]
    if isinstance(known, type):
        return [] if type(value) is known else [f"{where}: {value!r} is no {known.__name__}"]
    if isinstance(known, list):
        if not isinstance(value, list):
            return [f"{where}: no list"]
        return [f for i, item in enumerate(value) for f in faults(item, known[0], f"{where}[{i}]")]
    if not isinstance(value, dict):
        return [f"{where}: no mapping"]
    found = [f"{where}.{name}: unknown" for name in value if name not in known]
    return found + [f for name, item in value.items() if name in known for f in faults(item, known[name], f"{where}.{name}")]


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((FOLDER / name).read_text())


@pytest.mark.parametrize("path", sorted(FOLDER.iterdir()), ids=lambda p: p.name)
def test_every_field_is_known_and_of_its_type(path):
    document = load(path.name)
    assert not faults(document, KNOWN[document["kind"]], document["kind"])


def test_a_misspelt_field_would_be_found():
    document = load("deployment.yaml")
    document["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    assert faults(document, KNOWN["Deployment"], "Deployment") == [
        "Deployment.spec.template.spec.containers[0].readynessProbe: unknown"]


@pytest.fixture
def pod() -> dict[str, Any]:
    return load("deployment.yaml")["spec"]["template"]["spec"]


@pytest.fixture
def container(pod) -> dict[str, Any]:
    return pod["containers"][0]


def variables(container) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container["env"]}


def test_labels_select_the_pods():
    deployment, service = load("deployment.yaml"), load("service.yaml")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"] == labels


def test_ports_and_probes_meet(container):
    (port,) = container["ports"]
    assert str(port["containerPort"]) == variables(container)["PORT"]
    assert load("service.yaml")["spec"]["ports"][0]["targetPort"] == port["name"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"] == {"path": "/-/ping", "port": port["name"]}


def test_a_pod_is_given_more_time_than_it_takes_to_stop(pod, container):
    pause = int(re.search(r"sleep\((\d+)\)", " ".join(container["lifecycle"]["preStop"]["exec"]["command"]))[1])
    grace = int(re.fullmatch(r"(\d+)s", variables(container)["WEIR_GRACE"])[1])
    probe = container["readinessProbe"]
    assert pod["terminationGracePeriodSeconds"] > pause + grace + 5
    assert pause > probe["periodSeconds"]


def test_the_pod_is_not_root_and_writes_nothing_but_its_folder(pod, container):
    user = re.search(r"^USER (\d+):(\d+)$", (ROOT / "deploy/docker/Dockerfile").read_text(), re.M)
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True and context["seccompProfile"]["type"] == "RuntimeDefault"
    assert [str(context["runAsUser"]), str(context["runAsGroup"])] == [user[1], user[2]]
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True,
                                            "capabilities": {"drop": ["ALL"]}}
    assert [m["mountPath"] for m in container["volumeMounts"]] == ["/tmp", "/var/lib/weir"]


def test_settings_exist(container):
    known = set(re.findall(r'^SETTING\(\w+, \w+, "([^"]+)"', (ROOT / "src/conf/settings.def").read_text(), re.M))
    for name in variables(container):
        assert name == "PORT" or name.removeprefix("WEIR_").lower().replace("_", "-") in known


def test_workers_follow_a_limit_that_is_set(container):
    assert variables(container)["WEIR_WORKERS"] == "auto"
    assert container["resources"]["limits"]["cpu"]
