"""The pipeline: the flights' aggregate, and what analysts ask of its events."""

from datetime import date

from magnetar import Pipeline, Sql

from .flight import Flight


class DelaysByRoute(Sql):
    """How late flights leave, by route and month."""

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


flights = Pipeline(
    "flights",
    aggregates=[Flight],
    projections=[DelaysByRoute, CancellationsByCarrier, RejectionsByReason],
)
