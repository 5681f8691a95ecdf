"""One broker for the whole tier."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.pulsar_rig import Standalone


@pytest.fixture(scope="session")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standalone]:
    """A real Pulsar on loopback, or the one that the environment names."""
    folder: Path = tmp_path_factory.mktemp("pulsar")
    standalone = Standalone(folder)
    if "MAGNETAR_TEST_PULSAR_URL" in os.environ:
        standalone.service_url = os.environ["MAGNETAR_TEST_PULSAR_URL"]
        standalone.admin_url = os.environ["MAGNETAR_TEST_PULSAR_ADMIN"]
        yield standalone
        return
    standalone.start()
    yield standalone
    standalone.stop()
