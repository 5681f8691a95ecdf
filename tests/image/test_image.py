"""The image of a project that `magnetar new` has made: built from its Dockerfile, and run as the chart runs it."""

import json
import subprocess
from collections.abc import Iterator

import httpx
import pytest

from tests.chaos.processes import eventually
from tests.image_rig import build, done, new_project, run
from tests.pulsar_rig import free_ports

RESTRICTED = ("--read-only", "--user=65532:65532", "--cap-drop=ALL", "--security-opt=no-new-privileges")
TAG = "localhost/magnetar-shop:test"
DATA = "--volume=/var/lib/magnetar"
SECONDS_MAX = 180


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The image of a new project."""
    yield build(new_project(tmp_path_factory.mktemp("project"), "shop"), TAG)
    done(run("podman", "rmi", "--force", TAG))  # it is large


@pytest.fixture
def worker(image: str) -> Iterator[tuple[str, int]]:
    """The container of a worker and its port, on the host's network."""
    (port,) = free_ports(1)
    environment = (f"--env=MAGNETAR_HEALTH_PORT={port}", "--env=HOME=/tmp")
    container = done(run("podman", "run", "--detach", "--network=host", *RESTRICTED, DATA, *environment, image))
    yield container, port
    run("podman", "rm", "--force", "--volumes", container)


def in_shell(image: str, script: str) -> subprocess.CompletedProcess[str]:
    """A shell in a container of its own."""
    options = ("--rm", "--network=none", *RESTRICTED, "--entrypoint=/bin/sh")
    return run("podman", "run", *options, image, "-c", script)


def is_ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_the_image_is_labelled_and_runs_as_nobody(image: str) -> None:
    (found,) = json.loads(done(run("podman", "inspect", image)))
    assert found["Config"]["User"] == "65532:65532"
    assert found["Config"]["Labels"]["org.opencontainers.image.title"] == "shop"
    assert done(in_shell(image, "id -u; grep CapEff /proc/self/status")).split() == [
        *("65532", "CapEff:", "0000000000000000")
    ]
    refused = in_shell(image, "touch /opt/venv/x")
    assert refused.returncode != 0
    assert "Read-only file system" in refused.stderr


def test_the_image_holds_nothing_to_build_with(image: str) -> None:
    assert done(in_shell(image, "command -v gcc make git; ls /source; true")) == ""


def test_a_worker_in_its_container_decides_and_ends_when_it_is_told_to(worker: tuple[str, int]) -> None:
    container, port = worker
    eventually(lambda: is_ready(port), "ready", seconds=SECONDS_MAX)
    asked = run(
        *("podman", "exec", container, "magnetar", "ask", "shop.pipeline", "Order", "42", "Buy"),
        '{"sku": "tea", "pieces": 2}',
    )
    assert "accepted: Bought(sku='tea', pieces=2)" in done(asked)
    assert 'magnetar_commands_total{aggregate="Order",context="shop",outcome="accepted"} 1.0' in (
        httpx.get(f"http://127.0.0.1:{port}/metrics").text
    )
    done(run("podman", "stop", "--time=60", container))
    assert done(run("podman", "inspect", "--format={{.State.ExitCode}}", container)) == "0"
