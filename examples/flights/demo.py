"""`make demo`: all flights through everything, and the tables checked against the CSV."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from itertools import islice
from pathlib import Path
from typing import Any

from magnetar.pipelines import Outgoing, SyncClient
from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.dev import prepare, supervise
from magnetar.pipelines.logging import configure_logging
from magnetar.pipelines.runtime import StopSignal
from magnetar.pipelines.settings import Settings, load_settings, open_log
from magnetar.pipelines.sole_supervisor import sole_supervisor
from magnetar.pipelines.supervisor import Supervisor
from magnetar.projections.query import QueryFormat, query, read_endpoint
from magnetar.schemas import QueryRefused, TopicKind, uuid7
from magnetar.schemas.command_message import read_envelope
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from magnetar import MagnetarError

from .data import Expected, Row, Sent, commands, differences, expected, rows
from .flight import Flight
from .pipeline import flights

FOLDER = Path(".demo")
console = Console()


def main() -> int:
    """Run the demo; 0 if all tables agree with the CSV."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--all", action="store_true", help="the whole year, not only January")
    arguments.add_argument("--first", type=int, metavar="N", help="only so many flights")
    arguments.add_argument("--data", type=Path, default=FOLDER, metavar="FOLDER", help="where tables and log are kept")
    given = arguments.parse_args()
    configure_logging("error", role="demo")
    try:
        return run(load_settings(data=given.data), lambda: islice(rows(all_months=given.all), given.first))
    except MagnetarError as error:
        console.print(f"[red]demo:[/] {error}")
        return 1


def run(settings: Settings, chosen: Callable[[], Iterator[Row]]) -> int:
    """Carry the chosen flights through.

    1. Sums up the CSV. 2. Starts worker and mirror. 3. Sends what is not sent yet. 4. Waits. 5. Compares.
    """
    want = expected(chosen())
    clock = SystemClock()
    prepare(flights, settings, clock)
    with sole_supervisor(settings.data):
        stopped = StopSignal()
        supervisor = supervise(
            "examples.flights", clock, arguments=["--data", str(settings.data), "--log-level", "error"]
        )
        start = time.perf_counter()
        try:
            with Progress(
                TextColumn("{task.description:>10}"), BarColumn(40), MofNCompleteColumn(), TimeElapsedColumn()
            ) as progress:
                carry_through(settings, supervisor, want, progress, stopped, chosen)
        finally:
            supervisor.stop()
        if stopped():
            console.print("Stopped. Run it again, and it goes on from here.")
            return 130
    console.print(f"{want.commands:,} commands of {want.flights:,} flights in {time.perf_counter() - start:.1f} s.\n")
    return report(settings.data, want)


def carry_through(
    settings: Settings,
    supervisor: Supervisor,
    want: Expected,
    progress: Progress,
    stopped: StopSignal,
    chosen: Callable[[], Iterator[Row]],
) -> None:
    """Send, and watch the rows arrive, until all are there."""
    sending = progress.add_task("sent", total=want.commands)
    arriving = progress.add_task("in tables", total=want.commands)
    supervisor.look_after()
    with SyncClient(flights, settings=settings) as client:
        before = already_sent(settings)
        if len(before) > want.commands:
            raise DemoFailed(
                f"The log holds {len(before):,} commands, and the chosen flights have {want.commands:,}.",
                cure="Run the whole year, make demo ALL=1, or begin anew: make clean-demo.",
            )
        progress.update(sending, completed=len(before))
        for count in client.send_many(outgoing(commands(chosen()), before)):
            progress.advance(sending, count)
            supervisor.look_after()
            if stopped():
                return
    arrived = 0
    while arrived < want.commands and not stopped():
        supervisor.look_after()
        check_health(supervisor)
        arrived = commits_in_tables(settings.data)
        progress.update(arriving, completed=arrived)
        stopped.wait(0.1)


def outgoing(sent: Iterator[Sent], before: set[int]) -> Iterator[Outgoing]:
    """The commands that do not stand on the topic yet, each under an id whose random part is the same in every run."""
    now_ms = SystemClock().now_ms()
    for each in sent:
        if each.key not in before:
            yield Outgoing(Flight, each.id, each.command, uuid7(now_ms, each.key))


def already_sent(settings: Settings) -> set[int]:
    """The keys of the commands that an earlier run has put on the topic, read from the topic itself."""
    log, found = open_log(settings, SystemClock()), set[int]()
    topic = flights.topic("Flight", TopicKind.COMMANDS)
    try:
        for partition in range(flights.partitions):
            end, last = log.end(topic, partition), None
            reader = log.reader(topic, partition, after=None)
            while end is not None and (last is None or last < end):
                for message in reader.read(messages_max=10_000, timeout_seconds=1):
                    found.add(key_of(read_envelope(message.payload)[0].command_id))
                    last = message.id
            reader.close()
    finally:
        log.close()
    return found


def key_of(command_id: str) -> int:
    """The random part of a UUIDv7: 12 bits behind its version, and 62 behind its variant."""
    number = int(command_id.replace("-", ""), 16)
    return (number >> 64 & 0xFFF) << 62 | number & (1 << 62) - 1


def check_health(supervisor: Supervisor) -> None:
    """Give up on a part that cannot start, instead of waiting for it for ever."""
    for part in supervisor.parts:
        if part.failures >= 3:
            raise DemoFailed(
                f"The {part.role} ended three times in a row, at last with exit code {part.exit_code}.",
                cure="Its own words stand above.",
            )


class DemoFailed(MagnetarError):
    """The demo cannot go on."""


def commits_in_tables(folder: Path) -> int:
    """How many commits have come into every table."""
    if load_settings().server() is None and read_endpoint(folder) is None:
        return 0
    each = "SELECT sum(number) AS n FROM flights.freshness GROUP BY `projection`"
    try:
        return int(ask(folder, f"SELECT min(n) AS n FROM ({each})")[0]["n"])
    except QueryRefused as error:
        if "UNKNOWN_" in error.what:  # a server whose tables are not made yet
            return 0
        raise


def ask(folder: Path, sql: str) -> list[dict[str, Any]]:
    """The rows of a query."""
    lines = query(folder, sql, QueryFormat.JSONL, load_settings().server()).decode().splitlines()
    return [json.loads(line) for line in lines]


def report(folder: Path, want: Expected) -> int:
    """Print the tables, and compare every row with the CSV."""
    show(
        folder,
        "The longest mean delays, by route and month (30 departures or more)",
        "SELECT * FROM flights.delays_by_route WHERE departures >= 30 ORDER BY mean_delay DESC LIMIT 10",
    )
    show(
        folder,
        "The worst ten days",
        "SELECT * FROM flights.cancellations_by_carrier ORDER BY cancellations DESC LIMIT 10",
    )
    show(folder, "Rejections", "SELECT * FROM flights.rejections_by_reason ORDER BY reason")
    delays = {
        (row["origin"], row["dest"], date.fromisoformat(row["month"])): (row["n"], row["total"])
        for row in ask(
            folder,
            "SELECT origin, dest, month, departures AS n, toInt64(round(mean_delay * departures)) AS total "
            "FROM flights.delays_by_route",
        )
    }
    cancellations = {
        (row["carrier"], date.fromisoformat(row["day"])): row["cancellations"]
        for row in ask(folder, "SELECT * FROM flights.cancellations_by_carrier")
    }
    rejections = {row["reason"]: row["commands"] for row in ask(folder, "SELECT * FROM flights.rejections_by_reason")}
    late = {row["flight"]: row["delay_minutes"] for row in ask(folder, "SELECT * FROM flights.late_departure")}
    hourly = {
        (row["origin"], datetime.fromtimestamp(row["hour"], UTC)): (row["n"], row["total"], row["longest_delay"])
        for row in ask(
            folder,
            "SELECT origin, toUnixTimestamp(_window) AS hour, departures AS n, delay_minutes AS total, longest_delay "
            "FROM flights.hourly_departures",
        )
    }
    board = {row["_id"]: row["status"] for row in ask(folder, "SELECT _id, status FROM flights.board")}
    compared = (
        ("delays by route and month", want.delays, delays),
        ("cancellations by carrier and day", want.cancellations, cancellations),
        ("rejections by reason", want.rejections, rejections),
        ("late departures by flight", want.late, late),
        ("the board by flight", want.board, board),
        ("departures by airport and hour", want.hourly, hourly),
        ("commits", {"all": want.commands}, {"all": ask(folder, "SELECT count() AS n FROM flights.commits")[0]["n"]}),
    )
    wrong = 0
    for name, expect, have in compared:
        if found := differences(expect, have):
            wrong += 1
            console.print(
                f"[red]✗ {name}: {len(found)} of {len(expect)} rows differ from the CSV[/]", *found[:5], sep="\n  "
            )
        else:
            console.print(f"[green]✓[/] {name}: all {len(expect):,} rows equal to the sums from the CSV")
    if not wrong:
        where = "" if folder == FOLDER else f" DATA={folder}"
        asking = f'make query{where} SQL="SELECT count() FROM flights.Departed"'
        console.print(f"\nThe data is in {folder}. Ask it: {asking}", soft_wrap=True)
    return 1 if wrong else 0


def show(folder: Path, title: str, sql: str) -> None:
    """Print a query's rows as a table."""
    found = ask(folder, sql)
    table = Table(title=title, title_justify="left")
    for column in found[0] if found else ():
        table.add_column(column, justify="left" if isinstance(found[0][column], str) else "right")
    for row in found:
        table.add_row(*(f"{value:,.1f}" if isinstance(value, float) else str(value) for value in row.values()))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
