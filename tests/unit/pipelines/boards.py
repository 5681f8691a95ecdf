"""Two releases of one fold and one table of rows over the flights, for the tests of projectors."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self

from magnetar.pipelines import SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.deciding import workers_of
from magnetar.pipelines.logs.sqlite import SqliteLog
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.runtime import provision
from magnetar.pipelines.settings import Settings
from magnetar.projections import Fold, Rows, Sql
from magnetar.projections.store import Store, embedded_dsn
from magnetar.schemas import Meta

from examples.flights.flight import Cancel, Cancelled, Flight, Schedule, Scheduled
from magnetar import Pipeline

AT = datetime(2026, 1, 1, tzinfo=UTC)


class Planned(Rows):
    """Every plan."""

    flight: str

    @classmethod
    def project(cls, event: Scheduled, meta: Meta) -> Iterator[Self]:
        yield cls(meta.id)


class Board1(Fold, wire_name="Board"):
    """Where each flight is."""

    status: str = ""

    def apply(self, event: Scheduled | Cancelled) -> Self:
        return self.replace(status=type(event).__name__)


class Board2(Fold, wire_name="Board"):
    """Where each flight is, and from where."""

    status: str = ""
    origin: str = ""

    def apply(self, event: Scheduled | Cancelled) -> Self | None:
        return None if isinstance(event, Cancelled) else self.replace(status="planned", origin=event.origin)


class Board3(Fold, wire_name="Board"):
    """The same, made otherwise."""

    revision = 2
    status: str = ""
    origin: str = ""

    def apply(self, event: Scheduled | Cancelled) -> Self | None:
        return None if isinstance(event, Cancelled) else self.replace(status="on time", origin=event.origin)


def by_origin(name: str) -> type[Sql]:
    """The flights from each airport, summed up, as a projection of this name."""

    class ByOrigin(Sql, wire_name=name):
        incremental = True
        select = "SELECT origin, count() AS flights FROM Scheduled GROUP BY origin"
        origin: str
        flights: int

    return ByOrigin


def from_each_origin(name: str) -> type[Fold]:
    """The same as a fold by the airport."""

    class FromEach(Fold, wire_name=name):
        by = ("origin",)
        merges: ClassVar = {"flights": sum}
        origin: str = ""
        flights: int = 0

        def apply(self, event: Scheduled) -> Self:
            return self.replace(flights=self.flights + 1)

    return FromEach


def pipeline(board: type[Fold]) -> Pipeline:
    """The flights of a release."""
    return Pipeline("flights", aggregates=[Flight], projections=[Planned, board], partitions=2)


class Running:
    """A log with a worker, an engine, and one projector after the other."""

    def __init__(self, folder: Path) -> None:
        self.settings, self._clock = Settings(data=folder), SystemClock()
        self.log = SqliteLog(folder, self._clock)
        provision(pipeline(Board1), self.log)
        (self._worker,) = workers_of(pipeline(Board1), self.log, name="w", clock=self._clock)
        self.store = Store(embedded_dsn(folder))
        self.sent = 0

    def schedule(self, *ids: str) -> None:
        """Plan these flights, and wait until that is decided."""
        self._decide([(id, Schedule("UA", "JFK", "SFO", AT)) for id in ids])

    def cancel(self, id: str) -> None:
        """Take one off the schedule."""
        self._decide([(id, Cancel())])

    def _decide(self, commands: list[tuple[str, Any]]) -> None:
        with SyncClient(pipeline(Board1), settings=self.settings) as client:
            for id, command in commands:
                client.send(Flight, id, command)
        self.sent += len(commands)
        while self._worker.decided < self.sent:
            self._worker.step(timeout_seconds=0.1)

    def prepared(self, board: type[Fold]) -> Projector:
        """A projector of a release that has made its tables, and feeds none yet."""
        made = Projector(pipeline(board), self.log, self.store, self.settings, clock=self._clock)
        made.prepare()
        return made

    def projector(self, board: type[Fold]) -> Projector:
        """A projector of a release, with all that there is in its tables."""
        made = self.prepared(board)
        made.open()
        while made.step():
            pass
        return made

    def rows(self, columns: str, view: str = "board") -> list[tuple[Any, ...]]:
        """Of a view, in the order of the flights."""
        return [tuple(row) for row in self.store.query(f"SELECT {columns} FROM flights.{view} ORDER BY _id")]

    def close(self) -> None:
        """Close the worker, the engine and the log."""
        self._worker.close()
        self.store.close()
        self.log.close()
