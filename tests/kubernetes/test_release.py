"""A release on a real API server, with its controllers, in a namespace that admits restricted pods alone."""

import copy
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import helm_python
import pytest

from tests.helm.conftest import Chart, Values, minimal
from tests.kubernetes.conftest import SECONDS_MAX, eventually
from tests.kubernetes.control_plane import Api
from tests.kubernetes.node import Node

Pods = Callable[[str], list[Any]]


def values(replicas: int = 2, tag: str = "1.0.0") -> dict[str, Any]:
    changed = minimal(image={"repository": "registry.example/shop", "tag": tag})
    changed["workers"]["order"]["replicas"] = replicas
    return changed


def names(pods: list[Any]) -> set[str]:
    return {pod["metadata"]["name"] for pod in pods}


def images(pods: list[Any]) -> set[str]:
    return {pod["spec"]["containers"][0]["image"] for pod in pods}


def test_a_release_comes_changes_goes_back_and_goes(
    api: Api, helm: Any, chart: Chart, namespace: str, pods: Pods
) -> None:
    helm.install(chart.folder, "shop", values(), wait="watcher", timeout=SECONDS_MAX)
    assert len(pods("worker-order")) == len(pods("worker-stock-item")) == 2
    assert len(pods("projector")) == 1
    job = api.get(f"/apis/batch/v1/namespaces/{namespace}/jobs/shop-provision")
    deployment = api.get(f"/apis/apps/v1/namespaces/{namespace}/deployments/shop-worker-order")
    assert job["status"]["succeeded"] == 1
    assert job["status"]["completionTime"] <= deployment["metadata"]["creationTimestamp"], "the topics come first"

    untouched = names(pods("worker-stock-item"))
    helm.upgrade(chart.folder, "shop", values(replicas=3), wait="watcher", timeout=SECONDS_MAX)
    assert len(pods("worker-order")) == 3
    assert names(pods("worker-stock-item")) == untouched, "what has not changed goes on"

    helm.upgrade(chart.folder, "shop", values(replicas=3, tag="2.0.0"), wait="watcher", timeout=SECONDS_MAX)
    eventually(lambda: images(pods("worker-order")) == {"registry.example/shop:2.0.0"}, "the new image everywhere")
    helm.rollback("shop", version=1, wait="watcher", timeout=SECONDS_MAX)
    eventually(lambda: images(pods("worker-order")) == {"registry.example/shop:1.0.0"}, "the old image everywhere")
    eventually(lambda: len(pods("worker-order")) == 2, "as many as there were")

    assert helm.test("shop", timeout=SECONDS_MAX)
    helm.uninstall("shop", wait="watcher", timeout=SECONDS_MAX)
    eventually(lambda: not pods("worker-order") and not pods("projector"), "no pods")
    claims = api.items(f"/api/v1/namespaces/{namespace}/persistentvolumeclaims")
    assert [claim["metadata"]["name"] for claim in claims] == ["data-shop-projector-0"], "the tables stay"


def test_an_upgrade_whose_provision_fails_leaves_the_release_at_work(
    helm: Any, chart: Chart, node: Node, pods: Pods
) -> None:
    helm.install(chart.folder, "shop", values(), wait="watcher", timeout=SECONDS_MAX)
    at_work = names(pods("worker-order")) | names(pods("projector"))
    node.jobs_fail = True
    failing = values(tag="2.0.0") | {"provision": {"backoffLimit": 0}}
    with pytest.raises(helm_python.HelmError, match="pre-upgrade"):
        helm.upgrade(chart.folder, "shop", failing, wait="watcher", timeout=SECONDS_MAX)
    assert names(pods("worker-order")) | names(pods("projector")) == at_work
    assert images(pods("worker-order")) == {"registry.example/shop:1.0.0"}
    node.jobs_fail = False
    helm.upgrade(chart.folder, "shop", values(tag="2.0.0"), wait="watcher", timeout=SECONDS_MAX)
    eventually(lambda: images(pods("worker-order")) == {"registry.example/shop:2.0.0"}, "the same upgrade, once it can")


def test_what_the_job_needs_is_there_while_it_runs_and_then_no_more(
    api: Api, helm: Any, chart: Chart, namespace: str, node: Node
) -> None:
    """Its token, and the way to Pulsar that the release's own policy may not leave open yet."""
    made = [
        f"/api/v1/namespaces/{namespace}/secrets",
        f"/apis/networking.k8s.io/v1/namespaces/{namespace}/networkpolicies",
    ]

    def there() -> list[bool]:
        return ["shop-provision" in names(api.items(path)) for path in made]

    given = values()
    given["pulsar"]["auth"] = {"token": "secret"}
    node.starts_pods = False
    with ThreadPoolExecutor(1) as thread:
        installing = thread.submit(helm.install, chart.folder, "shop", given, wait="watcher", timeout=SECONDS_MAX)
        jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        eventually(lambda: names(api.items(jobs)) == {"shop-provision"}, "the Job")
        assert there() == [True, True]
        node.starts_pods = True
        installing.result()
    assert there() == [False, False]
    assert "shop-token" in names(api.items(made[0]))


def test_an_upgrade_takes_one_worker_at_a_time_and_adds_none(
    api: Api, helm: Any, chart: Chart, namespace: str, node: Node, pods: Pods
) -> None:
    helm.install(chart.folder, "shop", values(replicas=3), wait="watcher", timeout=SECONDS_MAX)
    before = names(pods("worker-order"))
    new = values(replicas=3, tag="2.0.0") | {"provision": {"enabled": False}}
    node.starts_pods = False
    helm.upgrade(chart.folder, "shop", new, timeout=SECONDS_MAX)
    eventually(lambda: names(pods("worker-order")) - before, "a new one, which does not get ready")
    assert len(pods("worker-order")) == 3
    assert len(names(pods("worker-order")) & before) == 2, "one at a time"
    node.starts_pods = True
    eventually(lambda: not names(pods("worker-order")) & before, "all are new")


def evicted(api: Api, namespace: str, pod: str) -> int:
    """What the server answers to who drains the node of a pod."""
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": namespace}}
    return api.post(f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction", body).status_code


def test_a_drain_is_held_up_by_the_budget(
    api: Api, helm: Any, chart: Chart, namespace: str, node: Node, pods: Pods
) -> None:
    helm.install(chart.folder, "shop", values(), wait="watcher", timeout=SECONDS_MAX)
    first, second = sorted(names(pods("worker-order")))
    budget = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets/shop-worker-order"
    eventually(lambda: api.get(budget)["status"].get("disruptionsAllowed") == 1, "the budget knows its pods")
    node.starts_pods = False
    assert evicted(api, namespace, first) == 201
    assert evicted(api, namespace, second) == 429
    node.starts_pods = True
    eventually(lambda: evicted(api, namespace, second) == 201, "the next, once the first has been replaced")


def test_without_the_budget_a_drain_takes_all_workers_at_once(
    api: Api, helm: Any, chart: Chart, namespace: str, node: Node, pods: Pods
) -> None:
    unprotected = values() | {part: {"enabled": False} for part in ("podDisruptionBudget", "provision", "projector")}
    helm.install(chart.folder, "shop", unprotected, wait="watcher", timeout=SECONDS_MAX)
    first, second = sorted(names(pods("worker-order")))
    node.starts_pods = False
    assert evicted(api, namespace, first) == 201
    assert evicted(api, namespace, second) == 201


def test_what_is_less_restricted_is_refused(api: Api, chart: Chart, namespace: str) -> None:
    deployment = chart.render(values())["Deployment", "rel-worker-order"]
    account = {"metadata": {"name": deployment["spec"]["template"]["spec"]["serviceAccountName"]}}
    api.post(f"/api/v1/namespaces/{namespace}/serviceaccounts", account).raise_for_status()

    def made(name: str, change: Callable[[Any], None]) -> tuple[int, str]:
        spec = copy.deepcopy(deployment["spec"]["template"]["spec"])
        change(spec)
        answer = api.post(f"/api/v1/namespaces/{namespace}/pods", {"metadata": {"name": name}, "spec": spec})
        return answer.status_code, answer.text

    assert made("as-it-is", lambda _: None)[0] == 201
    changes: dict[str, Callable[[Any], None]] = {
        "seccompProfile": lambda spec: spec["securityContext"].pop("seccompProfile"),
        "runAsNonRoot": lambda spec: spec["securityContext"].pop("runAsNonRoot"),
        "capabilities": lambda spec: spec["containers"][0]["securityContext"].pop("capabilities"),
        "allowPrivilegeEscalation": lambda spec: spec["containers"][0]["securityContext"].pop(
            "allowPrivilegeEscalation"
        ),
        "hostPath": lambda spec: spec["volumes"].append({"name": "host", "hostPath": {"path": "/"}}),
    }
    for named, change in changes.items():
        status, said = made(named.lower(), change)
        assert status == 403, named
        assert 'violates PodSecurity "restricted' in said.replace("\\", ""), named
        assert named in said or f"{named} volumes" in said


MISSING: dict[str, tuple[Values, str, dict[str, str]]] = {
    # By the value that names what is missing: the values, the kind of it, and what it would have.
    "pulsar.auth.existingSecret": ({"pulsar": {"auth": {"existingSecret": "it"}}}, "Secret", {"token": "eA=="}),
    "pulsar.tls.caConfigMap": ({"pulsar": {"tls": {"caConfigMap": "it"}}}, "ConfigMap", {"ca.crt": "x"}),
    "clickhouse.auth.existingSecret": (
        {"clickhouse": {"auth": {"existingSecret": "it"}}},
        "Secret",
        {"password": "eA=="},
    ),
    "clickhouse.tls.caConfigMap": ({"clickhouse": {"tls": {"caConfigMap": "it"}}}, "ConfigMap", {"ca.crt": "x"}),
    "pulsar.tls.caSecret": ({"pulsar": {"tls": {"caSecret": "it"}}}, "Secret", {"ca.crt": "eA=="}),
    "clickhouse.tls.caSecret": ({"clickhouse": {"tls": {"caSecret": "it"}}}, "Secret", {"ca.crt": "eA=="}),
    "image.pullSecrets": ({"image": {"pullSecrets": ["it"]}}, "Secret", {}),
}


@pytest.mark.parametrize("named", MISSING)
def test_what_is_named_and_not_there_is_refused_by_the_values_name(
    api: Api, helm: Any, chart: Chart, namespace: str, pods: Pods, named: str
) -> None:
    changes, kind, data = MISSING[named]
    given = values() | {"clickhouse": {"url": "https://c:8443"}}
    given = given | {part: given[part] | more for part, more in changes.items()}
    made = f"/api/v1/namespaces/{namespace}/{kind.lower()}s"
    eventually(lambda: api.get(f"/api/v1/namespaces/{namespace}/serviceaccounts/default"), "a namespace to ask")

    with pytest.raises(helm_python.HelmError) as refused:
        helm.install(chart.folder, "shop", given, timeout=SECONDS_MAX)
    assert f'{named} is "it", and there is no such {kind} in the namespace {namespace}' in str(refused.value)
    assert not pods("provision")

    if data:
        other = {"metadata": {"name": "it"}, "data": {"other": "eA=="}}
        api.post(made, other).raise_for_status()
        with pytest.raises(
            helm_python.HelmError, match=rf"{named.rpartition('.')[0]}.key is .*, and the {kind} it has only: other"
        ):
            helm.install(chart.folder, "shop", given, timeout=SECONDS_MAX)
        api.delete(f"{made}/it", 0)
    api.post(made, {"metadata": {"name": "it"}, "data": data}).raise_for_status()
    helm.install(chart.folder, "shop", given, wait="watcher", timeout=SECONDS_MAX)


TOKEN = {"url": "pulsar+ssl://p:6651", "adminUrl": "https://p:8443", "auth": {"token": "x"}}
CLICKHOUSE: dict[str, Any] = {
    "url": "https://c:8443",
    "user": "projector",
    "auth": {"password": "x"},
    "tls": {"caConfigMap": "authority"},
}
STRICT = {
    "the engine within": {"pulsar": TOKEN, "dashboards": {"enabled": True}},
    "a server": {"pulsar": TOKEN, "clickhouse": CLICKHOUSE, "rebuild": {"enabled": True, "names": ["Board"]}},
    "groups of tables, and authorities from Secrets": {
        "pulsar": TOKEN | {"tls": {"caSecret": "brokers-tls"}},
        "clickhouse": CLICKHOUSE | {"tls": {"caSecret": "server-tls"}},
        "projectors": {"boards": {"tables": ["Board", "Late"], "replicas": 2}},
    },
}


@pytest.mark.parametrize("changes", STRICT.values(), ids=STRICT)
def test_the_server_takes_every_object_of_the_chart_strictly(
    api: Api, chart: Chart, namespace: str, changes: Values
) -> None:
    """Unknown fields are errors to a server that is asked to say so, and warnings to Helm."""
    paths = {
        "Deployment": "/apis/apps/v1/{}/deployments",
        "StatefulSet": "/apis/apps/v1/{}/statefulsets",
        "Job": "/apis/batch/v1/{}/jobs",
        "Service": "/api/v1/{}/services",
        "ServiceAccount": "/api/v1/{}/serviceaccounts",
        "ConfigMap": "/api/v1/{}/configmaps",
        "Secret": "/api/v1/{}/secrets",
        "Pod": "/api/v1/{}/pods",
        "NetworkPolicy": "/apis/networking.k8s.io/v1/{}/networkpolicies",
        "PodDisruptionBudget": "/apis/policy/v1/{}/poddisruptionbudgets",
    }
    objects = chart.render(minimal(**changes))
    order = sorted(objects, key=lambda key: key[0] not in {"ServiceAccount", "Secret", "ConfigMap"})
    for kind, name in order:
        rendered = objects[kind, name]
        path = paths[kind].format(f"namespaces/{namespace}")
        answer = api.post(f"{path}?fieldValidation=Strict", rendered)
        assert answer.status_code == 201, (name, answer.text)
        assert "warning" not in answer.headers, (name, answer.headers["warning"])
