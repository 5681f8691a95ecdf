"""Tables whose columns somebody changed by hand: what went with a column is in no other place of ClickHouse."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from magnetar.schemas import StoreUnavailable

from .columns import literal, quoted
from .store import Store


def refuse_altered(
    store: Store,
    table: str,
    columns: Mapping[str, str],
    *,
    target: str,
    had: Collection[str] | None = None,
    growing: Collection[str] = (),
) -> None:
    """Raise StoreUnavailable if a table lacks a column that it had once, or has one with another type.

    `columns` are the definitions by name, `had` those that the table had once, None for all, and `growing` those whose
    type may be another one. A column that were added once more would look whole, and older rows have lost their values.
    """
    if not (theirs := _types(store, table)):
        return  # it is still to be made
    made_of = ", ".join(f"{quoted(name)} {definition}" for name, definition in columns.items())
    for name, kind in _types(store, f"null({literal(made_of)})").items():
        if name not in theirs and (had is None or name in had):
            found = "has no column"
        elif name not in growing and theirs.get(name, kind) != kind:
            found = f"has a {theirs[name]} as its column"
        else:
            continue
        raise StoreUnavailable(
            f"The table {table} {found} {name}, made as {kind}: it was altered by hand, and is filled no more.",
            cure=f"Nothing is lost from the log: `magnetar rebuild` with the module and {target} fills a new table.",
            is_outgrown=True,
        )


def _types(store: Store, table: str) -> dict[str, str]:
    return {row[0]: " ".join(row[1].split()) for row in store.query(f"DESCRIBE TABLE {table}")}
