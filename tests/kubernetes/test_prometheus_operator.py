"""What the chart makes for the Prometheus operator, on a server that knows its definitions. It does not run itself."""

import copy
from typing import Any

from tests.helm.conftest import Chart, Values, minimal, written
from tests.kubernetes.conftest import SECONDS_MAX, Define
from tests.kubernetes.control_plane import Api
from tests.kubernetes.published import PROMETHEUS_OPERATOR

NEEDS = (PROMETHEUS_OPERATOR,)
PATHS = {"ServiceMonitor": "servicemonitors", "PrometheusRule": "prometheusrules"}
API = "/apis/monitoring.coreos.com/v1/namespaces"


def values(interval: str = "30s") -> Values:
    asked = written("kubernetes.md", "networkPolicy")
    asked["serviceMonitor"]["interval"] = interval
    rules = {"enabled": True, "labels": asked["serviceMonitor"]["labels"]}
    return minimal(**asked, prometheusRule=rules, provision={"enabled": False})


def test_the_server_takes_them_by_the_operators_definitions(
    api: Api, define: Define, chart: Chart, namespace: str
) -> None:
    define(PROMETHEUS_OPERATOR)
    objects = chart.render(values())
    for kind, plural in PATHS.items():
        path = f"{API}/{namespace}/{plural}?fieldValidation=Strict"
        answer = api.post(path, objects[kind, "rel"])
        assert answer.status_code == 201, answer.text
        assert "warning" not in answer.headers
        assert answer.json()["spec"] == objects[kind, "rel"]["spec"], "nothing is dropped, nothing is added"
    monitor, rule = copy.deepcopy([objects[kind, "rel"] for kind in PATHS])
    monitor["spec"]["endpoints"][0]["intervall"] = "30s"
    rule["spec"]["groups"][0]["rules"][0]["summary"] = "stalled"
    for wrong, said in ((monitor, "intervall"), (rule, "summary")):
        wrong["metadata"]["name"] = "wrong"
        answer = api.post(f"{API}/{namespace}/{PATHS[wrong['kind']]}?fieldValidation=Strict", wrong)
        assert answer.status_code == 400, answer.text
        assert 'unknown field \\"spec' in answer.text
        assert said in answer.text


def test_a_release_brings_them_changes_them_and_takes_them_along(
    api: Api, define: Define, helm: Any, chart: Chart, namespace: str
) -> None:
    define(PROMETHEUS_OPERATOR)

    def found(kind: str) -> Any:
        return api.get(f"{API}/{namespace}/{PATHS[kind]}/shop")

    helm.install(chart.folder, "shop", values(), wait="watcher", timeout=SECONDS_MAX)
    (endpoint,) = found("ServiceMonitor")["spec"]["endpoints"]
    assert found("ServiceMonitor")["metadata"]["labels"]["release"] == "prometheus"
    assert endpoint == {"port": "health", "path": "/metrics", "interval": "30s"}
    selector = ",".join(f"{k}={v}" for k, v in found("ServiceMonitor")["spec"]["selector"]["matchLabels"].items())
    (service,) = api.items(f"/api/v1/namespaces/{namespace}/services", labelSelector=selector)
    assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}, "what the operator would read"
    (group,) = found("PrometheusRule")["spec"]["groups"]
    assert len(group["rules"]) > 10

    helm.upgrade(chart.folder, "shop", values(interval="1m"), wait="watcher", timeout=SECONDS_MAX)
    assert found("ServiceMonitor")["spec"]["endpoints"][0]["interval"] == "1m"
    helm.upgrade(chart.folder, "shop", minimal(), wait="watcher", timeout=SECONDS_MAX)
    assert found("ServiceMonitor") is found("PrometheusRule") is None
    helm.rollback("shop", version=2, wait="watcher", timeout=SECONDS_MAX)
    assert found("ServiceMonitor") is not None
    helm.uninstall("shop", wait="watcher", timeout=SECONDS_MAX)
    assert found("ServiceMonitor") is found("PrometheusRule") is None
