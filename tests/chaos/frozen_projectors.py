"""Range loops frozen past a take-over and woken, over one real engine; and what a power cut does to it.

An embedded engine belongs to one process. So the two owners of a partition are two threads here, and a freeze is a
thread that stands still at a failpoint. Prints what is wrong afterwards as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import threading
import time
from collections.abc import Callable
from itertools import islice, product
from pathlib import Path
from typing import Any, Final

from magnetar.pipelines.clock import SystemClock
from magnetar.pipelines.projector import Projector
from magnetar.pipelines.settings import Settings
from magnetar.pipelines.worker import Worker
from magnetar.projections.fold_table import FoldTable
from magnetar.projections.incremental_table import IncrementalTable
from magnetar.projections.keyed_fold_table import KeyedFoldTable
from magnetar.projections.leased_table import LeasedTable
from magnetar.projections.mirror import Mirror
from magnetar.projections.projected_table import Source
from magnetar.projections.range_loop import FAILPOINTS, RangeLoop
from magnetar.projections.rows_table import RowsTable
from magnetar.projections.store import Block, Store, embedded_dsn
from magnetar.schemas import LeaseLost, StoreUnavailable

from examples.flights.data import rows
from examples.flights.flight import Flight
from examples.flights.pipeline import Board, DelaysByRoute, HourlyDepartures, LateDeparture, flights
from magnetar import Pipeline
from tests.chaos.comparing import EVENTS, SCHEMA, stored, wrong_in_mirror
from tests.chaos.comparing_projections import Trace, wrong_in_projections
from tests.chaos.processes import DEADLINE_SECONDS
from tests.chaos.sabotages import SABOTAGES
from tests.chaos.sending import Asking

SLEEP_SECONDS = 6
"""How long a slow insert takes for each of its three rows."""


class Late(RowsTable):
    """Of late departures, where RowsTable is of all events. No case is about it."""


KINDS: Final[tuple[type[LeasedTable], ...]] = (Mirror, IncrementalTable, RowsTable, FoldTable, KeyedFoldTable)
FED: Final[tuple[type[LeasedTable], ...]] = (*KINDS, Late)
PROJECTIONS: Final[dict[type[LeasedTable], type[Any]]] = {
    IncrementalTable: DelaysByRoute,
    KeyedFoldTable: HourlyDepartures,
    FoldTable: Board,
    Late: LateDeparture,
    RowsTable: Trace,
}
"""What each kind of table is of; a kind stands before those that it is derived from."""


class Stage:
    """A log with decided commands, and an engine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asking = Asking(folder / "data")
        self._rows = rows(all_months=False)
        self.open_store()
        self.decide()

    def open_store(self) -> None:
        """Open the engine, and create what is missing in it."""
        data = self.asking.data
        self.store = Store(embedded_dsn(data))
        pipeline = Pipeline("flights", aggregates=[Flight], projections=[*flights.projections, Trace])
        Projector(pipeline, self.asking.log, self.store, Settings(data=data), clock=SystemClock()).prepare()

    def decide(self) -> None:
        """More commits in the log."""
        self.asking.send(islice(self._rows, 100))
        worker = Worker(
            self.asking.log,
            Flight,
            SCHEMA,
            partitions=flights.partitions,
            name=f"worker-{time.monotonic_ns()}",
            clock=SystemClock(),
            random=random.SystemRandom(),
        )
        while not self.asking.is_done():
            worker.step(timeout_seconds=0.1)
        worker.close()

    def loop(
        self,
        partition: int,
        commits_max: int,
        *,
        failpoint: Callable[[str], None] | None = None,
        kind: type[LeasedTable] = Mirror,
    ) -> RangeLoop:
        """A new owner of a partition's tables."""
        nonce = random.SystemRandom().randbytes(8).hex()
        folder = self.folder / nonce
        folder.mkdir()
        return RangeLoop(
            self._table(kind, folder, failpoint),
            partition,
            lambda after: self.asking.log.reader(EVENTS, partition, after=after),
            nonce=nonce,
            range_commits_max=commits_max,
            failpoint=failpoint,
        )

    def _table(self, kind: type[LeasedTable], folder: Path, failpoint: Callable[[str], None] | None) -> LeasedTable:
        def schema_text(number: int) -> str:
            return self.asking.log.schema(EVENTS, number)

        partitions = flights.partitions
        if issubclass(kind, Mirror):
            return kind(
                self.store, SCHEMA, partitions=partitions, schema_text=schema_text, folder=folder, failpoint=failpoint
            )
        projection = PROJECTIONS[next(each for each in PROJECTIONS if issubclass(kind, each))]
        source = Source(SCHEMA, partitions, schema_text)
        of_kind: Any = kind  # each takes projections of its kind
        made: LeasedTable = of_kind(self.store, projection, source, generation=1, folder=folder, failpoint=failpoint)
        return made

    def ask(self, sql: str) -> list[dict[str, Any]]:
        """The rows of a query."""
        return [json.loads(line) for line in self.store.read_only(sql, fmt="JSONEachRow").splitlines()]

    def judge(self) -> list[str]:
        """Bring what is left into all tables, and compare."""
        found = []
        for partition, kind in product(range(flights.partitions), FED):
            try:
                run(self.loop(partition, 50_000, kind=kind))
            except StoreUnavailable as error:
                found.append(str(error))
        logs = stored(self.asking.data)
        return found + wrong_in_mirror(self.ask, logs) + wrong_in_projections(self.ask, logs, traced=True)

    def close(self) -> None:
        """Close engine and log."""
        self.store.close()
        self.asking.close()


def run(loop: RangeLoop, ranges: int = 1_000_000) -> None:
    """So many ranges, or all that there are."""
    while ranges and (loop.step() or loop.step()):  # a claim alone makes no range
        ranges -= 1
    loop.close()


class Sleeper(threading.Thread):
    """An owner that freezes at the first passing of a failpoint, until it is woken."""

    def __init__(self, stage: Stage, partition: int, failpoint: str, kind: type[LeasedTable]) -> None:
        super().__init__(name=f"frozen-{kind.__name__}-{failpoint}")
        self.is_frozen, self.may_wake = threading.Event(), threading.Event()
        self.end = "went on to the end"
        self._stage, self._partition, self._failpoint, self._kind = stage, partition, failpoint, kind

    def run(self) -> None:
        """An owner's life. That it loses its lease, or that its insert is stopped, is what it has to live with."""
        try:
            run(self._stage.loop(self._partition, 3, failpoint=self._freeze, kind=self._kind))
        except (LeaseLost, StoreUnavailable) as error:
            self.end = type(error).__name__

    def _freeze(self, name: str) -> None:
        if name == self._failpoint and not self.is_frozen.is_set():
            self.is_frozen.set()
            self.may_wake.wait(DEADLINE_SECONDS)


def frozen(stage: Stage) -> None:
    """1. On each partition, an owner of each table freezes at another place. 2. A second one takes over. 3. The first
    one wakes."""
    places = [
        (partition, name, kind)
        for partition, name in enumerate(FAILPOINTS)
        for kind in KINDS
        if name != "between_tables" or kind is Mirror
    ]
    for partition, _, kind in places:
        run(stage.loop(partition, 4, kind=kind), ranges=1)
    stage.decide()
    sleepers = [Sleeper(stage, *place) for place in places]
    for each in sleepers:
        each.start()
        assert each.is_frozen.wait(DEADLINE_SECONDS), each.name
    for partition, _, kind in places:
        run(stage.loop(partition, 5, kind=kind))
    stage.decide()
    for each in sleepers:
        each.may_wake.set()
        each.join()
        print(each.name, each.end)


def slowed(kind: type[LeasedTable]) -> type[LeasedTable]:
    """A table whose inserts take long for every row, after the lease was checked; of the mirror's, the commits'."""

    class Slow(kind):  # type: ignore[misc, valid-type]  # which one is known when it runs
        def _run(self, partition: int, statement: str, block: Block | None = None) -> None:
            slow = (
                f" AND sleepEachRow({SLEEP_SECONDS}) = 0 "
                "SETTINGS function_sleep_max_microseconds_per_block = 100000000, insert_deduplication_token"
            )
            if "flight__events" not in statement:
                statement = statement.replace(" SETTINGS insert_deduplication_token", slow)
                assert slow in statement
            super()._run(partition, statement, block)

    return Slow


class SlowOwner(Sleeper):
    """An owner whose insert is under way for a long time."""

    def run(self) -> None:
        """As above, with a slow store."""
        try:
            run(self._stage.loop(self._partition, 3, kind=slowed(self._kind)))
        except (LeaseLost, StoreUnavailable) as error:
            self.end = f"{type(error).__name__}: {error}"


def slow(stage: Stage, kind: type[LeasedTable]) -> None:
    """An insert that began under the old lease, and would be over long after the take-over.

    A table remembers the tokens of the last inserts only. Here it remembers two, and the new owner makes more.
    """
    for table in ("flight__commits", "flight__events", "trace", "board", "hourly_departures", "delays_by_route"):
        stage.store.command(f"ALTER TABLE flights.{table}__g1 MODIFY SETTING non_replicated_deduplication_window = 2")
    first = SlowOwner(stage, 0, "", kind)
    first.start()
    running = (
        "FROM system.processes WHERE query LIKE '%INSERT INTO%sleepEachRow%' AND query NOT LIKE '%system.processes%'"
    )
    under_way = f"SELECT count() AS n {running}"
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not stage.ask(under_way)[0]["n"]:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    second = stage.loop(0, 1, kind=kind)
    print("the slow insert is under way:", bool(stage.ask(under_way)[0]["n"]))
    run(second, ranges=12)  # not each has a row for every kind of table
    print("it has outlasted the tokens:", first.is_alive())
    first.join()
    print(first.end)


def slow_mirror(stage: Stage) -> None:
    """Of the mirror."""
    slow(stage, Mirror)


def slow_rows(stage: Stage) -> None:
    """Of rows."""
    slow(stage, RowsTable)


def slow_fold(stage: Stage) -> None:
    """Of a fold."""
    slow(stage, FoldTable)


def slow_keyed_fold(stage: Stage) -> None:
    """Of a fold by fields and windows."""
    slow(stage, KeyedFoldTable)


def slow_incremental(stage: Stage) -> None:
    """Of an incremental Sql."""
    slow(stage, IncrementalTable)


def lost(stage: Stage) -> None:
    """1. A part that ClickHouse had confirmed is empty, as after a power cut. 2. The user does what the error says."""
    stage.judge()
    where = "database = 'flights' AND table = 'flight__commits__g1' AND partition = '7' AND active"
    (part,) = [row["path"] for row in stage.ask(f"SELECT path FROM system.parts WHERE {where} LIMIT 1")]
    stage.store.close()
    for file in Path(part).iterdir():
        os.truncate(file, 0)
    stage.open_store()
    try:
        stage.loop(7, 50_000)
        print("it is not noticed")
    except StoreUnavailable as error:
        print(error)
    stage.store.close()
    shutil.rmtree(stage.asking.data / "clickhouse")
    stage.open_store()


def main() -> None:
    """Run a case, and say what is wrong."""
    arguments = argparse.ArgumentParser(description=__doc__)
    slow_ones = (slow_mirror, slow_rows, slow_fold, slow_keyed_fold, slow_incremental)
    cases = {each.__name__: each for each in (frozen, *slow_ones, lost)}
    arguments.add_argument("case", choices=cases)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--sabotage", choices=sorted(SABOTAGES))
    given = arguments.parse_args()
    if given.sabotage:
        SABOTAGES[given.sabotage]()
    stage = Stage(given.folder)
    cases[given.case](stage)
    print(json.dumps(stage.judge()))
    stage.close()


if __name__ == "__main__":
    main()
