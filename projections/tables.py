"""The tables of an aggregate's mirror: what they are, and how one range of commits gets into them."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any, Final

from magnetar.schemas import PartitionRefused, StoreUnavailable
from magnetar.schemas.aggregate_schema import AggregateSchema
from magnetar.schemas.names import kebab

from .columns import column_type, literal, quoted
from .compression import ASCENDING, CONTIGUOUS, compressed
from .values import as_of_today, definition, is_empty, lacking, new_fields, record_names

DEDUPLICATION_WINDOW_PER_PARTITION: Final = 100
"""How many inserts per partition a table remembers the tokens of, over all partitions together: a second guard, since
what waits for its retry while others go on is forgotten. The first is to look for the range itself."""

COMMITS: Final = "commits"
EVENTS: Final = "events"
"""The two tables, in the order in which a range comes into them: of a commit it is known how many events it has."""

WIDE_PART_BYTES_MIN: Final = 128 * 1024 * 1024
"""From this size on a part has files of its own for each column. At ClickHouse's 10 MiB a range of 50,000 commits made
116 files, and creating them took a third of the mirror's time (docs/benchmarks.md)."""

ENVELOPE: Final = {
    "partition": "UInt16 COMMENT 'of the event topic'",
    "number": "Int64 COMMENT 'of the commit within its partition, from 1'",
    "aggregate_id": "String",
    "version": "Int64",
    "command_id": "UUID",
    "correlation_id": "Nullable(UUID)",
    "causation_id": "Nullable(UUID)",
    "actor": "Nullable(String)",
    "at": "DateTime64(6, 'UTC') COMMENT 'the time of the command'",
    "metadata": "Map(String, String)",
}
_COMMITS: Final = {
    "owner": "FixedString(16)",
    "ledger": f"Int64 COMMENT 'where the command stood on its topic' CODEC({CONTIGUOUS})",
    "entry": "Int64",
    "batch": "Int64",
    "published_at": "DateTime64(3, 'UTC')",
    "incarnation": "UUID COMMENT 'of the command topic'",
    "producer": "Nullable(String)",
    "sequence": "Nullable(Int64)",
    "outcome": "LowCardinality(String)",
    "events": "UInt32 COMMENT 'how many'",
    "rejection": "LowCardinality(String) COMMENT 'the type, if the command was rejected'",
    "rejection_fields": "String COMMENT 'as JSON'",
    "parked_reason": "LowCardinality(String)",
    "parked_detail": "String",
    "parked_command": "Nullable(String) COMMENT 'its bytes, up to 64 kB'",
    "parked_sha256": "Nullable(String)",
    "resolves": "Nullable(UUID)",
}


MERGED_PARTS_MIN: Final = 10
"""So many parts of a partition are merged at once at least. By itself, ClickHouse merges them by the five, a large one
with four new ones each time: of short ranges, that wrote each row thirteen times, and took a third of the projector's
time. A query reads up to twice as many parts, which takes some milliseconds."""


def table_settings(partitions: int) -> str:
    """The settings of a table that ranges are inserted into."""
    # Without share_nested_offsets = 0 `Bought.tags` and `Bought.prices` would be of one Nested, of equal length.
    return (
        f"non_replicated_deduplication_window = {DEDUPLICATION_WINDOW_PER_PARTITION * partitions}, "
        f"min_bytes_for_wide_part = {WIDE_PART_BYTES_MIN}, min_parts_to_merge_at_once = {MERGED_PARTS_MIN}, "
        "share_nested_offsets = 0"
    )


def shown_names(aggregate: str) -> tuple[str, str]:
    """The names of the two views that show one generation of its mirror: of the events, and of the commits."""
    base = kebab(aggregate).replace("-", "_")
    return f"{base}__events", f"{base}__commits"


class MirrorTables:
    """Names, definitions and statements of one generation of an aggregate's mirror. It makes text and runs nothing."""

    def __init__(self, schema: AggregateSchema, *, partitions: int, generation: int = 1) -> None:
        self.schema = schema
        self.records = {name: schema.record(cls) for name, cls in schema.events.items()}
        self.generation = generation
        self._partitions = partitions
        self.database = quoted(schema.context)
        self.shown_events, self.shown_commits = shown_names(schema.aggregate)
        self.events, self.commits = (
            f"{self.database}.{quoted(f'{name}__g{generation}')}" for name in (self.shown_events, self.shown_commits)
        )

    def definitions(self) -> list[str]:
        """The statements that create what is missing. Repeatable."""
        aggregate = self.schema.aggregate
        order = "type, aggregate_id, version"
        return [
            self._table(self.events, self.event_columns(), order, f"the events of {aggregate}, one row each"),
            self._table(self.commits, self.commit_columns(), "number", f"the commits of {aggregate}, one row each"),
        ]

    def additions(self) -> list[str]:
        """The statements that add the columns of new events and fields. Repeatable."""
        return [
            f"ALTER TABLE {self.events} ADD COLUMN IF NOT EXISTS {quoted(name)} {definition}"
            for name, definition in self.event_columns().items()
        ]

    def commit_columns(self) -> dict[str, str]:
        """The columns of the table of commits, which are always the same."""
        return _compressed({**ENVELOPE, **_COMMITS}, CONTIGUOUS)

    def growing_columns(self) -> list[str]:
        """The columns of the table of events that get another type when a record in them gets a field."""
        return [name for name, field in self._fields().items() if record_names(column_type(field["type"]))]

    @property
    def shown_names(self) -> tuple[str, str]:
        """The names of the two views that show one generation."""
        return self.shown_events, self.shown_commits

    def drops(self) -> list[str]:
        """The statements that remove the tables. Repeatable."""
        return [f"DROP TABLE IF EXISTS {table} SYNC" for table in (self.events, self.commits)]

    def event_columns(self) -> dict[str, str]:
        """The columns of the table of events."""
        columns = {**ENVELOPE, "type": "LowCardinality(String)"}
        columns.update({name: definition(field) for name, field in self._fields().items()})
        return _compressed(columns, ASCENDING)

    def _fields(self) -> dict[str, Any]:
        return {f"{name}.{f['name']}": f for name, record in self.records.items() for f in record["fields"]}

    def widenings(self, columns: dict[str, str]) -> list[str]:
        """The statements that give columns of nested records the fields that those have got since.

        `columns` are the types that the table of events has. Rows that stand there get the new field's empty value;
        raises StoreUnavailable if its default is another one.
        """
        made: list[str] = []
        for name, field in self._fields().items():
            ours, theirs = record_names(column_type(field["type"])), record_names(columns.get(name, ""))
            added = Counter(ours) - Counter(theirs)
            if name not in columns or not added or Counter(theirs) - Counter(ours):
                continue  # what has more fields than ours is of newer code
            if defaults := [f["name"] for f in new_fields(field["type"], added) if not is_empty(f.get("default"))]:
                raise StoreUnavailable(
                    f"The mirror of {self.schema.aggregate} has rows with {name}, and cannot give them the default of "
                    f"its new field {defaults[0]}.",
                    cure="Run `magnetar rebuild` with the pipeline's module, which fills new tables from the log; or "
                    "make the default None or empty.",
                    is_not_widened=True,
                )
            made.append(f"ALTER TABLE {self.events} MODIFY COLUMN {quoted(name)} {column_type(field['type'])}")
        return made

    def outgrown(self, columns: dict[str, str]) -> str | None:
        """The first column that the events' table, which has these columns, lacks or has without its newest fields."""
        for name, field in self._fields().items():
            if record_names(column_type(field["type"])) != record_names(columns.get(name, "")) or name not in columns:
                return name
        return None

    def _table(self, name: str, columns: dict[str, str], order: str, comment: str) -> str:
        lines = ",\n  ".join(f"{quoted(column)} {definition}" for column, definition in columns.items())
        return (
            f"CREATE TABLE IF NOT EXISTS {name} (\n  {lines}\n) ENGINE = MergeTree PARTITION BY partition "
            f"ORDER BY ({order}) SETTINGS {table_settings(self._partitions)} COMMENT {literal(comment)}"
        )

    # --- one range --------------------------------------------------------------------------------------------------

    def inserts(self, commit_schema_json: str, source: str, partition: int, guard: str) -> dict[str, str]:
        """By table, the statement that puts a block of this schema into it, without its settings.

        `source` is the FROM clause that reads the block, `guard` the condition that stops a writer without the lease.
        Raises PartitionRefused if the schema has an event or a field that this code lacks: it would not be mirrored.
        """
        writer = json.loads(commit_schema_json)
        return {
            COMMITS: self._insert_commits(writer, source, partition, guard),
            EVENTS: self._insert_events(writer, source, partition, guard),
        }

    def _insert_commits(self, writer: Any, source: str, partition: int, guard: str) -> str:
        values = commit_values(writer, partition)
        return _insert(self.commits, values, f"{source} WHERE {guard}")

    def _insert_events(self, writer: Any, source: str, partition: int, guard: str) -> str:
        values = {**_envelope_values(partition), "version": "version + i", "type": "e.type"}
        for name, record in event_records(writer):
            ours = self.records.get(name)
            path = None if ours is None else lacking(record, ours)
            if ours is None or path is not None:
                what = name if path is None else f"{name}.{path}"
                raise PartitionRefused(
                    f"Commits of {self.schema.aggregate} carry {what}, which this code lacks.",
                    cure="Deploy the code that declares it: what it carries would be missing from the mirror.",
                )
            fields = {field["name"]: field["type"] for field in ours["fields"]}
            for field in record["fields"]:
                path = event_value(name, field["name"])
                values[f"{name}.{field['name']}"] = as_of_today(field["type"], fields[field["name"]], path)
        return _insert(
            self.events, values, f"{source} ARRAY JOIN events AS e, arrayEnumerate(events) AS i WHERE {guard}"
        )


def _compressed(columns: dict[str, str], number: str) -> dict[str, str]:
    """The definitions with codecs: each by its type, and `number` by how it goes on in this table."""
    return {name: compressed(definition, number if name == "number" else None) for name, definition in columns.items()}


def commit_values(writer: Any, partition: int) -> dict[str, str]:
    """By column of the commits' table, the expression that gives it from a block of this schema."""
    return {
        **_envelope_values(partition),
        "owner": "owner",
        **{name: f"source.{name}" for name in ("ledger", "entry", "batch", "published_at", "incarnation")},
        "producer": "producer",
        "sequence": "sequence",
        "outcome": "outcome",
        "events": "length(events)",
        "rejection": "ifNull(rejection.type, '')",
        "rejection_fields": _rejection_fields(writer),
        "parked_reason": "ifNull(parked.reason, '')",
        "parked_detail": "ifNull(parked.detail, '')",
        "parked_command": "parked.command",
        "parked_sha256": "parked.sha256",
        "resolves": "resolves",
    }


def event_value(event: str, field: str) -> str:
    """The expression that gives a field of an event `e` of a block; of one of another type, the empty value."""
    return f"tupleElement(assumeNotNull(e.{quoted(event)}), {literal(field)})"


def _envelope_values(partition: int) -> dict[str, str]:
    return {name: str(partition) if name == "partition" else name for name in ENVELOPE}


def _insert(table: str, values: dict[str, str], source: str) -> str:
    columns = ", ".join(quoted(name) for name in values)
    return f"INSERT INTO {table} ({columns}) SELECT {', '.join(values.values())} {source}"


def _rejection_fields(writer: Any) -> str:
    """The fields of the rejection as JSON, whichever type it is."""
    field = next(f for f in writer["fields"] if f["name"] == "rejection")
    cases = [
        f"rejection.type = {literal(f['name'])}, "
        f"toJSONString(assumeNotNull(tupleElement(rejection, {literal(f['name'])})))"
        for f in field["type"][1]["fields"][1:]
        if f["type"][1]["fields"]
    ]
    return f"multiIf({', '.join(cases)}, '')" if cases else "''"


def event_records(writer: Any) -> list[tuple[str, Any]]:
    """The events of a commit's schema, by name, with their records."""
    field = next(f for f in writer["fields"] if f["name"] == "events")
    return [(f["name"], f["type"][1]) for f in field["type"]["items"]["fields"][1:]]
