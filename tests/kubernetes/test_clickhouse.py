"""A release whose tables stand on a ClickHouse server, on a real API server. Neither it nor any container runs."""

from functools import partial
from typing import Any

import pytest

from tests.helm.conftest import Chart, Values, minimal
from tests.kubernetes.conftest import SECONDS_MAX, eventually
from tests.kubernetes.control_plane import Api
from tests.kubernetes.node import Node
from tests.kubernetes.test_release import CLICKHOUSE, Pods, names


def values(**rebuild: Any) -> Values:
    return minimal(clickhouse=CLICKHOUSE, rebuild={"enabled": True, **rebuild})


@pytest.fixture(autouse=True)
def authority(api: Api, namespace: str) -> None:
    """What the values name."""
    named = {"metadata": {"name": CLICKHOUSE["tls"]["caConfigMap"]}, "data": {"ca.crt": "…"}}
    api.post(f"/api/v1/namespaces/{namespace}/configmaps", named).raise_for_status()


def jobs(api: Api, namespace: str) -> dict[str, Any]:
    """The rebuilds, by name."""
    found = api.items(
        f"/apis/batch/v1/namespaces/{namespace}/jobs", labelSelector="app.kubernetes.io/component=rebuild"
    )
    return {job["metadata"]["name"]: job for job in found}


def test_a_release_moves_to_a_server_and_back(
    api: Api, helm: Any, chart: Chart, namespace: str, node: Node, pods: Pods
) -> None:
    apps = f"/apis/apps/v1/namespaces/{namespace}"
    secrets = f"/api/v1/namespaces/{namespace}/secrets"
    claims = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"

    def projectors() -> list[str]:
        """What there is of both kinds."""
        return [kind for kind in ("statefulsets", "deployments") if api.get(f"{apps}/{kind}/shop-projector")]

    helm.install(chart.folder, "shop", minimal(), wait="watcher", timeout=SECONDS_MAX)
    assert projectors() == ["statefulsets"]
    workers = names(pods("worker-order"))

    helm.upgrade(chart.folder, "shop", values(), wait="watcher", timeout=SECONDS_MAX)
    eventually(lambda: projectors() == ["deployments"], "the one without a volume alone")
    eventually(lambda: len(pods("projector")) == 1, "its pod, and not the old one's")
    assert pods("projector")[0]["metadata"]["ownerReferences"][0]["kind"] == "ReplicaSet", "admitted as restricted"
    assert names(pods("worker-order")) == workers, "no partition moves for it"
    assert api.get(f"{secrets}/shop-clickhouse")
    assert not api.get(f"{secrets}/shop-provision-clickhouse"), "it is gone with the Job that needed it"
    assert [claim["metadata"]["name"] for claim in api.items(claims)] == ["data-shop-projector-0"], "the tables stay"
    eventually(lambda: jobs(api, namespace)["shop-rebuild-2"]["status"].get("succeeded"), "its pod is admitted too")

    helm.rollback("shop", version=1, wait="watcher", timeout=SECONDS_MAX)
    eventually(lambda: projectors() == ["statefulsets"], "the one with the volume alone")
    eventually(lambda: names(pods("projector")) == {"shop-projector-0"}, "its pod")
    assert not jobs(api, namespace)
    assert api.get(f"{secrets}/shop-clickhouse") is None
    assert len(api.items(claims)) == 1, "the volume that there was"


def test_each_upgrade_has_a_rebuild_of_its_own_and_waits_for_none(
    api: Api, helm: Any, chart: Chart, namespace: str, node: Node
) -> None:
    def is_the_only_one(name: str) -> bool:
        return jobs(api, namespace).keys() == {name}

    without = {"provision": {"enabled": False}}
    helm.install(chart.folder, "shop", values() | without, wait="watcher", timeout=SECONDS_MAX)
    assert not jobs(api, namespace), "there is nothing yet that could be rebuilt"
    node.starts_pods = False
    for revision, projections in ((2, ["Board"]), (3, ["Board", "Delays"])):
        helm.upgrade(chart.folder, "shop", values(names=projections) | without, wait="watcher", timeout=SECONDS_MAX)
        eventually(partial(is_the_only_one, f"shop-rebuild-{revision}"), "this one's alone")
        job = jobs(api, namespace)[f"shop-rebuild-{revision}"]
        assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["rebuild", "shop.pipeline", *projections]
        assert not job["status"].get("succeeded"), "it goes on behind the upgrade"
    node.starts_pods = True
    eventually(lambda: jobs(api, namespace)["shop-rebuild-3"]["status"].get("succeeded"), "once it can, it is done")


def test_a_group_of_tables_gets_projectors_of_its_own_and_a_rollback_takes_them_back(
    api: Api, helm: Any, chart: Chart, namespace: str, pods: Pods
) -> None:
    deployment = f"/apis/apps/v1/namespaces/{namespace}/deployments/shop-projector-boards"
    budget = f"/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets/shop-projector-boards"
    helm.install(chart.folder, "shop", values(), wait="watcher", timeout=SECONDS_MAX)
    (first,), workers = names(pods("projector")), names(pods("worker-order"))

    groups = {"projectors": {"boards": {"tables": ["Board"], "replicas": 2}}}
    helm.upgrade(chart.folder, "shop", values() | groups, wait="watcher", timeout=SECONDS_MAX)
    assert len(pods("projector-boards")) == 2
    eventually(lambda: len(pods("projector")) == 1, "the one of the other tables, which it is told")
    assert names(pods("projector")) != {first}
    assert names(pods("worker-order")) == workers, "no partition of theirs moves"
    eventually(lambda: api.get(budget)["status"]["currentHealthy"] == 2, "the budget looks after them")

    helm.rollback("shop", version=1, wait="watcher", timeout=SECONDS_MAX)
    eventually(lambda: not pods("projector-boards"), "they are gone")
    assert api.get(deployment) is None
    eventually(lambda: len(pods("projector")) == 1, "one feeds all tables again")
