"""The contract, on the log of the simulation: what is simulated is a log."""

import contextlib
from collections.abc import Callable

import pytest
from magnetar.pipelines.log import Appender, Entry, Log
from magnetar.schemas import OutcomeUnknown, Topic

from tests.contract.log_contract import DEADLINE_SECONDS, SCHEMA, LogContract, entries
from tests.simulation.choices import Choices
from tests.simulation.sim_log import SimBroker, SimLog
from tests.simulation.stage import Stage


class Levers(Stage):
    """Faults that a test switches on by name; no process is switched."""

    def __init__(self) -> None:
        super().__init__(Choices(0))
        self.on: set[str] = set()

    def strikes(self, fault: str) -> bool:
        return fault in self.on

    def pick(self, what: str, below: int) -> int:
        return 0


class TestSimLog(LogContract):
    @pytest.fixture(autouse=True)
    def broker(self) -> None:
        self.levers = Levers()
        self.shared = SimBroker(self.levers)

    @pytest.fixture
    def open_log(self) -> Callable[[], Log]:
        return lambda: SimLog(self.shared)

    def land_late(self, log: Log, events: Topic) -> Appender:
        old = log.fence(events, 0, schema=SCHEMA, name="old")
        self.levers.on = {"append is cut off"}
        with contextlib.suppress(OutcomeUnknown):
            old.append(entries(10, 11, 12), timeout_seconds=DEADLINE_SECONDS)
        self.levers.on = set()
        new = log.fence(events, 0, schema=SCHEMA, name="new")
        assert self.shared.land_something()
        return new

    def unknown_but_stored(self, log: Log, events: Topic) -> None:
        appender = log.fence(events, 0, schema=SCHEMA, name="worker")
        self.levers.on = {"confirmation is lost"}
        try:
            appender.append(entries(5), timeout_seconds=DEADLINE_SECONDS)
        finally:
            self.levers.on = set()

    def reconnect(self, log: Log) -> None:
        self.levers.on = {"reconnect"}

    def test_what_is_on_its_way_is_refused_when_the_new_owner_has_written(self, log: Log, events: Topic) -> None:
        self.land_late(log, events).append([Entry("k", b"1")], timeout_seconds=DEADLINE_SECONDS)
        count = len(self.read_all(log, events, 0, 2))
        assert self.shared.land_something()
        assert len(self.read_all(log, events, 0, 2)) == count
