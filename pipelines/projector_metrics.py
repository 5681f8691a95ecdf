"""What a projector counts and measures, for Prometheus: of each table that it feeds, of each partition where said."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from magnetar.projections.leased_table import Table
from prometheus_client import Counter, Gauge, Histogram

from .clock import Clock

_LABELS: Final = ("context", "projection", "aggregate")
_SECONDS: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_COMMITS: Final = (1, 10, 100, 1_000, 5_000, 10_000, 25_000, 50_000, 100_000)

FED: Final = Counter(
    "magnetar_fed_commits_total", "Commits that were put into tables, in all generations of them.", _LABELS
)
RANGE: Final = Histogram("magnetar_range_commits", "Commits in one range.", _LABELS, buckets=_COMMITS)
INSERT: Final = Histogram(
    "magnetar_range_seconds", "Reading one range from the log and inserting it.", _LABELS, buckets=_SECONDS
)
PARTITIONS_FED: Final = Gauge(
    "magnetar_table_partitions_fed", "Partitions of the table that is shown that this process feeds.", _LABELS
)
TABLE_NUMBER: Final = Gauge(
    "magnetar_table_number",
    "The number of the last commit of the partition in the table that is shown, by who feeds it.",
    (*_LABELS, "partition"),
)
TABLE_LAG: Final = Gauge(
    "magnetar_table_lag_seconds",
    "How old the oldest command is whose commit was read for the table and is not in it yet; 0 if none.",
    (*_LABELS, "partition"),
)
LOST: Final = Counter(
    "magnetar_table_partitions_lost_total", "Partitions that could not be fed on, by error.", (*_LABELS, "error")
)
QUARANTINED: Final = Gauge(
    "magnetar_quarantined_keys",
    "Aggregates of which events are kept back from the table that is shown, since the projection raised on one.",
    _LABELS,
)
REBUILD: Final = Gauge(
    "magnetar_rebuild_commits", "Commits in a generation that is being filled; gone when it is shown.",
    ("context", "target"),
)  # fmt: skip
REBUILD_LEFT: Final = Gauge(
    "magnetar_rebuild_commits_left", "Commits that a generation lacks before it can be shown.", ("context", "target")
)


class TableMetrics:
    """The samples of one table in this process."""

    def __init__(self, context: str, projection: str, aggregate: str, clock: Clock) -> None:
        self._labels = (context, projection, aggregate)
        self._clock = clock
        self._fed, self._range = FED.labels(*self._labels), RANGE.labels(*self._labels)
        self._insert = INSERT.labels(*self._labels)
        self._in_hand: dict[int, int | None] = {}
        """By partition, the time of the oldest command that was read and is not in the table, in microseconds."""

    def took_in_hand(self, partition: int, at_us: int) -> None:
        """A range has been read; its oldest command ages until `settled`, however long that takes."""
        if partition not in self._in_hand:
            TABLE_LAG.labels(*self._labels, partition).set_function(partial(self._lag_seconds, partition))
        if self._in_hand.get(partition) is None:
            self._in_hand[partition] = at_us

    def _lag_seconds(self, partition: int) -> float:
        at_us = self._in_hand.get(partition)
        return 0.0 if at_us is None else max(0.0, self._clock.now_ms() / 1000 - at_us / 1e6)

    def settled(self, partition: int) -> None:
        """All that was read is in the table."""
        if partition in self._in_hand:
            self._in_hand[partition] = None

    def gone(self, partition: int) -> None:
        """Somebody else feeds the partition, and says where it is."""
        self._in_hand.pop(partition, None)
        for gauge in (TABLE_LAG, TABLE_NUMBER):
            gauge.remove(*self._labels, partition)

    def inserted(self, count: int, seconds: float) -> None:
        """A range is in the table."""
        self._fed.inc(count)
        self._range.observe(count)
        self._insert.observe(seconds)

    def reached(self, partition: int, number: int) -> None:
        """Where a partition of the table that is shown is."""
        TABLE_NUMBER.labels(*self._labels, partition).set(number)

    def lost(self, error: Exception) -> None:
        """A partition cannot be fed on."""
        LOST.labels(*self._labels, type(error).__name__).inc()


def watch_fed(context: str, table: Table, partitions: Callable[[], int]) -> None:
    """Have it said how many partitions of the table are fed here, whichever generation of it is shown."""
    PARTITIONS_FED.labels(context, table.projection, table.aggregate).set_function(partitions)


def watch_quarantine(context: str, table: Table, held_keys: Callable[[], int]) -> None:
    """Have it said of how many aggregates events are kept back: of this generation from now on, and of no older one."""
    QUARANTINED.labels(context, table.projection, table.aggregate).set_function(held_keys)


def show_rebuild(context: str, target: str, commits: int, left: int) -> None:
    """How far a generation is that is being filled."""
    REBUILD.labels(context, target).set(commits)
    REBUILD_LEFT.labels(context, target).set(left)


def hide_rebuild(context: str, target: str) -> None:
    """It is shown, or was given up."""
    for gauge in (REBUILD, REBUILD_LEFT):
        gauge.remove(context, target)
