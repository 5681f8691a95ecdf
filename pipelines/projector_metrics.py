"""What a projector counts and measures, for Prometheus: of each table that it feeds, of each partition where said."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

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
TABLE_NUMBER: Final = Gauge(
    "magnetar_table_number",
    "The number of the last commit in the partition's newest generation that is fed.",
    (*_LABELS, "partition"),
)
LOST: Final = Counter(
    "magnetar_table_partitions_lost_total", "Partitions that could not be fed on, by error.", (*_LABELS, "error")
)


class TableMetrics:
    """The samples of one table in this process."""

    def __init__(self, context: str, projection: str, aggregate: str) -> None:
        self._labels = (context, projection, aggregate)
        self._fed, self._range = FED.labels(*self._labels), RANGE.labels(*self._labels)
        self._insert = INSERT.labels(*self._labels)

    def inserted(self, partition: int, number: int, count: int, seconds: float) -> None:
        """A range is in the table, up to the commit with this number."""
        self._fed.inc(count)
        self._range.observe(count)
        self._insert.observe(seconds)
        TABLE_NUMBER.labels(*self._labels, partition).set(number)

    def lost(self, error: Exception) -> None:
        """A partition cannot be fed on."""
        LOST.labels(*self._labels, type(error).__name__).inc()
