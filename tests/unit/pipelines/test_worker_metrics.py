"""What a worker counts, as a scrape shows it while it decides."""

from itertools import count
from pathlib import Path

import pytest
from magnetar.aggregates import Decision
from magnetar.pipelines import CommandParked
from magnetar.pipelines.worker_metrics import WorkerMetrics
from prometheus_client import REGISTRY

from tests.unit.pipelines.purses import Pay, Place, Purse

NAMES = count(1)


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
    metrics = WorkerMetrics("c", name)
    metrics.taken(1, 0.5)
    metrics.decided([Decision(b"", "a", 1, "", None, "accepted", events=2)], 0.001, 0.002)
    metrics.reached(3, 7, 0.25)
    metrics.checkpoint(3, 1_700_000_000.0)
    assert sample("magnetar_commit_number", **labels, partition="3") == 7
    assert sample("magnetar_command_age_seconds", **labels, partition="3") == 0.25
    metrics.lost(3, 0, "OwnershipLost")
    assert sample("magnetar_commit_number", **labels, partition="3") is None
    assert sample("magnetar_checkpoint_timestamp_seconds", **labels, partition="3") is None
    assert sample("magnetar_partitions_owned", **labels) == 0
    assert sample("magnetar_partitions_lost_total", **labels, reason="OwnershipLost") == 1
