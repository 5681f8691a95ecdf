"""What is said of one table to those who watch it: figures, and the traces of commands."""

from __future__ import annotations

from contextlib import suppress

from magnetar.projections.freshness import MIRROR
from magnetar.projections.leased_table import Table
from magnetar.schemas import Undecodable
from magnetar.schemas.commit import read_time

from .clock import Clock
from .log import Run
from .projector_metrics import TableMetrics
from .tracing import TableTraces, Tracing


class WatchedTable:
    """Takes in what is read of the log and what is in the table, and says it."""

    def __init__(self, context: str, table: Table, clock: Clock, tracing: Tracing | None, *, is_shown: bool) -> None:
        self.is_shown = is_shown
        """Whether anybody looks at the table, so that it matters how old what it lacks is."""
        self._clock = clock
        self._metrics = TableMetrics(context, table.projection, table.aggregate, clock)
        self._traces: TableTraces | None = None
        if tracing is not None:
            name = f"mirror {table.aggregate}" if table.projection == MIRROR else f"project {table.projection}"
            where = {
                "magnetar.context": context,
                **{f"magnetar.{key}": value for key, value in table._asdict().items()},
            }
            self._traces = TableTraces(tracing, name, where)

    def read(self, partition: int, run: Run) -> None:
        """A range has been read, which is not in the table yet."""
        if not self.is_shown:
            return
        with suppress(Undecodable):  # the loop says so itself
            self._metrics.took_in_hand(partition, read_time(run.payloads[0])[0])
        if self._traces is not None:
            self._traces.read(partition, run.payloads, self._clock.now_ms())

    def settled(self, partition: int) -> None:
        """All that was read is in the table."""
        self._metrics.settled(partition)
        if self._traces is not None:
            self._traces.inserted(partition, self._clock.now_ms())

    def inserted(self, partition: int, number: int, count: int, seconds: float) -> None:
        """So many commits more are in it, up to this one."""
        self._metrics.inserted(count, seconds)
        if self.is_shown:
            self._metrics.reached(partition, number)

    def left(self, partition: int) -> None:
        """Another process feeds it from now on."""
        if self.is_shown:  # what is said of a partition is not of one that is filled beside it
            self._metrics.gone(partition)

    def lost(self, partition: int, error: Exception, *, to_another: bool) -> None:
        """A partition cannot be fed on, for now, or because somebody else feeds it."""
        self._metrics.lost(error)
        if to_another:
            self.left(partition)
