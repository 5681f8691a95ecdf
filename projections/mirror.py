"""The mirror: every commit and every event of one aggregate, in ClickHouse."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Final

from magnetar.schemas import StoreUnavailable
from magnetar.schemas.aggregate_schema import AggregateSchema

from .altered import refuse_altered
from .decoding import Decoder
from .freshness import MIRROR
from .leased_table import ALL, INSERT_SETTINGS, LeasedTable, Scope, Table
from .range_loop import Lease, Range
from .store import Block, Store
from .tables import COMMITS, ENVELOPE, EVENTS, MirrorTables
from .views import shown_views

DECODED_TWICE_MAX: Final = 1000
"""Ranges up to this size need no table for what is decoded. It takes ClickHouse 7 ms; to decode a commit, 1.2 µs."""


class Mirror(LeasedTable):
    """One generation of the tables of one aggregate."""

    def __init__(
        self,
        store: Store,
        schema: AggregateSchema,
        *,
        partitions: int,
        generation: int = 1,
        schema_text: Callable[[int], str],
        folder: Path,
        failpoint: Callable[[str], None] | None = None,
        decoder: Decoder | None = None,
    ) -> None:
        table = Table(MIRROR, schema.aggregate, generation)
        super().__init__(store, schema.context, table, folder=folder, failpoint=failpoint)
        self.tables = MirrorTables(schema, partitions=partitions, generation=generation)
        self._schema_text = schema_text
        self._decoder = decoder or Decoder(store, folder)
        self._there: dict[int, dict[str, tuple[int, int]]] = {}
        """By partition, the pending range that is in each of the tables, from when it was counted until its replay."""

    def prepare(self) -> None:
        """Create what is missing of the tables, and widen what has grown. Repeatable."""
        for statement in self.tables.definitions():
            self._store.command(statement)
        self._refuse_altered()
        for statement in self.tables.additions():
            self._store.command(statement)
        columns = self._store.query(f"DESCRIBE TABLE {self.tables.events}")
        for statement in self.tables.widenings({row[0]: row[1] for row in columns}):
            self._store.command(statement)

    def _refuse_altered(self) -> None:
        """A column that is not there is new, unless it was shown already: columns are added before they are shown."""
        aggregate = self.table.aggregate
        shown = self._store.query(
            "SELECT name FROM system.columns WHERE database = {database:String} AND table = {table:String}",
            {"database": self.tables.schema.context, "table": self.tables.shown_events},
        )
        events = self.tables.event_columns()
        had = {*ENVELOPE, "type", *(name for (name,) in shown)}
        growing = self.tables.growing_columns()
        refuse_altered(self._store, self.tables.events, events, target=aggregate, had=had, growing=growing)
        refuse_altered(self._store, self.tables.commits, self.tables.commit_columns(), target=aggregate)

    def last_numbers(self) -> dict[int, int]:
        """By partition, the number of the last commit in the tables, whoever put it there."""
        rows = self._store.query(f"SELECT partition, max(number) FROM {self.tables.commits} GROUP BY partition")
        return {row[0]: row[1] for row in rows}

    def show(self, failpoint: Callable[[str], None] = lambda _: None, /) -> None:
        """Let the views show this generation. Repeatable."""
        for nth, statement in enumerate(shown_views(self.tables).values()):
            if nth:
                failpoint("between_views")
            self._store.command(statement)

    def drop(self) -> None:
        """Remove the tables. Repeatable; no other generation ever gets their number."""
        for nth, statement in enumerate(self.tables.drops()):
            if nth:
                self._failpoint("between_drops")
            self._store.command(statement)

    def check(self, partition: int, first: int, last: int, _: int, _scope: Scope = ALL, /) -> None:
        """Count them: a commit says how many events it has. Raises StoreUnavailable.

        What the tables have of the range is known by that: a token is forgotten when others have been used since.
        """
        count, total, events, events_below = self._store.query(
            "SELECT count(), sum(number), sum(events), sumIf(events, number < {first:Int64}) "
            f"FROM {self.tables.commits} WHERE partition = {partition}",
            {"first": first},
        )[0]
        ((have_events,),) = self._store.query(f"SELECT count() FROM {self.tables.events} WHERE partition = {partition}")
        is_whole = count in (first - 1, last) and total == count * (count + 1) // 2
        if not is_whole or have_events not in (events, events_below):
            raise StoreUnavailable(
                f"The tables of {self._name} partition {partition} do not fit the log: they hold {count} commits and "
                f"{have_events} events, and commits {first} to {last} were begun last. Rows were lost, or changed "
                "behind the mirror's back.",
                cure="Nothing is lost from the log: `magnetar rebuild` with the pipeline's module fills new tables "
                "from it, or stop the projector and remove the folder `clickhouse` of the data folder.",
                partition=partition,
            )
        has_commits = count == last
        there = {COMMITS: has_commits, EVENTS: has_commits and have_events == events}
        self._there[partition] = {table: (first, last) for table, is_there in there.items() if is_there}

    def insert(self, partition: int, lease: Lease, inserted: Range, schema: int, payloads: Sequence[bytes]) -> None:
        """Put the payloads, which ClickHouse decodes as a rule, into those of the two tables that lack them, each under
        its token, behind the lease."""
        there = self._there.pop(partition, {})
        lacking = [table for table in (COMMITS, EVENTS) if there.get(table) != (inserted.first, inserted.last)]
        if not lacking:
            return
        text = self._schema_text(schema)
        with self._source(text, payloads, partition) as (source, block):
            statements = self.tables.inserts(text, source, partition, self._guard(partition, lease))
            for table in lacking:
                if table == EVENTS:
                    self._failpoint("between_tables")
                self._insert_block(partition, inserted, statements[table], table, block)

    @contextlib.contextmanager
    def _source(
        self, schema_text: str, payloads: Sequence[bytes], partition: int
    ) -> Generator[tuple[str, Block | None]]:
        """What gives the payloads' values, and the block that goes with each statement, if one does.

        Reading it is the dearest step of a long range: what it gives stands in a table of this session meanwhile,
        under a name that no other range ever has, so that both tables are filled from it (docs/adr/0007). A short one
        is read twice: the table would cost more. So is one that goes to a server, where there are no sessions.
        """
        framed = self._decoder.framed(schema_text, payloads)
        columns = framed.structure
        with self._block(partition, *framed) as block:
            source = f"FROM {block.source}"
            if len(payloads) <= DECODED_TWICE_MAX or not self._store.is_embedded:
                yield source, block
                return
            name = f"block_{uuid.uuid4().hex}"
            try:
                self._store.command(f"CREATE TEMPORARY TABLE {name} ({columns}) ENGINE = Memory")
                self._store.command(f"INSERT INTO {name} SELECT * {source} SETTINGS {INSERT_SETTINGS}")
                yield f"FROM {name}", None
            finally:
                with contextlib.suppress(StoreUnavailable):
                    self._store.command(f"DROP TEMPORARY TABLE IF EXISTS {name}")
