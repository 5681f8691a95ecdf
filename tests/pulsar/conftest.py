"""One broker for the whole tier."""

import os
import uuid
from collections.abc import Callable, Iterator

import pytest
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.schemas import Topic, TopicKind

from tests.contract.log_contract import SCHEMA
from tests.pulsar_rig import Existing, Standalone, data_folder, started


@pytest.fixture(scope="session")
def broker() -> Iterator[Existing]:
    """A real Pulsar on loopback, or the one that MAGNETAR_TEST_PULSAR_SERVICE_URL and …_ADMIN_URL name."""
    if "MAGNETAR_TEST_PULSAR_SERVICE_URL" in os.environ:
        yield Existing(os.environ["MAGNETAR_TEST_PULSAR_SERVICE_URL"], os.environ["MAGNETAR_TEST_PULSAR_ADMIN_URL"])
        return
    with data_folder() as folder, started(Standalone(folder)) as standalone:
        yield standalone


@pytest.fixture(autouse=True)
def _revived(request: pytest.FixtureRequest) -> None:
    """The broker runs when a test begins, whatever became of it in another."""
    if "broker" in request.fixturenames and isinstance(broker := request.getfixturevalue("broker"), Standalone):
        broker.revive()


@pytest.fixture
def standalone(broker: Existing) -> Standalone:
    """The broker, where it may be frozen and killed."""
    if not isinstance(broker, Standalone):
        pytest.skip("the broker is somebody else's: it is not frozen or killed")
    return broker


@pytest.fixture
def open_log(broker: Existing) -> Iterator[Callable[..., PulsarLog]]:
    """Opens the log, as often as asked, as other processes would."""
    opened: list[PulsarLog] = []

    def open_one(*, batching: bool = True) -> PulsarLog:
        opened.append(PulsarLog(broker.service_url, broker.admin_url, clock=SystemClock(), batching=batching))
        return opened[-1]

    yield open_one
    for log in opened:
        log.close()


@pytest.fixture
def new_topic(open_log: Callable[..., PulsarLog]) -> Callable[..., Topic]:
    """Provisions fresh topics."""
    log = open_log()

    def provision(kind: TopicKind, *, partitions: int = 1) -> Topic:
        topic = Topic(f"c{uuid.uuid4().hex[:12]}", "Thing", kind)
        log.provision(topic, partitions=partitions, schema=SCHEMA)
        return topic

    return provision
