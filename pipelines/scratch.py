"""Scratch tables: projections under some code, filled from the log, in an engine of their own that is thrown away."""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from magnetar.projections.columns import quoted
from magnetar.projections.declarations import view_name
from magnetar.projections.leased_table import ADMIN_DEFINITIONS, LeasedTable, Table
from magnetar.projections.quarantine import quarantined
from magnetar.projections.range_loop import Lease, Range, RangeLoop
from magnetar.projections.snapshot import Until
from magnetar.projections.store import Store, embedded_dsn
from magnetar.schemas import LogUnavailable, MagnetarError, wire_name

from .clock import Clock
from .feeding import THREADS, Source
from .log import Log
from .pipeline import Pipeline
from .rebuild import RANGE_COMMITS_MAX
from .table_kinds import TableKinds

_NONCE: Final = "scratch"
_GAP_SECONDS: Final = 10.0
_KEYS_MAX: Final = 1_000_000
"""So many keys may have an event that the projection raises on: it is to be seen with how many it does."""


class Filled(NamedTuple):
    """A scratch table."""

    name: str
    """As SQL has it."""
    projection: type[Any]


class Refused(msgspec.Struct, frozen=True):
    """Events that a projection raised on in one way: their aggregates stay as they were before them."""

    event: str
    error: str
    aggregates: int
    examples: list[str]
    """Ids of some."""


class Slice:
    """A table that takes no commits before one of a number; a RangeStore in all else as it is."""

    def __init__(self, table: LeasedTable, first: int) -> None:
        self._table, self._first = table, first
        self.take_lease, self.stop_older_inserts = table.take_lease, table.stop_older_inserts
        self.read_pending, self.write_pending, self.tell = table.read_pending, table.write_pending, table.tell

    def insert(self, partition: int, lease: Lease, inserted: Range, schema: int, payloads: Sequence[bytes]) -> None:
        """See RangeStore."""
        skipped = max(0, self._first - inserted.first)
        if taken := payloads[skipped:]:
            self._table.insert(partition, lease, inserted._replace(first=inserted.first + skipped), schema, taken)


class Scratch:
    """An engine in a temporary folder. This process must have no other one open meanwhile."""

    def __init__(self, pipeline: Pipeline, log: Log, clock: Clock, folder: Path) -> None:
        self._pipeline = pipeline
        self._source = Source(pipeline, log, clock, threading.Lock())
        self.folder = folder
        self.store = Store(embedded_dsn(folder))
        (folder / "blocks").mkdir()
        self._kinds = TableKinds(pipeline, log, self.store, folder / "blocks", quarantine_keys_max=_KEYS_MAX)
        for statement in (*ADMIN_DEFINITIONS, f"CREATE DATABASE IF NOT EXISTS {quoted(pipeline.name)}"):
            self.store.command(statement)

    def fill(
        self,
        projection: type[Any],
        aggregates: tuple[str, ...],
        until: Until,
        *,
        generation: int = 1,
        since: Until | None = None,
    ) -> Filled:
        """Make the table of a projection, and fill it from the log up to there, by the range loop.

        With `since`, the commits before those are read and left out. Raises what the log or ClickHouse raises; what the
        projection itself raises is in `refused`.
        """
        tables = [Table(wire_name(projection), aggregate, generation) for aggregate in aggregates]
        made = [self._kinds.make(table, projection=projection) for table in tables]
        for each in made:
            each.prepare()
        view = view_name(projection)
        name = f"{quoted(self._pipeline.name)}.{quoted(f'{view}__g{generation}')}"
        parts = [(each, partition) for each in made for partition in self._source.partitions(each.table.aggregate)]
        with ThreadPoolExecutor(THREADS, thread_name_prefix="magnetar-scratch") as threads:
            for error in threads.map(lambda part: self._fill_part(part[0], part[1], until, since), parts):
                if error is not None:
                    raise error
        return Filled(name, projection)

    def show(self, projection: type[Any], aggregate: str) -> str:
        """Make the view of a projection that was filled, as users see it; returns its name as SQL has it."""
        self._kinds.make(Table(wire_name(projection), aggregate, 1), projection=projection).show()
        return f"{quoted(self._pipeline.name)}.{quoted(view_name(projection))}"

    def _fill_part(self, table: LeasedTable, partition: int, until: Until, since: Until | None) -> MagnetarError | None:
        aggregate = table.table.aggregate
        goal, first = until.get((aggregate, partition), 0), 1
        if since is not None:
            first = since.get((aggregate, partition), goal + 1)
        if first > goal:
            return None
        try:
            loop = RangeLoop(
                Slice(table, first),
                partition,
                lambda after: self._source.open(aggregate, partition, after),
                nonce=_NONCE,
                range_commits_max=min(RANGE_COMMITS_MAX, table.range_commits_max),
                until=goal,
            )
            try:
                while loop.number < goal:
                    place = loop.place
                    if not loop.step(timeout_seconds=_GAP_SECONDS) and loop.place == place:
                        raise LogUnavailable(
                            f"The tables have commit {goal} of {aggregate} partition {partition}, and the log gives "
                            f"none behind {loop.number}.",
                            cure="Was the log put back to an older copy than the tables? Restore both from one copy.",
                        )
            finally:
                loop.close()
        except MagnetarError as error:
            return error
        return None

    def refused(self, projection: type[Any], *, examples: int, generation: int = 1) -> list[Refused]:
        """The events that a projection raised on when its table was filled, the most frequent first."""
        kinds: dict[tuple[str, str], list[str]] = {}
        for key in quarantined(self.store.rows, self._pipeline.name):
            if (key.projection, key.generation) == (wire_name(projection), generation):
                kinds.setdefault((key.event, key.error), []).append(key.id)
        found = [Refused(*kind, len(ids), ids[:examples]) for kind, ids in kinds.items()]
        return sorted(found, key=lambda each: -each.aggregates)

    def close(self) -> None:
        """Close the engine."""
        self.store.close()


@contextmanager
def scratch_folder() -> Generator[Path]:
    """A folder for it, which is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="magnetar-scratch-", ignore_cleanup_errors=True) as folder:
        yield Path(folder)
