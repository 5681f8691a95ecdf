"""The tables of the flights' projections against a pure fold of the log: every row with all columns, both ways."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from magnetar.projections import Rows
from magnetar.schemas import Event, Meta

from examples.flights.flight import Cancelled, Departed, Diverted, Landed, Scheduled
from examples.flights.pipeline import Board, LateDeparture
from tests.chaos.comparing import CODEC, Ask, Stored
from tests.counting import counting

_AT = "toUnixTimestamp64Micro(_at) AS at"
_ENVELOPE = f"_id, _version AS version, _number AS number, _partition AS part, {_AT}"


_DELAYS = "origin, dest, toString(month) AS of, departures, mean_delay"
_HOURLY = "origin, toUnixTimestamp(_window) AS hour, departures, delay_minutes, longest_delay, _late AS late"


class Trace(Rows):
    """A row for every event, so that no range is without one."""

    flight: str
    event: str
    order_by = ("event", "flight")
    keep = timedelta(days=365)

    @classmethod
    def project(cls, event: Scheduled | Departed | Landed | Diverted | Cancelled, meta: Meta) -> tuple[Self, ...]:
        return (cls(meta.id, type(event).__name__),)


def wrong_in_projections(ask: Ask, logs: Sequence[Stored], *, traced: bool = False) -> list[str]:
    """What one side has and the other lacks, of what is shown; `traced`: of Trace too."""
    found = list[str]()
    views = [
        ("hourly_departures", _HOURLY, _hourly(logs)),
        ("delays_by_route", _DELAYS, _delays(logs)),
        ("late_departure", f"flight, origin, dest, delay_minutes, {_ENVELOPE}", _late(logs)),
        ("board", f"status, origin, dest, delay_minutes, {_ENVELOPE}", _board(logs)),
    ]
    if traced:
        traces = [(meta.id, type(event).__name__, *envelope) for event, meta, envelope in _facts(logs)]
        views.append(("trace", f"flight, event, {_ENVELOPE}", traces))
    for view, columns, wanted in views:
        have = Counter(tuple(row.values()) for row in ask(f"SELECT {columns} FROM flights.{view}"))
        want = Counter(wanted)
        for what, rows in (("lacks", want - have), ("has without reason", have - want)):
            found += [f"{view} {what} {row}, {count} times" for row, count in list(rows.items())[:3]]
    return found


def _facts(logs: Sequence[Stored]) -> Iterator[tuple[Event, Meta, tuple[Any, ...]]]:
    """Each event, what is said of it, and what stands behind the fields of its row."""
    for partition, each in enumerate(logs):
        for commit in (CODEC.decode(message.payload) for message in counting(each.events)):
            for version, event in enumerate(commit.events, commit.version + 1):
                at = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=commit.at_us)
                meta = Meta(commit.aggregate_id, version, at, commit.actor, commit.correlation_id)
                yield event, meta, (commit.aggregate_id, version, commit.number, partition, commit.at_us)


def _hourly(logs: Sequence[Stored]) -> list[tuple[Any, ...]]:
    """Departures by airport and hour, with those that came when their hour was over on their partition."""
    found: dict[tuple[str, int], list[int]] = {}
    newest: dict[int, int] = {}
    for event, _, (*_, partition, _) in _facts(logs):
        if isinstance(event, Departed):
            at = int(event.at.timestamp())
            row = found.setdefault((event.origin, at // 3600 * 3600), [0, 0, event.delay_minutes, 0])
            row[0] += 1
            row[1] += event.delay_minutes
            row[2] = max(row[2], event.delay_minutes)
            row[3] += at // 3600 * 3600 + 3600 <= newest.get(partition, 0)
            newest[partition] = max(newest.get(partition, 0), at)
    return [(*key, *row) for key, row in found.items()]


def _delays(logs: Sequence[Stored]) -> list[tuple[Any, ...]]:
    """Departures by route and month, and their mean delay: of whole minutes, which both sides sum up exactly."""
    found: dict[tuple[str, str, str], tuple[int, int]] = {}
    for event, *_ in _facts(logs):
        if isinstance(event, Departed):
            route = event.origin, event.dest, event.at.strftime("%Y-%m-01")
            departures, minutes = found.get(route, (0, 0))
            found[route] = departures + 1, minutes + event.delay_minutes
    return [(*route, departures, minutes / departures) for route, (departures, minutes) in found.items()]


def _late(logs: Sequence[Stored]) -> list[tuple[Any, ...]]:
    return [
        (row.flight, row.origin, row.dest, row.delay_minutes, *envelope)
        for event, meta, envelope in _facts(logs)
        if isinstance(event, Departed)
        for row in LateDeparture.project(event, meta)
    ]


def _board(logs: Sequence[Stored]) -> list[tuple[Any, ...]]:
    board: dict[str, tuple[Board, tuple[Any, ...]]] = {}
    for event, meta, envelope in _facts(logs):
        before, _ = board.pop(meta.id, (Board(), ()))
        after: Any = before.apply(event)  # type: ignore[arg-type]  # what stands in the log is the flight's
        if after is not None:
            board[meta.id] = after, envelope
    return [(row.status, row.origin, row.dest, row.delay_minutes, *envelope) for row, envelope in board.values()]
