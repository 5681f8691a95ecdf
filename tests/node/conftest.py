"""One node, one Pulsar and one image for all tests of containers."""

import shutil
from collections.abc import Iterator

import pytest

from tests.image_rig import build, done, new_project, run
from tests.kubernetes.control_plane import Api, running
from tests.node.release import IMAGE, ROOT
from tests.node_rig import BRIDGE, GATEWAY, RealNode, check_programs, network
from tests.pulsar_rig import Standalone, data_folder, started


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image of a project with the flights' modules, from the Dockerfile of `magnetar new`."""
    check_programs()
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
