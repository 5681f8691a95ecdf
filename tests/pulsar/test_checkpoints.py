"""Checkpoints on a real Pulsar: recovery from one, one that is built before a roll, and what the keeper lets go."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.logs.pulsar import PulsarLog
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.worker import Worker
from magnetar.schemas import Topic

from tests.contract.log_contract import DEADLINE_SECONDS
from tests.pulsar_rig import Existing, Standalone, data_folder, started
from tests.unit.pipelines.test_checkpoints import (
    CHECKPOINTS,
    COMMANDS,
    EVENTS,
    SCHEMA,
    System,
    folded,
    replayed,
    tallies,
    test_a_checkpoint_built_before_a_roll_spares_the_new_release_the_log,
)

# The fixture, and the test that is the same on both logs: pytest runs it here with the system below.
__all__ = ["replayed", "test_a_checkpoint_built_before_a_roll_spares_the_new_release_the_log"]


class PulsarSystem(System):
    """One partition on a Pulsar, in a tenant of its own."""

    def __init__(self, folder: Path, broker: Existing) -> None:
        self.broker = broker
        self.tenant = broker.new_tenant()
        super().__init__(folder)

    def open(self) -> None:
        url, admin = self.broker.service_url, self.broker.admin_url
        self.log = PulsarLog(url, admin, clock=SystemClock(), tenant=self.tenant)  # type: ignore[assignment]
        provision(tallies, self.log)
        self.publisher = self.log.publisher(COMMANDS, schema=SCHEMA.command_json)
        self.decided = 0

    def decide(self, worker: Worker) -> None:
        """Until all that was sent is decided."""
        before, deadline = worker.decided, time.monotonic() + DEADLINE_SECONDS
        while self.decided + worker.decided - before < self.sent:
            worker.step(timeout_seconds=0.1)
            assert time.monotonic() < deadline
        self.decided += worker.decided - before


@pytest.fixture
def system(broker: Existing, tmp_path: Path) -> Iterator[PulsarSystem]:
    system = PulsarSystem(tmp_path, broker)
    yield system
    system.close()


def test_recovery_reads_the_tail_of_the_log_and_comes_to_the_same_states(
    system: PulsarSystem, replayed: list[int]
) -> None:
    system.send(1000)
    assert system.run() == folded(system)
    replayed.clear()
    assert system.run() == folded(system)
    assert 0 < len(replayed) < 400
    assert replayed == list(range(replayed[0], 1002))


SMALL_LEDGERS = {
    "managedLedgerMaxEntriesPerLedger": "20",
    "managedLedgerMinLedgerRolloverTimeMinutes": "0",
    "retentionCheckIntervalInSeconds": "1",
}
"""As if gigabytes had been written: a broker drops whole ledgers, and looks every two minutes."""


def test_the_broker_drops_the_checkpoints_that_the_keeper_is_past_and_nothing_of_the_log(tmp_path: Path) -> None:
    with data_folder() as folder, started(Standalone(folder, SMALL_LEDGERS)) as broker:
        system = PulsarSystem(tmp_path, broker)
        system.send(1000)
        states, deadline = system.run(), time.monotonic() + DEADLINE_SECONDS
        first = ledgers(system, CHECKPOINTS)[0]
        while ledgers(system, CHECKPOINTS)[0] == first:  # rounds go on, and the broker looks now and then
            system.send(100)
            states = system.run()
            time.sleep(2)  # it looks every two minutes: more rounds would only keep a core busy
            assert time.monotonic() < deadline
        assert states == folded(system)
        kept, written = entries_of(system, CHECKPOINTS)
        assert kept < written
        kept, written = entries_of(system, EVENTS)
        assert kept == written
        system.close()


def stored(system: PulsarSystem, topic: Topic) -> dict[str, Any]:
    """How the topic's one partition is stored."""
    path = f"admin/v2/persistent/{system.tenant}/{topic}/partitioned-internalStats"
    (partition,) = httpx.get(f"{system.broker.admin_url}/{path}").raise_for_status().json()["partitions"].values()
    return dict(partition)


def ledgers(system: PulsarSystem, topic: Topic) -> list[int]:
    """Its ledgers, the oldest first."""
    return [ledger["ledgerId"] for ledger in stored(system, topic)["ledgers"]]


def entries_of(system: PulsarSystem, topic: Topic) -> tuple[int, int]:
    """How many entries are there, and how many were ever written."""
    found = stored(system, topic)
    return found["numberOfEntries"], found["entriesAddedCounter"]
