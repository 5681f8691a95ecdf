"""The rows of a projection's table as of some commits, as queries: of one that is shown, and of one just filled."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, TypeAlias

from .columns import literal, quoted
from .contracts import contract_of
from .declarations import Fold, Sql, view_name
from .incremental import plan_of
from .progress import Ask
from .row_difference import Side
from .rows_table import alive

Until: TypeAlias = Mapping[tuple[str, int], int]
"""By aggregate and partition, the number of the last commit that counts."""

_MEANWHILE_SECONDS: Final = 3600
"""Rows that are over within so long are not compared."""

_KINDS: Final = {"_aggregate": "String", "_id": "String", "_version": "Int64", "_key": "String", "_partition": "UInt16"}


def identity_of(projection: type[Any]) -> tuple[str, ...]:
    """The columns by which its rows are told apart."""
    if issubclass(projection, Fold):
        return ("_id",) if contract_of(projection).keyed is None else ("_partition", "_key")
    if issubclass(projection, Sql):
        keys = {key.name for key in plan_of(projection.__name__, projection.select).keys}
        return tuple(field for field in projection.__struct_fields__ if field in keys)
    return ("_aggregate", "_id", "_version")


def _looked_at(projection: type[Any], generation: int) -> str:
    """A generation of its table; of an Sql, its view."""
    return view_name(projection) if issubclass(projection, Sql) else f"{view_name(projection)}__g{generation}"


def columns_of(ask: Ask, context: str, projection: type[Any], generation: int) -> dict[str, str]:
    """The projection's own columns in a generation of its table, with their types; of an Sql, those of its view."""
    table = _looked_at(projection, generation)
    rows = ask(
        f"SELECT name, type FROM system.columns WHERE database = {literal(context)} AND table = {literal(table)} "
        "AND NOT startsWith(name, '_') ORDER BY position"
    )
    return {row["name"]: row["type"] for row in rows}


def is_told_apart_alike(ask: Ask, context: str, projection: type[Any], generation: int) -> bool:
    """Whether a generation of its table, or the view of an Sql, has what tells this code's rows apart: not if it is of
    another kind now, or has another key."""
    table = _looked_at(projection, generation)
    rows = ask(f"SELECT name FROM system.columns WHERE database = {literal(context)} AND table = {literal(table)}")
    names, identity = {row["name"] for row in rows}, {*identity_of(projection)}
    if issubclass(projection, Sql):
        return names >= identity
    is_fold, is_keyed = "_is_deleted" in names, "_key" in names
    return names >= identity and (is_fold, is_keyed) == (issubclass(projection, Fold), "_key" in identity)


def rows_shown(ask: Ask, context: str, projection: type[Any]) -> int:
    """How many rows its view has."""
    (row,) = ask(f"SELECT toString(count()) AS n FROM {quoted(context)}.{quoted(view_name(projection))}")
    return int(row["n"])


def progress_of(
    ask: Ask, context: str, projection: str, aggregates: Sequence[str], generation: int | None
) -> dict[tuple[str, int], int]:
    """How far a generation is, or, without one, the furthest."""
    of = ", ".join(literal(f"{context}/{aggregate}") for aggregate in aggregates)
    which = "" if generation is None else f"AND generation = {generation}"
    rows = ask(
        "SELECT aggregate, partition, toString(max(number)) AS number FROM (SELECT `projection`, aggregate, "
        "generation, partition, first - 1 AS number FROM magnetar.pending UNION ALL SELECT `projection`, "
        "aggregate, generation, partition, number FROM magnetar.progress) "
        f"WHERE `projection` = {literal(projection)} AND aggregate IN ({of}) {which} GROUP BY aggregate, partition"
    )
    prefix = f"{context}/"
    return {(row["aggregate"].removeprefix(prefix), row["partition"]): int(row["number"]) for row in rows}


def shown_query(
    projection: type[Any],
    context: str,
    generation: int,
    columns: Mapping[str, str],
    until: Until,
    *,
    aggregates: Sequence[str],
    partitions: int,
) -> str:
    """The rows of a table that others go on writing to.

    Of a fold, those that have changed since are marked as late; the groups of an Sql are as they are.
    """
    own = ", ".join(map(quoted, columns))
    database, view = quoted(context), view_name(projection)
    if issubclass(projection, Sql):
        return f"SELECT toUInt8(0) AS _is_deleted, toUInt8(0) AS _is_late, {own} FROM {database}.{quoted(view)}"
    numbers = ", ".join(
        f"_aggregate = {literal(aggregate)}, {[until.get((aggregate, nth), 0) for nth in range(partitions)]}"
        for aggregate in aggregates
    )
    limit = f"multiIf({numbers}, CAST([], 'Array(UInt64)'))[_partition + 1]"
    named = ", ".join("toString(_aggregate) AS _aggregate" if n == "_aggregate" else n for n in identity_of(projection))
    table = f"{database}.{quoted(f'{view}__g{generation}')}"
    some = f"has({sorted({nth for (_, nth), number in until.items() if number})}, _partition)"
    if issubclass(projection, Fold):  # also what is deleted: a row that is gone since is not one that never was
        return (
            f"SELECT {named}, _is_deleted, toUInt8(_number > {limit}) AS _is_late, {own} FROM {table} "
            f"WHERE {some} ORDER BY _number DESC LIMIT 1 BY {', '.join(identity_of(projection))}"
        )
    is_young, is_late = _young(projection)
    return (
        f"SELECT {named}, toUInt8(0) AS _is_deleted, {is_late} AS _is_late, {own} FROM {table} "
        f"WHERE {some} AND _number <= {limit} AND {is_young}"
    )


def in_file(projection: type[Any], columns: Mapping[str, str], file: Path) -> Side:
    """What `shown_query` has given, in ClickHouse's format Native."""
    own = {} if issubclass(projection, Sql) else {name: _KINDS[name] for name in identity_of(projection)}
    kinds = {**own, "_is_deleted": "UInt8", "_is_late": "UInt8", **columns}
    structure = literal(", ".join(f"{quoted(name)} {kind}" for name, kind in kinds.items()))
    is_empty = not file.stat().st_size
    source = f"null({structure})" if is_empty else f"file({literal(str(file))}, 'Native', {structure})"
    return Side(f"SELECT * FROM {source}", columns)


def filled_query(projection: type[Any], table: str) -> str:
    """The rows of a table that nobody writes to any more."""
    if issubclass(projection, Sql):
        query = plan_of(projection.__name__, projection.select).shown(table)
        return f"SELECT *, 0 AS _is_deleted, 0 AS _is_late FROM ({query})"
    final = " FINAL" if issubclass(projection, Fold) else ""
    named = ", ".join(map(quoted, [*identity_of(projection), *projection.__struct_fields__]))
    is_young, is_late = _young(projection)
    return f"SELECT {named}, 0 AS _is_deleted, {is_late} AS _is_late FROM {table}{final} WHERE {is_young}"


def _young(projection: type[Any]) -> tuple[str, str]:
    """The condition for rows that are not over, and the one for those that may be when the other side is looked at.

    One side is asked minutes before the other, and ClickHouse deletes what is over when it likes.
    """
    if not (seconds := contract_of(projection).storage.keep_seconds):
        return "1", "toUInt8(0)"
    return alive(seconds), f"toUInt8(NOT {alive(seconds - min(_MEANWHILE_SECONDS, seconds // 4))})"


def counted(query: str) -> str:
    """The query that says how many rows another one gives."""
    return f"SELECT count() FROM ({query})"
