"""The flights' pipeline in containers, on a real node: commands from outside come out in ClickHouse, whatever dies."""

import json
import os
import shutil
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import helm_python
import pytest
from magnetar.pipelines import SyncClient
from magnetar.pipelines.chart import write_chart
from magnetar.pipelines.settings import Settings

from examples.flights import demo
from examples.flights.data import commands, expected, rows
from examples.flights.pipeline import flights
from tests.chaos.processes import eventually
from tests.image_rig import build, done, new_project, run
from tests.kubernetes.control_plane import Api, running
from tests.node_rig import BRIDGE, GATEWAY, RealNode, network
from tests.pulsar_rig import Standalone, data_folder, started

ROOT = Path(__file__).resolve().parents[2]
IMAGE = "localhost/magnetar-flights:test"
FLIGHTS = 2_000
SECONDS_MAX = 600
PODS = "/api/v1/namespaces/flights/pods"


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image of a project with the flights' modules, from the Dockerfile of `magnetar new`."""
    project = new_project(tmp_path_factory.mktemp("project"), "flights")
    shutil.rmtree(project / "flights")
    shutil.copytree(ROOT / "examples" / "flights", project / "flights")
    yield build(project, IMAGE)
    done(run("podman", "rmi", "--force", IMAGE))  # it is large


@pytest.fixture(scope="session")
def broker() -> Iterator[Standalone]:
    """A Pulsar on this machine, where pods find it."""
    with (
        network(),
        data_folder() as folder,
        started(Standalone(folder, address=GATEWAY, interface=BRIDGE)) as standalone,
    ):
        yield standalone


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("plane")) as api:
        yield api
        api.close()


@pytest.fixture(scope="session")
def node(broker: Standalone, api: Api, image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealNode]:
    """The node, with the image."""
    node = RealNode(tmp_path_factory.mktemp("node"), api)
    try:
        node.start()
        node.load(image)
        yield node
    finally:
        node.stop()


@pytest.fixture(scope="session")
def disk(api: Api, tmp_path_factory: pytest.TempPathFactory) -> None:
    """A volume for the projector, which the image's user may write to: no provisioner runs."""
    folder = tmp_path_factory.mktemp("disk")
    for each in (folder, folder.parent):
        each.chmod(0o755)
    os.chown(folder, 65532, 65532)
    spec = {
        "capacity": {"storage": "100Gi"},
        "accessModes": ["ReadWriteOnce"],
        "hostPath": {"path": str(folder)},
    }
    api.post("/api/v1/persistentvolumes", {"metadata": {"name": "disk"}, "spec": spec}).raise_for_status()


def values(broker: Standalone) -> dict[str, Any]:
    small = {"requests": {"cpu": "50m", "memory": "256Mi"}}
    return {
        "pipeline": {"module": "flights.pipeline", "context": "flights", "partitions": flights.partitions},
        "image": {"repository": IMAGE.partition(":")[0], "tag": "test", "pullPolicy": "Never"},
        "pulsar": {"url": broker.service_url, "adminUrl": broker.admin_url},
        "workers": {"flight": {"aggregate": "Flight", "replicas": 2, "resources": small}},
        "projector": {"resources": small},
    }


def test_nothing_is_lost_when_a_workers_pod_is_deleted(
    node: RealNode,
    api: Api,
    broker: Standalone,
    disk: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    restricted = {"pod-security.kubernetes.io/enforce": "restricted"}
    api.post("/api/v1/namespaces", {"metadata": {"name": "flights", "labels": restricted}}).raise_for_status()
    helm = helm_python.Config(kubeconfig_content=api.kubeconfig, namespace="flights")
    helm.install(write_chart(tmp_path), "fly", values(broker), wait="watcher", timeout=SECONDS_MAX)

    def pods(component: str) -> list[Any]:
        return api.items(PODS, labelSelector=f"app.kubernetes.io/component={component}")

    def ask(_: Path, sql: str) -> list[dict[str, Any]]:
        said = node.run_in(pods("projector")[0], "magnetar", "query", sql, "--format", "jsonl")
        return [json.loads(line) for line in said.splitlines()]

    def in_tables() -> int:
        return int(ask(tmp_path, "SELECT count() AS n FROM flights.commits")[0]["n"])

    chosen = list(islice(rows(all_months=False), FLIGHTS))
    want = expected(iter(chosen))
    settings = Settings(broker=broker.service_url, broker_admin=broker.admin_url)
    outgoing = list(demo.outgoing(commands(iter(chosen)), set()))
    with SyncClient(flights, settings=settings) as client:
        for _ in client.send_many(outgoing[: len(outgoing) // 2]):
            pass
        victim = pods("worker-flight")[0]["metadata"]["name"]
        api.delete(f"{PODS}/{victim}", 0).raise_for_status()
        for _ in client.send_many(outgoing[len(outgoing) // 2 :]):
            pass
    eventually(lambda: in_tables() >= want.commands, "all commits are in the tables", seconds=SECONDS_MAX)
    eventually(lambda: sum(map(is_ready, pods("worker-flight"))) == 2, "the pod is replaced", seconds=SECONDS_MAX)
    assert victim not in {pod["metadata"]["name"] for pod in pods("worker-flight")}
    monkeypatch.setattr(demo, "ask", ask)
    assert demo.report(tmp_path, want) == 0
    said = [line for line in capsys.readouterr().out.splitlines() if line.startswith("✓")]
    assert "\n".join(said) in (ROOT / "docs" / "kubernetes.md").read_text(), said
    helm.uninstall("fly", wait="watcher", timeout=SECONDS_MAX)
    helm.close()


def is_ready(pod: Any) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))
