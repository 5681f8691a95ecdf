"""The status of a pipeline whose log is a Pulsar."""

import uuid
from collections.abc import Callable
from typing import Any

from magnetar.pipelines import Pipeline, SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.status import StatusReader, together
from magnetar.schemas import StoreUnavailable, partition_of

from tests.pulsar.test_client import LONG, working
from tests.pulsar_rig import Existing
from tests.unit.pipelines.purses import Pay, Purse


def nobody(sql: str) -> list[dict[str, Any]]:
    raise StoreUnavailable("no projector has run")


def test_it_says_what_waits_and_since_when_who_decides(broker: Existing, open_log: Callable[..., PulsarLog]) -> None:
    pipeline, log = Pipeline(f"c{uuid.uuid4().hex[:12]}", aggregates=[Purse], partitions=2), open_log()
    provision(pipeline, log)
    home = partition_of("a", 2)
    reader = StatusReader(pipeline, log, SystemClock(), nobody)
    with SyncClient(pipeline, settings=Settings(broker=broker.service_url, broker_admin=broker.admin_url)) as client:
        for amount in (1, 2, 3):
            client.send(Purse, "a", Pay(amount))
        found = reader.read()[home]
        assert (found.commits, found.undecided, found.owner, found.owned_seconds) == (0, 3, None, None)
        assert found.oldest_undecided_seconds is not None
        with working(pipeline, open_log()):
            assert client.ask(Purse, "a", Pay(5), timeout_seconds=LONG).version == 5  # the second pay makes two events
            found = reader.read()[home]
            assert (found.commits, found.owner) == (4, "w")
            assert found.owned_seconds is not None
            assert 0 <= found.owned_seconds < 600
            (whole,) = together(reader.read())
            assert (whole.commits, whole.owners) == (4, ("w",))
    found = reader.read()[home]
    assert (found.undecided, found.oldest_undecided_seconds, found.owner) == (0, None, None)
