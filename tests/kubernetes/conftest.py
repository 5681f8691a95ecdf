"""These tests run where their control plane has been built: `make test-k8s` builds it."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import helm_python
import httpx
import pytest

from tests.helm.conftest import chart
from tests.kubernetes.control_plane import Api, program, running
from tests.kubernetes.node import Node
from tests.kubernetes.published import Published

__all__ = ["chart"]  # a fixture of theirs

HERE = Path(__file__).parent
_NUMBERS = count()
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}
SECONDS_MAX = 120
Define = Callable[[Published], None]


def eventually(holds: Callable[[], Any], what: str) -> None:
    """Wait until it does."""
    deadline = time.monotonic() + SECONDS_MAX
    while not holds():
        assert time.monotonic() < deadline, f"not within {SECONDS_MAX} s: {what}"
        time.sleep(0.1)  # what is waited for concerns several objects, and some processes: there is nothing to watch


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """All on one control plane; none where there is none."""
    ours = [item for item in items if HERE in item.path.parents]
    for item in ours:
        item.add_marker(pytest.mark.xdist_group("kubernetes"))
    if ours and not program().exists():
        items[:] = [item for item in items if item not in ours]
        config.hook.pytest_deselected(items=ours)


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with running(tmp_path_factory.mktemp("plane")) as api:
        for number in range(10):  # no provisioner runs: disks for the projectors' claims
            disk = {"capacity": {"storage": "100Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/none"}}
            api.post(
                "/api/v1/persistentvolumes", {"metadata": {"name": f"disk-{number}"}, "spec": disk}
            ).raise_for_status()
        yield api
        api.close()


@pytest.fixture(scope="session")
def define(api: Api) -> Define:
    """Teaches the server another project's kinds, if it does not know them yet."""

    def teach(published: Published) -> None:
        for definition in published.definitions():
            answer = api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", definition)
            assert answer.status_code in {201, 409}, answer.text
        for definition in published.definitions():
            eventually(partial(is_served, definition["spec"]), f"{definition['metadata']['name']} are served")

    def is_served(spec: Any) -> bool:
        versions = [each["name"] for each in spec["versions"]]
        with contextlib.suppress(httpx.HTTPStatusError):  # 429 while the server makes room for them
            return all(api.get(f"/apis/{spec['group']}/{each}/{spec['names']['plural']}") for each in versions)
        return False

    return teach


@pytest.fixture(scope="session")
def nodes(api: Api) -> Iterator[Node]:
    with Node(api) as node:
        yield node


@pytest.fixture
def node(nodes: Node) -> Iterator[Node]:
    """The node, on which all goes well until a test says otherwise."""
    yield nodes
    nodes.starts_pods, nodes.jobs_fail = True, False


@pytest.fixture
def namespace(api: Api, request: pytest.FixtureRequest) -> str:
    """One of this test alone, in which pods must be as restricted as can be."""
    name = f"{request.node.name.replace('_', '-')[5:50].rstrip('-')}-{next(_NUMBERS)}"  # a second try has another
    api.post("/api/v1/namespaces", {"metadata": {"name": name, "labels": RESTRICTED}}).raise_for_status()
    return name


@pytest.fixture
def helm(api: Api, namespace: str, node: Node) -> Iterator[Any]:
    """Helm, in the namespace."""
    config = helm_python.Config(kubeconfig_content=api.kubeconfig, namespace=namespace)
    yield config
    config.close()


@pytest.fixture
def pods(api: Api, namespace: str) -> Callable[[str], list[Any]]:
    """The live pods of a component."""

    def of(component: str) -> list[Any]:
        selector = f"app.kubernetes.io/component={component}"
        found = api.items(f"/api/v1/namespaces/{namespace}/pods", labelSelector=selector)
        return [pod for pod in found if "deletionTimestamp" not in pod["metadata"]]

    return of
