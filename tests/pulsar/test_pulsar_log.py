"""The contract, on a real Apache Pulsar, with batching as in production."""

import contextlib
import threading
import time
from collections.abc import Callable

import pytest
from magnetar.pipelines.log import Appender, Log
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.schemas import MagnetarError, Topic

from tests.contract.backlog_contract import BacklogContract
from tests.contract.log_contract import DEADLINE_SECONDS, SCHEMA, entries
from tests.pulsar_rig import Existing, Standalone


class TestPulsarLog(BacklogContract):
    @pytest.fixture
    def open_log(self, broker: Existing, open_log: Callable[..., PulsarLog]) -> Callable[..., PulsarLog]:
        self.broker = broker
        self.open_one = open_log
        return open_log

    def land_late(self, log: Log, events: Topic) -> Appender:
        """Fence in the middle of an unbatched stream: what the old owner has sent may land after the fence returned."""
        old = self.open_one(batching=False).fence(events, 0, schema=SCHEMA, name="old")
        started = threading.Event()

        def stream() -> None:
            with contextlib.suppress(MagnetarError):
                while True:
                    old.append(entries(*range(10, 1010)), timeout_seconds=DEADLINE_SECONDS)
                    started.set()

        threading.Thread(target=stream, daemon=True).start()
        assert started.wait(DEADLINE_SECONDS)
        return self.open_one().fence(events, 0, schema=SCHEMA, name="new")

    def unknown_but_stored(self, log: Log, events: Topic) -> None:
        """The broker is frozen while it has the message, and goes on after the deadline."""
        appender = log.fence(events, 0, schema=SCHEMA, name="worker")
        with self._standalone().frozen():
            appender.append(entries(5), timeout_seconds=1.0)

    def reconnect(self, log: Log) -> None:
        """The broker dies and comes back."""
        broker = self._standalone()
        time.sleep(0.3)  # acknowledgements are sent, and places stored, ten times a second
        broker.kill()
        broker.start()

    def _standalone(self) -> Standalone:
        if not isinstance(self.broker, Standalone):
            pytest.skip("the broker is somebody else's: it is not frozen or killed")
        return self.broker
