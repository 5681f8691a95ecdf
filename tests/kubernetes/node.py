"""A node that says of each pod that it runs, and runs nothing: what the controllers need to do their work."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Any, Self

import httpx

from tests.kubernetes.control_plane import Api

NAME = "paper"
CAPACITY = {"cpu": "64", "memory": "256Gi", "pods": "500"}


class Node:
    """One node, on a thread. Jobs and pods that are not started again succeed, others become ready."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._stopped = threading.Event()
        self._addresses = iter(range(1, 60_000))
        self.starts_pods = True
        """Whether pods that come become what they are to become."""
        self.jobs_fail = False
        """Whether what a Job does goes wrong."""
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._api.post("/api/v1/nodes", {"metadata": {"name": NAME}}).raise_for_status()
        ready = {
            "type": "Ready",
            "status": "True",
            "reason": "Paper",
            "message": "paper",
            **_times("lastHeartbeatTime"),
        }
        status = {"capacity": CAPACITY, "allocatable": CAPACITY, "conditions": [ready]}
        self._api.patch(f"/api/v1/nodes/{NAME}/status", {"status": status}).raise_for_status()
        self._api.patch(f"/api/v1/nodes/{NAME}", {"spec": {"taints": None}}).raise_for_status()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(0.1):
            for pod in self._api.items("/api/v1/pods", fieldSelector=f"spec.nodeName={NAME}"):
                path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}"
                if "deletionTimestamp" in pod["metadata"]:
                    self._api.delete(path, 0)
                elif pod["status"]["phase"] == "Pending" and self.starts_pods:
                    self._said(self._api.patch(f"{path}/status", {"status": self._status(pod)}))

    def _said(self, answer: httpx.Response) -> None:
        if answer.status_code != 404:  # it was deleted meanwhile
            answer.raise_for_status()

    def _status(self, pod: Any) -> dict[str, Any]:
        ends = pod["spec"]["restartPolicy"] == "Never"
        number = next(self._addresses)
        address = f"127.1.{number // 250}.{number % 250 + 1}"
        fails = ends and self.jobs_fail
        phase = "Running" if not ends else "Failed" if fails else "Succeeded"
        conditions = {"Initialized": True, "PodScheduled": True, "Ready": not ends, "ContainersReady": not ends}
        return {
            "phase": phase,
            "podIP": address,
            "podIPs": [{"ip": address}],
            **_times("startTime"),
            "conditions": [
                {"type": name, "status": str(holds), **_times("lastTransitionTime")}
                for name, holds in conditions.items()
            ],
            "containerStatuses": [_container(c, ends=ends, fails=fails) for c in pod["spec"]["containers"]],
        }


def _container(container: Any, *, ends: bool, fails: bool) -> dict[str, Any]:
    over = {"exitCode": int(fails), "reason": "Over", **_times("startedAt", "finishedAt")}
    state = {"terminated": over} if ends else {"running": _times("startedAt")}
    named = {key: container[key] for key in ("name", "image")}
    return {**named, "imageID": "paper", "ready": not ends, "started": not ends, "restartCount": 0, "state": state}


def _times(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, datetime.now(UTC).isoformat())
