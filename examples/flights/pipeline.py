"""The pipeline: the flights' aggregate, and what analysts ask of its events."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import ClassVar, Self

from magnetar import Fold, Meta, Pipeline, Rows, Sql, Window

from .flight import Cancelled, Departed, Diverted, Flight, Landed, Scheduled

LATE_MINUTES = 60


class DelaysByRoute(Sql):
    """How late flights leave, by route and month. Kept up to date: asking costs nothing but reading the groups."""

    incremental = True
    select = """
        SELECT origin, dest, toStartOfMonth(at) AS month, count() AS departures, avg(delay_minutes) AS mean_delay
        FROM Departed GROUP BY origin, dest, month
    """
    origin: str
    dest: str
    month: date
    departures: int
    mean_delay: float


class CancellationsByCarrier(Sql):
    """How many flights each carrier cancelled, by the day they should have left."""

    select = """
        SELECT carrier, toDate(departs_at) AS day, count() AS cancellations FROM Cancelled GROUP BY carrier, day
    """
    carrier: str
    day: date
    cancellations: int


class RejectionsByReason(Sql):
    """How many commands were rejected, by the reason."""

    select = "SELECT rejection AS reason, count() AS commands FROM rejections GROUP BY reason"
    reason: str
    commands: int


class LateDeparture(Rows):
    """The flights that left an hour late, or more."""

    flight: str
    origin: str
    dest: str
    delay_minutes: int

    @classmethod
    def project(cls, event: Departed, meta: Meta) -> Iterator[Self]:
        if event.delay_minutes >= LATE_MINUTES:
            yield cls(meta.id, event.origin, event.dest, event.delay_minutes)


class Board(Fold):
    """The flights that have not arrived: planned, in the air, diverted or cancelled."""

    status: str = ""
    origin: str = ""
    dest: str = ""
    delay_minutes: int | None = None

    def apply(self, event: Scheduled | Departed | Landed | Diverted | Cancelled) -> Self | None:
        match event:
            case Landed():
                return None
            case Departed(delay_minutes=delay):
                return self.replace(status="Departed", delay_minutes=delay)
            case (
                Scheduled(origin=origin, dest=dest)
                | Diverted(origin=origin, dest=dest)
                | Cancelled(origin=origin, dest=dest)
            ):
                return self.replace(status=type(event).__name__, origin=origin, dest=dest)


class HourlyDepartures(Fold):
    """How many flights have left each airport in each hour, and how late they were."""

    window = Window(timedelta(hours=1), at="at")
    by = ("origin",)
    merges: ClassVar = {"departures": sum, "delay_minutes": sum, "longest_delay": max}

    origin: str = ""
    departures: int = 0
    delay_minutes: int = 0
    longest_delay: int | None = None

    def apply(self, event: Departed) -> Self:
        delay, longest = event.delay_minutes, self.longest_delay
        return self.replace(
            departures=self.departures + 1,
            delay_minutes=self.delay_minutes + delay,
            longest_delay=delay if longest is None else max(delay, longest),
        )


flights = Pipeline(
    "flights",
    aggregates=[Flight],
    projections=[DelaysByRoute, CancellationsByCarrier, RejectionsByReason, LateDeparture, Board, HourlyDepartures],
)
