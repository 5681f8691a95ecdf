"""A release of the flights' pipeline on the real node."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import helm_python

from examples.flights.data import Expected
from examples.flights.pipeline import flights
from tests.kubernetes.control_plane import Api
from tests.node_rig import RealNode
from tests.pulsar_rig import Standalone

ROOT: Final = Path(__file__).resolve().parents[2]
IMAGE: Final = "localhost/magnetar-flights:test"
SECONDS_MAX: Final = 600
SMALL: Final = {"requests": {"cpu": "50m", "memory": "256Mi"}}


def values(broker: Standalone, tenant: str) -> dict[str, Any]:
    """A small one, with all that it needs."""
    return {
        "pipeline": {"module": "flights.pipeline", "context": "flights", "partitions": flights.partitions},
        "image": {"repository": IMAGE.partition(":")[0], "tag": "test", "pullPolicy": "Never"},
        "pulsar": {"url": broker.service_url, "adminUrl": broker.admin_url, "tenant": tenant},
        "workers": {"flight": {"aggregate": "Flight", "replicas": 2, "resources": SMALL}},
        "projector": {"resources": SMALL},
    }


class Release:
    """A release in a namespace of its own, where pods must be as restricted as can be, and what must come of it."""

    def __init__(self, node: RealNode, api: Api, namespace: str, want: Expected) -> None:
        self.node, self.api, self.want = node, api, want
        self._namespace = namespace
        metadata = {"name": namespace, "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}
        api.post("/api/v1/namespaces", {"metadata": metadata}).raise_for_status()
        self.helm = helm_python.Config(kubeconfig_content=api.kubeconfig, namespace=namespace)

    @property
    def _pods(self) -> str:
        return f"/api/v1/namespaces/{self._namespace}/pods"

    def pods(self, component: str) -> list[Any]:
        """The pods of a component that nobody has deleted."""
        found = self.api.items(self._pods, labelSelector=f"app.kubernetes.io/component={component}")
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    def names(self, component: str) -> set[str]:
        """Theirs."""
        return {pod["metadata"]["name"] for pod in self.pods(component)}

    def is_ready(self, component: str, count: int) -> bool:
        """Whether the component has just so many pods, and all are ready."""
        return [_is_ready(pod) for pod in self.pods(component)] == [True] * count

    def job(self, name: str) -> Any:
        """A Job; None if there is none."""
        return self.api.get(f"/apis/batch/v1/namespaces/{self._namespace}/jobs/{name}")

    def delete(self, pod: Any) -> None:
        """Without grace: its processes are killed."""
        self.api.delete(f"{self._pods}/{pod['metadata']['name']}", 0).raise_for_status()

    def uninstall(self) -> None:
        """All of it."""
        self.helm.uninstall("fly", wait="watcher", timeout=SECONDS_MAX)
        self.helm.close()


def _is_ready(pod: Any) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"].get("conditions", []))
