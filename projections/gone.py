"""Tables of projections that are declared no more: a class that was renamed or removed leaves its own behind."""

from __future__ import annotations

import re
from collections.abc import Collection

from magnetar.schemas.names import kebab

from .columns import literal, quoted
from .freshness import MIRROR
from .generations import GenerationTable, Kind, Step
from .progress import Ask
from .store import Store


def view_of(name: str) -> str:
    """The view of a projection of that name."""
    return kebab(name).replace("-", "_")


def gone(ask: Ask, context: str, declared: Collection[str]) -> list[str]:
    """The names of the projections that have tables in a context, and are not among those that are declared."""
    written = ask(
        "SELECT DISTINCT toString(`projection`) AS name FROM magnetar.pending "
        f"WHERE startsWith(aggregate, {literal(f'{context}/')})"
    )
    there = _tables(ask, context)
    shown = {view_of(name) for name in declared}
    names = {row["name"] for row in written} - {MIRROR, *declared}
    return sorted(name for name in names if view_of(name) not in shown and _of(there, view_of(name)))


def drop(store: Store, ask: Ask, context: str, name: str) -> None:
    """Remove the view and the tables of such a projection. Repeatable.

    1. Writes down that its generations are over: one that is declared under the name later begins with a number that
    none ever had. 2. Removes the view, and then the tables.
    """
    steps = GenerationTable(store)
    known = steps.read(name, context)
    begun = known.last + 1
    over = [Step(each, Kind.DROPPED) for each in known.fed]
    steps.write(name, context, [Step(begun, Kind.WANTED), Step(begun, Kind.SHOWN), *over])
    database, view = quoted(context), view_of(name)
    store.command(f"DROP VIEW IF EXISTS {database}.{quoted(view)} SYNC")
    for table in _of(_tables(ask, context), view):
        store.command(f"DROP TABLE IF EXISTS {database}.{quoted(table)} SYNC")


def _tables(ask: Ask, context: str) -> list[str]:
    return [row["name"] for row in ask(f"SELECT name FROM system.tables WHERE database = {literal(context)}")]


def _of(tables: list[str], view: str) -> list[str]:
    return [table for table in tables if re.fullmatch(rf"{view}__g\d+", table)]
