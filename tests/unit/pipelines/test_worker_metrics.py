"""What a worker counts, as a scrape shows it while it decides."""

from itertools import count
from pathlib import Path

import pytest
from magnetar.aggregates import Decision
from magnetar.pipelines import CommandParked
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.deciding import workers_of
from magnetar.pipelines.log import Batch
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.worker_metrics import WorkerMetrics
from prometheus_client import REGISTRY

from tests.unit.pipelines.purses import Pay, Place, Purse, purses

NAMES = count(1)


class ClockByHand(SystemClock):
    """A clock that is set by the test."""

    now = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.now


@pytest.fixture
def name() -> str:
    """An aggregate of this test alone: the samples are the process's."""
    return f"Aggregate{next(NAMES)}"


def sample(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def test_commands_are_counted_by_what_became_of_them(tmp_path: Path) -> None:
    purse = {"context": "purses", "aggregate": "Purse"}
    before = {
        outcome: sample("magnetar_commands_total", **purse, outcome=outcome) or 0
        for outcome in ("accepted", "nothing", "rejected", "parked")
    }
    events = sample("magnetar_events_total", **purse) or 0
    place = Place(tmp_path)
    with place.working(), place.client() as client:
        for amount in (1, 2, 0, 20_000):
            client.ask(Purse, "a", Pay(amount))
        with pytest.raises(CommandParked):
            client.ask(Purse, "a", Pay(13))
    grown = {o: (sample("magnetar_commands_total", **purse, outcome=o) or 0) - n for o, n in before.items()}
    assert grown == {"accepted": 2, "nothing": 1, "rejected": 1, "parked": 1}
    assert (sample("magnetar_events_total", **purse) or 0) - events == 3
    assert (sample("magnetar_recovery_seconds_count", **purse) or 0) >= 1
    assert (sample("magnetar_flush_seconds_count", **purse) or 0) >= 1


def test_a_lost_partition_leaves_no_figures_that_nobody_renews(name: str) -> None:
    labels = {"context": "c", "aggregate": name}
    metrics = WorkerMetrics("c", name, SystemClock())
    metrics.taken(1, 0.5)
    metrics.took_in_hand(3, 1_700_000_000_000)
    metrics.decided([Decision(b"", "a", 1, "", None, "accepted", events=2)], 0.001, 0.002)
    metrics.reached(3, 7)
    metrics.checkpoint(3, 1_700_000_000.0)
    assert sample("magnetar_commit_number", **labels, partition="3") == 7
    metrics.lost(3, 0, "OwnershipLost")
    assert sample("magnetar_commit_number", **labels, partition="3") is None
    assert sample("magnetar_command_age_seconds", **labels, partition="3") is None
    assert sample("magnetar_checkpoint_timestamp_seconds", **labels, partition="3") is None
    assert sample("magnetar_partitions_owned", **labels) == 0
    assert sample("magnetar_partitions_lost_total", **labels, reason="OwnershipLost") == 1


def test_commands_in_hand_grow_older_until_their_commits_are_stored(name: str) -> None:
    labels = {"context": "c", "aggregate": name, "partition": "3"}
    clock = ClockByHand()
    metrics = WorkerMetrics("c", name, clock)
    metrics.took_in_hand(3, clock.now_ms() - 250)
    assert sample("magnetar_command_age_seconds", **labels) == 0.25
    clock.now += 60_000
    assert sample("magnetar_command_age_seconds", **labels) == 60.25
    metrics.reached(3, 7)
    assert sample("magnetar_command_age_seconds", **labels) == 0
    metrics.took_in_hand(3, clock.now_ms() + 5)  # the sender's clock is ahead
    assert sample("magnetar_command_age_seconds", **labels) == 0


def test_a_partition_that_the_log_takes_away_leaves_no_figures(tmp_path: Path) -> None:
    labels = {"context": "purses", "aggregate": "Purse", "partition": "0"}
    place = Place(tmp_path)
    log = SqliteLog(tmp_path, SystemClock())
    (worker, _) = workers_of(purses, log, name="w", clock=SystemClock())
    with place.client() as client:
        for n in range(20):
            client.send(Purse, f"p{n}", Pay(1))
    while worker.step(timeout_seconds=0.2):
        pass
    assert sample("magnetar_commit_number", **labels)
    worker._consumer.receive = lambda **_: Batch(0, [])  # type: ignore[method-assign] # as Pulsar does when a broker goes
    worker.step(timeout_seconds=0)
    assert sample("magnetar_commit_number", **labels) is None
    assert sample("magnetar_partitions_owned", context="purses", aggregate="Purse") == 1
    worker.close()
    log.close()
