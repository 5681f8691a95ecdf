"""The contract, on a real Apache Pulsar."""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Appender, Log
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.schemas import MagnetarError, Topic

from tests.contract.log_contract import DEADLINE_SECONDS, SCHEMA, LogContract, entries
from tests.pulsar_rig import Standalone


class TestPulsarLog(LogContract):
    @pytest.fixture(autouse=True)
    def use_broker(self, broker: Standalone) -> None:
        self.broker = broker

    @pytest.fixture
    def open_log(self, broker: Standalone) -> Iterator[Callable[[], Log]]:
        opened: list[PulsarLog] = []

        def open_one() -> Log:
            opened.append(PulsarLog(broker.service_url, broker.admin_url, clock=SystemClock(), batching=False))
            return opened[-1]

        yield open_one
        for log in opened:
            log.close()

    def land_late(self, log: Log, events: Topic) -> Appender:
        """Fence in the middle of an unbatched stream: what the old owner has sent may land after the fence returned."""
        old = log.fence(events, 0, schema=SCHEMA, name="old")

        def stream() -> None:
            with contextlib.suppress(MagnetarError):
                while True:
                    old.append(entries(*range(10, 1010)), timeout_seconds=DEADLINE_SECONDS)

        threading.Thread(target=stream, daemon=True).start()
        time.sleep(0.3)
        other = PulsarLog(self.broker.service_url, self.broker.admin_url, clock=SystemClock())
        return other.fence(events, 0, schema=SCHEMA, name="new")

    def unknown_but_stored(self, log: Log, events: Topic) -> None:
        """The broker is frozen while it has the message, and goes on after the deadline."""
        appender = log.fence(events, 0, schema=SCHEMA, name="worker")
        self.broker.freeze()
        try:
            appender.append(entries(5), timeout_seconds=1.0)
        finally:
            self.broker.thaw()

    def reconnect(self, log: Log) -> None:
        """The broker dies and comes back."""
        self.broker.kill()
        self.broker.start()
