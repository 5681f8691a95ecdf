"""What a projector counts, as a scrape shows it."""

from functools import partial

import pytest
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.projector_metrics import TableMetrics, hide_rebuild, show_rebuild, watch_quarantine
from magnetar.pipelines.watching import WatchedTable
from magnetar.projections.leased_table import Table
from magnetar.schemas import LeaseLost, StoreUnavailable
from prometheus_client import REGISTRY


def sample(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, {"context": "c", "projection": "board", "aggregate": "Order", **labels})


def test_ranges_and_losses_are_counted_by_table() -> None:
    metrics = TableMetrics("c", "board", "Order", SystemClock())
    metrics.inserted(40, 0.2)
    metrics.inserted(1, 0.1)
    metrics.lost(StoreUnavailable("gone"))
    assert sample("magnetar_fed_commits_total") == 41
    assert sample("magnetar_range_commits_count") == 2
    assert sample("magnetar_table_partitions_lost_total", error="StoreUnavailable") == 1


def test_where_a_partition_is_is_said_by_who_feeds_the_table_that_is_shown_and_by_nobody_else() -> None:
    shown, filled = (
        WatchedTable("c", Table("board", "Moving", generation), SystemClock(), None, is_shown=generation == 1)
        for generation in (1, 2)
    )
    number = partial(sample, "magnetar_table_number", aggregate="Moving", partition="2")
    shown.inserted(2, 41, 41, 0.1)
    filled.inserted(2, 7, 7, 0.1)
    assert number() == 41
    filled.left(2)
    assert number() == 41
    shown.left(2)
    assert number() is None, "another process says it, and this one would say for ever what was"
    shown.inserted(2, 43, 1, 0.1)
    shown.lost(2, LeaseLost("gone"), to_another=True)
    assert number() is None


class ClockByHand(SystemClock):
    """A clock that is set by the test."""

    now = 1_700_000_000_000

    def now_ms(self) -> int:
        return self.now


def test_what_was_read_grows_older_until_it_is_in_the_table() -> None:
    clock = ClockByHand()
    metrics = TableMetrics("c", "board", "Lagging", clock)
    lag = partial(sample, "magnetar_table_lag_seconds", aggregate="Lagging", partition="2")
    metrics.took_in_hand(2, clock.now * 1000 - 500_000)
    assert lag() == 0.5
    clock.now += 60_000
    metrics.took_in_hand(2, clock.now * 1000)  # read again, after a failure: the older one is still not there
    assert lag() == pytest.approx(60.5)
    metrics.settled(2)
    assert lag() == 0
    metrics.gone(2)
    assert lag() is None


def test_a_rebuild_is_seen_while_it_lasts() -> None:
    show_rebuild("c", "Board", 40, 60)
    assert REGISTRY.get_sample_value("magnetar_rebuild_commits_left", {"context": "c", "target": "Board"}) == 60
    hide_rebuild("c", "Board")
    assert REGISTRY.get_sample_value("magnetar_rebuild_commits", {"context": "c", "target": "Board"}) is None


def test_quarantined_keys_are_those_of_the_generation_that_is_shown() -> None:
    held = {1: 3, 2: 1}
    for generation in held:
        watch_quarantine("c", Table("board", "Held", generation), partial(held.__getitem__, generation))
    assert sample("magnetar_quarantined_keys", aggregate="Held") == 1
    held[2] = 0
    assert sample("magnetar_quarantined_keys", aggregate="Held") == 0
