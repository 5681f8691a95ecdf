"""The tables of incremental Sql projections: states of aggregates, by the keys of the query and by partition."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from magnetar.schemas import DeclarationError, PartitionRefused, QueryRefused, StoreUnavailable, wire_name
from magnetar.schemas.aggregate_schema import AggregateSchema

from .altered import refuse_altered
from .columns import column_type, literal, quoted
from .compression import compressed
from .declarations import Sql, view_name
from .decoding import Decoder
from .incremental import EVENTS, LAST, plan_of, refuse_functions
from .leased_table import ALL, LeasedTable, Scope, Table
from .mirror_source import MirrorRanges
from .progress import fingerprinted
from .projected_table import Source, refuse_outgrown
from .range_loop import Lease, Mirrored, Range
from .sql_views import check_fields, in_short, said_of
from .store import Block, Store
from .tables import ENVELOPE, event_records, event_value, table_settings
from .values import absent, as_of_today, lacking
from .views import EVENT_ENVELOPE

_FUNCTIONS = "SELECT lower(name) FROM system.functions WHERE {}"


MIRRORED_COMMITS_MAX: Final = 1_000_000
"""Commits in one range that is summed up from the mirror. ClickHouse reads the partition's rows of the event once for
each, and holds one row for each group."""


class IncrementalTable(LeasedTable):
    """One generation of what is kept of an incremental Sql.

    A range of commits adds one row for each group of its events, in one block of one table partition. ClickHouse merges
    rows of one group whenever it likes; the view that users query merges the rest.
    """

    def __init__(
        self,
        store: Store,
        projection: type[Sql],
        source: Source,
        *,
        generation: int,
        folder: Path,
        failpoint: Callable[[str], None] | None = None,
    ) -> None:
        schema = source.schema
        table = Table(wire_name(projection), schema.aggregate, generation)
        super().__init__(store, schema.context, table, folder=folder, failpoint=failpoint)
        self.projection = projection
        self._source = source
        self._decoder = source.decoder or Decoder(store, folder)
        self.plan = plan_of(projection.__name__, projection.select)
        self.database = quoted(schema.context)
        self.view = view_name(projection)
        self.name = f"{self.database}.{quoted(f'{self.view}__g{generation}')}"
        self._last: dict[int, int] = {}
        """By partition, the number of the last commit of which something is in the table."""
        self._adopted: dict[int, int] = {}
        """By partition, what was counted before the range that is being replayed."""
        self._events: dict[int, int] = {}
        """By partition, how many events it had behind the last range."""

    # --- what it is ---------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Create the table. Raises DeclarationError for a query that cannot be kept, or does not fit the class."""
        self._check()
        columns = self._columns()
        order = ", ".join(quoted(key.name) for key in self.plan.keys) or "tuple()"
        lines = ",\n  ".join(f"{quoted(name)} {compressed(kind)}" for name, kind in columns.items())
        self._store.command(
            f"CREATE TABLE IF NOT EXISTS {self.name} (\n  {lines}\n) ENGINE = AggregatingMergeTree "
            f"PARTITION BY _partition ORDER BY ({order}) "
            f"SETTINGS allow_nullable_key = 1, {table_settings(self._source.partitions)} "
            f"COMMENT {literal(fingerprinted(said_of(self.projection), self.plan.fingerprint))}"
        )
        refuse_outgrown(self._store, self._source.schema.context, self.table, self.view, self.plan.fingerprint)
        refuse_altered(self._store, self.name, columns, target=self.table.target)

    def _columns(self) -> dict[str, str]:
        """The columns, as the engine says them of the query that fills them."""
        columns = self._described(self.plan.kept(_empty(self._source.schema, self.plan.event)))
        return {
            **{name: kind for name, kind in columns.items() if name not in {LAST, EVENTS}},
            "_partition": "UInt16 COMMENT 'of the event topic'",
            LAST: "SimpleAggregateFunction(max, Int64) COMMENT 'the number of the last commit'",
            EVENTS: "SimpleAggregateFunction(sum, UInt64) COMMENT 'how many'",
        }

    def _check(self) -> None:
        aggregates, changing = (
            {str(name) for (name,) in self._store.query(_FUNCTIONS.format(which))}
            for which in ("is_aggregate", "deterministic = 0")
        )
        refuse_functions(self.projection.__name__, self.plan, aggregates, changing)
        kept = self._described(self.plan.kept(_empty(self._source.schema, self.plan.event)))
        shown = self._described(self.plan.shown(_null(kept)))
        plain = self._described(self.plan.plain(_empty(self._source.schema, self.plan.event)))
        check_fields(self.projection, shown)
        if shown != plain:
            raise DeclarationError(
                f"{self.projection.__name__} cannot be kept incrementally: its columns would be {shown}, and not "
                f"{plain}.",
                cure="Leave `incremental` away.",
            )

    def _described(self, query: str) -> dict[str, str]:
        """The columns of a query and their types, by the engine."""
        try:
            return self._store.described(query, self._source.schema.context)
        except QueryRefused as error:
            raise DeclarationError(
                f"ClickHouse refuses the query of the projection {self.projection.__name__}, or what is made of it to "
                f"keep it incrementally: {in_short(error.what)}",
                cure="Correct it: what is computed from a key has to be a key itself, under a name; or leave "
                "`incremental` away.",
            ) from error

    def show(self, _: Callable[[str], None] = lambda _: None, /) -> None:
        """Let the view show this generation."""
        self._store.command(
            f"CREATE OR REPLACE VIEW {self.database}.{quoted(self.view)} AS {self.plan.shown(self.name)} "
            f"COMMENT {literal(said_of(self.projection))}"
        )

    def drop(self) -> None:
        """Remove the table."""
        self._store.command(f"DROP TABLE IF EXISTS {self.name} SYNC")

    # --- what comes in ------------------------------------------------------------------------------------------------

    def check(self, partition: int, first: int, last: int, counted: int, _: Scope = ALL, /) -> None:
        """Find out how far the table is, and count its events: whoever wrote to it before is stopped."""
        number, events = self._standing(partition)
        is_whole = events > counted if number >= first else events == counted
        if not is_whole or number > max(first - 1, last):
            raise self._does_not_fit(partition, first, last, (number, events), counted)
        self._last[partition], self._adopted[partition], self._events[partition] = number, counted, events

    def _does_not_fit(
        self, partition: int, first: int, last: int, found: tuple[int, int], counted: int
    ) -> StoreUnavailable:
        number, events = found
        return StoreUnavailable(
            f"The table of {self.projection.__qualname__} does not fit the log on partition {partition} of "
            f"{self._name}: it has {events} events up to commit {number}, and {counted} were counted before "
            f"commits {first} to {last} were begun. Rows were lost, or changed behind the projector's back.",
            cure="Nothing is lost from the log: `magnetar rebuild` with the pipeline's module and "
            f"{self.table.target} fills a new table from it.",
            partition=partition,
        )

    def counted(self, partition: int, /) -> int:
        """How many events the table has of what is older than the range that is written down.

        It is known, and not read: what was lost meanwhile would be taken for what belongs there.
        """
        return self._adopted.get(partition, self._events[partition])

    def _standing(self, partition: int) -> tuple[int, int]:
        """The number of the last commit, and how many events there are."""
        sql = f"SELECT max({LAST}), sum({EVENTS}) FROM {self.name} WHERE _partition = {partition}"
        ((number, events),) = self._store.query(sql)
        return number, events

    def insert(self, partition: int, lease: Lease, inserted: Range, schema: int, payloads: Sequence[bytes]) -> None:
        """Let ClickHouse sum up the payloads, and decode them as a rule, as one block.

        A range is in the table as a whole or not at all. So if there is anything of it, all of it is there.
        """
        self._adopted.pop(partition, None)
        if self._last[partition] >= inserted.first:
            return
        text = self._source.schema_text(schema)
        writer = json.loads(text)
        with self._block(partition, *self._decoder.framed(text, payloads)) as block:
            source = event_rows(
                self._source.schema,
                self.plan.event,
                writer,
                block.source,
                partition,
            )
            if source is None:
                return
            self._insert_states(partition, lease, inserted, source, block)

    def _insert_states(
        self, partition: int, lease: Lease, inserted: Range, source: str, block: Block | None = None
    ) -> None:
        """Sum up what a query gives that has the columns of the event's view.

        Raises StoreUnavailable if there are fewer events than behind the range before: this one is written down with
        how many there were, so that whoever opens the partition finds it too.
        """
        found = self._standing(partition)
        if found[1] < (counted := self._events[partition]):
            raise self._does_not_fit(partition, inserted.first, inserted.last, found, counted)
        columns = [
            *(key.name for key in self.plan.keys),
            *(state.column for state in self.plan.states),
            LAST,
            EVENTS,
        ]
        statement = (
            f"INSERT INTO {self.name} ({', '.join(quoted(name) for name in columns)}, _partition) "
            f"SELECT *, {partition} FROM ({self.plan.kept(source, guard=self._guard(partition, lease))}) "
            f"WHERE {LAST} > 0"
        )
        self._insert_block(partition, inserted, statement, "states", block)
        self._last[partition] = inserted.last
        _, self._events[partition] = self._standing(partition)

    def open_mirror(self, partition: int, /) -> Mirrored | None:
        """The mirror as the source of a partition's ranges, verified. Raises StoreUnavailable."""
        if (mirror := self._source.mirror) is None:
            return None

        def insert(lease: Lease, inserted: Range) -> None:
            self._adopted.pop(partition, None)
            if self._last[partition] < inserted.first:
                source = mirror.event_rows(self.plan.event, partition, inserted.first, inserted.last)
                self._insert_states(partition, lease, inserted, source)

        return MirrorRanges(mirror.verified(partition), MIRRORED_COMMITS_MAX, insert)


def event_rows(schema: AggregateSchema, event: str, writer: Any, block: str, partition: int) -> str | None:
    """The query that gives a block's events of one type, with the columns that the event's view has; None if the
    block's schema has no such event.

    Raises PartitionRefused for one that has a field that this code lacks.
    """
    record = dict(event_records(writer)).get(event)
    if record is None:
        return None
    ours = schema.record(schema.events[event])
    if (path := lacking(record, ours)) is not None:
        raise PartitionRefused(
            f"Commits of {schema.aggregate} carry {event}.{path}, which this code lacks.",
            cure="Deploy the code that declares it: what it carries would be missing from the tables.",
        )
    written = {field["name"]: field["type"] for field in record["fields"]}
    values = []
    for field in ours["fields"]:
        name, kind = field["name"], literal(column_type(field["type"]))
        place = event_value(event, name)
        value = as_of_today(written[name], field["type"], place) if name in written else absent(field)
        values.append(f"CAST({value}, {kind}) AS {quoted(name)}")
    envelope = {name: f"b.{name}" for name in ENVELOPE} | {
        "partition": f"toUInt16({partition})",
        "version": "b.version + i",
    }
    values += [f"{envelope[name]} AS {quoted(alias)}" for name, alias in EVENT_ENVELOPE]
    return (
        f"SELECT {', '.join(values)} FROM {block} AS b ARRAY JOIN b.events AS e, arrayEnumerate(b.events) AS i "
        f"WHERE e.type = {literal(event)}"
    )


def _empty(schema: AggregateSchema, event: str) -> str:
    """A query with the columns of the event's view, and no rows."""
    fields = {f["name"]: column_type(f["type"]) for f in schema.record(schema.events[event])["fields"]}
    envelope = {alias: ENVELOPE[name].partition(" COMMENT ")[0] for name, alias in EVENT_ENVELOPE}
    return f"SELECT * FROM {_null({**fields, **envelope})}"


def _null(columns: dict[str, str]) -> str:
    return f"null({literal(', '.join(f'{quoted(name)} {kind}' for name, kind in columns.items()))})"
