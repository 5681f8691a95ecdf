"""The views that users query: one per event, and the commits and rejections of all aggregates of a context."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from magnetar.schemas import DeclarationError
from magnetar.schemas.derivation import Json

from .columns import column_type, comment, literal, quoted
from .tables import ENVELOPE, MirrorTables

EVENT_ENVELOPE: Final = (
    ("aggregate_id", "_id"),
    ("version", "_version"),
    ("at", "_at"),
    ("number", "_number"),
    ("partition", "_partition"),
    ("command_id", "_command_id"),
    ("correlation_id", "_correlation_id"),
    ("causation_id", "_causation_id"),
    ("actor", "_actor"),
    ("metadata", "_metadata"),
)
_COMMITS: Final = (
    "outcome",
    "events",
    "rejection",
    "rejection_fields",
    "parked_reason",
    "parked_detail",
    "parked_command",
    "parked_sha256",
    "resolves",
    "producer",
    "sequence",
    "ledger",
    "entry",
    "batch",
    "published_at",
    "incarnation",
)
RESERVED: Final = frozenset({"commits", "freshness", "rejections"})


def shown_views(tables: MirrorTables) -> dict[str, str]:
    """By name, the statements that make this generation the one that is shown: all other views read these two.

    Each is replaced at once; between the two a reader may see the events of one generation and the commits of another.
    """
    of = tables.schema.aggregate
    return {
        name: _view(tables.database, name, f"SELECT * FROM {table}", f"all {what} of {of}")
        for name, table, what in (
            (tables.shown_events, tables.events, "events"),
            (tables.shown_commits, tables.commits, "commits"),
        )
    }


def views(tables: Sequence[MirrorTables]) -> dict[str, str]:
    """By name, the statement that creates each view of a context. Raises DeclarationError for names that clash.

    The two of `shown_views` are needed first, for each aggregate.
    """
    made: dict[str, str] = {}
    for each in tables:
        for name in each.schema.events:
            if name.lower() in RESERVED or name in made:
                raise DeclarationError(
                    f"The event {name!r} of {each.schema.aggregate} would need a view whose name is taken.",
                    cure="Give it another name.",
                )
            made[name] = _event_view(each, name, each.records[name])
    database = tables[0].database
    envelope = ", ".join(f"{quoted(column)} AS {quoted(name)}" for column, name in EVENT_ENVELOPE)
    columns = ", ".join(quoted(column) for column in _COMMITS)
    union = " UNION ALL ".join(
        f"SELECT {literal(each.schema.aggregate)} AS _aggregate, {envelope}, {columns} "
        f"FROM {database}.{quoted(each.shown_commits)}"
        for each in tables
    )
    made["commits"] = _view(database, "commits", union, "every command, by what became of it")
    selected = ", ".join(["_aggregate", *(quoted(name) for _, name in EVENT_ENVELOPE), "rejection", "rejection_fields"])
    made["rejections"] = _view(
        database,
        "rejections",
        f"SELECT {selected} FROM {database}.commits WHERE outcome = 'rejected'",
        "the rejected commands, with the reason",
    )
    return made


def _event_view(tables: MirrorTables, name: str, record: Json) -> str:
    fields = [f"{quoted(name + '.' + field['name'])} AS {quoted(field['name'])}" for field in record["fields"]]
    envelope = [f"{quoted(column)} AS {quoted(alias)}" for column, alias in EVENT_ENVELOPE]
    # Qualified: a field may be called like an envelope column, and an alias would win over the column in WHERE.
    query = (
        f"SELECT {', '.join([*fields, *envelope])} FROM {tables.database}.{quoted(tables.shown_events)} AS events "
        f"WHERE events.type = {literal(name)}"
    )
    said = record.get("doc", f"the event {name} of {tables.schema.aggregate}")
    return _view(tables.database, name, query, said, columns=_columns(record))


def _columns(record: Json) -> str:
    """The columns with their comments, which a view does not take over from its table."""
    fields = [
        f"{quoted(field['name'])} {column_type(field['type'])} COMMENT {literal(comment(field))}"
        for field in record["fields"]
    ]
    return f" ({', '.join([*fields, *(f'{quoted(alias)} {ENVELOPE[column]}' for column, alias in EVENT_ENVELOPE)])})"


def _view(database: str, name: str, query: str, said: str, columns: str = "") -> str:
    return f"CREATE OR REPLACE VIEW {database}.{quoted(name)}{columns} AS {query} COMMENT {literal(said)}"
