"""How the rows of two tables differ: counted by ClickHouse, with some examples side by side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

from .columns import literal, quoted
from .store import Store

FLOAT_DIGITS: Final = 7
"""Digits of a float that count where sums are added up in another order: that of ClickHouse's Float32."""


class Side(NamedTuple):
    """One of the tables: a query that gives its rows, and the columns that are the projection's own, with their types.

    The query may have a column `_is_deleted`, for a row that is not there, and a column `_is_late`, for one of which
    the other side cannot know.
    """

    query: str
    columns: Mapping[str, str]


class Changed(NamedTuple):
    """What is there twice, and differs. `before` and `after` are the rows of one identity: of most tables, one each."""

    identity: dict[str, Any]
    before: list[dict[str, Any]]
    after: list[dict[str, Any]]


class RowDifference(NamedTuple):
    """How they differ. What is counted is identities: a fold's keys, the groups of an Sql, the events of a Rows."""

    before: int
    """How many there are on the one side."""
    after: int
    added: int
    removed: int
    changed: int
    late: int
    """How many were left out, because the first table has gone on meanwhile."""
    examples: list[Changed]

    @property
    def is_same(self) -> bool:
        """Whether nothing differs."""
        return not self.added and not self.removed and not self.changed


def compare(
    store: Store, before: Side, after: Side, identity: Sequence[str], *, are_floats_summed: bool, examples: int
) -> RowDifference:
    """Compare two tables row by row, within their common columns. The store needs a database to itself for it.

    `identity` are the columns by which rows are told apart. Where several have one identity, all of them count as one.
    """
    common = [name for name in after.columns if name in before.columns and name not in identity]
    sides = [
        f"SELECT {_identity(identity)} AS identity, {nth} AS side, "
        f"{_compared(side, other, common, are_floats_summed)} AS compared, {_shown(side)} AS shown, "
        f"_is_deleted, _is_late FROM ({side.query})"
        for nth, side, other in ((0, before, after), (1, after, before))
    ]
    store.command("DROP TABLE IF EXISTS magnetar.difference SYNC")
    store.command(
        "CREATE TABLE magnetar.difference ENGINE = MergeTree ORDER BY tuple() AS SELECT identity, "
        "arraySort(groupArrayIf((compared, shown), side = 0 AND NOT _is_deleted)) AS before, "
        "arraySort(groupArrayIf((compared, shown), side = 1 AND NOT _is_deleted)) AS after, max(_is_late) AS is_late "
        f"FROM ({' UNION ALL '.join(sides)}) GROUP BY identity HAVING notEmpty(before) OR notEmpty(after)"
    )
    differ = "before.1 != after.1"
    ((n_before, n_after, added, removed, changed, late),) = store.query(
        "SELECT countIf(notEmpty(before) AND NOT is_late), countIf(notEmpty(after) AND NOT is_late), "
        "countIf(empty(before) AND NOT is_late), countIf(empty(after) AND NOT is_late), "
        f"countIf(notEmpty(before) AND notEmpty(after) AND {differ} AND NOT is_late), countIf(is_late) "
        "FROM magnetar.difference"
    )
    some = store.query(
        f"SELECT identity, before.2, after.2 FROM magnetar.difference WHERE NOT is_late AND {differ} "
        # Some of each kind: a thousand rows that were added must not hide the one that has changed.
        f"ORDER BY identity LIMIT {examples} BY empty(before), empty(after)"
    )
    store.command("DROP TABLE magnetar.difference SYNC")
    return RowDifference(n_before, n_after, added, removed, changed, late, [_changed(*row) for row in some])


def _identity(columns: Sequence[str]) -> str:
    """What tells rows apart, as JSON: the same text on both sides, whatever types the columns have."""
    return f"toJSONString(map({', '.join(f'{literal(name)}, {_text(quoted(name))}' for name in columns)}))"


def _text(value: str) -> str:
    return f"ifNull(toString({value}), 'NULL')"


def _shown(side: Side) -> str:
    """A row for people and programs, as JSON."""
    kind = ", ".join(f"{quoted(name)} {kind}" for name, kind in side.columns.items())
    return f"toJSONString(CAST(tuple({', '.join(map(quoted, side.columns))}), {literal(f'Tuple({kind})')}))"


def _compared(side: Side, other: Side, common: Sequence[str], are_floats_summed: bool) -> str:
    """What has to be the same on both sides, as text: a column may have another type there."""
    values = [
        f"toFloat32({quoted(name)})"
        if are_floats_summed and "Float64" in (side.columns[name], other.columns[name])
        else quoted(name)
        for name in common
    ]
    return f"toString(tuple({', '.join(values)}))" if values else "''"


def _changed(identity: str, before: Sequence[str], after: Sequence[str]) -> Changed:
    return Changed(json.loads(identity), [json.loads(row) for row in before], [json.loads(row) for row in after])
