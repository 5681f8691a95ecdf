"""The contract, on the log in memory."""

import contextlib
from collections.abc import Callable

import pytest
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.log import Appender, Entry, Log
from magnetar.pipelines.logs.memory import Faults, MemoryBroker, MemoryLog
from magnetar.schemas import OutcomeUnknown, Topic

from tests.contract.log_contract import DEADLINE_SECONDS, SCHEMA, LogContract, entries


class Levers(Faults):
    """Faults that a test switches on by name."""

    def __init__(self) -> None:
        self.on: set[str] = set()

    def confirmation_is_lost(self) -> bool:
        return "confirmation" in self.on

    def connection_breaks(self) -> bool:
        return "connection" in self.on

    def lands_late(self) -> bool:
        return "late" in self.on

    def reconnects(self) -> bool:
        if "reconnect" in self.on:
            self.on.remove("reconnect")
            return True
        return False


class TestMemoryLog(LogContract):
    @pytest.fixture(autouse=True)
    def broker(self) -> None:
        self.shared, self.levers = MemoryBroker(), Levers()

    @pytest.fixture
    def open_log(self) -> Callable[[], Log]:
        return lambda: MemoryLog(self.shared, SystemClock(), faults=self.levers)

    def land_late(self, log: Log, events: Topic) -> Appender:
        old = log.fence(events, 0, schema=SCHEMA, name="old")
        self.levers.on = {"connection"}
        with contextlib.suppress(OutcomeUnknown):
            old.append(entries(10, 11, 12), timeout_seconds=DEADLINE_SECONDS)
        self.levers.on = {"late"}
        new = log.fence(events, 0, schema=SCHEMA, name="new")
        self.shared.land(events, 0, 0)
        old.append(entries(13), timeout_seconds=DEADLINE_SECONDS)
        return new

    def unknown_but_stored(self, log: Log, events: Topic) -> None:
        appender = log.fence(events, 0, schema=SCHEMA, name="worker")
        self.levers.on = {"confirmation"}
        appender.append(entries(5), timeout_seconds=DEADLINE_SECONDS)

    def reconnect(self, log: Log) -> None:
        self.levers.on = {"reconnect"}

    def test_what_is_on_its_way_is_dropped_when_the_new_owner_has_written(self, log: Log, events: Topic) -> None:
        new = self.land_late(log, events)
        new.append([Entry("k", b"1")], timeout_seconds=DEADLINE_SECONDS)
        count = len(self.read_all(log, events, 0, 1))
        self.shared.land(events, 0, 0)
        assert len(self.read_all(log, events, 0, 1)) == count
